//! Why a server does not serve.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::limits;
use crate::os_error::reason;

/// Why a server does not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The address is none, or a host name that has none.
    #[error("cannot listen: no such address: {}", reason(.0))]
    Address(io::Error),
    /// The address cannot be listened on: it is in use, not this machine's, or needs a privilege.
    #[error("cannot listen on {address}: {}", reason(cause))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: io::Error,
    },
    /// A time limit of nothing, or above [`limits::MAX_TIMEOUT`].
    #[error(
        "a time limit of {} s: must be above 0 and at most {} s",
        .0.as_secs_f64(),
        limits::MAX_TIMEOUT.as_secs()
    )]
    Timeout(Duration),
    /// More workers than [`limits::MAX_WORKERS`].
    #[error("{0} workers: at most {max}: leave it to the number of cores", max = limits::MAX_WORKERS)]
    Workers(NonZeroUsize),
    /// The system refused an event queue or a thread.
    #[error("cannot start the workers: {}", reason(.0))]
    Start(io::Error),
    /// The event queue failed while serving; unfinished transfers are aborted.
    #[error("cannot go on: {}", reason(.0))]
    Serve(io::Error),
}
