//! The whole server on loopback, embedded as any program would: once for each way to serve.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::duplicate_mod, reason = "a test")]

/// A few workers and an event queue.
#[path = "."]
mod reactor {
    const THREADING: accio_proto::Threading = accio_proto::Threading::Reactor;

    mod cases;
    #[path = "proxied.rs"]
    mod proxied;
    #[path = "slow_sink.rs"]
    mod slow_sink;
    #[path = "under_load.rs"]
    mod under_load;
}

/// A thread for each session.
#[path = "."]
mod per_session {
    const THREADING: accio_proto::Threading = accio_proto::Threading::PerSession;

    mod cases;
    #[path = "proxied.rs"]
    mod proxied;
}

mod choice;

/// Held by tests that measure times.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
