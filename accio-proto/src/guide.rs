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
//! | receive files into something else | a `FileSink` of your own |
//! | choose names, reject clients | `FileSink::open`, which gets a `Connection` |
//! | keep quotas | in `FileSink::open`, reject a peer that has used its quota, with a reason that becomes `Abort::Rejected`; limit each file by `ServerBuilder::max_size`; and in `ServerBuilder::reviewer`, count a complete upload, or reject it if it exceeds the rest; an error of `SinkFile::write` is a failure of the server (`Abort::Sink`) |
//! | inspect a complete file before it is confirmed | `ServerBuilder::reviewer` |
//! | confirm a file only after it was recorded elsewhere | `ServerBuilder::recorder` |
//! | send files | `Client` |
//! | do either on tokio | the crate `accio-tokio` |
//! | do either on another runtime | the module `driver`, `Client::connect`, or only the parsers in [`handshake`](crate::handshake) |
//! | read the settings from a file | `ServerConfig`, `ClientConfig` |
//! | test a program that sends files | the module `testing` |
//!
//! # When something fails
//!
//! A client gets a `ClientError`. `ClientError::may_be_stored` says whether the server may have the file
//! all the same, and `ClientError::is_transient` whether another attempt may succeed. A retry is
//! always safe for the server: it stores the file of each connection under another number.
//!
//! `Ok` is a success only if `Sent::confirmed` is true. Otherwise every byte has arrived, but the
//! server did not close the connection in time: it may have stored the file, so a retry may store it
//! twice.
//!
//! A server gets an `Outcome` for each connection, with an `Abort` if it failed. `Abort::code` is a
//! word for programs, which never changes; `Abort::is_peer_fault` separates the faults of clients
//! from those of the server, which are worth an alarm.
