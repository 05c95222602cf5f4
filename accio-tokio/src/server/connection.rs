//! A connection: a task waits for its socket, and its turns run where the sink may be called.

use std::mem;
use std::os::fd::AsFd;
use std::sync::Arc;

use accio_proto::driver::{Ending, Live, Lost, Step};
use accio_proto::{Abort, FileSink, Interest};
use tokio::io::Interest as Events;
use tokio::sync::{oneshot, watch::Receiver};

use super::calls::{Broken, Calls, caught};
use super::share::Share;
use super::shared::{Belongings, Finishing, Phase, Place, Shared, Unreported, wait_for};
use super::turn_queue::{Request, TICK};
use crate::registration::register;

/// A connection in service, except for its session.
pub(super) struct Served<K: FileSink, C> {
    shared: Arc<Shared<K, C>>,
    own: Belongings,
}

/// The reason why a connection gets a turn or ends.
enum Woken {
    Turn,
    End(Abort),
}

/// The state of a connection after a turn, unless the turn panicked.
pub(super) type Stepped<K> = Result<Step<K>, (Lost, Broken)>;

impl<K: FileSink, C: Calls<K>> Served<K, C> {
    pub(super) fn new(shared: Arc<Shared<K, C>>, place: Place, unreported: Unreported) -> Self {
        let phase = shared.phase.subscribe();
        let own = Belongings { phase, registration: None, timer: None, place, unreported };
        Served { shared, own }
    }

    /// Sends the greeting of a connection that was just accepted.
    pub(super) fn greet(&self, step: Step<K>) -> Stepped<K> {
        match step {
            Step::Waiting(live) => {
                let lost = live.lost();
                caught(|| self.shared.driver.greet(live)).map_err(|broken| (lost, broken))
            }
            ended => Ok(ended),
        }
    }

    /// Serves the connection until its end, or until a thread for blocking work continues with it.
    pub(super) async fn serve(mut self, mut next: Stepped<K>) {
        loop {
            let step = match next {
                Ok(step) => step,
                Err((lost, broken)) => return lose(&self.shared, lost, broken).await,
            };
            let mut live = match step {
                Step::Waiting(live) => live,
                Step::Ended(ending) => return self.end(ending).await,
                Step::Refused(refused) => {
                    drop(self.own.registration.take());
                    return refused.close();
                }
            };
            let shared = &self.shared;
            let worked = tokio::select! {
                biased;
                worked = shared.calls.after_turn(&shared.driver, &mut live) => worked,
                () = is_stopping(&mut self.own.phase) => Err(Abort::Shutdown),
            };
            let lost = live.lost();
            let woken = match worked {
                Ok(()) => self.wait(&mut live).await,
                Err(why) => Woken::End(why),
            };
            let may_block = live.may_block();
            let stepped = match woken {
                Woken::End(why) => caught(|| self.shared.driver.abort(live, why)),
                Woken::Turn if may_block && !C::IN_TASK => return self.pass_on(live),
                Woken::Turn => caught(|| take_turns(&self.shared, live, || false)),
            };
            next = stepped.map_err(|broken| (lost, broken));
            if may_block {
                // Yield: socket and sink may always be ready, so that this task would never wait.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Passes the connection to a thread for blocking work, which also finishes it if its turns were
    /// the last ones; otherwise a new task waits for the next event. A task that waited for the thread
    /// would have to be woken for each small upload, only to find that it has ended.
    fn pass_on(self, live: Live<K>) {
        let Served { shared, own } = self;
        match shared.turns.add((live, own)) {
            Request::Nothing => {}
            Request::Thread => start_thread(shared),
            Request::Watch => drop(tokio::spawn(watch(shared))),
        }
    }

    /// Gives the connection its turns, and finishes it or starts a task that waits for the next event.
    fn serve_on_thread(self, live: Live<K>, share: &Share) {
        let lost = live.lost();
        let shared = Arc::clone(&self.shared);
        let _unreported = self.own.unreported.clone();
        let stepped = caught(|| match take_turns(&shared, live, || share.is_late()) {
            Step::Ended(ending) if !(ending.is_complete() && shared.driver.reviews()) => {
                let Belongings { registration, place, unreported, .. } = self.own;
                // The peer is not notified while the socket is watched.
                drop(registration);
                shared.finish(Finishing { ending, place, unreported });
            }
            step => drop(tokio::spawn(self.serve(Ok(step)))),
        });
        if stepped.is_err() {
            shared.driver.abandon(lost);
        }
    }

    /// Waits for the socket of the connection, its deadline, or the stop.
    async fn wait(&mut self, live: &mut Live<K>) -> Woken {
        let events = match live.interest() {
            Interest::Read => Events::READABLE,
            Interest::ReadWrite => Events::READABLE | Events::WRITABLE,
        };
        let registered = match &mut self.own.registration {
            Some(registered) => registered,
            None => match register(live.as_fd(), Events::READABLE | Events::WRITABLE) {
                Ok(registered) => self.own.registration.insert(registered),
                Err(error) => return Woken::End(Abort::System(error)),
            },
        };
        let deadline = tokio::time::Instant::from_std(live.deadline(&self.shared.driver));
        let timer = &mut self.own.timer;
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        loop {
            tokio::select! {
                biased;
                () = is_stopping(&mut self.own.phase) => return Woken::End(Abort::Shutdown),
                ready = registered.ready(events) => match ready {
                    // The event may be an old one: the turn that followed it has consumed its bytes.
                    Ok(mut ready) if !live.is_ready() => ready.clear_ready(),
                    Ok(_) => return Woken::Turn,
                    Err(error) => return Woken::End(Abort::System(error)),
                },
                () = timer.as_mut() => {
                    // Deadlines only move later, so the timer is set again only when it has passed.
                    if deadline <= tokio::time::Instant::now() {
                        return Woken::Turn;
                    }
                    timer.as_mut().reset(deadline);
                }
            }
        }
    }

    /// Reviews, commits or aborts the file of the connection.
    async fn end(self, mut ending: Ending<K>) {
        let Served { shared, own } = self;
        let Belongings { mut phase, registration, timer, place, unreported } = own;
        // The peer is not notified while the socket is watched.
        drop((registration, timer));
        // A file in a group may be reported after this task has ended, and a panic before.
        let _unreported = unreported.clone();
        let lost = ending.lost();
        let worked = tokio::select! {
            biased;
            worked = shared.calls.after_last_turn(&shared.driver, &mut ending) => worked,
            () = is_stopping(&mut phase) => Err(Abort::Shutdown),
        };
        if let Err(why) = worked {
            ending.fail(why);
        }
        if ending.is_complete() && shared.driver.reviews() {
            let (decide, decided) = oneshot::channel::<()>();
            let driver = shared.driver.clone();
            let review = move || driver.review(ending, move || drop(decide));
            ending = match shared.calls.call(review).await {
                Ok(Err(unprepared)) => *unprepared,
                Ok(Ok(pending)) => {
                    tokio::select! {
                        biased;
                        _ = decided => {}
                        () = is_stopping(&mut phase) => {}
                    }
                    match pending.take() {
                        Some(ending) => ending,
                        None => return,
                    }
                }
                Err(broken) => return lose(&shared, lost, broken).await,
            };
        }
        shared.calls.before_end(&shared.driver, &mut ending).await;
        let here = Arc::clone(&shared);
        let finish = move || here.finish(Finishing { ending, place, unreported });
        if let Err(broken) = shared.calls.call(finish).await {
            lose(&shared, lost, broken).await;
        }
    }
}

/// Starts a thread that gives connections their turns until none waits or its [share](Share) is used
/// up.
fn start_thread<K: FileSink, C: Calls<K>>(shared: Arc<Shared<K, C>>) {
    tokio::task::spawn_blocking(move || {
        let thread = TurnThread(shared);
        let mut share = Share::begin();
        let mut is_first = true;
        // The first turn is taken in any case, however late the thread begins.
        while (share.lasts() || is_first)
            && let Some((live, own)) = thread.0.turns.take(mem::take(&mut is_first))
        {
            Served { shared: Arc::clone(&thread.0), own }.serve_on_thread(live, &share);
        }
    });
}

/// A thread that takes turns. If turns wait when it ends, even by a panic, another one continues.
struct TurnThread<K: FileSink, C: Calls<K>>(Arc<Shared<K, C>>);

impl<K: FileSink, C: Calls<K>> Drop for TurnThread<K, C> {
    fn drop(&mut self) {
        if self.0.turns.leave() {
            start_thread(Arc::clone(&self.0));
        }
    }
}

/// Starts further threads while turns wait, because the others may be blocked.
async fn watch<K: FileSink, C: Calls<K>>(shared: Arc<Shared<K, C>>) {
    let mut added = 0;
    loop {
        tokio::time::sleep(TICK).await;
        let Some((now, threads)) = shared.turns.tick(added) else { return };
        (0..threads).for_each(|_| start_thread(Arc::clone(&shared)));
        added = now;
    }
}

/// Gives a connection its turns: one, and others until `is_late`.
fn take_turns<K: FileSink, C: Calls<K>>(
    shared: &Shared<K, C>,
    live: Live<K>,
    is_late: impl Fn() -> bool,
) -> Step<K> {
    let driver = &shared.driver;
    let turns = if live.may_block() { C::TURNS } else { 1 };
    let create = || driver.copier();
    shared.copiers.with(create, |copier| {
        let mut step = driver.take_turn(live, copier);
        for _ in 1..turns {
            step = match step {
                Step::Waiting(live) if !is_late() && live.is_ready() => {
                    driver.take_turn(live, copier)
                }
                step => return step,
            };
        }
        step
    })
}

/// Reports a connection whose turn panicked.
async fn lose<K: FileSink, C: Calls<K>>(shared: &Shared<K, C>, lost: Lost, broken: Broken) {
    if let Broken::Panic = broken {
        shared.calls.before_abandon(&shared.driver, &lost).await;
        let driver = shared.driver.clone();
        let _ = shared.calls.call(move || driver.abandon(lost)).await;
    }
}

async fn is_stopping(phase: &mut Receiver<Phase>) {
    wait_for(phase, |phase| phase == Phase::Stopping).await;
}
