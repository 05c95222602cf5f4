//! Uploads that may fail, and their outcomes as the clients see them.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use super::directory_oracle::content;
use accio_harness::peer::{Dialect, FIRST, GREETING, SECOND, SOON, read};

/// The outcome of an upload as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UploadOutcome {
    /// The server closed the connection after the client's FIN: the file is kept.
    Confirmed,
    /// The server reset the connection, or did not greet properly.
    Refused,
    /// The server did not answer within the client's timeout; the client reset the connection.
    Silent,
}

/// How the client ends an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It sends FIN.
    Fin,
    /// It resets the connection instead of sending FIN.
    Reset,
    /// It sends neither, and waits for the server.
    Silence,
}

/// Uploads `content` and waits for the outcome, no longer than `timeout` per step.
pub(crate) fn upload(
    address: SocketAddr,
    dialect: Dialect,
    content: &[u8],
    ending: Ending,
    timeout: Duration,
) -> UploadOutcome {
    match attempt(address, dialect, content, ending, timeout) {
        Ok(outcome) => outcome,
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => UploadOutcome::Silent,
            _ => UploadOutcome::Refused,
        },
    }
}

/// Uploads in the default dialect and ends with FIN.
pub(crate) fn send(address: SocketAddr, content: &[u8], timeout: Duration) -> UploadOutcome {
    upload(address, Dialect::Accio, content, Ending::Fin, timeout)
}

/// Lets `clients` concurrent clients upload, with tags counted up from `tag` and the `sizes` in
/// turn, until `end` has stopped the server. `end` can ask for the number of uploads confirmed so
/// far.
///
/// Returns the result of `end` and the tags of the confirmed uploads, in the order of confirmation.
pub(crate) fn load_until<T>(
    address: SocketAddr,
    clients: usize,
    tag: &mut u64,
    sizes: &[usize],
    end: impl FnOnce(&dyn Fn() -> usize) -> T,
) -> (T, Vec<u64>) {
    let (next, confirmed) = (AtomicU64::new(*tag), Mutex::new(Vec::new()));
    let ended = thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                loop {
                    let own = next.fetch_add(1, Ordering::Relaxed) + 1;
                    let content = content(own, sizes[own as usize % sizes.len()]);
                    match send(address, &content, SOON) {
                        UploadOutcome::Confirmed => {
                            confirmed.lock().unwrap_or_else(PoisonError::into_inner).push(own);
                        }
                        // The server has ended.
                        UploadOutcome::Refused | UploadOutcome::Silent => break,
                    }
                }
            });
        }
        end(&|| confirmed.lock().unwrap_or_else(PoisonError::into_inner).len())
    });
    *tag = next.into_inner();
    (ended, confirmed.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn attempt(
    address: SocketAddr,
    dialect: Dialect,
    content: &[u8],
    ending: Ending,
    timeout: Duration,
) -> io::Result<UploadOutcome> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    // Until FIN, the end of this connection must be a reset, even if this process is killed.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let answers: &[&[u8]] = match dialect {
        Dialect::Direct => &[],
        Dialect::Accio => &[b""],
        Dialect::Confirm => &[FIRST, SECOND],
    };
    for answer in answers {
        let mut greeting = [0; GREETING.len()];
        stream.read_exact(&mut greeting)?;
        if greeting != GREETING {
            return Ok(UploadOutcome::Refused);
        }
        stream.write_all(answer)?;
    }
    stream.write_all(content)?;
    match ending {
        Ending::Fin => stream.shutdown(Shutdown::Write)?,
        Ending::Reset => {
            // A reset discards the bytes that are still in the send queue, so wait until they are
            // sent.
            thread::sleep(Duration::from_millis(5));
            return Ok(UploadOutcome::Refused);
        }
        Ending::Silence => {}
    }
    let mut rest = [0; 64];
    loop {
        if read(&stream, &mut rest)? == 0 {
            // Only a close after the client's FIN is a confirmation.
            return Ok(if ending == Ending::Fin {
                UploadOutcome::Confirmed
            } else {
                UploadOutcome::Refused
            });
        }
    }
}
