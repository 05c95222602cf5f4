//! The stream copier: from a socket into a sink's file, in bounded steps.
//!
//! [`Copier::step`] moves what is there and never waits; [`Copier::copy_to_end`] waits between the
//! steps, each time no longer than the idle timeout. A step goes the way the file
//! [demands](Demand) and the kernel offers: through a pipe without a copy, dropped and counted, or
//! through a buffer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::fast_path::{FastPath, FastPaths};
use crate::limits::FIRST_READ;
use crate::os_error::reason;
use crate::sink::{Demand, SinkFile};
use crate::socket::Socket;
use crate::sys;
use crate::sys::pipe::Pipe;
use crate::tuning::PIPE_CAPACITY;
use std::sync::Arc;

/// Moves bytes from sockets to files. One serves any number of connections, one at a time.
#[derive(Debug)]
pub struct Copier {
    paths: Arc<FastPaths>,
    buffer: Box<[u8]>,
    /// Made for the first transfer that needs it. Empty between steps.
    pipe: Option<Pipe>,
    /// Tells the kernel how much to drop; allocated as zero pages that are never touched, so it
    /// costs address space only.
    scratch: Box<[u8]>,
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many bytes, at least one, are in the file.
    Moved(usize),
    /// Nothing was there.
    Blocked,
    /// The peer closed its side: the content is complete.
    End,
}

/// Why a transfer is over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The connection broke: the peer reset it, or the network is gone.
    #[error("connection lost: {}", reason(.0))]
    Receive(io::Error),
    /// The file did not take the bytes.
    #[error("cannot write: {}", reason(.0))]
    Write(io::Error),
    /// No byte came for the idle timeout.
    #[error("no data for {} s", .0.as_secs_f64())]
    Idle(Duration),
}

impl Copier {
    /// A copier that takes the fast paths given: of use are [`FastPath::Splice`] and
    /// [`FastPath::Truncate`].
    pub fn new(paths: Arc<FastPaths>) -> Self {
        let buffer = vec![0; FIRST_READ].into_boxed_slice();
        let scratch = vec![0; PIPE_CAPACITY].into_boxed_slice();
        Copier { paths, buffer, pipe: None, scratch }
    }

    /// Receives what is there, at most [`FIRST_READ`] bytes, without moving it on: for the
    /// handshake and the first bytes of content. Empty means the peer closed its side.
    ///
    /// # Errors
    ///
    /// What the socket says, [`io::ErrorKind::WouldBlock`] included.
    pub fn receive(&mut self, socket: &mut impl Socket) -> io::Result<&[u8]> {
        let count = socket.recv(&mut self.buffer)?;
        Ok(&self.buffer[..count])
    }

    /// Moves what is there, at most 1 MiB, from the socket into the file.
    ///
    /// # Errors
    ///
    /// [`CopyError::Receive`] and [`CopyError::Write`]. After either the transfer must be aborted:
    /// a socket tells an error only once and then looks closed.
    pub fn step<S: Socket, F: SinkFile>(
        &mut self,
        socket: &mut S,
        file: &mut F,
    ) -> Result<Step, CopyError> {
        into_step(self.transfer(socket, file))
    }

    /// Moves everything up to the peer's FIN into the file and returns the number of bytes. The
    /// file is neither committed nor aborted.
    ///
    /// # Errors
    ///
    /// [`CopyError::Idle`] when no byte comes for `idle`; the others as [`step`](Copier::step).
    pub fn copy_to_end<S: Socket + AsFd, F: SinkFile>(
        &mut self,
        socket: &mut S,
        file: &mut F,
        idle: Duration,
    ) -> Result<u64, CopyError> {
        let mut total = 0;
        let mut woken = false;
        loop {
            let step = match self.step(socket, file)? {
                // Splicing stops before an urgent byte and would for ever; a plain read goes on.
                Step::Blocked if woken => into_step(self.through_buffer(socket, file))?,
                step => step,
            };
            woken = false;
            match step {
                Step::Moved(count) => total += count as u64,
                Step::End => return Ok(total),
                Step::Blocked => {
                    woken = true;
                    if !wait_readable(AsFd::as_fd(socket), idle).map_err(CopyError::Receive)? {
                        return Err(CopyError::Idle(idle));
                    }
                }
            }
        }
    }

    fn transfer<S: Socket, F: SinkFile>(
        &mut self,
        socket: &mut S,
        file: &mut F,
    ) -> Result<usize, CopyError> {
        match file.demand() {
            Demand::Count if self.paths.has(FastPath::Truncate) => {
                let moved = socket.discard(&mut self.scratch).map_err(CopyError::Receive);
                file.advance(*moved.as_ref().unwrap_or(&0) as u64);
                moved
            }
            Demand::Descriptor(target) if self.paths.has(FastPath::Splice) => {
                match socket.as_fd() {
                    Some(source) => match self.splice(source, target) {
                        // The end, or an urgent byte with the end somewhere behind it: splicing
                        // stops before that byte and then tells of the end. A plain read knows.
                        Ok(Spliced::All(0)) => self.through_buffer(socket, file),
                        Ok(Spliced::All(count)) => {
                            file.advance(count as u64);
                            Ok(count)
                        }
                        Ok(Spliced::Stuck { moved, stuck }) => {
                            file.advance(moved as u64);
                            self.unload(stuck, file).map(|()| moved + stuck)
                        }
                        Ok(Spliced::NotOffered) => self.through_buffer(socket, file),
                        Err(error) => Err(error),
                    },
                    None => self.through_buffer(socket, file),
                }
            }
            _ => self.through_buffer(socket, file),
        }
    }

    fn through_buffer<S: Socket, F: SinkFile>(
        &mut self,
        socket: &mut S,
        file: &mut F,
    ) -> Result<usize, CopyError> {
        let bytes = self.receive(socket).map_err(CopyError::Receive)?;
        if !bytes.is_empty() {
            file.write(bytes).map_err(CopyError::Write)?;
        }
        Ok(bytes.len())
    }

    fn splice(
        &mut self,
        source: BorrowedFd<'_>,
        target: BorrowedFd<'_>,
    ) -> Result<Spliced, CopyError> {
        // Out of its place while it holds bytes: on any early return it is dropped with them, and
        // none can surface in the next connection's file.
        let mut pipe = match self.pipe.take().map_or_else(Pipe::new, Ok) {
            Ok(pipe) => pipe,
            Err(error) => {
                // No descriptor is free just now; the buffer does it without one.
                log::debug!("no pipe: {error}");
                return Ok(Spliced::NotOffered);
            }
        };
        let count = match pipe.fill(source) {
            Ok(count) => count,
            Err(error) if sys::is_unsupported(&error) => {
                self.paths.refused(FastPath::Splice, error);
                return Ok(Spliced::NotOffered);
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    self.pipe = Some(pipe);
                }
                return Err(CopyError::Receive(error));
            }
        };
        let mut moved = 0;
        while moved < count {
            match pipe.drain(target, count - moved) {
                Ok(more) => moved += more,
                Err(error) if sys::is_unsupported(&error) => {
                    self.paths.refused(FastPath::Splice, error);
                    self.pipe = Some(pipe);
                    return Ok(Spliced::Stuck { moved, stuck: count - moved });
                }
                Err(error) => return Err(CopyError::Write(error)),
            }
        }
        self.pipe = Some(pipe);
        Ok(Spliced::All(count))
    }

    /// Writes to the file what `splice` left in the pipe, and gives the pipe up.
    fn unload<F: SinkFile>(&mut self, mut stuck: usize, file: &mut F) -> Result<(), CopyError> {
        let Some(mut pipe) = self.pipe.take() else { return Ok(()) };
        while stuck > 0 {
            let room = stuck.min(self.buffer.len());
            let count = pipe.read(&mut self.buffer[..room]).map_err(CopyError::Write)?;
            file.write(&self.buffer[..count]).map_err(CopyError::Write)?;
            stuck -= count;
        }
        Ok(())
    }
}

/// Tells the end, and that nothing is there, from bytes and from errors.
fn into_step(moved: Result<usize, CopyError>) -> Result<Step, CopyError> {
    match moved {
        Ok(0) => Ok(Step::End),
        Ok(count) => Ok(Step::Moved(count)),
        Err(CopyError::Receive(error)) if error.kind() == io::ErrorKind::WouldBlock => {
            Ok(Step::Blocked)
        }
        Err(error) => Err(error),
    }
}

/// What became of the bytes that were spliced out of a socket.
enum Spliced {
    /// All of them are in the file.
    All(usize),
    /// The file refuses splicing: `stuck` bytes are still in the pipe.
    Stuck { moved: usize, stuck: usize },
    /// The socket refuses splicing, or there is no pipe: no byte was taken.
    NotOffered,
}

/// Waits until the socket has bytes or an end to tell; false after `limit`.
fn wait_readable(socket: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let mut entry = [sys::wait::readable(&socket)];
    Ok(sys::wait::wait(&mut entry, Some(Instant::now() + limit))? > 0)
}
