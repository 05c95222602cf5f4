//! Tests of the public items that need no server under load: one program, because each further one takes a
//! second to compile and link.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[cfg(all(feature = "client", feature = "server", feature = "serde"))]
mod config;
#[cfg(feature = "io")]
mod copier;
#[cfg(feature = "digest")]
mod digests;
mod handshake_properties;
#[cfg(feature = "digest")]
mod reading_back;
mod readme;
#[cfg(feature = "io")]
mod session_limits;
#[cfg(all(feature = "server", target_os = "linux"))]
mod threads_refused;
#[cfg(all(feature = "client", feature = "server", feature = "tracing"))]
mod tracing;
