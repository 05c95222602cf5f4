//! Tests of the whole server on loopback, embedded as in any program, once for each threading mode.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::duplicate_mod, reason = "a test")]

/// The tests with a few workers and an event queue.
#[path = "."]
mod reactor {
    use crate::{IS_ASYNCHRONOUS, Sink, builder, serve};

    const THREADING: accio_proto::Threading = accio_proto::Threading::Reactor;

    mod cases;
    #[path = "group_panics.rs"]
    mod group_panics;
    #[path = "group_results.rs"]
    mod group_results;
    #[path = "proxied.rs"]
    mod proxied;
    #[path = "slow_sink.rs"]
    mod slow_sink;
    #[cfg(feature = "tracing")]
    #[path = "spans.rs"]
    mod spans;
    #[path = "under_load.rs"]
    mod under_load;
}

/// The tests with a thread per session.
#[path = "."]
mod per_session {
    use crate::{IS_ASYNCHRONOUS, Sink, builder, serve};

    const THREADING: accio_proto::Threading = accio_proto::Threading::PerSession;

    mod cases;
    #[path = "proxied.rs"]
    mod proxied;
    #[cfg(feature = "tracing")]
    #[path = "spans.rs"]
    mod spans;
}

mod any_sink;
mod broken_logger;
#[cfg(feature = "tracing")]
mod broken_subscriber;
mod choice;
mod driver_groups;

/// The sink of the server of a case. Another crate runs the same cases with a runtime, and passes each
/// sink through an asynchronous one.
type Sink = any_sink::AnySink;

/// Whether the calls of the sink are asynchronous.
const IS_ASYNCHRONOUS: bool = false;

/// Begins the server of a case.
fn builder(sink: impl accio_proto::FileSink) -> accio_proto::ServerBuilder<Sink> {
    accio_proto::Server::builder(Sink::new(sink))
}

/// Serves until the server ends.
fn serve(server: accio_proto::Server<Sink>) -> Result<(), accio_proto::ServerError> {
    server.run()
}

/// Locked by tests that measure times.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Locked by tests that make the subscriber panic.
#[cfg(feature = "tracing")]
static SUBSCRIBER: std::sync::Mutex<()> = std::sync::Mutex::new(());
