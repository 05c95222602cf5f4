//! The end of an upload: the FIN of the client, then that of the server, which confirms the file.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::Instant;

use super::connection::{Connection, Received};
use super::error::ClientError;
use crate::sys::socket::reset_on_close;
use crate::tuning::client::{FIRST_LOOK, UNACKED_AT_END};

/// A connection that has sent its FIN. Its drop resets it, because a file that is reported as failed, or
/// whose upload was dropped, must not be completed afterwards.
struct Unconfirmed<'a>(Option<Connection<'a>>);

impl Unconfirmed<'_> {
    async fn await_fin(mut self) -> Result<bool, ClientError> {
        let Some(connection) = &mut self.0 else { unreachable!("taken at the end only") };
        let confirmed = connection.await_fin().await?;
        // The server has closed, or its kernel has acknowledged everything.
        drop(self.0.take());
        Ok(confirmed)
    }
}

impl Drop for Unconfirmed<'_> {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            let _ = reset_on_close(&connection.stream, true);
        }
    }
}

impl Connection<'_> {
    /// Closes the connection gracefully, waits for the server to do the same, and returns whether
    /// it did.
    ///
    /// False means that the server did not close in time, but its kernel has acknowledged every
    /// byte and the FIN.
    pub(super) async fn finish(mut self) -> Result<bool, ClientError> {
        self.drain().await?;
        // A server that closed its side before the FIN of the client cannot have stored the file.
        // The socket is still armed, so this resets the connection.
        self.check_open()?;
        self.end_content().await?;
        reset_on_close(&self.stream, false)
            .map_err(|cause| ClientError::Local { what: "disarm the reset", cause })?;
        if let Err(error) = self.stream.shutdown(Shutdown::Write) {
            // After its close_notify, the server has the whole file and may have refused it
            // already.
            let is_plain = self.transport.is_plain();
            return Err(if is_plain {
                self.broken(error)
            } else {
                self.not_kept(error).after_end()
            });
        }
        self.progress.add_fin(Instant::now());
        Unconfirmed(Some(self)).await_fin().await.map_err(ClientError::after_end)
    }

    /// Waits until most bytes are acknowledged.
    ///
    /// A server that closed its side early may read on. Its acknowledgements then follow its FIN,
    /// and could hide it: when [`check_fin`](Connection::check_fin) asks, every byte may be
    /// acknowledged. If the last bytes are still to be acknowledged here, the FIN of such a server
    /// arrives before the client sends its own.
    async fn drain(&mut self) -> Result<(), ClientError> {
        let mut step = FIRST_LOOK;
        loop {
            let now = Instant::now();
            // After a reset the number is unknown, and `check_open` returns the error.
            if self.progress.look(now).is_none_or(|bytes| bytes <= UNACKED_AT_END) {
                return Ok(());
            }
            self.check_open()?;
            self.check_time(now)?;
            self.progress.tick(now);
            if self.progress.stillness(now) >= self.settings.config.stall_timeout {
                return Err(self.stalled());
            }
            let slice = self.slice(now, self.progress.still_at(self.settings.config.stall_timeout));
            self.wait(false, slice.min(step))
                .await
                .map_err(|cause| ClientError::Local { what: "wait for the server", cause })?;
            step = step.saturating_mul(2);
        }
    }

    /// Sends the mark of the end of the file, if the transport has one: the close_notify of TLS.
    async fn end_content(&mut self) -> Result<(), ClientError> {
        loop {
            let is_sent = self.transport.close(&self.stream);
            let is_sent = is_sent.map_err(|error| self.broken(error))?;
            let now = Instant::now();
            let written = self.transport.take_written(0);
            if written > 0 {
                self.progress.add_written(written, now);
            }
            if is_sent {
                return Ok(());
            }
            self.check_time(now)?;
            self.progress.look(now);
            if self.progress.stillness(now) >= self.settings.config.stall_timeout {
                return Err(self.stalled());
            }
            self.wait(true, self.slice(now, now + self.settings.config.stall_timeout))
                .await
                .map_err(|cause| ClientError::Local { what: "wait for the server", cause })?;
        }
    }

    async fn await_fin(&mut self) -> Result<bool, ClientError> {
        let limit = self.settings.config.confirm_timeout;
        loop {
            match self.drop_input() {
                Ok(Received::Fin) => return self.check_fin(),
                Ok(Received::Bytes(_) | Received::Nothing) => {}
                Err(error) => return Err(self.not_kept(error)),
            }
            let now = Instant::now();
            self.check_time(now)?;
            self.progress.tick(now);
            let outstanding = self.progress.look(now);
            // The confirm timeout runs from the last acknowledgement: before that, the server does
            // not know that the file ends here.
            let (deadline, late) = match outstanding {
                Some(0) => (self.progress.still_at(limit), Ok(false)),
                Some(_) => (
                    self.progress.still_at(self.settings.config.stall_timeout),
                    Err(self.stalled()),
                ),
                None => {
                    let error = ClientError::Unconfirmed { peer: self.peer, after: limit };
                    (self.progress.still_at(limit), Err(error))
                }
            };
            if now >= deadline {
                self.progress.emit(now);
                return late;
            }
            let waited = self.wait(false, self.slice(now, deadline)).await;
            waited.map_err(|cause| self.broken(cause))?;
        }
    }

    /// The FIN of the server confirms the file if it was sent after that of the client: then it
    /// acknowledges every byte. A server that sends its FIN while the last [`UNACKED_AT_END`] bytes
    /// are on their way may still acknowledge them before this asks.
    ///
    /// Under TLS the close_notify of the server confirms the file. It may arrive before the server
    /// has received the FIN, but not before it has received the close_notify of the client, and no
    /// later reset can revoke it.
    fn check_fin(&mut self) -> Result<bool, ClientError> {
        let outstanding = self.progress.look(Instant::now());
        let is_plain = self.transport.is_plain();
        if is_plain && let Ok(Some(error)) = self.stream.take_error() {
            return Err(self.not_kept(error));
        }
        let our_fin = if is_plain { 0 } else { 1 };
        if outstanding.is_some_and(|bytes| bytes > our_fin) {
            let error = ClientError::ClosedEarly { peer: self.peer, sent: self.progress.sent() };
            return Err(self.or_requires_tls(error));
        }
        self.progress.complete();
        Ok(true)
    }

    fn not_kept(&mut self, error: std::io::Error) -> ClientError {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected => {
                let error = ClientError::NotKept { peer: self.peer };
                self.or_requires_tls(error)
            }
            _ => self.broken(error),
        }
    }
}
