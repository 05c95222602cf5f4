//! The reference programs: a client and a server made of accio-proto.

use std::net::{IpAddr, SocketAddr};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use accio_proto::{Client, MemorySink, Server, ServerError, ServerHandle, Stored};

use accio_harness::context::wait_until;
use accio_harness::payload;
use accio_harness::peer::{Dialect, SOON};
use accio_harness::verdict::{Stop, Verdict, ensure};

/// Timeouts of the reference client.
const TIMEOUT: Duration = Duration::from_secs(12);
/// Timeout for the server to close the connection: short, so that a server that never closes does
/// not delay the check.
const CLOSING: Duration = Duration::from_secs(2);

/// Returns the library's name of a dialect.
fn library_dialect(dialect: Dialect) -> accio_proto::Dialect {
    match dialect {
        Dialect::Direct => accio_proto::Dialect::Direct,
        Dialect::Accio => accio_proto::Dialect::Accio,
        Dialect::Confirm => accio_proto::Dialect::Confirm,
    }
}

/// Sends `content` to a server; returns whether the server closed the connection afterwards.
pub(crate) fn send(address: SocketAddr, dialect: Dialect, content: &[u8]) -> Verdict<bool> {
    let client = Client::builder()
        .dialect(library_dialect(dialect))
        .connect_timeout(TIMEOUT)
        .handshake_timeout(TIMEOUT)
        .stall_timeout(TIMEOUT)
        .confirm_timeout(CLOSING)
        .build()
        .map_err(|error| Stop::Trouble(error.to_string()))?;
    let sent = client.send(&address.ip().to_string(), address.port(), content);
    let sent = sent.map_err(|error| {
        Stop::fault(
            format!(
                "the server to accept {} from the reference client",
                payload::describe(content)
            ),
            error.to_string(),
        )
    })?;
    Ok(sent.confirmed)
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
    /// Starts a server at `host`, on a port that the kernel chooses.
    pub(crate) fn start(host: IpAddr, dialect: Dialect) -> Verdict<ReferenceServer> {
        let sink = MemorySink::new();
        let trouble = |error: ServerError| Stop::Trouble(error.to_string());
        let server = Server::builder(sink.clone())
            .dialect(library_dialect(dialect))
            .bind(SocketAddr::new(host, 0))
            .map_err(trouble)?;
        let (address, handle) = (server.local_addr(), server.handle());
        let serving = Some(thread::spawn(move || server.run()));
        Ok(ReferenceServer { address, sink, handle, serving })
    }

    /// Returns its address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a fault unless the file of connection `id` soon has exactly this content.
    pub(crate) fn expect(&self, id: u64, content: &[u8]) -> Verdict {
        wait_until(SOON, || self.sink.get(id).is_some());
        let expected = format!("the reference server to receive {}", payload::describe(content));
        match self.sink.get(id) {
            Some(Stored::Complete(actual)) => {
                ensure(actual == content, expected, || payload::describe(&actual))
            }
            Some(Stored::Error) => {
                Err(Stop::fault(expected, "a broken transfer: the file contains ERROR"))
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
