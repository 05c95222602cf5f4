//! Errors that prevent or end serving.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::limits;
use crate::os_error::reason;

/// The error with which a server does not start or stops by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is invalid, its host name did not resolve, or there is none. Correct it.
    #[error("cannot listen: invalid address: {}", reason(.0))]
    Address(io::Error),
    /// Listening failed: the address is in use or not one of this machine, or the port needs a privilege.
    /// Stop the other program, or use another address or port.
    #[error("cannot listen on {address}: {}", reason(cause))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// A time limit of the builder is zero or above [`limits::MAX_TIMEOUT`]. Correct the value.
    #[error(
        "a time limit of {} s: must be above 0 and at most {} s",
        .0.as_secs_f64(),
        limits::MAX_TIMEOUT.as_secs()
    )]
    Timeout(Duration),
    /// The number of workers is above [`limits::MAX_WORKERS`]. Correct the value.
    #[error("{0} workers: must be at most {max}; the default is one per core", max = limits::MAX_WORKERS)]
    Workers(NonZeroUsize),
    /// The system refused an event queue, a descriptor or a thread: raise the limits of the process. Or
    /// the server was built for another [`Threading`](super::Threading) than the called function needs.
    #[error("cannot start the workers: {}", reason(.0))]
    Start(io::Error),
    /// The event queue failed while serving, or the runtime ended. Unfinished transfers were aborted;
    /// start another server.
    #[error("cannot continue: {}", reason(.0))]
    Serve(io::Error),
}
