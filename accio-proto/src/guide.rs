//! The protocol in ten minutes.
//!
//! Accio moves one file over one TCP connection, from a client to a server. There are no headers, no
//! lengths and no names: the bytes of the connection are the file, and the two ends of the
//! connection are the two signals that matter.
//!
//! ```text
//!  client                                   server
//!    │ ──────────── connect ───────────────▶ │  the connection gets number N
//!    │ ◀─────────── accio\r\n ────────────── │  the greeting
//!    │ ──────────── the file ──────────────▶ │
//!    │ ──────────── FIN ───────────────────▶ │  the file is complete
//!    │                                       │  … it is stored as N.file …
//!    │ ◀─────────── FIN ──────────────────── │  the confirmation
//! ```
//!
//! # The rules
//!
//! 1. The client waits for the greeting before it sends content, and then sends the file.
//! 2. **The client's FIN ends the file.** Any other end of the connection (a reset, silence for
//!    [ten seconds](crate::limits::IDLE_TIMEOUT), a violated handshake) means that the transfer has
//!    failed. So a client that must give up *resets* the connection; closing it would declare what
//!    was sent so far a complete file.
//! 3. **The server's FIN confirms the file.** The server closes the connection gracefully only after
//!    the file is stored, and resets it otherwise.
//! 4. A failed transfer leaves the five bytes [`ERROR`](crate::ERROR_MARKER) and nothing of the
//!    content.
//!
//! Rules 2 and 3 hold even when a program is killed: both sides set `SO_LINGER` to zero seconds, so
//! that the operating system resets what the program did not close.
//!
//! # The dialects
//!
//! | dialect | the server sends | the client sends before the file |
//! |---|---|---|
//! | [`Direct`](crate::Dialect::Direct) | nothing | nothing |
//! | [`Accio`](crate::Dialect::Accio) | the greeting | nothing |
//! | [`Confirm`](crate::Dialect::Confirm) | the greeting, and again after the first confirmation | `confirm-accio\r\n`, and `confirm-accio-again\r\n\r\n` after the second greeting |
//!
//! A server with [`ServerDialect::Auto`](crate::ServerDialect::Auto) greets, and finds out from the
//! client's first bytes whether they are a confirmation or content. Nothing is lost: bytes that turn
//! out not to be a confirmation are content.
//!
//! # Which part do I need?
//!
//! | task | item |
//! |---|---|
//! | receive files into a directory | `Server` with `DirSink` |
//! | receive files into something else | a `FileSink` of your own, which may [wrap another one](#a-sink-that-wraps-another-one) |
//! | choose names, reject files | `FileSink::open`, which gets a `Connection` |
//! | refuse connections, without a call of the sink | by address: `ServerBuilder::allow`, `deny`, `max_per_ip` and `max_new_per_ip`; by key: TLS with known clients, and `max_per_identity`. A refused connection has no number and no marker. Any other rule belongs in `FileSink::open`, which is called before any content is stored |
//! | keep quotas | in `FileSink::open`, reject a peer that has used its quota, with a reason that becomes `Abort::Rejected`; limit each file by `ServerBuilder::max_size`; and in `ServerBuilder::reviewer`, count a complete upload, or reject it if it exceeds the rest; an error of `SinkFile::write` is a failure of the server (`Abort::Sink`) |
//! | inspect a complete file before it is confirmed | `ServerBuilder::reviewer` |
//! | confirm a file only after it was recorded elsewhere | `ServerBuilder::recorder` |
//! | send files | `Client` |
//! | do either on tokio | the crate `accio-tokio` |
//! | do either on another runtime | the module `driver`, `Client::connect`, or only the parsers in [`handshake`](crate::handshake) |
//! | read the settings from a file | `ServerConfig`, `ClientConfig` |
//! | test a program that sends files | the module `testing` |
//!
//! # A sink that wraps another one
//!
//! This sink lets each address store a limited number of files in any other sink. An open file takes one of
//! the places of its address, and gives it back if it is not stored. The sink passes on everything else, so
//! that nothing of the other one is lost; [`FileSink`](crate::FileSink) says what each call is for.
//!
//! ```
//! use std::collections::HashMap;
//! use std::io;
//! use std::net::IpAddr;
//! use std::os::fd::{BorrowedFd, OwnedFd};
//! use std::sync::{Arc, Mutex};
//!
//! use accio_proto::{Connection, Demand, FileSink, OpenError, SinkFile};
//!
//! type Counts = Arc<Mutex<HashMap<Option<IpAddr>, u32>>>;
//!
//! struct Quota<K> {
//!     sink: K,
//!     max_files: u32,
//!     counts: Counts,
//! }
//!
//! struct QuotaFile<F> {
//!     file: F,
//!     place: Place,
//! }
//!
//! /// A place of an address, given back when dropped, unless the file is stored.
//! struct Place {
//!     peer: Option<IpAddr>,
//!     counts: Counts,
//!     is_stored: bool,
//! }
//!
//! impl<K: FileSink> FileSink for Quota<K> {
//!     type File = QuotaFile<K::File>;
//!
//!     fn open(&self, connection: &Connection) -> Result<Self::File, OpenError> {
//!         let peer = connection.peer.map(|peer| peer.ip().to_canonical());
//!         let mut counts = self.counts.lock().unwrap();
//!         let count = counts.entry(peer).or_default();
//!         if *count >= self.max_files {
//!             return Err(OpenError::rejected("this address has stored enough files"));
//!         }
//!         *count += 1;
//!         drop(counts);
//!         // Before the other sink opens the file, which may fail.
//!         let place = Place { peer, counts: Arc::clone(&self.counts), is_stored: false };
//!         Ok(QuotaFile { file: self.sink.open(connection)?, place })
//!     }
//!
//!     // The default opens a file, which this sink may reject.
//!     fn mark(&self, connection: &Connection) -> io::Result<()> {
//!         self.sink.mark(connection)
//!     }
//!
//!     fn has_room(&self) -> bool {
//!         self.sink.has_room()
//!     }
//!
//!     fn blocks(&self) -> bool {
//!         self.sink.blocks()
//!     }
//!
//!     fn commits_in_groups(&self) -> bool {
//!         self.sink.commits_in_groups()
//!     }
//!
//!     fn commit_all(
//!         &self,
//!         files: &mut [&mut Self::File],
//!         may_name: &dyn Fn(usize) -> bool,
//!     ) -> Vec<io::Result<()>> {
//!         let mut inner: Vec<_> = files.iter_mut().map(|file| &mut file.file).collect();
//!         let results = self.sink.commit_all(&mut inner, may_name);
//!         for (file, result) in files.iter_mut().zip(&results) {
//!             file.place.is_stored = result.is_ok();
//!         }
//!         results
//!     }
//!
//!     fn stopping(&self) {
//!         self.sink.stopping();
//!     }
//!
//!     fn tidy(&self) {
//!         self.sink.tidy();
//!     }
//! }
//!
//! impl Drop for Place {
//!     fn drop(&mut self) {
//!         if !self.is_stored {
//!             *self.counts.lock().unwrap().entry(self.peer).or_default() -= 1;
//!         }
//!     }
//! }
//!
//! impl<F: SinkFile> SinkFile for QuotaFile<F> {
//!     // Passed on together with `advance`, so that the kernel can move the content.
//!     fn demand(&self) -> Demand<'_> {
//!         self.file.demand()
//!     }
//!
//!     fn advance(&mut self, count: u64) {
//!         self.file.advance(count);
//!     }
//!
//!     fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
//!         self.file.write(bytes)
//!     }
//!
//!     fn is_full(&self) -> bool {
//!         self.file.is_full()
//!     }
//!
//!     fn prepare_review(&mut self) -> io::Result<()> {
//!         self.file.prepare_review()
//!     }
//!
//!     fn descriptor(&self) -> Option<BorrowedFd<'_>> {
//!         self.file.descriptor()
//!     }
//!
//!     fn reopen(&self) -> Option<OwnedFd> {
//!         self.file.reopen()
//!     }
//!
//!     fn commit(&mut self) -> io::Result<()> {
//!         self.file.commit()?;
//!         self.place.is_stored = true;
//!         Ok(())
//!     }
//!
//!     fn abort(&mut self) -> io::Result<()> {
//!         self.file.abort()
//!     }
//! }
//! # use accio_proto::{Client, MemorySink, Server, Stored};
//! # let memory = MemorySink::new();
//! # let quota = Quota { sink: memory.clone(), max_files: 1, counts: Counts::default() };
//! # let server = Server::builder(quota).bind("127.0.0.1:0")?;
//! # let (port, handle) = (server.local_addr().port(), server.handle());
//! # let serving = std::thread::spawn(move || server.run());
//! # let client = Client::builder().build()?;
//! # assert!(client.send("127.0.0.1", port, &b"the first"[..])?.confirmed);
//! # assert!(!client.send("127.0.0.1", port, &b"the second"[..]).unwrap_err().may_be_stored());
//! # handle.stop();
//! # serving.join().expect("no panic in the server")?;
//! # assert_eq!(memory.get(1), Some(Stored::Complete(b"the first".to_vec())));
//! # assert_eq!(memory.get(2), Some(Stored::Error));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # When something fails
//!
//! A client gets a `ClientError`, whose page has a table of its variants. `ClientError::may_be_stored` says
//! whether the server may have the file all the same, and `ClientError::is_transient` whether another attempt may succeed. A retry is
//! always safe for the server: it stores the file of each connection under another number.
//!
//! `Ok` is a success only if `Sent::confirmed` is true. Otherwise every byte has arrived, but the
//! server did not close the connection in time: it may have stored the file, so a retry may store it
//! twice.
//!
//! A server gets an `Outcome` for each connection, with an `Abort` if it failed. `Abort::code` is a
//! word for programs, which never changes; `Abort::is_peer_fault` separates the faults of clients
//! from those of the server, which are worth an alarm.
