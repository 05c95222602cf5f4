//! One connection to a server: the state shared by its phases, and the first phase, the handshake.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::error::ClientError;
use super::progress::ProgressTracker;
use super::settings::Settings;
use super::tls_failure::TlsFailure;
use super::transport::Transport;
use super::watch::{Watch, Watcher, sleep, wait_for};
use crate::dialect::Dialect;
use crate::handshake::{ClientHandshake, ClientStep, HandshakeError};
use crate::hasher::Hasher;
use crate::sys::client::{Ready, prepare};
use crate::tuning::client::PROGRESS_INTERVAL;

/// A connection that is reset when it is dropped, unless [`Connection::finish`] has completed it.
pub(super) struct Connection<'c> {
    pub(super) settings: &'c Settings,
    /// Declared before the socket, because it must be dropped first.
    watch: Option<Box<dyn Watch>>,
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) progress: ProgressTracker<'c>,
    pub(super) transport: Transport,
    /// Only if a digest is wanted.
    pub(super) hasher: Option<Hasher>,
    /// Deadline of the handshakes.
    pub(super) deadline: Instant,
    /// The first byte from the server, in a dialect in which the server sends nothing.
    unexpected: Option<u8>,
    /// Deadline of the whole upload, if it is limited.
    pub(super) end: Option<Instant>,
}

/// The first byte of a TLS alert, which a TLS server sends to a client without TLS.
const TLS_ALERT: u8 = 21;

/// Result of receiving without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    Bytes(usize),
    Fin,
    Nothing,
}

impl<'c> Connection<'c> {
    pub(super) fn new(
        settings: &'c Settings,
        stream: TcpStream,
        watcher: Option<Box<Watcher<'_>>>,
        peer: SocketAddr,
        end: Option<Instant>,
    ) -> Result<Self, ClientError> {
        let failed = |cause| ClientError::Local { what: "prepare a socket", cause };
        prepare(&stream, settings.config.stall_timeout).map_err(failed)?;
        let watch = watcher.map(|watcher| watcher(stream.as_fd())).transpose().map_err(failed)?;
        let progress = ProgressTracker::new(&stream, settings.on_progress.as_deref());
        let limit = Instant::now() + settings.config.handshake_timeout;
        let deadline = end.map_or(limit, |end| end.min(limit));
        #[cfg(feature = "digest")]
        let hasher = settings.config.digest.map(Hasher::new);
        #[cfg(not(feature = "digest"))]
        let hasher = None;
        Ok(Connection {
            settings,
            watch,
            stream,
            peer,
            progress,
            transport: Transport::Plain,
            hasher,
            deadline,
            unexpected: None,
            end,
        })
    }

    /// Performs the whole handshake. No byte of content is sent before its end.
    pub(super) async fn greet(&mut self) -> Result<(), ClientError> {
        let (peer, dialect) = (self.peer, self.settings.config.dialect);
        let after = self.settings.config.handshake_timeout;
        let late = || ClientError::HandshakeTimeout { peer, dialect, after };
        let tls_failed = |cause| ClientError::Tls { peer, end_sent: false, cause };
        let broken = |cause| match TlsFailure::of(cause) {
            Ok(failure) => tls_failed(failure),
            Err(cause) => ClientError::HandshakeBroken { peer, dialect, cause },
        };
        let is_plain = self.transport.is_plain();
        let wrong = |cause| match cause {
            HandshakeError::Mismatch { got, .. } if is_plain && got == [TLS_ALERT] => {
                tls_failed(TlsFailure::Required)
            }
            cause => ClientError::Handshake { peer, dialect, cause },
        };

        let deadline = self.deadline;
        let mut step = ClientHandshake::begin(dialect);
        let mut input = [0; 512];
        loop {
            let (answer, next) = match step {
                ClientStep::Wait { send, handshake } => (send, Some(handshake)),
                ClientStep::Established { send, .. } => (send, None),
            };
            if !self.answer(answer, deadline).await.map_err(broken)? {
                return Err(late());
            }
            let Some(handshake) = next else { return Ok(()) };
            step = loop {
                // Checked before receiving, so that a steady stream of bytes cannot delay the
                // deadline.
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(late());
                }
                match self.receive(&mut input).map_err(broken)? {
                    Received::Bytes(count) => {
                        break handshake.receive(&input[..count]).map_err(wrong)?;
                    }
                    Received::Fin => return Err(wrong(handshake.closed())),
                    Received::Nothing => {
                        self.wait(false, left).await.map_err(broken)?;
                    }
                }
            };
        }
    }

    /// Sends a confirmation and returns whether that was possible in time.
    async fn answer(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<bool> {
        while !bytes.is_empty() {
            match unblocked(self.transport.send(&self.stream, bytes))? {
                Some(count) => bytes = &bytes[count..],
                None => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(false);
                    }
                    self.wait(true, left).await?;
                }
            }
        }
        Ok(true)
    }

    /// Waits until something can be received, or sent if `write` is set, for at most `limit`.
    pub(super) async fn wait(&self, write: bool, limit: Duration) -> io::Result<Ready> {
        wait_for(self.watch.as_deref(), &self.stream, write, limit).await
    }

    /// Waits without watching the server.
    pub(super) async fn sleep(&self, time: Duration) {
        sleep(self.watch.as_deref(), time).await;
    }

    /// Waits like [`wait`](Connection::wait) for something to receive, as a future of its own.
    pub(super) fn watched(
        &self,
        limit: Duration,
    ) -> impl Future<Output = io::Result<Ready>> + Send {
        wait_for(self.watch.as_deref(), &self.stream, false, limit)
    }

    /// Receives available bytes, without waiting.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        Ok(match unblocked(self.transport.receive(&self.stream, buffer))? {
            Some(0) => Received::Fin,
            Some(count) => Received::Bytes(count),
            None => Received::Nothing,
        })
    }

    /// Receives and drops available bytes: a server has nothing to send after its greetings, but
    /// one that detects dialects may greet twice if a file begins like a confirmation.
    pub(super) fn drop_input(&mut self) -> io::Result<Received> {
        let mut buffer = [0; 4096];
        loop {
            let received = self.receive(&mut buffer)?;
            if matches!(received, Received::Bytes(_))
                && self.settings.config.dialect == Dialect::Direct
            {
                self.unexpected.get_or_insert(buffer[0]);
            }
            if received == Received::Fin || !self.transport.has_buffered() {
                return Ok(received);
            }
        }
    }

    /// Returns the error of a connection that the server has ended: that it requires TLS, if it
    /// answered a client without TLS with an alert. Its bytes can be received even after a reset.
    pub(super) fn or_requires_tls(&mut self, error: ClientError) -> ClientError {
        if !self.transport.is_plain() || self.settings.config.dialect != Dialect::Direct {
            return error;
        }
        let _ = self.drop_input();
        match self.unexpected {
            Some(TLS_ALERT) => {
                ClientError::Tls { peer: self.peer, end_sent: false, cause: TlsFailure::Required }
            }
            _ => error,
        }
    }

    pub(super) fn stalled(&self) -> ClientError {
        let (peer, sent) = (self.peer, self.progress.sent());
        let after = self.settings.config.stall_timeout;
        ClientError::Stalled { peer, sent, end_sent: false, after }
    }

    /// Returns an error if the whole upload takes longer than its limit.
    pub(super) fn check_time(&self, now: Instant) -> Result<(), ClientError> {
        match self.end {
            Some(end) if now >= end => {
                Err(self.settings.too_long(Some(self.peer), self.progress.sent()))
            }
            _ => Ok(()),
        }
    }

    /// Returns the error of a handshake, or the one for the whole upload if that limit cut the
    /// handshake short.
    pub(super) fn or_too_long(&self, error: ClientError) -> ClientError {
        let is_late = matches!(
            error,
            ClientError::HandshakeTimeout { .. }
                | ClientError::Tls { cause: TlsFailure::Late(_), .. }
        );
        match self.check_time(Instant::now()) {
            Err(too_long) if is_late => too_long,
            _ => error,
        }
    }

    /// Limits `time` to what is left for the whole upload.
    pub(super) fn within_limit(&self, time: Duration) -> Duration {
        self.end.map_or(time, |end| time.min(end.saturating_duration_since(Instant::now())))
    }

    /// Returns how long to wait for the peer before the clock and the acknowledged bytes are
    /// checked again.
    ///
    /// The first waits are short, later ones longer: an acknowledgement is noticed soon, so that
    /// the limits that run from it are precise, and a long wait costs little.
    pub(super) fn slice(&self, now: Instant, deadline: Instant) -> Duration {
        let still = self.progress.stillness(now);
        let slice = still.clamp(Duration::from_millis(1), PROGRESS_INTERVAL);
        self.within_limit(slice.min(deadline.saturating_duration_since(now)))
    }
}

/// Returns the result of a call on the socket, or `None` if the call must be repeated later.
pub(super) fn unblocked<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
