//! Where the calls of a sink run: on threads for blocking work, or in the task of a connection.

use std::future::Future;
use std::time::Instant;

use accio_proto::driver::{Driver, Ending, Live, Lost};
use accio_proto::{Abort, FileSink, panics};

use super::bridge::Bridge;
use crate::sink::AsyncFileSink;

/// Where the calls of a sink run, and what happens between them.
pub(super) trait Calls<K: FileSink>: Copy + Send + Sync + 'static {
    /// Number of turns in a row that a connection with input takes before other tasks run.
    const TURNS: usize;

    /// Whether turns run in the task of their connection.
    const IN_TASK: bool;

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

    const IN_TASK: bool = false;

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

    const IN_TASK: bool = true;

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

/// Turns a panic, which the program's hook has reported, into an error. What the call owned is lost.
pub(super) fn caught<T>(call: impl FnOnce() -> T) -> Result<T, Broken> {
    panics::caught(call).ok_or(Broken::Panic)
}
