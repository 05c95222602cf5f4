//! Standard error of a server, or of a client while it sends: threads queue their lines, and a
//! single thread writes them.
//!
//! If stderr is not read (a full pipe, or Ctrl-S in a terminal), only the writing thread blocks.
//! Lines that do not fit into the queue are dropped and counted.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use log::{Level, LevelFilter};

/// Maximum number of bytes in the queue: about two thousand lines.
const CAPACITY: usize = 256 << 10;

/// Maximum number of bytes per write. A pipe accepts this much as a unit (`PIPE_BUF`), so that
/// output of other processes does not come in between.
const BATCH: usize = 4096;

/// How long a server waits for the last lines to be written before it exits.
const LAST_LINES: Duration = Duration::from_millis(100);

static LOG: LogWriter = LogWriter {
    queue: Mutex::new(Queue {
        started: false,
        waits_at_exit: false,
        lines: VecDeque::new(),
        bytes: 0,
        writing: false,
        dropped: 0,
    }),
    queued: Condvar::new(),
    written: Condvar::new(),
};

thread_local! {
    /// Whether this is the writing thread, whose own lines are never dropped.
    static IS_WRITER: Cell<bool> = const { Cell::new(false) };
}

struct LogWriter {
    queue: Mutex<Queue>,
    queued: Condvar,
    written: Condvar,
}

struct Queue {
    started: bool,
    /// Whether the process waits for its last lines however long that takes.
    waits_at_exit: bool,
    lines: VecDeque<Vec<u8>>,
    /// Total size of the queued lines.
    bytes: usize,
    /// Whether lines that were taken from the queue are being written.
    writing: bool,
    /// Number of lines dropped since they were last reported.
    dropped: u64,
}

/// A destination for `env_logger`.
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        write(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to stderr: directly before [`start`], through the queue afterwards.
pub(crate) fn write(lines: &[u8]) {
    if LOG.push(lines) {
        LOG.queued.notify_one();
    } else {
        // There is no way to report that stderr is closed.
        let _ = io::stderr().lock().write_all(lines);
    }
}

/// Lets a background thread write to stderr, for a program whose output must be complete.
///
/// From then on log lines do not block; they are dropped if stderr is not read. Before a line that
/// must not be dropped, call [`wait_for_stderr`]. The program waits for its last lines before it
/// ends.
///
/// # Errors
///
/// Fails if the thread cannot be started.
pub fn write_stderr_in_background() -> io::Result<()> {
    start()?;
    LOG.lock().waits_at_exit = true;
    Ok(())
}

/// Waits until further lines are not dropped. Returns immediately if no thread writes to stderr.
pub fn wait_for_stderr() {
    let mut queue = LOG.lock();
    while !queue.has_room() {
        queue = LOG.written.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Waits for the last lines before the process exits.
pub(crate) fn flush_at_exit() {
    let waits = LOG.lock().waits_at_exit;
    flush(if waits { Duration::MAX } else { LAST_LINES });
}

/// Starts the writing thread. From now on, writing to stderr does not block other threads.
pub(crate) fn start() -> io::Result<()> {
    thread::Builder::new().name("accio-log".to_owned()).spawn(|| {
        IS_WRITER.set(true);
        LOG.run();
    })?;
    LOG.lock().started = true;
    std::panic::set_hook(Box::new(|panic| {
        let name = thread::current().name().unwrap_or("without a name").to_owned();
        write(format!("thread {name:?} {panic}\n").as_bytes());
        // The process may be about to abort.
        flush(LAST_LINES);
    }));
    Ok(())
}

/// Waits until everything is written, for at most `limit`.
pub(crate) fn flush(limit: Duration) {
    let began = Instant::now();
    let mut queue = LOG.lock();
    while queue.writing || !queue.lines.is_empty() {
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            return;
        }
        let waited = LOG.written.wait_timeout(queue, left);
        queue = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

impl LogWriter {
    /// Queues lines or drops them; returns false if the writing thread has not been started.
    fn push(&self, lines: &[u8]) -> bool {
        let mut queue = self.lock();
        if !queue.started {
            return false;
        }
        queue.push(lines, IS_WRITER.get());
        true
    }

    fn run(&self) {
        loop {
            let (batch, dropped) = self.take();
            // There is no way to report that stderr is closed.
            let _ = io::stderr().lock().write_all(&batch);
            if dropped > 0 {
                let level =
                    if log::max_level() < LevelFilter::Warn { Level::Error } else { Level::Warn };
                log::log!(level, "stderr was not read: {dropped} lines are missing here");
            }
            let mut queue = self.lock();
            queue.writing = false;
            if queue.has_room() {
                self.written.notify_all();
            }
        }
    }

    /// Waits for lines; returns them with the number of lines dropped after them.
    fn take(&self) -> (Vec<u8>, u64) {
        let mut queue = self.lock();
        while queue.lines.is_empty() {
            queue = self.queued.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.writing = true;
        queue.take()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change under this lock is complete before anything could panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Returns whether some further lines will not be dropped.
    fn has_room(&self) -> bool {
        self.dropped == 0 && self.bytes <= CAPACITY / 2
    }

    fn push(&mut self, lines: &[u8], always: bool) {
        // Once a line is dropped, the following lines are dropped until the queue is empty, so that
        // the report appears exactly where lines are missing.
        let has_room = self.dropped == 0 && self.bytes + lines.len() <= CAPACITY;
        if always || has_room {
            self.bytes += lines.len();
            self.lines.push_back(lines.to_vec());
        } else {
            self.dropped += 1;
        }
    }

    fn take(&mut self) -> (Vec<u8>, u64) {
        let mut batch = Vec::new();
        while let Some(line) = self.lines.front()
            && (batch.is_empty() || batch.len() + line.len() <= BATCH)
        {
            batch.extend_from_slice(line);
            self.bytes -= line.len();
            self.lines.pop_front();
        }
        let dropped = if self.lines.is_empty() { std::mem::take(&mut self.dropped) } else { 0 };
        (batch, dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        Queue {
            started: true,
            waits_at_exit: false,
            lines: VecDeque::new(),
            bytes: 0,
            writing: false,
            dropped: 0,
        }
    }

    #[test]
    fn drops_lines_that_do_not_fit_and_reports_them_in_place() {
        let mut queue = queue();
        let line = [b'x'; 1024];
        for _ in 0..CAPACITY / line.len() + 3 {
            queue.push(&line, false);
        }
        assert_eq!((queue.bytes, queue.dropped, queue.has_room()), (CAPACITY, 3, false));
        let (batch, dropped) = queue.take();
        assert_eq!((batch.len(), dropped), (BATCH, 0));
        // There is room, but earlier lines are missing.
        queue.push(b"later", false);
        assert_eq!(queue.dropped, 4);
        let mut reported = 0;
        while !queue.lines.is_empty() {
            reported += queue.take().1;
        }
        assert_eq!((reported, queue.bytes, queue.has_room()), (4, 0, true));
        queue.push(b"next", false);
        assert_eq!(queue.take(), (b"next".to_vec(), 0));
    }

    #[test]
    fn writes_a_long_line_as_a_whole() {
        let mut queue = queue();
        queue.push(&[b'x'; 2 * BATCH], false);
        queue.push(b"y", false);
        assert_eq!(queue.take().0.len(), 2 * BATCH);
        assert_eq!(queue.take().0, b"y");
    }
}
