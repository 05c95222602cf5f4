//! The reference programs: a scripted client, which always sends in the same pieces, and a server
//! made of accio-proto.

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use accio_proto::{MemorySink, Server, ServerError, ServerHandle, Stored, os_error_text};

use super::content;
use super::patience::Patience;
use super::running_server::RunningServer;
use accio_harness::context::wait_until;
use accio_harness::peer::{Dialect, End, Peer, SOON};
use accio_harness::process_table;
use accio_harness::verdict::{Certain, Stop, Verdict, ensure};

/// Timeout of the reference client for sending more.
const STALL: Duration = Duration::from_secs(12);
/// Interval at which a stalled client looks at the server.
const STEP: Duration = Duration::from_millis(250);
/// Timeout for the server to close the connection: short, so that a server that never closes does
/// not delay the check. The second one is for a server that is known not to close.
const CLOSING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(50));
/// Number of bytes by which a file may be too long before its transfer is aborted.
const EXCESS: usize = 64 << 10;
/// Length of a write.
const PIECE: usize = 64 << 10;

/// Returns the library's name of a dialect.
fn library_dialect(dialect: Dialect) -> accio_proto::Dialect {
    match dialect {
        Dialect::Direct => accio_proto::Dialect::Direct,
        Dialect::Accio => accio_proto::Dialect::Accio,
        Dialect::Confirm => accio_proto::Dialect::Confirm,
    }
}

/// A complete transfer of the reference client.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The client's end of the connection.
    pub(crate) peer: Peer,
    /// Whether the server has closed the connection.
    pub(crate) is_closed: bool,
}

/// Sends `content` to `server`, which clients reach at `address`.
pub(crate) fn send(server: &RunningServer, address: SocketAddr, content: &[u8]) -> Verdict<Sent> {
    server.note_start_up_lines();
    let mut peer = Peer::connect(address)?;
    server.handshake(&mut peer)?;
    send_all(server, &peer, content)?;
    peer.fin()?;
    let never_closes = server.known.never_closes(server.program);
    let (end, _) = peer.end(if never_closes { CLOSING.1 } else { CLOSING.0 })?;
    if end == End::Reset {
        let expected = format!("the server to receive {}", content::sent(content));
        return Err(Stop::fault(expected, "it reset the connection")).certain();
    }
    let is_closed = end == End::Fin;
    let rests = || process_table::settles(server.process.pid(), STEP);
    if !is_closed && !never_closes && address == server.address && rests() {
        server.known.record_open(server.program);
    }
    Ok(Sent { peer, is_closed })
}

/// Sends all bytes, as long as the server reads some of them from time to time.
fn send_all(server: &RunningServer, peer: &Peer, content: &[u8]) -> Verdict {
    let mut stream = peer.stream();
    stream.set_write_timeout(Some(STEP))?;
    let mut sent = 0;
    let mut stalled: Option<Patience> = None;
    while sent < content.len() {
        let piece = &content[sent..content.len().min(sent + PIECE)];
        let error = match stream.write(piece) {
            Ok(count) => {
                sent += count;
                stalled = None;
                server.add_taken(count);
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => error,
        };
        let expected = format!("the server to receive {}", content::sent(content));
        if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            let after = format!(
                "it closed the connection after at most {sent} bytes: {}",
                os_error_text(&error)
            );
            return Err(Stop::fault(expected, after)).certain();
        }
        if stalled.get_or_insert_with(|| server.patience(STALL)).has_ended() {
            let actual = format!("it read nothing for {STALL:?}, after at most {sent} bytes");
            return Err(Stop::fault(expected, actual));
        }
    }
    Ok(())
}

/// A running reference server, which keeps files in memory.
#[derive(Debug)]
pub(crate) struct ReferenceServer {
    address: SocketAddr,
    sink: MemorySink,
    handle: ServerHandle,
    serving: Option<JoinHandle<Result<(), ServerError>>>,
}

impl ReferenceServer {
    /// Starts a server at `host`, on a port that the kernel chooses. It aborts transfers that are
    /// much longer than `length`, so that a client that never ends does not delay the check.
    pub(crate) fn start(host: IpAddr, dialect: Dialect, length: usize) -> Verdict<ReferenceServer> {
        let sink = MemorySink::new();
        let trouble = |error: ServerError| Stop::Trouble(error.to_string());
        let server = Server::builder(sink.clone())
            .dialect(library_dialect(dialect))
            .max_size((length + EXCESS) as u64)
            .bind(SocketAddr::new(host, 0))
            .map_err(trouble)?;
        let (address, handle) = (server.local_addr(), server.handle());
        let serving = Some(thread::spawn(move || server.run()));
        Ok(ReferenceServer { address, sink, handle, serving })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns whether the transfer of connection `id` has failed.
    pub(crate) fn has_failed(&self, id: u64) -> bool {
        matches!(self.sink.get(id), Some(Stored::Error))
    }

    /// Returns a fault unless the file of connection `id` soon has exactly this content.
    pub(crate) fn expect(&self, id: u64, content: &[u8]) -> Verdict {
        wait_until(SOON, || self.sink.get(id).is_some());
        let expected = format!("the reference server to receive {}", content::sent(content));
        match self.sink.get(id) {
            Some(Stored::Complete(actual)) => {
                ensure(actual == content, expected, || content::received(content, &actual))
                    .certain()
            }
            Some(Stored::Error) => {
                let actual = "a broken transfer: the file contains ERROR";
                Err(Stop::fault(expected, actual)).certain()
            }
            None => Err(Stop::fault(expected, "no finished transfer")),
        }
    }
}

impl Drop for ReferenceServer {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(serving) = self.serving.take() {
            // The result no longer matters.
            let _ = serving.join();
        }
    }
}
