//! The tests of the blocking server, with tokio: with blocking and with asynchronous sinks.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::duplicate_mod, reason = "a test")]

#[path = "../../accio-proto/tests/server/broken_logger.rs"]
mod broken_logger;
#[path = "../../accio-proto/tests/server/broken_subscriber.rs"]
mod broken_subscriber;
mod common;

#[path = "../../accio-proto/tests/server/any_sink.rs"]
mod any_sink;

/// The files of the blocking server's tests, with blocking sinks.
#[path = "../../accio-proto/tests/server"]
mod blocking {
    use accio_proto::{FileSink, Server, ServerBuilder, ServerError, Threading};

    use crate::any_sink::AnySink;

    const THREADING: Threading = Threading::Runtime;
    const IS_ASYNCHRONOUS: bool = false;

    type Sink = AnySink;

    fn builder(sink: impl FileSink) -> ServerBuilder<Sink> {
        Server::builder(AnySink::new(sink))
    }

    /// Serves on a runtime of its own until the server ends.
    fn serve(server: Server<Sink>) -> Result<(), ServerError> {
        let serve = async { accio_tokio::spawn(server)?.ended().await };
        crate::common::runtime().block_on(serve)
    }

    mod cases;
    mod proxied;
    mod spans;
}

/// The same tests, with sinks whose calls are asynchronous.
#[path = "../../accio-proto/tests/server"]
mod asynchronous {
    use accio_proto::{FileSink, Server, ServerBuilder, ServerError, Threading};
    use accio_tokio::Bridge;

    use crate::any_sink::AnySink;
    use crate::common::Asynchronous;

    const THREADING: Threading = Threading::Runtime;
    const IS_ASYNCHRONOUS: bool = true;

    type Sink = Bridge<Asynchronous<AnySink>>;

    fn builder(sink: impl FileSink) -> ServerBuilder<Sink> {
        Server::builder(Bridge::new(Asynchronous::new(AnySink::new(sink))))
    }

    fn serve(server: Server<Sink>) -> Result<(), ServerError> {
        let serve = async { accio_tokio::spawn_async(server)?.ended().await };
        crate::common::runtime().block_on(serve)
    }

    mod cases;
    mod proxied;
    mod spans;
}

/// Locked by tests that measure times.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Locked by tests that make the subscriber panic.
static SUBSCRIBER: std::sync::Mutex<()> = std::sync::Mutex::new(());
