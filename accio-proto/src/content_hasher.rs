//! The digest of a session's content, which several threads may receive in turns.
//!
//! Content is hashed from the memory that it was received into or, once the session is bulk, read
//! back from its file, where it is by then without a copy through the process. Hashing then lags
//! behind receiving, so that a thread which has just received content and parked the connection
//! hashes while others continue the transfer.

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::hasher::Hasher;
use crate::sys::file as calls;
use crate::tuning::{HASH_AFTER, HASH_SHARE, MAX_UNHASHED, READ_BACK_MIN, READ_BACK_PIECE};

/// Computes the digest of a session's content, in the order of the content. Dropping it ends the
/// hashing in other threads, without waiting for them.
#[derive(Debug)]
pub(crate) struct ContentHasher {
    shared: Arc<Shared>,
    source: Source,
}

/// Where the next bytes are hashed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// From memory, until there is enough content to ask the file.
    Undecided,
    Memory,
    File,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Notified after each change of the state except `received`, which nothing waits for.
    changed: Condvar,
}

/// No thread holds the lock while it reads or hashes.
#[derive(Debug)]
struct State {
    /// Taken by the thread that hashes, until it has finished.
    work: Option<Box<Work>>,
    /// Number of bytes hashed.
    hashed: u64,
    /// Number of bytes that can be read back, or `hashed` if that is more.
    received: u64,
    /// Whether hashing has failed or is no longer needed; there is no work then.
    is_over: bool,
    failure: Option<io::Error>,
}

impl State {
    fn left(&self) -> u64 {
        self.received - self.hashed
    }
}

/// The hasher and the file, for the thread that hashes.
#[derive(Debug)]
struct Work {
    hasher: Hasher,
    /// The content, if it is read back.
    file: Option<OwnedFd>,
}

impl ContentHasher {
    #[cfg(feature = "digest")]
    pub(crate) fn new(hasher: Hasher) -> Self {
        let state = State {
            work: Some(Box::new(Work { hasher, file: None })),
            hashed: 0,
            received: 0,
            is_over: false,
            failure: None,
        };
        let shared = Shared { state: Mutex::new(state), changed: Condvar::new() };
        ContentHasher { shared: Arc::new(shared), source: Source::Undecided }
    }

    /// Adds the bytes at `offset` of the content, which the file has already. Waits until all bytes
    /// before them are hashed, unless content is read back.
    pub(crate) fn update(&self, offset: u64, bytes: &[u8]) {
        match self.source {
            Source::File => self.received(offset + bytes.len() as u64),
            _ => self.shared.update(offset, bytes),
        }
    }

    /// Returns the first `count` bytes of `buffer`, those at `offset` of the content, as bytes to be
    /// hashed later. The thread that holds them must not wait for another one before it hashes them.
    pub(crate) fn later(&self, offset: u64, buffer: Vec<u8>, count: usize) -> Pending {
        Pending { shared: Arc::clone(&self.shared), offset, buffer, count }
    }

    /// Returns whether content is read back.
    pub(crate) fn reads_back(&self) -> bool {
        self.source == Source::File
    }

    /// Begins to read content back, if `length` bytes are enough for that and `open`, which is called at
    /// most once, returns the file. Waits until these bytes are hashed, so the caller must not hold any
    /// of them. Returns whether content is read back from now on.
    pub(crate) fn begin_reading_back(
        &mut self,
        length: u64,
        open: impl FnOnce() -> Option<OwnedFd>,
    ) -> bool {
        if self.source == Source::Undecided && length >= READ_BACK_MIN {
            // Set before the call, which may panic.
            self.source = Source::Memory;
            if let Some(file) = open()
                && let Some(mut hashing) = self.shared.begin(length)
                && let Some(work) = &mut hashing.work
            {
                work.file = Some(file);
                self.source = Source::File;
            }
        }
        self.reads_back()
    }

    /// Records that the file has `length` bytes.
    pub(crate) fn received(&self, length: u64) {
        let mut state = self.shared.lock();
        state.received = state.received.max(length);
    }

    /// Returns once few enough bytes are left to hash: hashes them, or waits for the thread that does.
    ///
    /// # Errors
    ///
    /// Returns the error of reading content back, in this thread or another one.
    pub(crate) fn limit_lag(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let mut state = self.shared.lock();
        loop {
            if state.is_over {
                return Err(failure(&mut state));
            }
            if state.left() < MAX_UNHASHED {
                return Ok(());
            }
            state = match state.work.take() {
                Some(work) => {
                    let hashing = Hashing::new(&self.shared, work, state);
                    hashing.read_back(piece(buffer), MAX_UNHASHED - 1, u64::MAX);
                    self.shared.lock()
                }
                None => self.shared.wait(state),
            };
        }
    }

    /// Returns the content that is left to hash, for a thread that has parked the connection.
    pub(crate) fn lag(&self) -> Lag {
        Lag(Arc::clone(&self.shared))
    }

    /// Returns the state of the digest of content with this length, once all of it is hashed, and
    /// closes the descriptor that it was read from.
    ///
    /// # Errors
    ///
    /// Returns the error of reading content back, in this thread or another one.
    pub(crate) fn complete(self, length: u64) -> io::Result<Hasher> {
        let shared = &self.shared;
        let mut state = shared.lock();
        loop {
            if state.is_over {
                return Err(failure(&mut state));
            }
            state = match state.work.take() {
                Some(work) if state.hashed >= length => {
                    state.is_over = true;
                    drop(state);
                    return Ok(work.hasher);
                }
                Some(work) if work.file.is_some() => {
                    state.received = state.received.max(length);
                    Hashing::new(shared, work, state).read_back(piece(&mut vec![]), 0, u64::MAX);
                    shared.lock()
                }
                // Other threads hash the bytes that they hold.
                work => {
                    state.work = work;
                    shared.wait(state)
                }
            };
        }
    }
}

#[cfg(all(test, feature = "digest"))]
impl ContentHasher {
    /// Returns the number of bytes hashed.
    pub(crate) fn hashed(&self) -> u64 {
        self.shared.lock().hashed
    }

    /// Hashes like another thread until the result is dropped.
    pub(crate) fn hold(&self) -> Held {
        Held { work: self.shared.lock().work.take(), shared: Arc::clone(&self.shared) }
    }
}

/// The work of a thread that hashes, in a test.
#[cfg(all(test, feature = "digest"))]
pub(crate) struct Held {
    shared: Arc<Shared>,
    work: Option<Box<Work>>,
}

#[cfg(all(test, feature = "digest"))]
impl Drop for Held {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            drop(Hashing::new(&self.shared, work, self.shared.lock()));
        }
    }
}

impl Drop for ContentHasher {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_over = true;
        let work = state.work.take();
        drop(state);
        self.shared.changed.notify_all();
        drop(work);
    }
}

/// Resizes the buffer of a thread to a piece of content at least.
fn piece(buffer: &mut Vec<u8>) -> &mut [u8] {
    if buffer.len() < READ_BACK_PIECE {
        buffer.resize(READ_BACK_PIECE, 0);
    }
    &mut buffer[..READ_BACK_PIECE]
}

fn failure(state: &mut State) -> io::Error {
    state.failure.take().unwrap_or_else(|| io::Error::other("the content was not hashed"))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is complete before anything could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the bytes before `offset` are hashed and no thread hashes. Returns `None` if
    /// hashing is over.
    fn begin(&self, offset: u64) -> Option<Hashing<'_>> {
        let mut state = self.lock();
        loop {
            if state.is_over {
                return None;
            }
            state = match state.work.take() {
                Some(work) if state.hashed >= offset => {
                    return Some(Hashing::new(self, work, state));
                }
                work => {
                    state.work = work;
                    self.wait(state)
                }
            };
        }
    }

    fn update(&self, offset: u64, bytes: &[u8]) {
        if let Some(mut hashing) = self.begin(offset) {
            hashing.hash(bytes);
        }
    }
}

/// The right to hash the next bytes, which one thread has at a time. Dropping it passes the right on.
struct Hashing<'a> {
    shared: &'a Shared,
    /// `None` while the hasher runs, and once it is passed on.
    work: Option<Box<Work>>,
    hashed: u64,
    is_passed_on: bool,
}

impl<'a> Hashing<'a> {
    /// Takes over the work, and unlocks the state.
    fn new(shared: &'a Shared, work: Box<Work>, state: MutexGuard<'_, State>) -> Self {
        Hashing { shared, work: Some(work), hashed: state.hashed, is_passed_on: false }
    }

    fn hash(&mut self, bytes: &[u8]) {
        let Some(mut work) = self.work.take() else { return };
        work.hasher.update(bytes);
        self.hashed += bytes.len() as u64;
        self.work = Some(work);
    }

    /// Reads content back and hashes it, in pieces of the size of `buffer`, until at most `enough`
    /// bytes are left or `most` bytes are hashed. Includes bytes received in the meantime.
    fn read_back(mut self, buffer: &mut [u8], enough: u64, mut most: u64) {
        loop {
            let mut state = self.shared.lock();
            state.hashed = self.hashed;
            let left = state.left();
            if left <= enough || most == 0 || state.is_over {
                // Under the same lock, so that no thread finds this one hashing after its last look
                // at what is left.
                return self.pass_on(state);
            }
            drop(state);
            // A thread may wait for the lag to decrease.
            self.shared.changed.notify_all();
            let count = left.min(most).min(buffer.len() as u64) as usize;
            match self.read(&mut buffer[..count]) {
                Ok(0) => {
                    let why = "the file is shorter than the received content";
                    return self.fail(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                }
                Ok(count) => {
                    self.hash(&buffer[..count]);
                    most -= count as u64;
                }
                Err(error) => return self.fail(error),
            }
        }
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.work.as_ref().and_then(|work| work.file.as_ref()) {
            Some(file) => calls::read_at(file, buffer, self.hashed),
            None => Err(io::Error::other("the content is not read back")),
        }
    }

    fn fail(mut self, error: io::Error) {
        self.work = None;
        let mut state = self.shared.lock();
        state.failure = Some(error);
        self.pass_on(state);
    }

    fn pass_on(&mut self, mut state: MutexGuard<'_, State>) {
        self.is_passed_on = true;
        state.hashed = self.hashed;
        state.received = state.received.max(state.hashed);
        let mut work = self.work.take();
        state.is_over |= work.is_none();
        if !state.is_over {
            state.work = work.take();
        }
        drop(state);
        self.shared.changed.notify_all();
        // If hashing is over, this closes the file, which must not happen under the lock.
        drop(work);
    }
}

impl Drop for Hashing<'_> {
    fn drop(&mut self) {
        if !self.is_passed_on {
            let state = self.shared.lock();
            self.pass_on(state);
        }
    }
}

/// Received bytes that are not hashed yet. They are hashed on drop at the latest.
#[derive(Debug)]
pub(crate) struct Pending {
    shared: Arc<Shared>,
    offset: u64,
    buffer: Vec<u8>,
    count: usize,
}

impl Pending {
    /// Hashes the bytes and returns the buffer.
    pub(crate) fn hash(mut self) -> Vec<u8> {
        self.update();
        mem::take(&mut self.buffer)
    }

    fn update(&mut self) {
        let count = mem::take(&mut self.count);
        if count > 0 {
            self.shared.update(self.offset, &self.buffer[..count]);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.update();
    }
}

/// Content that may be left to hash after a turn. Dropping it leaves that to the next turn, or to the
/// end of the session.
#[derive(Debug)]
pub(crate) struct Lag(Arc<Shared>);

impl Lag {
    /// Hashes the received bytes, and those that arrive in the meantime, if they are enough and no other
    /// thread hashes. Returns after a bounded number of bytes, because this thread has other
    /// connections as well: the thread that ends the next turn continues.
    pub(crate) fn reduce(self, buffer: &mut Vec<u8>) {
        let mut state = self.0.lock();
        if state.left() < HASH_AFTER {
            return;
        }
        if let Some(work) = state.work.take() {
            Hashing::new(&self.0, work, state).read_back(piece(buffer), 0, HASH_SHARE);
        }
    }
}
