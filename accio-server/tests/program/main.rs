//! Tests of the program from an operator's point of view: flags, output, journal, signals, exit
//! codes.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

mod accept_if;
mod addresses;
#[cfg(feature = "metrics")]
mod balanced;
mod diagnostics;
#[cfg(feature = "digest")]
mod digest;
mod drain;
mod durable;
mod file_systems;
mod files;
mod harness;
mod inodes;
mod journal;
mod limits;
mod man_page;
mod metrics;
#[cfg(feature = "store")]
mod network;
mod on_commit;
mod proxied;
mod sandbox;
mod start_checks;
mod status;
#[cfg(feature = "metrics")]
mod status_in_browser;
#[cfg(feature = "store-core")]
mod store;
mod systemd;
#[cfg(feature = "tls")]
mod tls;
mod usage;
mod verify;
