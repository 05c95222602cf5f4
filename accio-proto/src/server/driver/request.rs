//! The requests of a handle, for event loops.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::server::handle::Controls;

/// The descriptor of the stop or drain request of a [`ServerHandle`](crate::ServerHandle), which
/// becomes readable once and stays so.
#[derive(Debug)]
pub struct Request {
    controls: Arc<Controls>,
    is_drain: bool,
}

impl Request {
    pub(super) fn new(controls: &Arc<Controls>, is_drain: bool) -> Self {
        Request { controls: Arc::clone(controls), is_drain }
    }
}

impl AsFd for Request {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.is_drain {
            true => self.controls.drain.as_fd(),
            false => self.controls.stop.as_fd(),
        }
    }
}
