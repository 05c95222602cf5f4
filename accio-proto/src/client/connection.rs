//! One connection to a server: what its phases share, and the first of them, the handshake.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::error::ClientError;
use super::progress::ProgressTracker;
use super::settings::Settings;
use super::tls_failure::TlsFailure;
use super::transport::Transport;
use crate::dialect::Dialect;
use crate::handshake::{ClientHandshake, ClientStep, HandshakeError};
use crate::sys::client::{prepare, wait};
use crate::tuning::client::PROGRESS_INTERVAL;

/// A connection that resets when it is dropped, until [`Connection::finish`] made it good.
#[derive(Debug)]
pub(super) struct Connection<'c> {
    pub(super) settings: &'c Settings,
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) progress: ProgressTracker<'c>,
    pub(super) transport: Transport,
    /// When the handshakes must be complete.
    pub(super) deadline: Instant,
    /// The server's first byte, in the dialect in which it says nothing.
    unexpected: Option<u8>,
    /// When the time for the whole upload is over, if it is limited.
    pub(super) end: Option<Instant>,
}

/// The first byte of an alert, with which a TLS server answers a client without TLS.
const TLS_ALERT: u8 = 21;

/// What a receiving attempt found.
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
        peer: SocketAddr,
        end: Option<Instant>,
    ) -> Result<Self, ClientError> {
        prepare(&stream, settings.stall_timeout)
            .map_err(|cause| ClientError::Local { what: "prepare a socket", cause })?;
        let progress = ProgressTracker::new(&stream, settings.on_progress.as_deref());
        let limit = Instant::now() + settings.handshake_timeout;
        let deadline = end.map_or(limit, |end| end.min(limit));
        let (transport, unexpected) = (Transport::Plain, None);
        Ok(Connection { settings, stream, peer, progress, transport, deadline, unexpected, end })
    }

    /// Goes through the whole handshake; not a byte of content is sent before its end.
    pub(super) fn greet(&mut self) -> Result<(), ClientError> {
        let (peer, dialect) = (self.peer, self.settings.dialect);
        let after = self.settings.handshake_timeout;
        let late = || ClientError::HandshakeTimeout { peer, dialect, after };
        let tls_failed = |cause| ClientError::Tls { peer, cause };
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
            if !self.answer(answer, deadline).map_err(broken)? {
                return Err(late());
            }
            let Some(handshake) = next else { return Ok(()) };
            step = loop {
                // Asked first, so that no stream of bytes gets past the deadline.
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
                        wait(&self.stream, false, left).map_err(broken)?;
                    }
                }
            };
        }
    }

    /// Sends a confirmation; whether that was possible in time.
    fn answer(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<bool> {
        while !bytes.is_empty() {
            match unblocked(self.transport.send(&self.stream, bytes))? {
                Some(count) => bytes = &bytes[count..],
                None => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(false);
                    }
                    wait(&self.stream, true, left)?;
                }
            }
        }
        Ok(true)
    }

    /// Receives what is there, without waiting.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Received> {
        Ok(match unblocked(self.transport.receive(&self.stream, buffer))? {
            Some(0) => Received::Fin,
            Some(count) => Received::Bytes(count),
            None => Received::Nothing,
        })
    }

    /// Receives and drops what is there: a server has nothing to say after its greetings, but one
    /// that recognises dialects may greet twice when a file begins like a confirmation.
    pub(super) fn drop_input(&mut self) -> io::Result<Received> {
        let mut buffer = [0; 4096];
        loop {
            let received = self.receive(&mut buffer)?;
            if matches!(received, Received::Bytes(_)) && self.settings.dialect == Dialect::Direct {
                self.unexpected.get_or_insert(buffer[0]);
            }
            if received == Received::Fin || !self.transport.has_buffered() {
                return Ok(received);
            }
        }
    }

    /// Whether the server answered a client without TLS with an alert. After a reset its bytes are
    /// still there.
    pub(super) fn requires_tls(&mut self) -> bool {
        if !self.transport.is_plain() || self.settings.dialect != Dialect::Direct {
            return false;
        }
        let _ = self.drop_input();
        self.unexpected == Some(TLS_ALERT)
    }

    pub(super) fn stalled(&self) -> ClientError {
        let after = self.settings.stall_timeout;
        ClientError::Stalled { peer: self.peer, sent: self.progress.sent(), after }
    }

    /// Fails if the time for the whole upload is over.
    pub(super) fn check_time(&self, now: Instant) -> Result<(), ClientError> {
        match self.end {
            Some(end) if now >= end => {
                Err(self.settings.too_long(Some(self.peer), self.progress.sent()))
            }
            _ => Ok(()),
        }
    }

    /// The error of a handshake, unless its time was cut short by that for the whole upload.
    pub(super) fn or_too_long(&self, error: ClientError) -> ClientError {
        match self.check_time(Instant::now()) {
            Err(too_long) if matches!(error, ClientError::HandshakeTimeout { .. }) => too_long,
            _ => error,
        }
    }

    /// The part of `time` that is within the time for the whole upload.
    pub(super) fn within_limit(&self, time: Duration) -> Duration {
        self.end.map_or(time, |end| time.min(end.saturating_duration_since(Instant::now())))
    }

    /// How long to wait for the peer at most before the next look at the clock and the meter.
    ///
    /// Short at first, then longer: an acknowledgement is noticed soon after it came, so that the
    /// limits that run from it are precise, and a long wait costs little.
    pub(super) fn slice(&self, now: Instant, deadline: Instant) -> Duration {
        let still = self.progress.stillness(now);
        let slice = still.clamp(Duration::from_millis(1), PROGRESS_INTERVAL);
        self.within_limit(slice.min(deadline.saturating_duration_since(now)))
    }
}

/// What a call on the socket gave, or `None` when it had to be repeated later.
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
