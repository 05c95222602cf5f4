//! The task of one connection.

use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use accio_proto::driver::{Ending, Live, Lost, Step};
use accio_proto::{Abort, FileSink, Interest};
use tokio::io::Interest as Events;
use tokio::sync::{oneshot, watch};
use tokio::time::Sleep;

use super::calls::{Broken, Calls, caught};
use super::shared::{Phase, Place, Shared, wait_for};
use crate::registration::{Registration, register};

/// The reason why a connection gets a turn or ends.
enum Woken {
    Turn,
    End(Abort),
}

/// The next action after some turns.
enum After<K: FileSink> {
    Step(Step<K>),
    /// The connection was finished.
    Finished,
}

/// Serves a connection that was just accepted until its end.
pub(super) async fn serve<K: FileSink, C: Calls<K>>(
    shared: Arc<Shared<K, C>>,
    step: Step<K>,
    place: Place,
) {
    let mut phase = shared.phase.subscribe();
    let mut place = Some(place);
    let mut registration: Option<Registration> = None;
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    let mut next = match step {
        Step::Waiting(live) => {
            let lost = live.lost();
            caught(|| shared.driver.greet(live)).map_err(|broken| (lost, broken))
        }
        ended => Ok(ended),
    };
    loop {
        let step = match next {
            Ok(step) => step,
            Err((lost, broken)) => return lose(&shared, lost, broken).await,
        };
        let mut live = match step {
            Step::Waiting(live) => live,
            Step::Ended(ending) => {
                drop(registration.take());
                return end(&shared, ending, place.take(), &mut phase).await;
            }
            Step::Refused(refused) => {
                drop(registration.take());
                return refused.close();
            }
        };
        let worked = tokio::select! {
            biased;
            worked = shared.calls.after_turn(&shared.driver, &mut live) => worked,
            () = is_stopping(&mut phase) => Err(Abort::Shutdown),
        };
        let lost = live.lost();
        let woken = match worked {
            Ok(()) => wait(&shared, &mut registration, &mut timer, &mut live, &mut phase).await,
            Err(why) => Woken::End(why),
        };
        next = match woken {
            Woken::End(why) => caught(|| shared.driver.abort(live, why)),
            Woken::Turn => {
                let turns = take_turns(&shared, live, registration.take(), place.take()).await;
                match turns {
                    Ok((After::Step(step), watched, held)) => {
                        (registration, place) = (watched, held);
                        Ok(step)
                    }
                    Ok((After::Finished, ..)) => return,
                    Err(broken) => Err(broken),
                }
            }
        }
        .map_err(|broken| (lost, broken));
    }
}

/// Gives a connection its turns and, if its file is complete afterwards, finishes it in the same
/// call.
async fn take_turns<K: FileSink, C: Calls<K>>(
    shared: &Arc<Shared<K, C>>,
    live: Live<K>,
    registration: Option<Registration>,
    place: Option<Place>,
) -> Result<(After<K>, Option<Registration>, Option<Place>), Broken> {
    if !live.may_block() {
        let driver = &shared.driver;
        let turn = |copier: &mut _| driver.take_turn(live, copier);
        let step = caught(|| shared.copiers.with(|| driver.copier(), turn))?;
        return Ok((After::Step(step), registration, place));
    }
    let shared_here = Arc::clone(shared);
    let turns = move || {
        let driver = &shared_here.driver;
        let create = || driver.copier();
        let step = shared_here.copiers.with(create, |copier| {
            let mut step = driver.take_turn(live, copier);
            for _ in 1..C::TURNS {
                step = match step {
                    Step::Waiting(live) if live.is_ready() => driver.take_turn(live, copier),
                    step => return step,
                };
            }
            step
        });
        match step {
            Step::Ended(ending) if C::FINISHES && !(ending.is_complete() && driver.reviews()) => {
                drop(registration);
                shared_here.discard(driver.finish(ending, move || Place::free(place)));
                (After::Finished, None, None)
            }
            step => (After::Step(step), registration, place),
        }
    };
    let taken = shared.calls.call(turns).await;
    if !C::FINISHES {
        // Yield: the socket and the sink may always be ready, so that this task would never wait.
        tokio::task::yield_now().await;
    }
    taken
}

impl<K: FileSink, C> Shared<K, C> {
    /// Drops the discarded file of a connection, and lets the sink tidy up: once for many files. The
    /// connection has been reported, so a panic must not report it again.
    fn discard(&self, file: Option<K::File>) {
        if file.is_none() {
            return;
        }
        // The program's hook has reported a panic.
        let _ = caught(|| drop(file));
        if self.discarded.fetch_add(1, Ordering::SeqCst) > 0 {
            return;
        }
        loop {
            let before = self.discarded.load(Ordering::SeqCst);
            let _ = caught(|| self.driver.tidy());
            let order = Ordering::SeqCst;
            if self.discarded.compare_exchange(before, 0, order, order).is_ok() {
                return;
            }
        }
    }
}

/// Reviews, commits or aborts the file of a connection.
async fn end<K: FileSink, C: Calls<K>>(
    shared: &Arc<Shared<K, C>>,
    mut ending: Ending<K>,
    place: Option<Place>,
    phase: &mut watch::Receiver<Phase>,
) {
    let lost = ending.lost();
    let worked = tokio::select! {
        biased;
        worked = shared.calls.after_last_turn(&shared.driver, &mut ending) => worked,
        () = is_stopping(phase) => Err(Abort::Shutdown),
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
                    () = is_stopping(phase) => {}
                }
                match pending.take() {
                    Some(ending) => ending,
                    None => return,
                }
            }
            Err(broken) => return lose(shared, lost, broken).await,
        };
    }
    shared.calls.before_end(&shared.driver, &mut ending).await;
    let shared_here = Arc::clone(shared);
    let finish = move || {
        shared_here.discard(shared_here.driver.finish(ending, move || Place::free(place)));
    };
    if let Err(broken) = shared.calls.call(finish).await {
        lose(shared, lost, broken).await;
    }
}

/// Reports a connection whose turn panicked.
async fn lose<K: FileSink, C: Calls<K>>(shared: &Shared<K, C>, lost: Lost, broken: Broken) {
    if let Broken::Panic = broken {
        shared.calls.before_abandon(&shared.driver, &lost).await;
        let driver = shared.driver.clone();
        let _ = shared.calls.call(move || driver.abandon(lost)).await;
    }
}

/// Waits for the socket of a connection, its deadline, or the stop.
async fn wait<K: FileSink, C>(
    shared: &Shared<K, C>,
    registration: &mut Option<Registration>,
    timer: &mut Option<Pin<Box<Sleep>>>,
    live: &mut Live<K>,
    phase: &mut watch::Receiver<Phase>,
) -> Woken {
    let events = match live.interest() {
        Interest::Read => Events::READABLE,
        Interest::ReadWrite => Events::READABLE | Events::WRITABLE,
    };
    let registered = match registration {
        Some(registered) => registered,
        None => match register(live.as_fd(), Events::READABLE | Events::WRITABLE) {
            Ok(registered) => registration.insert(registered),
            Err(error) => return Woken::End(Abort::System(error)),
        },
    };
    let deadline = tokio::time::Instant::from_std(live.deadline(&shared.driver));
    let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
    loop {
        tokio::select! {
            biased;
            () = is_stopping(phase) => return Woken::End(Abort::Shutdown),
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

async fn is_stopping(phase: &mut watch::Receiver<Phase>) {
    wait_for(phase, |phase| phase == Phase::Stopping).await;
}
