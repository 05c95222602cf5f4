//! An upload in two steps, for runtimes.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::connection::Connection;
use super::error::ClientError;
use super::event::ClientEvent;
use super::source::Source;
use super::watch::{Watch, Watcher};
use super::{Client, Sent};
use crate::hasher::Hasher;
use crate::program_log as log;

/// An established connection on which nothing has been sent, returned by [`Client::connect`].
/// Dropping it resets the connection.
#[must_use]
pub struct Connected {
    client: Client,
    stream: TcpStream,
    peer: SocketAddr,
    #[cfg(feature = "tls")]
    name: Option<rustls::pki_types::ServerName<'static>>,
    start: Instant,
    end: Option<Instant>,
}

impl Client {
    /// Connects to `host`, for an [upload](Connected::upload) by a runtime. The calling thread
    /// blocks for at most the connect timeout.
    ///
    /// # Errors
    ///
    /// See [`ClientError`].
    pub fn connect(&self, host: &str, port: u16) -> Result<Connected, ClientError> {
        let start = Instant::now();
        let end = self.settings.config.transfer_timeout.map(|limit| start + limit);
        #[cfg(feature = "tls")]
        let name = self.settings.server_name(host)?;
        let (stream, peer) = self.settings.connect(host, port, end)?;
        Ok(Connected {
            client: self.clone(),
            stream,
            peer,
            #[cfg(feature = "tls")]
            name,
            start,
            end,
        })
    }

    /// Sends all of `source`. Without a watcher, every wait blocks the thread.
    pub(super) async fn transfer(
        &self,
        connected: Connected,
        watcher: Option<Box<Watcher<'_>>>,
        mut source: Source<'_>,
    ) -> Result<Sent, ClientError> {
        let Connected { stream, peer, start, end, .. } = connected;
        let mut connection = Connection::new(&self.settings, stream, watcher, peer, end)?;
        #[cfg(feature = "tls")]
        if let Err(error) = connection.secure(connected.name).await {
            return Err(connection.or_too_long(error));
        }
        let connected = Instant::now();
        if let Err(error) = connection.greet().await {
            return Err(connection.or_too_long(error));
        }
        log::debug!("{} handshake with {peer} complete", self.settings.config.dialect);
        let dialect = self.settings.config.dialect;
        self.settings.report(|| ClientEvent::Greeted { peer, dialect, took: connected.elapsed() });
        let greeted = Instant::now();
        connection.send(&mut source).await?;
        let bytes = connection.progress.sent();
        let digest = connection.hasher.take().map(Hasher::finish);
        log::debug!("all {bytes} bytes handed to the system");
        self.settings.report(|| ClientEvent::Sent { peer, bytes, took: greeted.elapsed() });
        let confirmed = connection.finish().await?;
        Ok(Sent { bytes, digest, confirmed, peer, dialect, duration: start.elapsed() })
    }
}

impl Connected {
    /// Sends all of `source` without blocking the thread: the future waits with the [`Watch`] that
    /// `watch` creates for the socket. Use a source of [`Source::poll`]; any other source blocks
    /// while it is read.
    ///
    /// `accio-tokio` is built on it.
    ///
    /// # Errors
    ///
    /// See [`ClientError`], which also describes the state of the file on the server.
    ///
    /// # Cancellation
    ///
    /// Dropping the future resets the connection. The server does not keep the file, unless it
    /// already has all of it and its confirmation is on the way.
    pub async fn upload<'a>(
        self,
        watch: impl FnOnce(BorrowedFd<'_>) -> io::Result<Box<dyn Watch>> + Send + 'a,
        source: Source<'a>,
    ) -> Result<Sent, ClientError> {
        let client = self.client.clone();
        client.transfer(self, Some(Box::new(watch)), source).await
    }

    /// Returns the address of the server.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("peer", &self.peer).finish_non_exhaustive()
    }
}
