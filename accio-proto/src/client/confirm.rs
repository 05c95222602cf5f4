//! The end of a connection: our FIN, then the server's, which is its acknowledgement.

use std::io::ErrorKind;
use std::net::Shutdown;
use std::time::Instant;

use super::connection::{Connection, Received};
use super::error::ClientError;
use crate::sys::client::wait;
use crate::sys::socket::reset_on_close;

impl Connection<'_> {
    /// Ends the connection gracefully and waits for the server to do the same; whether it did.
    ///
    /// False: it did not close in time, but its system has acknowledged every byte and our FIN.
    pub(super) fn finish(mut self) -> Result<bool, ClientError> {
        // A server that closed before our FIN cannot have kept the file. Still armed: this resets.
        self.check_open()?;
        self.end_content()?;
        reset_on_close(&self.stream, false)
            .map_err(|cause| ClientError::Local { what: "disarm the reset", cause })?;
        if let Err(error) = self.stream.shutdown(Shutdown::Write) {
            // After a close_notify the server has all of the file, and may have refused it already.
            let is_plain = self.transport.is_plain();
            return Err(if is_plain { self.broken(error) } else { self.not_kept(error) });
        }
        self.progress.add_fin(Instant::now());
        let confirmed = self.await_fin();
        if confirmed.is_err() {
            // What we report as failed must not become complete behind our back.
            let _ = reset_on_close(&self.stream, true);
        }
        confirmed
    }

    /// Sends the mark of the end of the file, where there is one: the close_notify of TLS.
    fn end_content(&mut self) -> Result<(), ClientError> {
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
            if self.progress.stillness(now) >= self.settings.stall_timeout {
                return Err(self.stalled());
            }
            wait(&self.stream, true, self.slice(now, now + self.settings.stall_timeout))
                .map_err(|cause| ClientError::Local { what: "wait for the server", cause })?;
        }
    }

    fn await_fin(&mut self) -> Result<bool, ClientError> {
        let limit = self.settings.confirm_timeout;
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
            // The time to confirm runs from the last acknowledgement: until then the server is
            // not even told that the file ends here.
            let (deadline, late) = match outstanding {
                Some(0) => (self.progress.still_at(limit), Ok(false)),
                Some(_) => {
                    (self.progress.still_at(self.settings.stall_timeout), Err(self.stalled()))
                }
                None => {
                    let error = ClientError::Unconfirmed { peer: self.peer, after: limit };
                    (self.progress.still_at(limit), Err(error))
                }
            };
            if now >= deadline {
                self.progress.tell(now);
                return late;
            }
            wait(&self.stream, false, self.slice(now, deadline))
                .map_err(|cause| ClientError::Local { what: "wait for the server", cause })?;
        }
    }

    /// The server's FIN confirms the file if it came after ours: then it acknowledges all we sent.
    /// Under TLS its close_notify does, which may come before it has seen our FIN, but not before it
    /// has our close_notify. No reset that follows can take it back.
    fn check_fin(&mut self) -> Result<bool, ClientError> {
        let outstanding = self.progress.look(Instant::now());
        let is_plain = self.transport.is_plain();
        if is_plain && let Ok(Some(error)) = self.stream.take_error() {
            return Err(self.not_kept(error));
        }
        let our_fin = if is_plain { 0 } else { 1 };
        if outstanding.is_some_and(|bytes| bytes > our_fin) {
            return Err(ClientError::ClosedEarly { peer: self.peer, sent: self.progress.sent() });
        }
        self.progress.complete();
        Ok(true)
    }

    fn not_kept(&mut self, error: std::io::Error) -> ClientError {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected => {
                ClientError::NotKept { peer: self.peer }
            }
            _ => self.broken(error),
        }
    }
}
