//! A TLS connection over a [`Socket`], for either side.
//!
//! rustls controls and encrypts the connection; this type moves bytes between rustls and the
//! socket, and buffers those that do not fit. An idle connection has no buffer.

mod output;
mod queue;
mod role;

use std::fmt;
use std::io::{self, ErrorKind};

use rustls::CommonState;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};

use super::error::{HandshakeFailure, invalid};
use crate::socket::Socket;
pub(crate) use output::Output;
use queue::{Filled, Queue};
pub(crate) use role::Role;

/// Number of bytes received at once after the handshake: eight full records.
const RECEIVE: usize = 8 * RECORD_MAX;

/// Number of bytes received at once during the handshake, when the peer is not authenticated yet:
/// enough for most handshakes; a long certificate chain takes another read.
const RECEIVE_HANDSHAKE: usize = 4 << 10;

/// Maximum size of an encrypted record: header, content, content type and tag (RFC 8446, section
/// 5.2), rounded up to the maximum of TLS 1.2.
const RECORD_MAX: usize = 5 + (16 << 10) + 256;

/// Maximum number of bytes of a handshake. rustls limits each message to 64 KiB.
const HANDSHAKE_MAX: usize = 256 << 10;

/// A TLS connection. The socket is passed to each call that needs it.
pub(crate) struct TlsStream<R> {
    connection: R,
    /// Bytes received but not decrypted.
    incoming: Queue,
    /// Bytes encrypted but not sent.
    outgoing: Queue,
    /// Bytes decrypted but not returned, because the caller's buffer was full.
    content: Queue,
    /// Number of bytes received, counted until the handshake is complete.
    received: usize,
    /// Whether the last [`receive`](TlsStream::receive) received bytes from the socket.
    has_received: bool,
    /// Whether the peer's close_notify was received: no content follows after the buffered one.
    is_closed: bool,
}

/// The next data to encrypt once the connection allows it.
#[derive(Clone, Copy)]
enum Write<'a> {
    Nothing,
    Content(&'a [u8]),
    CloseNotify,
}

impl<R> fmt::Debug for TlsStream<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsStream").field("is_closed", &self.is_closed).finish_non_exhaustive()
    }
}

/// The result of one step.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// There may be more to do.
    Continue,
    /// More bytes from the peer are needed.
    NeedsInput,
    /// The data to write is encrypted.
    Written,
}

impl<R: Role> TlsStream<R> {
    pub(crate) fn new(connection: R) -> Self {
        TlsStream {
            connection,
            incoming: Queue::default(),
            outgoing: Queue::default(),
            content: Queue::default(),
            received: 0,
            has_received: false,
            is_closed: false,
        }
    }

    /// Returns the state of the rustls connection.
    pub(crate) fn state(&self) -> &CommonState {
        self.connection.state()
    }

    /// Returns whether the peer has sent any bytes.
    pub(crate) fn has_heard(&self) -> bool {
        self.received > 0
    }

    /// Returns whether encrypted bytes wait for room in the socket's send buffer.
    pub(crate) fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Returns whether [`receive`](TlsStream::receive) can return a result without reading from the
    /// socket.
    pub(crate) fn has_buffered(&self) -> bool {
        self.is_closed || !self.content.is_empty() || has_record(self.incoming.bytes())
    }

    /// Returns whether the last [`receive`](TlsStream::receive) received bytes from the socket, even
    /// if they contain no content yet.
    pub(crate) fn has_received_part(&self) -> bool {
        self.has_received
    }

    /// Continues the handshake as far as the peer's bytes allow. Returns true once it is complete.
    ///
    /// # Errors
    ///
    /// Returns the reason if the handshake has failed. An alert has been sent to the peer, if TLS
    /// defines one and the socket accepted it.
    pub(crate) fn handshake(&mut self, socket: &mut impl Socket) -> Result<bool, HandshakeFailure> {
        let result = self.try_handshake(socket);
        if matches!(result, Err(HandshakeFailure::Tls(_))) {
            self.send_alert(socket);
        }
        result
    }

    fn try_handshake(&mut self, socket: &mut impl Socket) -> Result<bool, HandshakeFailure> {
        loop {
            // No content can arrive before the end of the handshake; content right after it is
            // queued.
            let step = self.step(&mut Output::Count(0, 0), Write::Nothing)?;
            if step == Step::Continue {
                continue;
            }
            // All messages of a flight leave together: after the first one, Nagle's algorithm would
            // keep back the others until the peer's delayed acknowledgement.
            self.flush(socket).map_err(HandshakeFailure::Lost)?;
            if !self.state().is_handshaking() {
                self.incoming.shrink();
                self.outgoing.shrink();
                return Ok(true);
            }
            let room = self.incoming.room(RECEIVE_HANDSHAKE);
            match socket.recv(room) {
                Ok(0) => return Err(HandshakeFailure::Closed),
                Ok(count) => {
                    self.incoming.end += count;
                    if self.received == 0 && !is_record_type(self.incoming.bytes()[0]) {
                        return Err(HandshakeFailure::NotTls(self.incoming.bytes().to_vec()));
                    }
                    self.received += count;
                    if self.received > HANDSHAKE_MAX {
                        return Err(HandshakeFailure::TooLong(HANDSHAKE_MAX));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.incoming.shrink();
                    return Ok(false);
                }
                Err(error) => return Err(HandshakeFailure::Lost(error)),
            }
        }
    }

    /// Decrypts received bytes and returns their number; 0 is the peer's close_notify.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::WouldBlock`] if no content is available, [`ErrorKind::UnexpectedEof`]
    /// if the connection ended without close_notify, [`ErrorKind::InvalidData`] with a
    /// [`rustls::Error`] for invalid TLS and for alerts, and any error of the socket.
    pub(crate) fn receive(
        &mut self,
        socket: &mut impl Socket,
        mut output: Output<'_>,
    ) -> io::Result<usize> {
        self.content.start += output.take(self.content.bytes());
        self.content.tidy();
        self.has_received = false;
        let mut received = 0;
        while !output.is_full() {
            match self.step(&mut output, Write::Nothing) {
                Ok(Step::Continue) => continue,
                Ok(_) => {}
                Err(error) => {
                    self.send_alert(socket);
                    return Err(invalid(error));
                }
            }
            match self.flush(socket) {
                // The peer had finished before it reset the connection; its bytes can still be
                // received.
                Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
            if output.count() > 0 || self.is_closed {
                break;
            }
            if received >= RECEIVE {
                // There were only key updates and empty records. Let other connections have a turn;
                // the socket stays readable, so this one continues later.
                return Err(ErrorKind::WouldBlock.into());
            }
            // Content that does not fit into the output is copied twice.
            let size = output.room().clamp(RECORD_MAX, RECEIVE);
            match socket.recv(&mut self.incoming.room(RECEIVE)[..size]) {
                Ok(0) => return Err(truncated()),
                Ok(count) => {
                    self.incoming.end += count;
                    self.has_received = true;
                    received += count;
                }
                Err(error) => {
                    self.incoming.shrink();
                    return Err(error);
                }
            }
        }
        Ok(output.count())
    }

    /// Encrypts all of `content` and sends as much as fits; [`flush`](TlsStream::flush) sends the
    /// rest.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::WouldBlock`] without encrypting anything if earlier bytes have not been
    /// sent, the errors of [`receive`](TlsStream::receive), and those of the socket.
    pub(crate) fn send(&mut self, socket: &mut impl Socket, content: &[u8]) -> io::Result<()> {
        self.flush(socket)?;
        if self.wants_write() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.write(Write::Content(content))?;
        self.flush(socket)
    }

    /// Encrypts the close_notify and sends as much of it as fits.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`send`](TlsStream::send), except [`ErrorKind::WouldBlock`].
    pub(crate) fn close(&mut self, socket: &mut impl Socket) -> io::Result<()> {
        self.write(Write::CloseNotify)?;
        self.flush(socket)
    }

    /// Sends encrypted bytes, as many as the socket accepts.
    ///
    /// # Errors
    ///
    /// Returns the errors of the socket, except [`ErrorKind::WouldBlock`]. After
    /// [`ErrorKind::BrokenPipe`], no bytes remain to be sent.
    pub(crate) fn flush(&mut self, socket: &mut impl Socket) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match socket.send(self.outgoing.bytes()) {
                Ok(count) => self.outgoing.start += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    self.outgoing = Queue::default();
                    return Err(error);
                }
            }
        }
        self.outgoing.tidy();
        Ok(())
    }

    /// Encrypts data and queues it for sending.
    fn write(&mut self, write: Write<'_>) -> io::Result<()> {
        loop {
            // Content that arrives now is queued until the next receive.
            match self.step(&mut Output::Count(0, 0), write) {
                Ok(Step::Written) => return Ok(()),
                Ok(Step::Continue) => {}
                Ok(Step::NeedsInput) => return Err(ErrorKind::NotConnected.into()),
                Err(error) => return Err(invalid(error)),
            }
        }
    }

    /// Sends the alert that rustls has queued after an error, if any. It does not matter whether
    /// the alert arrives.
    fn send_alert(&mut self, socket: &mut impl Socket) {
        // Stop when the queue is empty: a failed connection must not get more input.
        while self.state().wants_write()
            && let Ok(Step::Continue) = self.step(&mut Output::Count(0, 0), Write::Nothing)
        {
        }
        let _ = self.flush(socket);
    }

    /// Lets rustls take its next step.
    fn step(&mut self, output: &mut Output<'_>, write: Write<'_>) -> Result<Step, rustls::Error> {
        if self.is_closed && matches!(write, Write::Nothing) {
            return Ok(Step::NeedsInput);
        }
        let UnbufferedStatus { mut discard, state, .. } =
            self.connection.process(self.incoming.bytes_mut());
        let step = match state {
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    let taken = output.take(record.payload);
                    self.content.push(&record.payload[taken..]);
                }
                Step::Continue
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                self.outgoing.fill(0, |room| match data.encode(room) {
                    Ok(count) => Ok(Filled::Bytes(count)),
                    Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) => {
                        Ok(Filled::Needs(required_size))
                    }
                    Err(EncodeError::AlreadyEncoded) => Ok(Filled::Bytes(0)),
                })?;
                Step::Continue
            }
            Ok(ConnectionState::TransmitTlsData(transmit)) => {
                // The data is in the queue, and is sent in order.
                transmit.done();
                Step::Continue
            }
            Ok(ConnectionState::WriteTraffic(mut traffic)) => match write {
                Write::Nothing => Step::NeedsInput,
                Write::Content(content) => {
                    let size = content.len() + (content.len() >> 14) * 32 + 64;
                    self.outgoing.fill(size, |room| filled(traffic.encrypt(content, room)))?;
                    Step::Written
                }
                Write::CloseNotify => {
                    self.outgoing.fill(64, |room| filled(traffic.queue_close_notify(room)))?;
                    Step::Written
                }
            },
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                self.is_closed = true;
                Step::Continue
            }
            // Early data can be replayed, so configurations that offer it are not accepted.
            Ok(_) => Step::NeedsInput,
            Err(error) => return Err(error),
        };
        self.incoming.start += discard;
        self.incoming.tidy();
        Ok(step)
    }
}

fn filled(result: Result<usize, EncryptError>) -> Result<Filled, rustls::Error> {
    match result {
        Ok(count) => Ok(Filled::Bytes(count)),
        Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
            Ok(Filled::Needs(required_size))
        }
        Err(EncryptError::EncryptExhausted) => Err(rustls::Error::EncryptError),
    }
}

/// Returns whether the bytes begin with a complete record.
fn has_record(bytes: &[u8]) -> bool {
    match bytes {
        [_, _, _, high, low, rest @ ..] => {
            rest.len() >= usize::from(*high) << 8 | usize::from(*low)
        }
        _ => false,
    }
}

/// Returns whether a record can begin with this byte: change_cipher_spec, alert, handshake or
/// content.
fn is_record_type(byte: u8) -> bool {
    (20..=23).contains(&byte)
}

fn truncated() -> io::Error {
    io::Error::new(ErrorKind::UnexpectedEof, "closed without close_notify")
}
