//! Threads of a server program.

use std::thread;

use accio_proto::os_error_text;

use crate::Failure;

/// Starts a thread called `name`.
pub(super) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| Failure::new("cannot start a thread", os_error_text(&error)))
}
