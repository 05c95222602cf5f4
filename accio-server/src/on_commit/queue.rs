//! The files that wait for their command, and the count of those that found no room.

use std::io::Write;
use std::process::ChildStdin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use accio_cli::Failure;
use accio_proto::os_error_text;

use super::Job;

/// How often lost commands are logged at the most.
const INTERVAL: Duration = Duration::from_secs(1);

/// A bounded queue, emptied by a thread that writes to the helper's pipe.
#[derive(Debug)]
pub(super) struct Queue {
    sender: SyncSender<Job>,
    feeder: JoinHandle<()>,
    lost: Arc<Lost>,
}

impl Queue {
    /// Starts the thread. It inherits the sandbox of the calling thread.
    pub(super) fn start(size: usize, pipe: ChildStdin) -> Result<Self, Failure> {
        let (sender, receiver) = mpsc::sync_channel(size);
        let lost = Arc::new(Lost::default());
        let feeder = {
            let lost = Arc::clone(&lost);
            thread::Builder::new()
                .name("accio-on-commit".to_owned())
                .spawn(move || feed(&receiver, pipe, &lost))
                .map_err(|error| Failure::new("cannot start a thread", os_error_text(&error)))?
        };
        Ok(Queue { sender, feeder, lost })
    }

    /// Adds a file, or counts its command as lost; never waits.
    pub(super) fn push(&self, job: Job) {
        match self.sender.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => self.lost.add(job.id, QUEUE_IS_FULL),
            Err(TrySendError::Disconnected(job)) => self.lost.add(job.id, HELPER_IS_GONE),
        }
    }

    /// How many files got no command so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.total.load(Ordering::Relaxed)
    }

    /// Ends the queue: what it holds still goes to the helper. The result is to be called once the
    /// helper has ended, and logs what was lost.
    pub(super) fn close(self) -> impl FnOnce() {
        let Queue { sender, feeder, lost } = self;
        drop(sender);
        move || {
            // It ends with the queue or with the pipe.
            let _ = feeder.join();
            lost.report(None);
        }
    }
}

const QUEUE_IS_FULL: &str = "too many wait already: see --on-commit-queue and --on-commit-jobs";
const HELPER_IS_GONE: &str = "the helper process has ended";

fn feed(queue: &Receiver<Job>, mut pipe: ChildStdin, lost: &Lost) {
    loop {
        match queue.recv_timeout(INTERVAL) {
            Ok(job) => {
                // Numbers and an address always have a form in JSON.
                let mut line = serde_json::to_vec(&job).unwrap_or_default();
                line.push(b'\n');
                if let Err(error) = pipe.write_all(&line) {
                    log::debug!("cannot write to the helper of --on-commit: {error}");
                    lost.add(job.id, HELPER_IS_GONE);
                    break;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        lost.report(Some(Instant::now()));
    }
    // Including those that were queued after the helper had ended.
    while let Ok(job) = queue.try_recv() {
        lost.add(job.id, HELPER_IS_GONE);
    }
}

/// Counts files without a command, and logs them, a line per second at the most.
#[derive(Debug, Default)]
struct Lost {
    total: AtomicU64,
    unreported: Mutex<Unreported>,
}

#[derive(Debug, Default)]
struct Unreported {
    count: u64,
    last_id: u64,
    why: &'static str,
    /// When the last line was logged.
    logged: Option<Instant>,
}

impl Lost {
    fn add(&self, id: u64, why: &'static str) {
        self.total.fetch_add(1, Ordering::Relaxed);
        {
            let mut unreported = self.lock();
            unreported.count += 1;
            unreported.last_id = id;
            unreported.why = why;
        }
        self.report(Some(Instant::now()));
    }

    /// Logs what was not logged yet, unless the last line is too recent at `now`; `None` is the end.
    fn report(&self, now: Option<Instant>) {
        let mut unreported = self.lock();
        let is_recent = |logged| now.is_some_and(|now| now.duration_since(logged) < INTERVAL);
        if unreported.count == 0 || unreported.logged.is_some_and(is_recent) {
            return;
        }
        let Unreported { count, last_id, why, .. } = *unreported;
        unreported.count = 0;
        unreported.logged = now;
        drop(unreported);
        match count {
            1 => log::error!("connection {last_id}: no --on-commit command: {why}"),
            _ => log::error!(
                "{count} files up to connection {last_id}: no --on-commit command: {why}"
            ),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Unreported> {
        // Every change is complete before anything could panic.
        self.unreported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn what_finds_no_room_is_counted() {
        // Reads nothing, so that the pipe fills, and then the queue.
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::piped()).spawn().unwrap();
        let queue = Queue::start(10, child.stdin.take().unwrap()).unwrap();
        for id in 0..100_000 {
            queue.push(Job { id, bytes: 0, peer: None, identity: None });
        }
        let lost = queue.lost();
        assert!((90_000..100_000).contains(&lost), "{lost}");
        assert!(queue.lost.lock().logged.is_some());
        let finish = queue.close();
        child.kill().unwrap();
        child.wait().unwrap();
        finish();
    }

    #[test]
    fn what_is_queued_when_the_helper_ends_is_counted() {
        let mut child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let pipe = child.stdin.take().unwrap();
        child.wait().unwrap();
        let queue = Queue::start(100, pipe).unwrap();
        for id in 0..50 {
            queue.push(Job { id, bytes: 0, peer: None, identity: None });
        }
        let lost = Arc::clone(&queue.lost);
        queue.close()();
        assert_eq!(lost.total.load(Ordering::Relaxed), 50);
        assert_eq!(lost.lock().count, 0, "all are logged");
    }
}
