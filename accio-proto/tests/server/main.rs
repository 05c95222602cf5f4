//! Tests of the whole server on loopback, embedded as in any program, once for each threading mode.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::duplicate_mod, reason = "a test")]

/// The tests with a few workers and an event queue.
#[path = "."]
mod reactor {
    use crate::serve;

    const THREADING: accio_proto::Threading = accio_proto::Threading::Reactor;

    mod cases;
    #[path = "proxied.rs"]
    mod proxied;
    #[path = "slow_sink.rs"]
    mod slow_sink;
    #[path = "under_load.rs"]
    mod under_load;
}

/// The tests with a thread per session.
#[path = "."]
mod per_session {
    use crate::serve;

    const THREADING: accio_proto::Threading = accio_proto::Threading::PerSession;

    mod cases;
    #[path = "proxied.rs"]
    mod proxied;
}

mod choice;

/// Serves until the server ends. Another crate runs the same cases with a runtime.
fn serve<K: accio_proto::FileSink>(
    server: accio_proto::Server<K>,
) -> Result<(), accio_proto::ServerError> {
    server.run()
}

/// Locked by tests that measure times.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
