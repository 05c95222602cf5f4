//! One accepted connection: handshake → copy → commit or abort.

mod abort;
mod closing;
mod state;
mod time_limits;

use std::io;
use std::time::Instant;

pub use abort::{Abort, SinkCall};
pub use closing::{Closing, Ended, Unreleased};
pub use time_limits::SessionLimits;

use crate::connection::Connection;
#[cfg(feature = "digest")]
use crate::content_hasher::ContentHasher;
use crate::copier::{Copier, CopyError, Step};
use crate::dialect::{Dialect, GREETING, ServerDialect};
#[cfg(feature = "digest")]
use crate::digest::DigestAlgorithm;
use crate::handshake::{ServerHandshake, ServerStep};
#[cfg(feature = "digest")]
use crate::hasher::Hasher;
use crate::interest::Interest;
use crate::limits;
use crate::sink::{FileSink, SinkFile};
use crate::socket::Socket;
use crate::tuning::INPUT_WAITS;
use closing::{catch_panic, open};
use state::{Stage, State};
use time_limits::TransferClock;

/// One accepted connection. It is generic over its socket and its sink, and takes the time as an
/// argument, so that tests can drive it through any sequence of events without a network, a disk or
/// a clock.
#[derive(Debug)]
pub struct Session<S, F>(Box<State<S, F>>);

/// Both greetings in a row: bytes to send are always a suffix of it.
const GREETING_TWICE: &[u8] = b"accio\r\naccio\r\n";

/// Result of a turn.
#[derive(Debug)]
#[must_use]
pub enum Turn {
    /// The session waits for its socket, or for its next turn.
    Waiting,
    /// The session has ended: pass the result to [`Session::close`].
    Ended(Result<(), Abort>),
}

/// Result of checking a deadline.
#[derive(Debug)]
#[must_use]
pub enum Expiry {
    /// No limit is exceeded; ask again at this time.
    Later(Instant),
    /// A limit is exceeded: pass the reason to [`Session::abort`].
    Expired(Abort),
}

impl<S: Socket, F: SinkFile> Session<S, F> {
    /// Returns a session for a connection that was just accepted. Nothing is sent yet.
    pub fn begin(
        mut connection: Connection,
        socket: S,
        dialect: ServerDialect,
        now: Instant,
    ) -> Self {
        let (unsent, stage) = match ServerHandshake::begin(dialect) {
            ServerStep::Wait { send, handshake } => (send, Stage::Handshake(handshake)),
            ServerStep::Established { send, dialect, .. } => {
                connection.dialect = Some(dialect);
                (send, Stage::CONTENT)
            }
        };
        let clock = TransferClock::new(now);
        Session(Box::new(State {
            connection,
            socket,
            stage,
            file: None,
            unsent,
            bytes: 0,
            hasher: None,
            clock,
            digest: None,
            result: Ok(()),
        }))
    }

    /// Makes the session compute the digest of the content. The content then passes through a
    /// buffer, whatever the file [demands](crate::Demand), or is read back from the file if that can be
    /// [reopened](SinkFile::reopen). Must be called before the first turn.
    #[cfg(feature = "digest")]
    #[must_use]
    pub fn digest(mut self, algorithm: DigestAlgorithm) -> Self {
        self.0.hasher = Some(Box::new(ContentHasher::new(Hasher::new(algorithm))));
        self
    }

    /// Returns the number of the connection.
    pub fn id(&self) -> u64 {
        self.0.connection.id
    }

    /// Returns the description of the connection, with its dialect once that is known.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Returns the socket.
    pub fn socket(&self) -> &S {
        &self.0.socket
    }

    /// Returns the file, if it is open.
    #[cfg(feature = "server")]
    pub(crate) fn file_mut(&mut self) -> Option<&mut F> {
        self.0.file.as_mut()
    }

    /// Returns the number of content bytes received so far.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Returns the dialect of the client, once it is known.
    pub fn dialect(&self) -> Option<Dialect> {
        self.0.connection.dialect
    }

    /// Returns the time of the last byte, or of the accept.
    pub fn heard(&self) -> Instant {
        self.0.clock.heard()
    }

    /// Returns the events to watch the socket for.
    ///
    /// The socket may have buffered content: under TLS, that of a record that the last turn began, or
    /// that which came with the end of the handshake. No event announces it, but the connection can be
    /// written to at once.
    pub fn interest(&self) -> Interest {
        let writes = !self.0.unsent.is_empty() || self.0.socket.wants_write();
        match writes || self.0.socket.has_buffered() {
            true => Interest::ReadWrite,
            false => Interest::Read,
        }
    }

    /// Returns the time to call [`handle_timeout`](Session::handle_timeout) if no bytes arrive
    /// before. It never moves earlier.
    pub fn deadline(&self, limits: &SessionLimits) -> Instant {
        self.0.clock.deadline(limits)
    }

    /// Excludes the time in which the server was busy with bytes of this session, from `started` to
    /// `now`: the peer may have been waiting for the server.
    pub fn resume(&mut self, started: Instant, now: Instant) {
        self.0.clock.resume(started, now);
    }

    /// Returns whether the next turn may open the file.
    pub fn may_open(&self) -> bool {
        self.0.file.is_none()
    }

    /// Sends the greeting of a new connection. It does not receive yet.
    pub fn greet(&mut self) -> Turn {
        match self.flush() {
            Ok(()) => Turn::Waiting,
            Err(why) => Turn::Ended(Err(why)),
        }
    }

    /// Moves the bytes that the socket has, at most [`limits::TURN`] of them.
    pub fn handle_ready<K: FileSink<File = F>>(
        &mut self,
        sink: &K,
        copier: &mut Copier,
        limits: &SessionLimits,
        now: Instant,
    ) -> Turn {
        let mut left = limits::TURN;
        // `interest` brings the next turn at once if the socket has buffered bytes.
        while left > 0 {
            let step = self.flush().and_then(|()| self.step(sink, copier));
            // Check the size at the end too: bytes held back as a handshake may turn out to be
            // content.
            if let (Ok(_), Some(max_size)) = (&step, limits.max_size)
                && self.0.bytes > max_size
            {
                return Turn::Ended(Err(Abort::TooLarge(max_size)));
            }
            if matches!(step, Ok(Step::Blocked)) && self.0.socket.has_received_part() {
                self.0.clock.receive(0, now);
            }
            match step {
                Ok(Step::Moved(count)) => {
                    self.0.clock.receive(count, now);
                    left = if self.0.file.as_ref().is_some_and(SinkFile::is_full) {
                        0
                    } else {
                        left.saturating_sub(count)
                    };
                }
                // The socket has input that splice does not return: splice stops before an urgent
                // byte. A plain read returns it.
                Ok(Step::Blocked) if left == limits::TURN && self.0.stage.give_up_bulk() => {}
                Ok(Step::Blocked) => {
                    self.0.clock.wait(now);
                    break;
                }
                Ok(Step::End) => return Turn::Ended(Ok(())),
                Err(why) => return Turn::Ended(Err(why)),
            }
        }
        Turn::Waiting
    }

    /// Handles the deadline: receives once more, because a delay of the server is never the peer's
    /// fault, and ends the session if a limit is still exceeded.
    pub fn handle_timeout<K: FileSink<File = F>>(
        &mut self,
        sink: &K,
        copier: &mut Copier,
        limits: &SessionLimits,
        now: Instant,
    ) -> Turn {
        match self.handle_ready(sink, copier, limits, now) {
            Turn::Waiting => match self.0.clock.check(limits, now) {
                Ok(()) => Turn::Waiting,
                Err(why) => Turn::Ended(Err(why)),
            },
            ended => ended,
        }
    }

    /// Handles the deadline on a thread that must not move content: checks whether a limit is
    /// exceeded. While the socket has input, no limit counts as exceeded; the thread that receives
    /// the input must call [`handle_timeout`](Session::handle_timeout).
    pub fn check_deadline(&mut self, limits: &SessionLimits, now: Instant) -> Expiry {
        let deadline = self.0.clock.deadline(limits);
        if deadline > now {
            return Expiry::Later(deadline);
        }
        if self.0.socket.has_input() {
            return Expiry::Later(now + INPUT_WAITS);
        }
        match self.0.clock.check(limits, now) {
            Ok(()) => Expiry::Later(self.0.clock.deadline(limits)),
            Err(why) => Expiry::Expired(why),
        }
    }

    /// Ends the session early; its file will hold the error marker.
    pub fn abort(self, why: Abort) -> Closing<S, F> {
        self.close(Err(why))
    }

    /// Ends the session. [`Closing::finish`] then commits or aborts the file.
    pub fn close(mut self, result: Result<(), Abort>) -> Closing<S, F> {
        let state = &mut *self.0;
        if result.is_ok() {
            state.digest = state.hasher.take().map(|hasher| hasher.finish());
        }
        state.result = result;
        Closing(self.0)
    }

    fn flush(&mut self) -> Result<(), Abort> {
        while !self.0.unsent.is_empty() {
            match self.0.socket.send(self.0.unsent) {
                Ok(count) => self.0.unsent = &self.0.unsent[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The peer reset the connection after its FIN: it will not read this, but all of
                // its bytes can be received.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.0.unsent = &[],
                Err(error) => return Err(Abort::connection(error)),
            }
        }
        Ok(())
    }

    fn step<K: FileSink<File = F>>(
        &mut self,
        sink: &K,
        copier: &mut Copier,
    ) -> Result<Step, Abort> {
        let State { connection, socket, stage, file, unsent, bytes, hasher, .. } = &mut *self.0;
        if let (Stage::Content { bulk: true }, Some(file)) = (&*stage, &mut *file) {
            let copy = || match hasher {
                None => {
                    let step = copier.step(socket, file)?;
                    if let Step::Moved(count) = step {
                        *bytes += count as u64;
                    }
                    Ok(step)
                }
                Some(hasher) => copier.step_hashed(socket, file, hasher, bytes),
            };
            return Ok(catch_panic(copy).unwrap_or_else(|panic| Err(CopyError::Write(panic)))?);
        }
        let input = match copier.receive(socket) {
            Ok(input) => input,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Blocked),
            Err(error) => return Err(Abort::connection(error)),
        };
        let mut content: [&[u8]; 2] = [&[], input];
        if let Stage::Handshake(handshake) = *stage {
            let step = match input {
                [] => handshake.finish()?,
                input => handshake.receive(input)?,
            };
            let send = match step {
                ServerStep::Wait { send, handshake } => {
                    *stage = Stage::Handshake(handshake);
                    content = [&[], &[]];
                    send
                }
                ServerStep::Established { send, dialect, kept, consumed } => {
                    *stage = Stage::CONTENT;
                    connection.dialect = Some(dialect);
                    content = [kept, &input[consumed..]];
                    send
                }
            };
            // The second greeting follows the bytes of the first that are not sent yet.
            if !send.is_empty() {
                *unsent = &GREETING_TWICE[GREETING.len() - unsent.len()..];
            }
        }
        if let Stage::Content { bulk } = stage {
            *bulk = input.len() == limits::FIRST_READ;
            for part in content.into_iter().filter(|part| !part.is_empty()) {
                let file = match file {
                    Some(file) => file,
                    None => file.insert(open(sink, connection)?),
                };
                let written = catch_panic(|| file.write(part)).and_then(|written| written);
                written.map_err(Abort::sink(SinkCall::Write))?;
                if let Some(hasher) = hasher {
                    hasher.update(part);
                }
                *bytes += part.len() as u64;
            }
        }
        Ok(if input.is_empty() { Step::End } else { Step::Moved(input.len()) })
    }
}
