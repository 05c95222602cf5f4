//! System calls of the servers that differ between systems. `build.rs` selects an implementation.

#[cfg_attr(linux_sys, path = "linux.rs")]
#[cfg_attr(not(linux_sys), path = "portable.rs")]
mod imp;

pub(super) use imp::*;
