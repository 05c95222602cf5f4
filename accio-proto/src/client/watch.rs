//! Waiting for the connection of an upload, by the calling thread or by a runtime.

use std::future::Future;
use std::io;
use std::net::TcpStream;
use std::os::fd::BorrowedFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::sys::client::{Ready, wait};

/// Lets a runtime wait for the connection of an upload; see [`Connected::upload`](super::Connected).
/// It is dropped before the socket is closed.
pub trait Watch: Send + Sync {
    /// Waits until the socket may be read or, with `write`, written, for at most `limit`. An early
    /// return is harmless.
    ///
    /// `is_ready` asks the system. Event queues that report changes only may report one that was
    /// handled before, so call it before returning early, and wait for the next event if it is
    /// false.
    fn wait<'a>(
        &'a self,
        write: bool,
        limit: Duration,
        is_ready: &'a (dyn Fn() -> bool + Send + Sync),
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

    /// Waits for this time, whatever happens to the socket. A time of zero lets other tasks run.
    fn sleep<'a>(&'a self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;
}

/// Creates the [`Watch`] of a connection.
pub(super) type Watcher<'a> = dyn FnOnce(BorrowedFd<'_>) -> io::Result<Box<dyn Watch>> + Send + 'a;

/// Waits for a socket: blocks the thread, or passes the wait to the runtime.
pub(super) async fn wait_for(
    watch: Option<&dyn Watch>,
    stream: &TcpStream,
    write: bool,
    limit: Duration,
) -> io::Result<Ready> {
    let Some(watch) = watch else { return wait(stream, write, limit) };
    let now = || wait(stream, write, Duration::ZERO);
    let ready = now()?;
    if ready.receive || ready.send || limit.is_zero() {
        return Ok(ready);
    }
    let is_ready = || now().is_ok_and(|ready| ready.receive || ready.send);
    watch.wait(write, limit, &is_ready).await?;
    now()
}

/// Waits without a socket.
pub(super) async fn sleep(watch: Option<&dyn Watch>, time: Duration) {
    match watch {
        None => std::thread::sleep(time),
        Some(watch) => watch.sleep(time).await,
    }
}

/// Returns the result of an upload without a [`Watch`], which blocks the thread and is complete
/// when it is first polled.
pub(super) fn block<T>(upload: impl Future<Output = T>) -> T {
    let mut upload = pin!(upload);
    match upload.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("every wait blocks the thread"),
    }
}
