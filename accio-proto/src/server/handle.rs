//! Stopping a server, and asking what it does.

use std::io;
use std::sync::Arc;

use super::stats::{Counters, Stats};
use crate::sys::signal::Signal;

/// Stops a server from elsewhere, and tells what it does. Clones are of the same one.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    controls: Arc<Controls>,
}

/// What a server and its handles share.
#[derive(Debug)]
pub(super) struct Controls {
    pub(super) stop: Signal,
    pub(super) drain: Signal,
    pub(super) counters: Counters,
}

impl Controls {
    pub(super) fn new() -> io::Result<Self> {
        let (stop, drain) = (Signal::new()?, Signal::new()?);
        Ok(Controls { stop, drain, counters: Counters::default() })
    }
}

impl ServerHandle {
    pub(super) fn new(controls: Arc<Controls>) -> Self {
        ServerHandle { controls }
    }

    /// Stops the server: it accepts no more, aborts what is unfinished and returns from
    /// [`Server::run`]. Harmless when it stopped already or has yet to run.
    pub fn stop(&self) {
        self.controls.stop.raise();
    }

    /// Lets the server finish: it listens no more, and returns from [`Server::run`] when the last
    /// connection in service has ended. [`stop`](ServerHandle::stop) still cuts that short.
    pub fn drain(&self) {
        self.controls.drain.raise();
    }

    /// What the server has done so far.
    pub fn stats(&self) -> Stats {
        self.controls.counters.stats()
    }
}
