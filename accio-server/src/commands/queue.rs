//! The queue of files that wait for their command, and the count of files that did not fit.

use std::io::{self, Write};
use std::process::ChildStdin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use accio_cli::Failure;
use accio_proto::os_error_text;

use super::setup::Job;

/// Minimum interval between log lines about lost commands.
const INTERVAL: Duration = Duration::from_secs(1);

/// A bounded queue, drained by a thread that writes to the helper's pipe.
#[derive(Debug)]
pub(super) struct Queue {
    sender: SyncSender<Job>,
    feeder: JoinHandle<()>,
    lost: Arc<Lost>,
}

impl Queue {
    /// Starts the thread, which inherits the sandbox of the calling thread.
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

    /// Adds a file; counts it as lost if the queue is full. Never waits.
    pub(super) fn push(&self, job: Job) {
        match self.sender.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => self.lost.add(job.id, QUEUE_IS_FULL),
            Err(TrySendError::Disconnected(job)) => self.lost.add(job.id, HELPER_IS_GONE),
        }
    }

    /// Returns the number of files without a command so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.total.load(Ordering::Relaxed)
    }

    /// Closes the queue; its remaining files still go to the helper. Call the returned function
    /// once the helper has ended: it logs the files that were lost.
    pub(super) fn close(self) -> impl FnOnce() {
        let Queue { sender, feeder, lost } = self;
        drop(sender);
        move || {
            // The thread ends when the queue is closed.
            let _ = feeder.join();
            lost.report(None);
        }
    }
}

const QUEUE_IS_FULL: &str = "the queue is full: raise --on-commit-queue or --on-commit-jobs";
const HELPER_IS_GONE: &str = "the helper process has ended";

/// Passes files to the helper until the queue is closed. After the helper has ended, it counts them: a
/// file that is queued at that moment must not disappear together with the queue.
fn feed(queue: &Receiver<Job>, pipe: ChildStdin, lost: &Lost) {
    let mut pipe = Some(pipe);
    loop {
        match queue.recv_timeout(INTERVAL) {
            Ok(job) => {
                let sent = pipe.as_mut().map(|pipe| send(&job, pipe));
                if let Some(Err(error)) = &sent {
                    log::debug!("cannot write to the helper of --on-commit: {error}");
                    pipe = None;
                }
                if !matches!(sent, Some(Ok(()))) {
                    lost.add(job.id, HELPER_IS_GONE);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        lost.report(Some(Instant::now()));
    }
}

fn send(job: &Job, pipe: &mut ChildStdin) -> io::Result<()> {
    // Serializing numbers and an address cannot fail.
    let mut line = serde_json::to_vec(job).unwrap_or_default();
    line.push(b'\n');
    pipe.write_all(&line)
}

/// Counts files without a command, and logs at most one line per second about them.
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

    /// Logs the files that were not logged yet, unless the last line is too recent at `now`. `None`
    /// logs them in any case.
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
        // Every change under this lock is complete before anything could panic.
        self.unreported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    #[test]
    fn counts_files_that_do_not_fit_into_the_queue() {
        // `sleep` does not read, so the pipe fills up, and then the queue.
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::piped()).spawn().unwrap();
        let queue = Queue::start(10, child.stdin.take().unwrap()).unwrap();
        for id in 0..100_000 {
            queue.push(Job { id, bytes: 0, peer: None, identity: None, digest: None });
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
    fn counts_files_queued_when_the_helper_ends() {
        let mut child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let pipe = child.stdin.take().unwrap();
        child.wait().unwrap();
        wait_until_broken(&pipe);
        let queue = Queue::start(100, pipe).unwrap();
        for id in 0..50 {
            queue.push(Job { id, bytes: 0, peer: None, identity: None, digest: None });
        }
        let lost = Arc::clone(&queue.lost);
        queue.close()();
        assert_eq!(lost.total.load(Ordering::Relaxed), 50);
        assert_eq!(lost.lock().count, 0, "all are logged");
    }

    /// Otherwise a file queued right before the thread ends would be neither passed on nor counted.
    #[test]
    fn the_queue_stays_open_after_the_helper_has_ended() {
        let mut child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let pipe = child.stdin.take().unwrap();
        child.wait().unwrap();
        wait_until_broken(&pipe);
        let queue = Queue::start(100, pipe).unwrap();
        for id in 1..=2 {
            let job = Job { id, bytes: 0, peer: None, identity: None, digest: None };
            queue.sender.try_send(job).unwrap();
            let start = Instant::now();
            while queue.lost() < id && start.elapsed() < Duration::from_secs(20) {
                thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(queue.lost(), id);
        }
        queue.close()();
    }

    /// Waits until nothing has the pipe's other end open: a child that another test starts at the
    /// same time has it until its program begins.
    fn wait_until_broken(pipe: &ChildStdin) {
        let mut entries = [PollFd::new(pipe, PollFlags::empty())];
        let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(poll(&mut entries, Some(&limit)), Ok(1), "the pipe never breaks");
    }
}
