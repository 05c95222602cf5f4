//! The stream copier: moves bytes from a socket into a file of a sink, in bounded steps.
//!
//! [`Copier::step`] moves available bytes and never waits. [`Copier::copy_to_end`] waits between
//! the steps, each time for at most the idle timeout. Depending on what the file [demands](Demand)
//! and the kernel offers, a step moves bytes through a pipe without a copy, counts and drops them,
//! or moves them through a buffer.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use crate::content_hasher::ContentHasher;
use crate::fast_path::{FastPath, FastPaths};
use crate::limits::FIRST_READ;
use crate::os_error::reason;
use crate::pipe_budget::{PipeBudget, PipePlace};
use crate::program_log as log;
use crate::sink::{Demand, SinkFile};
use crate::socket::Socket;
use crate::sys;
use crate::sys::pipe::Pipe;
use crate::tuning::{LARGE_BUFFER, PIPE_CAPACITY};
use std::sync::Arc;

/// Moves bytes from sockets to files. A copier can serve any number of connections, one at a time.
#[derive(Debug)]
pub struct Copier {
    paths: Arc<FastPaths>,
    /// Empty before its first use, so that an idle thread needs no memory for it.
    buffer: Box<[u8]>,
    /// A buffer for content that is hashed from memory, read back to be hashed, or decrypted;
    /// allocated when it is needed first.
    large: Vec<u8>,
    /// The number of bytes to receive into it at once, which is doubled up to [`LARGE_BUFFER`] when a
    /// read fills it.
    large_size: usize,
    /// Created for the first transfer that needs it. Empty between steps.
    pipe: Option<OwnPipe>,
    pipes: Arc<PipeBudget>,
    /// Its length tells the kernel how many bytes to drop. It consists of zero pages that are never
    /// touched, so it takes address space but no memory.
    scratch: Box<[u8]>,
}

/// The pipe of a copier. It is closed before its place is free.
#[derive(Debug)]
struct OwnPipe {
    pipe: Pipe,
    _place: PipePlace,
}

/// Result of one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The number of bytes moved into the file, at least 1.
    Moved(usize),
    /// No bytes were available.
    Blocked,
    /// The peer closed its side of the connection: the content is complete.
    End,
}

/// Reason for a failed transfer. It must be aborted, and the connection reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// The peer reset the connection, or the network failed. Nothing more can be received.
    #[error("connection lost: {}", reason(.0))]
    Receive(io::Error),
    /// The file could not be written, for example because the disk is full.
    #[error("cannot write: {}", reason(.0))]
    Write(io::Error),
    /// Content could not be read back from the file for its digest, because the disk fails or because
    /// the file is shorter than what was written to it. Only a [session](crate::Session) with a digest
    /// reads.
    #[error("cannot read: {}", reason(.0))]
    Read(io::Error),
    /// No byte arrived for the idle timeout that was passed to
    /// [`copy_to_end`](Copier::copy_to_end).
    #[error("no data for {} s", .0.as_secs_f64())]
    Idle(Duration),
}

impl Copier {
    /// Returns a copier that uses these fast paths. Those with an effect here are
    /// [`FastPath::Splice`] and [`FastPath::Truncate`].
    pub fn new(paths: Arc<FastPaths>) -> Self {
        Copier::with_pipes(paths, PipeBudget::new(usize::MAX))
    }

    /// Returns a copier whose pipe counts against a budget.
    pub(crate) fn with_pipes(paths: Arc<FastPaths>, pipes: Arc<PipeBudget>) -> Self {
        let scratch = vec![0; PIPE_CAPACITY].into_boxed_slice();
        Copier {
            paths,
            buffer: Box::default(),
            large: Vec::new(),
            large_size: FIRST_READ,
            pipe: None,
            pipes,
            scratch,
        }
    }

    /// Receives available bytes, at most [`FIRST_READ`], without passing them on: for the handshake
    /// and the first bytes of content. The slice is empty if the peer has closed its side.
    ///
    /// # Errors
    ///
    /// Any error of the socket, including [`io::ErrorKind::WouldBlock`].
    pub fn receive(&mut self, socket: &mut impl Socket) -> io::Result<&[u8]> {
        self.allocate_buffer();
        let count = socket.recv(&mut self.buffer)?;
        Ok(&self.buffer[..count])
    }

    /// Moves available bytes, at most 1 MiB, from the socket into the file.
    ///
    /// # Errors
    ///
    /// Returns [`CopyError::Receive`] or [`CopyError::Write`]. After either, the transfer must be
    /// aborted: a socket reports an error only once and then looks closed.
    pub fn step<S: Socket, F: SinkFile>(
        &mut self,
        socket: &mut S,
        file: &mut F,
    ) -> Result<Step, CopyError> {
        into_step(self.transfer(socket, file))
    }

    /// Moves available bytes and adds them to a digest: by reading them back from the file or, where
    /// that is impossible, through a larger buffer. `length`, the number of bytes received so far,
    /// includes those that could not be written from the buffer, too.
    pub(crate) fn step_hashed<S: Socket, F: SinkFile>(
        &mut self,
        socket: &mut S,
        file: &mut F,
        hasher: &mut ContentHasher,
        length: &mut u64,
    ) -> Result<Step, CopyError> {
        if self.can_read_back(socket, file)
            && hasher.begin_reading_back(*length, || file.reopen())
            && self.has_pipe()
        {
            let step = self.step(socket, file)?;
            if let Step::Moved(count) = step {
                let offset = *length;
                *length += count as u64;
                hasher.read_back(offset, count, &mut self.large).map_err(CopyError::Read)?;
            }
            return Ok(step);
        }
        let count = match self.receive_much(socket, length) {
            Ok(0) => return Ok(Step::End),
            Ok(count) => count,
            Err(error) => return into_step(Err(error)),
        };
        let bytes = &self.large[..count];
        file.write(bytes).map_err(CopyError::Write)?;
        hasher.update(bytes);
        Ok(Step::Moved(count))
    }

    /// Moves all bytes up to the peer's FIN into the file and returns their number. Neither commits
    /// nor aborts the file.
    ///
    /// # Errors
    ///
    /// Returns [`CopyError::Idle`] if no byte arrives for `idle`, and the errors of
    /// [`step`](Copier::step).
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
                // Splice stops before an urgent byte every time; a plain read returns it.
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

    /// Returns whether content gets into the file without a copy through this process, so that reading
    /// it back is the only one.
    fn can_read_back<S: Socket, F: SinkFile>(&self, socket: &S, file: &F) -> bool {
        self.paths.has(FastPath::Splice)
            && self.paths.has(FastPath::ReadBack)
            && socket.as_fd().is_some()
            && matches!(file.demand(), Demand::Descriptor(_))
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
                        // This is either the end or an urgent byte: splice stops before an urgent
                        // byte, and also returns 0 if only the end follows it. A plain read
                        // distinguishes the two.
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
                    None => self.through_large_buffer(socket, file),
                }
            }
            _ => self.through_buffer(socket, file),
        }
    }

    /// Receives available bytes into the large buffer and returns their number. `length`, the number
    /// of bytes received so far, includes those before an error, too.
    fn receive_much(
        &mut self,
        socket: &mut impl Socket,
        length: &mut u64,
    ) -> Result<usize, CopyError> {
        self.large.resize(self.large_size, 0);
        let (count, end) = fill(socket, &mut self.large);
        *length += count as u64;
        match end {
            // The transfer has failed, so the bytes before the error need not be stored.
            Some(error) if count == 0 || error.kind() != io::ErrorKind::WouldBlock => {
                return Err(CopyError::Receive(error));
            }
            _ => {}
        }
        if count == self.large_size {
            self.large_size = (2 * count).min(LARGE_BUFFER);
        }
        Ok(count)
    }

    /// Moves content that no call can move without a copy, because it is decrypted here.
    fn through_large_buffer<S: Socket, F: SinkFile>(
        &mut self,
        socket: &mut S,
        file: &mut F,
    ) -> Result<usize, CopyError> {
        let count = self.receive_much(socket, &mut 0)?;
        if count > 0 {
            file.write(&self.large[..count]).map_err(CopyError::Write)?;
        }
        Ok(count)
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
        // The pipe is taken out of `self` while it holds bytes: an early return drops it together
        // with them, so they cannot appear in the next connection's file.
        let Some(mut own) = self.pipe.take().or_else(|| self.create_pipe()) else {
            return Ok(Spliced::NotOffered);
        };
        let pipe = &mut own.pipe;
        let count = match pipe.fill(source) {
            Ok(count) => count,
            Err(error) if sys::is_unsupported(&error) => {
                self.paths.refused(FastPath::Splice, error);
                return Ok(Spliced::NotOffered);
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::WouldBlock {
                    self.pipe = Some(own);
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
                    self.pipe = Some(own);
                    return Ok(Spliced::Stuck { moved, stuck: count - moved });
                }
                Err(error) => return Err(CopyError::Write(error)),
            }
        }
        self.pipe = Some(own);
        Ok(Spliced::All(count))
    }

    /// Returns whether there is a pipe, after an attempt to create it.
    fn has_pipe(&mut self) -> bool {
        self.pipe = self.pipe.take().or_else(|| self.create_pipe());
        self.pipe.is_some()
    }

    /// Returns a new pipe, unless that would take a descriptor from a socket or a file; the buffer needs
    /// none.
    fn create_pipe(&self) -> Option<OwnPipe> {
        let place = self.pipes.take()?;
        let pipe = Pipe::new().inspect_err(|error| log::debug!("no pipe: {error}")).ok()?;
        Some(OwnPipe { pipe, _place: place })
    }

    fn allocate_buffer(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = vec![0; FIRST_READ].into_boxed_slice();
        }
    }

    /// Writes the bytes that `splice` left in the pipe to the file, and drops the pipe.
    fn unload<F: SinkFile>(&mut self, mut stuck: usize, file: &mut F) -> Result<(), CopyError> {
        let Some(OwnPipe { mut pipe, .. }) = self.pipe.take() else { return Ok(()) };
        self.allocate_buffer();
        while stuck > 0 {
            let room = stuck.min(self.buffer.len());
            let count = pipe.read(&mut self.buffer[..room]).map_err(CopyError::Write)?;
            file.write(&self.buffer[..count]).map_err(CopyError::Write)?;
            stuck -= count;
        }
        Ok(())
    }
}

/// Receives until the buffer is full, the end, or an error. Returns the number of bytes and the
/// error. Writes and digests between the calls would let the kernel conclude that the receive window
/// needs no growth.
fn fill(socket: &mut impl Socket, buffer: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut count = 0;
    while count < buffer.len() {
        match socket.recv(&mut buffer[count..]) {
            // If bytes were received before, the next step returns the end again.
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) => return (count, Some(error)),
        }
    }
    (count, None)
}

/// Converts a number of bytes or an error into a step.
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

/// Result of splicing bytes out of a socket.
enum Spliced {
    /// All bytes are in the file.
    All(usize),
    /// The file does not support splice: `stuck` bytes are still in the pipe.
    Stuck { moved: usize, stuck: usize },
    /// The socket does not support splice, or there is no pipe: no byte was taken.
    NotOffered,
}

/// Waits until the socket has bytes or an end to receive; returns false after `limit`.
fn wait_readable(socket: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let mut entry = [sys::wait::readable(&socket)];
    Ok(sys::wait::wait(&mut entry, Some(Instant::now() + limit))? > 0)
}
