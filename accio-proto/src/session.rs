//! One accepted connection: handshake → copy → commit or abort.

use std::io;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::copier::{Copier, CopyError, Step};
use crate::dialect::{Dialect, GREETING, ServerDialect};
use crate::handshake::{HandshakeError, ServerHandshake, ServerStep};
use crate::limits;
use crate::reason::reason;
use crate::sink::{FileSink, SinkFile};
use crate::sys;
use crate::sys::poll::Interest;

/// What a session needs of its connection. No call waits.
///
/// An implementation reports an error of the connection once, as the kernel does; the session acts
/// on it at once and never asks again.
pub trait Socket {
    /// Receives what is there; 0 is the peer's FIN.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when nothing is there; others end the session.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Drops up to `scratch.len()` received bytes and says how many; what is in `scratch`
    /// afterwards means nothing.
    ///
    /// # Errors
    ///
    /// As [`recv`](Socket::recv).
    fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        self.recv(scratch)
    }

    /// Sends what fits of `bytes`.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] when nothing fits; others end the session, but for
    /// [`io::ErrorKind::BrokenPipe`], which says that the peer was done before it reset.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// The descriptor to splice from, if there is one.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Closes the connection with FIN: all is well. Dropping it instead must reset it.
    fn close(self);
}

/// A non-blocking TCP connection with `SO_LINGER` on and zero, so that any end but
/// [`close`](Socket::close), the end of the process included, resets it, and with `SO_OOBINLINE`,
/// so that an urgent byte is a byte like any other.
#[derive(Debug)]
pub struct TcpSocket(TcpStream);

impl TcpSocket {
    /// Takes the connection over and sets its options.
    ///
    /// # Errors
    ///
    /// The options cannot be set; the connection is closed.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        rustix::net::sockopt::set_socket_oobinline(&stream, true)?;
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok(TcpSocket(stream))
    }

    /// For a connection that has these options from its accept.
    pub(crate) fn accepted(stream: TcpStream) -> Self {
        TcpSocket(stream)
    }
}

impl Socket for TcpSocket {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        sys::socket::recv(&self.0, buffer)
    }

    fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        sys::socket::discard(&self.0, scratch)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::socket::send(&self.0, bytes)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&self.0))
    }

    fn close(self) {
        // Should it fail, the peer sees a reset although the file is kept: the safe side to err on.
        if let Err(error) = socket2::SockRef::from(&self.0).set_linger(None) {
            log::debug!("cannot close a connection gracefully: {error}");
        }
    }
}

impl std::os::fd::AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Abort {
    /// The peer sent no byte for the idle timeout.
    #[error("no data for {} s", .0.as_secs_f64())]
    Idle(Duration),
    /// The peer reset the connection, or the network is gone.
    #[error("connection lost: {}", reason(.0))]
    Reset(#[source] io::Error),
    /// The peer broke the handshake.
    #[error("handshake: {0}")]
    Handshake(#[from] HandshakeError),
    /// The sink did not take the file: no room, no permission, a broken disk.
    #[error("cannot {action} the file: {}", reason(source))]
    Sink {
        /// What failed: `open`, `write` or `commit`.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The system could not watch the connection: no memory, or a limit of the kernel's.
    #[error("cannot serve the connection: {}", reason(.0))]
    System(#[source] io::Error),
    /// The server was stopped.
    #[error("the server was stopped")]
    Shutdown,
}

impl From<CopyError> for Abort {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Receive(source) => Abort::Reset(source),
            CopyError::Write(source) => Abort::Sink { action: "write", source },
            CopyError::Idle(limit) => Abort::Idle(limit),
        }
    }
}

impl Abort {
    fn sink(action: &'static str) -> impl FnOnce(io::Error) -> Abort {
        move |source| Abort::Sink { action, source }
    }

    /// Whether the cause lies with the peer or the network, not with the server.
    pub fn is_peers(&self) -> bool {
        matches!(self, Abort::Idle(_) | Abort::Reset(_) | Abort::Handshake(_))
    }
}

/// A connection in service. Generic over its socket and its sink, so that it can be driven through
/// any sequence of events without a network, a disk or a clock.
#[derive(Debug)]
pub struct Session<S, F> {
    id: u64,
    socket: S,
    stage: Stage<F>,
    /// What is still to be sent; empties quickly, for it fits any send buffer.
    unsent: &'static [u8],
    /// Content bytes that came, whether or not they are kept in the end.
    bytes: u64,
    /// When the last byte came, or the connection itself.
    heard: Instant,
}

#[derive(Debug)]
enum Stage<F> {
    Handshake(ServerHandshake),
    /// The file is opened with its first byte: a connection that says nothing costs none.
    Content {
        dialect: Dialect,
        file: Option<F>,
        /// A read filled the buffer, so there is more to come than a buffer is good for.
        bulk: bool,
    },
}

impl<F> Stage<F> {
    fn content(dialect: Dialect) -> Self {
        Stage::Content { dialect, file: None, bulk: false }
    }

    fn dialect(&self) -> Option<Dialect> {
        match self {
            Stage::Handshake(_) => None,
            Stage::Content { dialect, .. } => Some(*dialect),
        }
    }

    /// Goes back to plain reads; false if it was there already.
    fn give_up_bulk(&mut self) -> bool {
        match self {
            Stage::Content { bulk, .. } => std::mem::take(bulk),
            Stage::Handshake(_) => false,
        }
    }

    fn take_file(&mut self) -> Option<F> {
        match self {
            Stage::Handshake(_) => None,
            Stage::Content { file, .. } => file.take(),
        }
    }
}

/// Both greetings in a row, of which any end may still have to be sent.
const GREETING_TWICE: &[u8] = b"accio\r\naccio\r\n";

/// Where a session is after its turn.
#[derive(Debug)]
pub enum Turn<S, F> {
    /// It waits for its socket, or has had its share and waits for its next turn.
    Waiting(Session<S, F>),
    /// It is over.
    Ended(Ended<S>),
}

/// A session that is over: the file is kept, or the error marker. The peer does not know yet.
#[derive(Debug)]
pub struct Ended<S> {
    /// The number of the connection.
    pub id: u64,
    /// What the client spoke, once it was known.
    pub dialect: Option<Dialect>,
    /// Content bytes received, whether or not they were kept.
    pub bytes: u64,
    /// Whether the file is complete, and if not, why.
    pub result: Result<(), Abort>,
    /// Why not even the error marker could be kept: nothing is there under this number.
    pub unmarked: Option<io::Error>,
    /// The connection, still open.
    pub socket: Unreleased<S>,
}

/// A connection whose peer still waits to be told. Dropped, it is reset.
#[derive(Debug)]
pub struct Unreleased<S>(S);

impl<S: Socket> Unreleased<S> {
    /// Tells the peer: FIN when the file is `kept`, a reset when not.
    pub fn release(self, kept: bool) {
        if kept {
            self.0.close();
        }
    }
}

impl<S: Socket, F: SinkFile> Session<S, F> {
    /// A connection that was just accepted as number `id`; nothing is sent yet.
    pub fn begin(id: u64, socket: S, dialect: ServerDialect, now: Instant) -> Self {
        let (unsent, stage) = match ServerHandshake::begin(dialect) {
            ServerStep::Wait { send, handshake } => (send, Stage::Handshake(handshake)),
            ServerStep::Established { send, dialect, .. } => (send, Stage::content(dialect)),
        };
        Session { id, socket, stage, unsent, bytes: 0, heard: now }
    }

    /// The number of the connection.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The connection itself.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// When the last byte came, or the connection itself.
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// What the socket is to be watched for.
    pub fn interest(&self) -> Interest {
        if self.unsent.is_empty() { Interest::Read } else { Interest::ReadWrite }
    }

    /// The time to call [`handle_timeout`](Session::handle_timeout), unless a byte comes first.
    pub fn deadline(&self, idle: Duration) -> Instant {
        self.heard + idle
    }

    /// The server was busy with this session until `now`: silence counts from here, for the peer
    /// may have been waiting for us.
    pub fn resume(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Sends the greeting of a fresh connection, without looking for bytes yet.
    pub fn greet<K: FileSink<File = F>>(mut self, sink: &K) -> Turn<S, F> {
        match self.flush() {
            Ok(()) => Turn::Waiting(self),
            Err(why) => Turn::Ended(self.abort(sink, why)),
        }
    }

    /// The socket is ready: moves what is there, up to [`limits::TURN`] bytes.
    pub fn handle_ready<K: FileSink<File = F>>(
        mut self,
        sink: &K,
        copier: &mut Copier,
        now: Instant,
    ) -> Turn<S, F> {
        let mut left = limits::TURN;
        while left > 0 {
            match self.flush().and_then(|()| self.step(sink, copier)) {
                Ok(Step::Moved(count)) => {
                    self.heard = now;
                    left = left.saturating_sub(count);
                }
                // The socket has something: splicing stops before an urgent byte and would for
                // ever, where a plain read goes on.
                Ok(Step::Blocked) if left == limits::TURN && self.stage.give_up_bulk() => {}
                Ok(Step::Blocked) => break,
                Ok(Step::End) => return Turn::Ended(self.commit(sink)),
                Err(why) => return Turn::Ended(self.abort(sink, why)),
            }
        }
        Turn::Waiting(self)
    }

    /// The deadline has come: looks for bytes once more, for a stall of ours is never the peer's
    /// fault, and aborts if there are none.
    pub fn handle_timeout<K: FileSink<File = F>>(
        self,
        sink: &K,
        copier: &mut Copier,
        now: Instant,
        idle: Duration,
    ) -> Turn<S, F> {
        match self.handle_ready(sink, copier, now) {
            Turn::Waiting(session) if session.deadline(idle) <= now => {
                Turn::Ended(session.abort(sink, Abort::Idle(idle)))
            }
            turn => turn,
        }
    }

    /// Ends the session early; the file holds the error marker.
    pub fn abort<K: FileSink<File = F>>(mut self, sink: &K, why: Abort) -> Ended<S> {
        let mark = || sink.open(self.id)?.abort();
        let marked = match self.stage.take_file() {
            // The same file first: on a full disk only its own blocks are free for the marker.
            Some(file) => file.abort().or_else(|_| mark()),
            None => mark(),
        };
        let unmarked = marked.err().inspect(|error| {
            log::error!("connection {}: cannot keep the error marker: {error}", self.id);
        });
        self.end(Err(why), unmarked)
    }

    fn commit<K: FileSink<File = F>>(mut self, sink: &K) -> Ended<S> {
        let committed = match self.stage.take_file().map_or_else(|| sink.open(self.id), Ok) {
            Ok(file) => file.commit().map_err(|error| ("commit", error)),
            Err(error) => Err(("open", error)),
        };
        match committed {
            Ok(()) => self.end(Ok(()), None),
            Err((action, source)) => self.abort(sink, Abort::Sink { action, source }),
        }
    }

    fn end(self, result: Result<(), Abort>, unmarked: Option<io::Error>) -> Ended<S> {
        let Session { id, socket, bytes, .. } = self;
        Ended {
            id,
            dialect: self.stage.dialect(),
            bytes,
            result,
            unmarked,
            socket: Unreleased(socket),
        }
    }

    fn flush(&mut self) -> Result<(), Abort> {
        while !self.unsent.is_empty() {
            match self.socket.send(self.unsent) {
                Ok(count) => self.unsent = &self.unsent[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // A reset after the peer's FIN: it will never read this, but all it sent is here.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.unsent = &[],
                Err(error) => return Err(Abort::Reset(error)),
            }
        }
        Ok(())
    }

    fn step<K: FileSink<File = F>>(
        &mut self,
        sink: &K,
        copier: &mut Copier,
    ) -> Result<Step, Abort> {
        let small = match &mut self.stage {
            Stage::Content { file: Some(file), bulk: true, .. } => {
                let step = copier.step(&mut self.socket, file)?;
                if let Step::Moved(count) = step {
                    self.bytes += count as u64;
                }
                return Ok(step);
            }
            stage => stage,
        };
        let input = match copier.receive(&mut self.socket) {
            Ok(input) => input,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Blocked),
            Err(error) => return Err(Abort::Reset(error)),
        };
        let mut content: [&[u8]; 2] = [&[], input];
        if let Stage::Handshake(handshake) = *small {
            let step = match input {
                [] => handshake.finish()?,
                input => handshake.receive(input)?,
            };
            let send = match step {
                ServerStep::Wait { send, handshake } => {
                    *small = Stage::Handshake(handshake);
                    content = [&[], &[]];
                    send
                }
                ServerStep::Established { send, dialect, kept, consumed } => {
                    *small = Stage::content(dialect);
                    content = [kept, &input[consumed..]];
                    send
                }
            };
            // The second greeting follows what may still be unsent of the first.
            if !send.is_empty() {
                self.unsent = &GREETING_TWICE[GREETING.len() - self.unsent.len()..];
            }
        }
        if let Stage::Content { file, bulk, .. } = small {
            *bulk = input.len() == limits::FIRST_READ;
            for bytes in content.into_iter().filter(|bytes| !bytes.is_empty()) {
                let file = match file {
                    Some(file) => file,
                    None => file.insert(sink.open(self.id).map_err(Abort::sink("open"))?),
                };
                file.write(bytes).map_err(Abort::sink("write"))?;
                self.bytes += bytes.len() as u64;
            }
        }
        Ok(if input.is_empty() { Step::End } else { Step::Moved(input.len()) })
    }
}
