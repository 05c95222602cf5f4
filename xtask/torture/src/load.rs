//! Uploads that may fail: what each client was told.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::folder_oracle::content;
use accio_harness::peer::{Dialect, FIRST, GREETING, SECOND, SOON};

/// The result of an upload as its client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The server closed after the end of the file: it is kept.
    Confirmed,
    /// The server reset the connection, or did not greet properly.
    Refused,
    /// Nothing within the client's patience; the connection was reset.
    Silent,
}

/// How an upload ends on the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With FIN.
    Fin,
    /// With a reset instead of FIN.
    Reset,
    /// Not at all: the client falls silent and waits to be told.
    Silence,
}

/// Sends one content and waits to be told, each step no longer than `patience`.
pub(crate) fn upload(
    address: SocketAddr,
    dialect: Dialect,
    content: &[u8],
    ending: Ending,
    patience: Duration,
) -> Fate {
    match attempt(address, dialect, content, ending, patience) {
        Ok(fate) => fate,
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Fate::Silent,
            _ => Fate::Refused,
        },
    }
}

/// Uploads in the default dialect, up to FIN.
pub(crate) fn send(address: SocketAddr, content: &[u8], patience: Duration) -> Fate {
    upload(address, Dialect::Accio, content, Ending::Fin, patience)
}

/// `clients` side by side send one content after another, numbered from `tag` on, of these sizes in
/// turn, until `end` has ended the server; what that came to, and the numbers that were confirmed.
pub(crate) fn load_until<T>(
    address: SocketAddr,
    clients: usize,
    tag: &mut u64,
    sizes: &[usize],
    end: impl FnOnce() -> T,
) -> (T, Vec<u64>) {
    let (next, told) = (AtomicU64::new(*tag), Mutex::new(Vec::new()));
    let ended = thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                loop {
                    let own = next.fetch_add(1, Ordering::Relaxed) + 1;
                    let content = content(own, sizes[own as usize % sizes.len()]);
                    match send(address, &content, SOON) {
                        Fate::Confirmed => {
                            told.lock().unwrap_or_else(PoisonError::into_inner).push(own);
                        }
                        // The server is gone.
                        Fate::Refused | Fate::Silent => break,
                    }
                }
            });
        }
        end()
    });
    *tag = next.into_inner();
    (ended, told.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn attempt(
    address: SocketAddr,
    dialect: Dialect,
    content: &[u8],
    ending: Ending,
    patience: Duration,
) -> io::Result<Fate> {
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    // Until FIN, whatever ends us reads as a reset.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let answers: &[&[u8]] = match dialect {
        Dialect::Direct => &[],
        Dialect::Accio => &[b""],
        Dialect::Confirm => &[FIRST, SECOND],
    };
    for answer in answers {
        let mut greeting = [0; GREETING.len()];
        stream.read_exact(&mut greeting)?;
        if greeting != GREETING {
            return Ok(Fate::Refused);
        }
        stream.write_all(answer)?;
    }
    stream.write_all(content)?;
    match ending {
        Ending::Fin => stream.shutdown(Shutdown::Write)?,
        Ending::Reset => {
            // Let it arrive: a reset overtakes what waits to be sent.
            thread::sleep(Duration::from_millis(5));
            return Ok(Fate::Refused);
        }
        Ending::Silence => {}
    }
    let mut rest = [0; 64];
    loop {
        if stream.read(&mut rest)? == 0 {
            // A server that closes before our FIN has told us nothing good.
            return Ok(if ending == Ending::Fin { Fate::Confirmed } else { Fate::Refused });
        }
    }
}
