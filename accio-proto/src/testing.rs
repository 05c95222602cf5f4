//! A fake server, for tests of programs that send files.
//!
//! ```toml
//! [dev-dependencies]
//! accio-proto = { version = "0.1", features = ["testing"] }
//! ```
//!
//! ```
//! use accio_proto::testing::{FakeServer, Reply};
//! use accio_proto::{Client, ClientError};
//!
//! let server = FakeServer::start([Reply::Keep, Reply::Reject])?;
//! let client = Client::builder().build()?;
//! let send = || client.send("127.0.0.1", server.port(), &b"content"[..]);
//! assert!(send()?.confirmed);
//! assert!(matches!(send(), Err(ClientError::NotKept { .. })));
//! assert_eq!(server.finish(), [b"content".to_vec(), b"content".to_vec()]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::dialect::ServerDialect;
use crate::handshake::{ServerHandshake, ServerStep};
use crate::sys::socket::reset_on_close;

/// Maximum duration of one connection (60 s), so that a test never hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// Interval at which the server checks whether it should end (5 ms).
const TICK: Duration = Duration::from_millis(5);

/// The reaction of a [`FakeServer`] to one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// Receives the file and confirms it: the client returns [`Sent`](crate::Sent).
    Keep,
    /// Receives the file and resets the connection instead of confirming it, as a server does that
    /// cannot store it: [`NotKept`](crate::ClientError::NotKept).
    Reject,
    /// Resets the connection after at least so many bytes of content, or at their end if there are
    /// fewer. What was received may be longer, by one buffer, so a small file is recorded as a whole.
    ResetAfter(u64),
    /// Receives the file and never confirms it, until the client gives up: it returns
    /// [`Sent`](crate::Sent) with `confirmed` false after its `confirm_timeout`.
    Silence,
    /// Sends these bytes instead of the greeting, and then receives until the client closes.
    Greeting(&'static [u8]),
    /// Closes the connection before any greeting.
    Close,
}

/// A server on the loopback interface that gives each connection a scripted [`Reply`], in order,
/// and records what it receives. It detects the dialect of the client. Further connections are
/// reset and recorded without content; for a client that is a broken handshake, so a retry may
/// succeed. It serves one connection at a time, and stops when it is dropped.
#[derive(Debug)]
pub struct FakeServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    received: Mutex<Vec<Vec<u8>>>,
    ends: AtomicBool,
}

impl FakeServer {
    /// Starts a server on a free port of `127.0.0.1`.
    ///
    /// # Errors
    ///
    /// Listening failed.
    pub fn start(replies: impl IntoIterator<Item = Reply>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let replies: Vec<Reply> = replies.into_iter().collect();
        let here = Arc::clone(&shared);
        let name = "accio-fake-server".to_owned();
        let thread =
            thread::Builder::new().name(name).spawn(move || here.serve(&listener, replies))?;
        Ok(FakeServer { address, shared, thread: Some(thread) })
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns the address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the content of all connections that have ended so far, in their order. That of a
    /// failed connection is what was received of it.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.shared.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stops the server and returns the content of all connections.
    ///
    /// # Panics
    ///
    /// Resumes a panic of the server's thread, which would be a bug.
    pub fn finish(mut self) -> Vec<Vec<u8>> {
        self.end();
        self.received()
    }

    fn end(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn serve(&self, listener: &TcpListener, replies: Vec<Reply>) {
        let mut replies = replies.into_iter();
        while !self.ends.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((stream, _)) => {
                    let mut content = Vec::new();
                    // A failed connection is part of the script; what was received is recorded.
                    let _ = match replies.next() {
                        Some(reply) => self.reply(stream, &reply, &mut content),
                        None => reset_on_close(&stream, true).map(|()| drop(stream)),
                    };
                    self.received.lock().unwrap_or_else(PoisonError::into_inner).push(content);
                }
                Err(_) => thread::sleep(TICK),
            }
        }
    }

    fn reply(&self, mut stream: TcpStream, reply: &Reply, content: &mut Vec<u8>) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let end = Instant::now() + LIMIT;
        if *reply == Reply::Close {
            return Ok(());
        }
        reset_on_close(&stream, true)?;
        let mut handshake = match (reply, ServerHandshake::begin(ServerDialect::Auto)) {
            (Reply::Greeting(greeting), _) => {
                stream.write_all(greeting)?;
                None
            }
            (_, ServerStep::Wait { send, handshake }) => {
                stream.write_all(send)?;
                Some(handshake)
            }
            (_, ServerStep::Established { .. }) => None,
        };
        let most = match reply {
            Reply::ResetAfter(most) => *most,
            _ => u64::MAX,
        };
        let mut buffer = [0; 64 << 10];
        loop {
            if handshake.is_none() && content.len() as u64 >= most {
                return Ok(());
            }
            let count = match stream.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if is_pause(&error) && !self.is_over(end) => continue,
                Err(error) => return Err(error),
            };
            let input = &buffer[..count];
            let step = match handshake.take() {
                None => {
                    content.extend_from_slice(input);
                    None
                }
                Some(waiting) if input.is_empty() => Some(waiting.finish()),
                Some(waiting) => Some(waiting.receive(input)),
            };
            match step.transpose().map_err(io::Error::other)? {
                None => {}
                Some(ServerStep::Wait { send, handshake: next }) => {
                    stream.write_all(send)?;
                    handshake = Some(next);
                }
                Some(ServerStep::Established { send, kept, consumed, .. }) => {
                    stream.write_all(send)?;
                    content.extend_from_slice(kept);
                    content.extend_from_slice(&input[consumed..]);
                }
            }
            if count == 0 {
                break;
            }
        }
        if *reply == Reply::Silence {
            while !self.is_over(end) {
                thread::sleep(TICK);
            }
        }
        match reply {
            // Dropping the stream then closes it gracefully.
            Reply::Keep | Reply::Greeting(_) => reset_on_close(&stream, false),
            _ => Ok(()),
        }
    }

    fn is_over(&self, end: Instant) -> bool {
        self.ends.load(Ordering::Relaxed) || Instant::now() >= end
    }
}

/// Returns whether nothing has arrived yet.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
