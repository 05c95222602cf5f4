//! The files that wait for the decision of `--accept-if`, as the server sees them.
//!
//! At most as many files as there may be commands are with the helper at a time; the others wait in
//! the order in which they were complete. So a command starts as soon as its file is sent.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use accio_cli::Failure;
use accio_proto::{Review, os_error_text};
use rustix::net::{Shutdown, shutdown};

use super::message::{self, Decision};
use super::setup::{AcceptIf, Job};

/// How much later than the timeout of a command a missing decision counts as a failed helper.
const SLACK: Duration = Duration::from_secs(5);

/// Interval at which the server looks for missing decisions.
const LOOK: Duration = Duration::from_secs(1);

const HELPER_IS_GONE: &str = "the helper of --accept-if has ended";

/// A file to be sent, and since when there has been a free command for it.
type Sending = (Review, Instant);

/// Files under review.
#[derive(Debug)]
pub(crate) struct Reviews {
    socket: OwnedFd,
    jobs: usize,
    /// How long the helper may take for one file.
    patience: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Review>,
    /// Files that the helper has, and since when.
    running: BTreeMap<u64, (Review, Instant)>,
    /// The server is stopping and ends all connections itself.
    stopping: bool,
    /// The helper has ended.
    gone: bool,
}

impl Reviews {
    /// Starts the threads. They inherit the sandbox of the calling thread.
    pub(super) fn start(socket: OwnedFd, accept_if: &AcceptIf) -> Result<Arc<Self>, Failure> {
        let reviews = Arc::new(Reviews {
            socket,
            jobs: accept_if.jobs.get(),
            patience: accept_if.timeout + SLACK,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let (feeder, reader) = (Arc::clone(&reviews), Arc::clone(&reviews));
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(work)
                .map(drop)
                .map_err(|error| Failure::new("cannot start a thread", os_error_text(&error)))
        };
        spawn("accio-review", Box::new(move || feeder.feed()))?;
        spawn("accio-decision", Box::new(move || reader.read()))?;
        Ok(reviews)
    }

    /// Queues a complete file; never waits.
    pub(crate) fn push(&self, review: Review) {
        let mut state = self.lock();
        if state.gone && !state.stopping {
            drop(state);
            return review.reject(HELPER_IS_GONE);
        }
        state.waiting.push_back(review);
        drop(state);
        self.changed.notify_one();
    }

    /// Ends the running commands. From now on there are no decisions: the server aborts the files.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_one();
        if let Err(error) = shutdown(&self.socket, Shutdown::Both) {
            log::debug!("cannot tell the helper of --accept-if to stop: {error}");
        }
    }

    /// Passes files to the helper, until the server stops or the helper is gone.
    fn feed(&self) {
        let mut unsent = VecDeque::new();
        while let Some(next) = self.next(&mut unsent) {
            let (id, since) = (next.0.connection.id, next.1);
            if let Some(review) = self.pass_on(next) {
                // The helper reads nothing at the moment, or has failed; `next` finds out which.
                unsent.push_front((review, since));
                if let Err(error) = message::wait_for_room(&self.socket, LOOK) {
                    log::debug!("connection {id}: cannot wait for the helper: {error}");
                }
            }
        }
        unsent.into_iter().for_each(|(review, _)| self.reject(review, HELPER_IS_GONE));
    }

    /// Passes a file to the helper. Returns it if there is no room for it at the moment.
    fn pass_on(&self, (review, since): Sending) -> Option<Review> {
        let descriptor = match review.descriptor() {
            Ok(Some(descriptor)) => descriptor,
            Ok(None) => {
                self.reject(review, "the file has no descriptor");
                return None;
            }
            Err(error) => {
                let why = format!("cannot pass the file on: {}", os_error_text(&error));
                self.reject(review, &why);
                return None;
            }
        };
        let job = Job {
            id: review.connection.id,
            bytes: review.bytes,
            peer: review.connection.peer,
            identity: review.connection.identity.as_deref().map(str::to_owned),
            digest: review.digest.map(|digest| digest.to_string()),
        };
        let id = review.connection.id;
        let mut state = self.lock();
        if state.gone {
            // The thread that found the helper gone has rejected the others already.
            drop(state);
            self.reject(review, HELPER_IS_GONE);
            return None;
        }
        // Insert it before sending it, because the decision may come immediately.
        state.running.insert(id, (review, since));
        drop(state);
        // Do not wait: a helper that hangs would delay every later file, and hide that it hangs.
        let Err(error) = message::try_send(&self.socket, &job, Some(&descriptor)) else {
            return None;
        };
        let (review, _) = self.lock().running.remove(&id)?;
        if error.kind() == io::ErrorKind::WouldBlock {
            return Some(review);
        }
        self.reject(review, &format!("cannot run the command: {}", os_error_text(&error)));
        None
    }

    /// Waits for the next file and for a free command. `unsent` contains files for which there was a
    /// free command, but no room in the socket.
    fn next(&self, unsent: &mut VecDeque<Sending>) -> Option<Sending> {
        let mut state = self.lock();
        loop {
            if state.stopping || state.gone {
                return None;
            }
            let is_late = |since: &Instant| since.elapsed() > self.patience;
            let late = state.running.iter().filter(|(_, (_, since))| is_late(since));
            let late: Vec<_> = late.map(|(id, _)| *id).collect();
            let mut overdue: Vec<_> =
                late.iter().filter_map(|id| state.running.remove(id)).collect();
            while unsent.front().is_some_and(|(_, since)| is_late(since)) {
                overdue.extend(unsent.pop_front());
            }
            if !overdue.is_empty() {
                drop(state);
                for (review, _) in overdue {
                    log::error!(
                        "connection {}: no answer from the helper of --accept-if",
                        review.connection.id
                    );
                    review.reject("the helper of --accept-if does not answer");
                }
                state = self.lock();
                continue;
            }
            while state.running.len() + unsent.len() < self.jobs
                && let Some(review) = state.waiting.pop_front()
            {
                unsent.push_back((review, Instant::now()));
            }
            if let Some(next) = unsent.pop_front() {
                return Some(next);
            }
            let is_idle = state.running.is_empty();
            state = match is_idle {
                true => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                false => {
                    let waited = self.changed.wait_timeout(state, LOOK);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Carries out the decisions of the helper.
    fn read(&self) {
        loop {
            match message::receive::<Decision>(&self.socket) {
                Ok(Some((Decision { id, rejected }, _))) => {
                    let review = self.lock().running.remove(&id);
                    self.changed.notify_one();
                    match (review, rejected) {
                        (None, _) => {}
                        (Some((review, _)), None) => review.accept(),
                        (Some((review, _)), Some(why)) => review.reject(why),
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    log::debug!("the helper of --accept-if: {error}");
                    break;
                }
            }
        }
        let mut state = self.lock();
        state.gone = true;
        self.changed.notify_one();
        if state.stopping {
            return;
        }
        let waiting = std::mem::take(&mut state.waiting);
        let running = std::mem::take(&mut state.running);
        drop(state);
        log::error!("{HELPER_IS_GONE}: every file is rejected until the server is restarted");
        waiting
            .into_iter()
            .chain(running.into_values().map(|(review, _)| review))
            .for_each(|review| review.reject(HELPER_IS_GONE));
    }

    /// Rejects a file, unless the server stops, which has its own reason for all files.
    fn reject(&self, review: Review, why: &str) {
        let mut state = self.lock();
        if state.stopping {
            state.waiting.push_back(review);
            return;
        }
        drop(state);
        log::error!("connection {}: {why}", review.connection.id);
        review.reject(why);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown as End, SocketAddr, TcpStream};
    use std::sync::mpsc;
    use std::thread::JoinHandle;

    use accio_harness::peer::read;
    use accio_proto::{DirSink, Server, ServerError, ServerHandle};
    use rustix::net::{SendFlags, send};

    use super::*;

    /// A server whose reviews the test passes on, and the end of its clients' uploads.
    struct Uploads {
        pushed: mpsc::Receiver<Review>,
        address: SocketAddr,
        handle: ServerHandle,
        running: JoinHandle<Result<(), ServerError>>,
        _dir: tempfile::TempDir,
    }

    impl Uploads {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (push, pushed) = mpsc::channel();
            let server = Server::builder(DirSink::create(dir.path()).unwrap())
                .reviewer(move |review| push.send(review).unwrap())
                .bind("127.0.0.1:0")
                .unwrap();
            let (address, handle) = (server.local_addr(), server.handle());
            let running = thread::spawn(move || server.run());
            Uploads { pushed, address, handle, running, _dir: dir }
        }

        /// Uploads a file; returns its client, which has no answer yet, and its review.
        fn upload(&self) -> (TcpStream, Review) {
            let mut client = TcpStream::connect(self.address).unwrap();
            client.set_read_timeout(Some(BOUND)).unwrap();
            client.read_exact(&mut [0; 7]).unwrap();
            client.write_all(b"content").unwrap();
            client.shutdown(End::Write).unwrap();
            (client, self.pushed.recv_timeout(BOUND).unwrap())
        }

        fn stop(self) {
            self.handle.stop();
            self.running.join().unwrap().unwrap();
        }
    }

    const BOUND: Duration = Duration::from_secs(20);

    fn reviews(socket: OwnedFd, jobs: usize, patience: Duration) -> Reviews {
        let (state, changed) = (Mutex::default(), Condvar::new());
        Reviews { socket, jobs, patience, state, changed }
    }

    fn assert_reset(client: TcpStream) {
        let error = read(client, &mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    /// The helper can fail between two steps of the thread that passes files to it, and without ending.
    #[test]
    fn a_file_that_is_passed_on_after_the_helper_failed_is_rejected() {
        let (socket, helper) = message::pair().unwrap();
        let reviews = reviews(socket, 1, Duration::from_secs(60));
        let uploads = Uploads::new();
        let (client, review) = uploads.upload();
        reviews.push(review);
        let mut unsent = VecDeque::new();
        let next = reviews.next(&mut unsent).unwrap();
        send(&helper, b"no decision", SendFlags::empty()).unwrap();
        reviews.read();
        assert!(reviews.pass_on(next).is_none(), "it is not sent later");
        assert_reset(client);
        uploads.stop();
        assert!(reviews.next(&mut unsent).is_none(), "no further file");
    }

    /// A helper that hangs reads nothing, so its socket can be full.
    #[test]
    fn a_full_socket_delays_neither_the_end_of_patience_nor_later_files() {
        let (socket, helper) = message::pair().unwrap();
        let reviews = Arc::new(reviews(socket, 100, Duration::from_millis(300)));
        let (uploads, mut filled) = (Uploads::new(), 0);
        while message::try_send(&reviews.socket, &"full", None).is_ok() {
            filled += 1;
        }
        let feeder = Arc::clone(&reviews);
        let feeding = thread::spawn(move || feeder.feed());
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let (client, review) = uploads.upload();
                reviews.push(review);
                client
            })
            .collect();
        waiting.into_iter().for_each(assert_reset);
        for _ in 0..filled {
            message::receive::<String>(&helper).unwrap().unwrap();
        }
        let (client, review) = uploads.upload();
        let id = review.connection.id;
        reviews.push(review);
        let (job, descriptor) = message::receive::<Job>(&helper).unwrap().unwrap();
        assert!(job.id == id && descriptor.is_some());
        reviews.stop();
        feeding.join().unwrap();
        uploads.stop();
        assert_reset(client);
    }
}
