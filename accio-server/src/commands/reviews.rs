//! The files that wait for the decision of `--accept-if`, as the server sees them.
//!
//! At most as many files as there may be commands are with the helper at a time; the others wait in
//! the order in which they were complete. So a command starts as soon as its file is sent.

use std::collections::{BTreeMap, VecDeque};
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

const HELPER_IS_GONE: &str = "the helper of --accept-if has ended";

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
        while let Some((review, descriptor)) = self.next() {
            self.pass_on(review, &descriptor);
        }
    }

    /// Passes a file to the helper.
    fn pass_on(&self, review: Review, descriptor: &OwnedFd) {
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
            return self.reject(review, HELPER_IS_GONE);
        }
        // Insert it before sending it, because the decision may come at once.
        state.running.insert(id, (review, Instant::now()));
        drop(state);
        if let Err(error) = message::send(&self.socket, &job, Some(descriptor)) {
            let review = self.lock().running.remove(&id);
            if let Some((review, _)) = review {
                self.reject(review, &format!("cannot run the command: {}", os_error_text(&error)));
            }
        }
    }

    /// Waits for the next file and for a free command.
    fn next(&self) -> Option<(Review, OwnedFd)> {
        let mut state = self.lock();
        loop {
            if state.stopping || state.gone {
                return None;
            }
            let is_late = |(_, since): &(Review, Instant)| since.elapsed() > self.patience;
            let late = state.running.iter().filter(|(_, running)| is_late(running));
            let late: Vec<_> = late.map(|(id, _)| *id).collect();
            let overdue: Vec<_> = late
                .iter()
                .filter_map(|id| state.running.remove(id))
                .map(|(review, _)| review)
                .collect();
            if !overdue.is_empty() {
                drop(state);
                for review in overdue {
                    log::error!(
                        "connection {}: no answer from the helper of --accept-if",
                        review.connection.id
                    );
                    review.reject("the helper of --accept-if does not answer");
                }
                state = self.lock();
                continue;
            }
            if state.running.len() < self.jobs
                && let Some(review) = state.waiting.pop_front()
            {
                drop(state);
                match review.descriptor() {
                    Ok(Some(descriptor)) => return Some((review, descriptor)),
                    Ok(None) => self.reject(review, "the file has no descriptor"),
                    Err(error) => {
                        let why = format!("cannot pass the file on: {}", os_error_text(&error));
                        self.reject(review, &why);
                    }
                }
                state = self.lock();
                continue;
            }
            let is_idle = state.running.is_empty();
            state = match is_idle {
                true => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                false => {
                    let waited = self.changed.wait_timeout(state, Duration::from_secs(1));
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
    use std::net::{Shutdown as End, TcpStream};
    use std::sync::mpsc;

    use accio_proto::{DirSink, Server};
    use rustix::net::{SendFlags, send};

    use super::*;

    /// The helper can fail between two steps of the thread that passes files to it, and without ending.
    #[test]
    fn a_file_that_is_passed_on_after_the_helper_failed_is_rejected() {
        let (socket, helper) = message::pair().unwrap();
        let reviews = Reviews {
            socket,
            jobs: 1,
            patience: Duration::from_secs(60),
            state: Mutex::default(),
            changed: Condvar::new(),
        };
        let dir = tempfile::tempdir().unwrap();
        let (push, pushed) = mpsc::channel();
        let server = Server::builder(DirSink::create(dir.path()).unwrap())
            .reviewer(move |review| push.send(review).unwrap())
            .bind("127.0.0.1:0")
            .unwrap();
        let (address, handle) = (server.local_addr(), server.handle());
        let running = thread::spawn(move || server.run());
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.read_exact(&mut [0; 7]).unwrap();
        client.write_all(b"content").unwrap();
        client.shutdown(End::Write).unwrap();
        reviews.push(pushed.recv_timeout(Duration::from_secs(20)).unwrap());
        let (review, descriptor) = reviews.next().unwrap();
        send(&helper, b"no decision", SendFlags::empty()).unwrap();
        reviews.read();
        reviews.pass_on(review, &descriptor);
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        handle.stop();
        running.join().unwrap().unwrap();
        assert!(reviews.next().is_none(), "no further file");
    }
}
