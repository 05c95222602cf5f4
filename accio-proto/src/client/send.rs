//! The content: from the source into the connection.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::ClientError;
use super::connection::{Connection, Received, unblocked};
use super::source::{Kind, Source};
use crate::sys::client::{SendFile, is_gone, send_file, wait};
use crate::{FastPath, limits};

/// What became of one step.
enum Pushed {
    Bytes(usize),
    Full,
    /// The source has no more.
    End,
}

impl Connection<'_> {
    /// Hands all of the source to the kernel.
    pub(super) fn send(&mut self, source: &mut Source<'_>) -> Result<(), ClientError> {
        let total = source.size().map_err(|source| ClientError::Read { source })?;
        self.meter.start(total, Instant::now());
        let mut pump = Pump::new(source, self.client.fast_paths.has(FastPath::Sendfile));
        loop {
            let now = Instant::now();
            self.meter.tick(now);
            let stalled_at = self.meter.still_at(self.client.stall_timeout);
            let ready = wait(&self.stream, true, self.slice(now, stalled_at))
                .map_err(|source| ClientError::Local { what: "wait for the server", source })?;
            if ready.receive {
                self.check_open()?;
            }
            let pushed = if ready.send { pump.push(self)? } else { Pushed::Full };
            match pushed {
                Pushed::Bytes(count) => self.meter.add(count, Instant::now()),
                Pushed::End => break,
                Pushed::Full => {
                    let now = Instant::now();
                    self.meter.look(now);
                    if self.meter.stillness(now) >= self.client.stall_timeout {
                        return Err(self.stalled());
                    }
                    if ready.send {
                        // Room, yet none for us: the system is short of memory. Do not spin.
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        }
        match total {
            Some(expected) if self.meter.sent() < expected => {
                Err(ClientError::Shrank { expected, found: self.meter.sent() })
            }
            _ => Ok(()),
        }
    }

    /// Drops what the server says, and notices that it is gone.
    pub(super) fn check_open(&self) -> Result<(), ClientError> {
        match self.drop_input() {
            Ok(Received::Fin) if is_gone(&self.stream) => {
                Err(ClientError::Reset { peer: self.peer, sent: self.meter.sent() })
            }
            Ok(Received::Fin) => {
                Err(ClientError::ClosedEarly { peer: self.peer, sent: self.meter.sent() })
            }
            Ok(Received::Bytes(_) | Received::Nothing) => Ok(()),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// The error for a connection that broke while content was being sent.
    pub(super) fn broken(&self, source: io::Error) -> ClientError {
        let (peer, sent) = (self.peer, self.meter.sent());
        match source.kind() {
            // After a reset was seen once, the system says "broken pipe" or "not connected".
            ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected
            | ErrorKind::ConnectionAborted => ClientError::Reset { peer, sent },
            ErrorKind::TimedOut => self.stalled(),
            _ => ClientError::Send { peer, sent, source },
        }
    }
}

/// The source, on the fast way or the portable one. Both go by the file's own position, so it can
/// change from one to the other at any byte.
struct Pump<'s> {
    input: Input<'s>,
    sendfile: bool,
    /// Allocated when first used.
    buffer: Vec<u8>,
    /// The part of `buffer` that is read and not yet sent.
    unsent: Range<usize>,
}

enum Input<'s> {
    File(&'s File),
    Read(&'s mut dyn Read),
}

impl<'s> Pump<'s> {
    fn new(source: &'s mut Source<'_>, sendfile: bool) -> Self {
        let input = match &mut source.0 {
            Kind::File(file) => Input::File(file),
            Kind::Read(reader) => Input::Read(reader),
        };
        Pump { input, sendfile, buffer: Vec::new(), unsent: 0..0 }
    }

    fn push(&mut self, connection: &Connection<'_>) -> Result<Pushed, ClientError> {
        if let (Input::File(file), true) = (&self.input, self.sendfile) {
            match send_file(&connection.stream, file, limits::SEND_CHUNK) {
                SendFile::Queued(0) => return Ok(Pushed::End),
                SendFile::Queued(count) => return Ok(Pushed::Bytes(count)),
                SendFile::Full => return Ok(Pushed::Full),
                SendFile::Broken(error) => return Err(connection.broken(error)),
                SendFile::Refused(error) => {
                    connection.client.fast_paths.refused(FastPath::Sendfile, error);
                }
                SendFile::Fault => {}
            }
            self.sendfile = false;
        }
        if self.unsent.is_empty() && !self.read()? {
            return Ok(Pushed::End);
        }
        let sent = (&connection.stream).write(&self.buffer[self.unsent.clone()]);
        match unblocked(sent).map_err(|error| connection.broken(error))? {
            Some(count) => {
                self.unsent.start += count;
                Ok(Pushed::Bytes(count))
            }
            None => Ok(Pushed::Full),
        }
    }

    /// Reads the next bytes; false at the end.
    fn read(&mut self) -> Result<bool, ClientError> {
        self.buffer.resize(limits::SEND_BUFFER, 0);
        let count = loop {
            let result = match &mut self.input {
                Input::File(file) => file.read(&mut self.buffer),
                Input::Read(reader) => reader.read(&mut self.buffer),
            };
            match result {
                Ok(count) => break count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(ClientError::Read { source }),
            }
        };
        self.unsent = 0..count;
        Ok(count > 0)
    }
}
