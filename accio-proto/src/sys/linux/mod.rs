//! System calls of Linux.

#[cfg(feature = "server")]
pub(crate) mod accept;
#[cfg(feature = "server")]
pub(crate) mod cpu_time;
pub(crate) mod discard;
#[cfg(feature = "server")]
pub(crate) mod event_queue;
pub(crate) mod pipe;
#[cfg(feature = "client")]
pub(crate) mod send;
#[cfg(feature = "server")]
pub(crate) mod signal;
#[cfg(feature = "client")]
pub(crate) mod unacked;
pub(crate) mod unnamed_file;
