//! Sending the content.

use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::connection::{Connection, Received, unblocked};
use super::error::ClientError;
use super::rate_limit::RateLimiter;
use super::source::{FileState, OutcomeOf, PollRead, Source, SourceKind};
use super::tls_failure::TlsFailure;
use crate::fast_path::{FastPath, FastPaths};
use crate::program_log as log;
use crate::sys::client::{is_gone, wait_source};
use crate::sys::send::{send_file, send_pipe, widen};
use crate::sys::socket::Moved;
use crate::tuning::client::{PROGRESS_INTERVAL, SEND_BUFFER, SEND_CHUNK};

/// Number of bytes after which other tasks of the runtime run (1 MiB): a socket that always has room
/// would keep the thread.
const PAUSE_EVERY: usize = 1 << 20;

/// Result of one step.
enum Pushed {
    Bytes(usize),
    Full,
    /// The next bytes were read but not sent yet.
    Read,
    /// The source has ended.
    End,
}

impl Connection<'_> {
    /// Passes all of the source to the kernel.
    pub(super) async fn send(&mut self, source: &mut Source<'_>) -> Result<(), ClientError> {
        let read_error = |cause| ClientError::Read { cause };
        let total = source.size().map_err(read_error)?;
        let state = match &source.kind {
            SourceKind::File(file) => Some(FileState::of(file).map_err(read_error)?),
            SourceKind::Stream(..) | SourceKind::Read(_) | SourceKind::Poll(_) => None,
        };
        let now = Instant::now();
        self.progress.start(total, now);
        let mut limiter = self.settings.config.rate_limit.map(|rate| RateLimiter::new(rate, now));
        let mut pump = Pump::new(source, &self.settings.fast_paths);
        if !self.transport.is_plain() || self.hasher.is_some() {
            pump.fast = None;
        }
        // The number of bytes sent since other tasks could run.
        let mut since_pause = 0;
        loop {
            if since_pause >= PAUSE_EVERY {
                since_pause = 0;
                self.sleep(Duration::ZERO).await;
            }
            let now = Instant::now();
            self.check_time(now)?;
            self.progress.tick(now);
            let budget = match limiter.as_mut().map_or(Ok(SEND_CHUNK), |limiter| limiter.ask(now)) {
                Ok(budget) => budget,
                Err(pause) => {
                    self.pause(None, pause).await?;
                    continue;
                }
            };
            if let Some(source) = pump.waits_for()
                && !self.pause(Some(source), PROGRESS_INTERVAL).await?
            {
                continue;
            }
            if !self.fill(&mut pump).await? {
                continue;
            }
            let stalled_at = self.progress.still_at(self.settings.config.stall_timeout);
            let ready = self
                .wait(true, self.slice(now, stalled_at))
                .await
                .map_err(|cause| ClientError::Local { what: "wait for the server", cause })?;
            if ready.receive {
                self.check_open()?;
            }
            let pushed = if ready.send { pump.push(self, budget)? } else { Pushed::Full };
            let count = if let Pushed::Bytes(count) = pushed { count } else { 0 };
            let written = self.transport.take_written(count);
            if written > 0 {
                self.progress.add_written(written, Instant::now());
            }
            match pushed {
                Pushed::Bytes(count) => {
                    since_pause += count;
                    self.progress.add_content(count);
                    if let Some(limiter) = &mut limiter {
                        limiter.spend(count);
                    }
                }
                // A slow source is not a stall.
                Pushed::Read => {
                    let now = Instant::now();
                    if self.progress.stillness(now) > PROGRESS_INTERVAL {
                        self.progress.rest(now);
                    }
                }
                Pushed::End => break,
                Pushed::Full => {
                    let now = Instant::now();
                    self.progress.look(now);
                    if self.progress.stillness(now) >= self.settings.config.stall_timeout {
                        return Err(self.stalled());
                    }
                    if ready.send && written == 0 {
                        // The socket has room but accepts nothing: the kernel is short of memory.
                        // Avoid a busy loop.
                        self.sleep(Duration::from_millis(1)).await;
                    }
                }
            }
        }
        if let Some(expected) = total.filter(|total| self.progress.sent() < *total) {
            let misreports = match (&source.kind, state) {
                (SourceKind::File(file), Some(state)) => {
                    state.misreports_length(file).map_err(read_error)?
                }
                _ => false,
            };
            if !misreports {
                return Err(ClientError::Shrank { expected, found: self.progress.sent() });
            }
            log::debug!("the file reports {expected} bytes and has {}", self.progress.sent());
            self.progress.set_total(self.progress.sent());
        }
        match &mut source.outcome {
            Some(outcome) => self.await_outcome(&mut **outcome).await,
            None => Ok(()),
        }
    }

    /// Waits until the source reports whether it was complete, and watches the server.
    async fn await_outcome(&mut self, outcome: &mut OutcomeOf<'_>) -> Result<(), ClientError> {
        let mut step = Duration::from_millis(1);
        loop {
            if let Some(outcome) = outcome() {
                return outcome.map_err(|cause| ClientError::Read { cause });
            }
            self.check_time(Instant::now())?;
            self.pause(None, step).await?;
            step = (step * 2).min(PROGRESS_INTERVAL);
        }
    }

    /// Waits for the source, if there is a descriptor, and watches the server, for at most `time`.
    /// Returns whether the source is ready.
    ///
    /// A server that owes no acknowledgement may be silent as long as the source is.
    async fn pause(
        &mut self,
        source: Option<BorrowedFd<'_>>,
        time: Duration,
    ) -> Result<bool, ClientError> {
        let time = self.within_limit(time.min(PROGRESS_INTERVAL));
        let found = match source {
            Some(source) => wait_source(&self.stream, source, time),
            None => self.wait(false, time).await.map(|ready| (ready.receive, false)),
        };
        let (receive, ready) =
            found.map_err(|cause| ClientError::Local { what: "wait for the server", cause })?;
        if receive {
            self.check_open()?;
        }
        if !ready || self.progress.stillness(Instant::now()) > PROGRESS_INTERVAL {
            let now = Instant::now();
            self.progress.rest(now);
            if self.progress.stillness(now) >= self.settings.config.stall_timeout {
                return Err(self.stalled());
            }
        }
        Ok(ready)
    }

    /// Reads the next bytes of a source that is polled, and watches the server at the same time. Returns
    /// false if no bytes have arrived yet.
    async fn fill(&mut self, pump: &mut Pump<'_>) -> Result<bool, ClientError> {
        if !pump.is_polled() || !pump.unsent.is_empty() || pump.has_ended {
            return Ok(true);
        }
        let limit = self.within_limit(PROGRESS_INTERVAL);
        let waited = {
            let mut server = pin!(self.watched(limit));
            poll_fn(|context| match pump.poll(context) {
                Poll::Ready(read) => Poll::Ready(read.map(|()| None)),
                Poll::Pending => match server.as_mut().poll(context) {
                    Poll::Ready(Ok(ready)) => Poll::Ready(Ok(Some(ready))),
                    Poll::Ready(Err(cause)) => {
                        let what = "wait for the server";
                        Poll::Ready(Err(ClientError::Local { what, cause }))
                    }
                    Poll::Pending => Poll::Pending,
                },
            })
            .await?
        };
        match waited {
            // A slow source is not a stall.
            None => {
                let now = Instant::now();
                if self.progress.stillness(now) > PROGRESS_INTERVAL {
                    self.progress.rest(now);
                }
                Ok(true)
            }
            Some(ready) => {
                if ready.receive {
                    self.check_open()?;
                }
                self.pause(None, Duration::ZERO).await?;
                Ok(false)
            }
        }
    }

    /// Drops received bytes, and returns an error if the server has closed or reset the connection.
    pub(super) fn check_open(&mut self) -> Result<(), ClientError> {
        let (peer, sent) = (self.peer, self.progress.sent());
        let error = match self.drop_input() {
            // A `sendfile` that sent some bytes has used up the error of a reset.
            Ok(Received::Fin) if is_gone(&self.stream) => ClientError::Reset { peer, sent },
            Ok(Received::Fin) => ClientError::ClosedEarly { peer, sent },
            Ok(Received::Bytes(_) | Received::Nothing) => return Ok(()),
            Err(error) => return Err(self.broken(error)),
        };
        Err(self.or_requires_tls(error))
    }

    /// Returns the error for a connection that failed while content was being sent.
    pub(super) fn broken(&mut self, cause: io::Error) -> ClientError {
        let (peer, sent) = (self.peer, self.progress.sent());
        let cause = match TlsFailure::of(cause) {
            Ok(cause) => return ClientError::Tls { peer, end_sent: false, cause },
            Err(cause) => cause,
        };
        let error = match cause.kind() {
            // After a reset has been reported once, the system returns "broken pipe" or "not
            // connected".
            ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected
            | ErrorKind::ConnectionAborted => ClientError::Reset { peer, sent },
            ErrorKind::TimedOut => self.stalled(),
            _ => ClientError::Send { peer, sent, end_sent: false, cause },
        };
        self.or_requires_tls(error)
    }
}

/// The source, sent by the kernel or through a buffer. Both use the position of the descriptor, so
/// one can replace the other at any byte.
struct Pump<'s> {
    input: Input<'s>,
    /// The fast path in use, if any.
    fast: Option<FastPath>,
    /// Allocated on first use.
    buffer: Vec<u8>,
    /// The part of `buffer` that was read but not sent yet.
    unsent: Range<usize>,
    /// Whether a source that is polled has reported its end.
    has_ended: bool,
}

enum Input<'s> {
    File(&'s File),
    Stream(&'s File),
    Read(&'s mut (dyn Read + Send)),
    Poll(&'s mut PollRead<'s>),
}

impl<'s> Pump<'s> {
    fn new(source: &'s mut Source<'_>, paths: &FastPaths) -> Self {
        let (input, fast) = match &mut source.kind {
            SourceKind::File(file) => (Input::File(file), Some(FastPath::Sendfile)),
            SourceKind::Stream(file, true) => (Input::Stream(file), Some(FastPath::Splice)),
            SourceKind::Stream(file, false) => (Input::Stream(file), None),
            SourceKind::Read(reader) => (Input::Read(&mut **reader), None),
            SourceKind::Poll(read) => (Input::Poll(&mut **read), None),
        };
        let fast = fast.filter(|path| paths.has(*path));
        if let (Some(FastPath::Splice), Input::Stream(pipe)) = (fast, &input) {
            widen(pipe);
        }
        Pump { input, fast, buffer: Vec::new(), unsent: 0..0, has_ended: false }
    }

    /// Returns the descriptor that must be readable before the next step.
    fn waits_for(&self) -> Option<BorrowedFd<'s>> {
        match self.input {
            Input::Stream(file) if self.unsent.is_empty() => Some(file.as_fd()),
            _ => None,
        }
    }

    /// Sends up to `budget` bytes.
    fn push(
        &mut self,
        connection: &mut Connection<'_>,
        budget: usize,
    ) -> Result<Pushed, ClientError> {
        if let (Some(path), Input::File(file) | Input::Stream(file)) = (self.fast, &self.input) {
            let send = if path == FastPath::Sendfile { send_file } else { send_pipe };
            match send(&connection.stream, file, budget.min(SEND_CHUNK)) {
                Moved::Queued(0) => return Ok(Pushed::End),
                Moved::Queued(count) => return Ok(Pushed::Bytes(count)),
                Moved::Full => return Ok(Pushed::Full),
                Moved::Broken(error) => return Err(connection.broken(error)),
                Moved::Refused(error) => connection.settings.fast_paths.refused(path, error),
                Moved::Fault => {}
            }
            self.fast = None;
        }
        if self.unsent.is_empty() {
            return self.read();
        }
        let end = self.unsent.end.min(self.unsent.start.saturating_add(budget));
        let bytes = &self.buffer[self.unsent.start..end];
        let sent = connection.transport.send(&connection.stream, bytes);
        match unblocked(sent).map_err(|error| connection.broken(error))? {
            Some(count) => {
                if let Some(hasher) = &mut connection.hasher {
                    hasher.update(&bytes[..count]);
                }
                self.unsent.start += count;
                Ok(Pushed::Bytes(count))
            }
            None => Ok(Pushed::Full),
        }
    }

    fn is_polled(&self) -> bool {
        matches!(self.input, Input::Poll(_))
    }

    /// Polls the source for its next bytes.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let Input::Poll(read) = &mut self.input else { return Poll::Ready(Ok(())) };
        self.buffer.resize(SEND_BUFFER, 0);
        match read(context, &mut self.buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => {
                self.has_ended = true;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(count)) => {
                self.unsent = 0..count;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(cause)) => Poll::Ready(Err(ClientError::Read { cause })),
        }
    }

    /// Reads the next bytes into the buffer.
    fn read(&mut self) -> Result<Pushed, ClientError> {
        self.buffer.resize(SEND_BUFFER, 0);
        let result = match &mut self.input {
            Input::File(file) | Input::Stream(file) => file.read(&mut self.buffer),
            Input::Read(reader) => reader.read(&mut self.buffer),
            // It is empty only at its end.
            Input::Poll(_) => Ok(0),
        };
        match result {
            Ok(0) => Ok(Pushed::End),
            Ok(count) => {
                self.unsent = 0..count;
                Ok(Pushed::Read)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(Pushed::Read),
            // Another process has read the bytes, or the descriptor is non-blocking.
            Err(error)
                if error.kind() == ErrorKind::WouldBlock
                    && matches!(self.input, Input::Stream(_)) =>
            {
                Ok(Pushed::Read)
            }
            Err(cause) => Err(ClientError::Read { cause }),
        }
    }
}
