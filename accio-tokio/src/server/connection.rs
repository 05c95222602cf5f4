//! The task of one connection.

use std::future::Future;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use accio_proto::driver::{Driver, Ending, Live, Lost, Step};
use accio_proto::{Abort, FileSink, Interest};
use tokio::io::Interest as Events;
use tokio::sync::{oneshot, watch};
use tokio::time::Sleep;

use super::bridge::Bridge;
use super::shared::{Phase, Place, Shared, wait_for};
use crate::registration::{Registration, register};
use crate::sink::AsyncFileSink;

/// Where the calls of a sink run, and what happens between them.
pub(super) trait Calls<K: FileSink>: Copy + Send + Sync + 'static {
    /// Number of turns in a row that a connection with input takes before other tasks run.
    const TURNS: usize;

    /// Whether a connection is finished in the same call as its last turn.
    const FINISHES: bool;

    /// Runs calls of the sink.
    fn call<T: Send + 'static>(
        self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Broken>> + Send;

    /// Does the work of the sink after a turn.
    fn after_turn(
        self,
        driver: &Driver<K>,
        live: &mut Live<K>,
    ) -> impl Future<Output = Result<(), Abort>> + Send;

    /// Does the work of the sink after the last turn.
    fn after_last_turn(
        self,
        driver: &Driver<K>,
        ending: &mut Ending<K>,
    ) -> impl Future<Output = Result<(), Abort>> + Send;

    /// Does the work of the sink before [`Driver::finish`].
    fn before_end(
        self,
        driver: &Driver<K>,
        ending: &mut Ending<K>,
    ) -> impl Future<Output = ()> + Send;

    /// Does the work of the sink before [`Driver::abandon`].
    fn before_abandon(self, driver: &Driver<K>, lost: &Lost) -> impl Future<Output = ()> + Send;
}

/// Why a call did not return.
pub(super) enum Broken {
    /// It panicked.
    Panic,
    /// The runtime ends.
    Shutdown,
}

/// Calls that may block, on the runtime's threads for blocking work.
#[derive(Debug, Clone, Copy)]
pub(super) struct InBlockingPool;

impl<K: FileSink> Calls<K> for InBlockingPool {
    /// 8 MiB: a call on another thread costs some microseconds.
    const TURNS: usize = 8;

    const FINISHES: bool = true;

    async fn call<T: Send + 'static>(
        self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Broken> {
        tokio::task::spawn_blocking(call).await.map_err(|error| match error.is_panic() {
            true => Broken::Panic,
            false => Broken::Shutdown,
        })
    }

    async fn after_turn(self, _: &Driver<K>, _: &mut Live<K>) -> Result<(), Abort> {
        Ok(())
    }

    async fn after_last_turn(self, _: &Driver<K>, _: &mut Ending<K>) -> Result<(), Abort> {
        Ok(())
    }

    async fn before_end(self, _: &Driver<K>, _: &mut Ending<K>) {}

    async fn before_abandon(self, _: &Driver<K>, _: &Lost) {}
}

/// Calls that do not block, in the task of the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct InTask;

impl<A: AsyncFileSink> Calls<Bridge<A>> for InTask {
    /// The sink stores the bytes of each turn before the next one.
    const TURNS: usize = 1;

    const FINISHES: bool = false;

    async fn call<T: Send + 'static>(
        self,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Broken> {
        caught(call)
    }

    async fn after_turn(
        self,
        driver: &Driver<Bridge<A>>,
        live: &mut Live<Bridge<A>>,
    ) -> Result<(), Abort> {
        let Some(file) = live.file_mut() else { return Ok(()) };
        if file.has_work() {
            let started = Instant::now();
            file.work(driver.sink()).await?;
            live.resume(started);
        }
        Ok(())
    }

    async fn after_last_turn(
        self,
        driver: &Driver<Bridge<A>>,
        ending: &mut Ending<Bridge<A>>,
    ) -> Result<(), Abort> {
        if ending.is_complete() {
            ending.open(driver);
        }
        // The sink may have rejected the file.
        if ending.is_complete()
            && let Some(file) = ending.file_mut()
        {
            file.work(driver.sink()).await?;
        }
        Ok(())
    }

    async fn before_end(self, driver: &Driver<Bridge<A>>, ending: &mut Ending<Bridge<A>>) {
        driver.sink().end(ending).await;
    }

    async fn before_abandon(self, driver: &Driver<Bridge<A>>, lost: &Lost) {
        if let Some(connection) = driver.describe(lost) {
            driver.sink().mark_later(&connection).await;
        }
    }
}

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
        // Neither the socket nor the sink may ever make this task wait.
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

/// Turns a panic, which the program's hook has reported, into an error. What the call owned is lost.
fn caught<T>(call: impl FnOnce() -> T) -> Result<T, Broken> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| Broken::Panic)
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
