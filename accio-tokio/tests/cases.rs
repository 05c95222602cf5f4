//! The tests of the blocking server, with tokio: with blocking and with asynchronous sinks.

#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::duplicate_mod, reason = "a test")]

mod common;

/// The files of the blocking server's tests, with blocking sinks.
#[path = "../../accio-proto/tests/server"]
mod blocking {
    use accio_proto::{FileSink, Server, ServerBuilder, ServerError, Threading};

    const THREADING: Threading = Threading::Runtime;
    const IS_ASYNCHRONOUS: bool = false;

    type Adapted<K> = K;

    fn builder<K: FileSink>(sink: K) -> ServerBuilder<K> {
        Server::builder(sink)
    }

    /// Serves on a runtime of its own until the server ends.
    fn serve<K: FileSink>(server: Server<K>) -> Result<(), ServerError> {
        let serve = async { accio_tokio::spawn(server)?.ended().await };
        crate::common::runtime().block_on(serve)
    }

    mod cases;
    mod proxied;
}

/// The same tests, with sinks whose calls are asynchronous.
#[path = "../../accio-proto/tests/server"]
mod asynchronous {
    use accio_proto::{FileSink, Server, ServerBuilder, ServerError, Threading};
    use accio_tokio::Bridge;

    use crate::common::Asynchronous;

    const THREADING: Threading = Threading::Runtime;
    const IS_ASYNCHRONOUS: bool = true;

    type Adapted<K> = Bridge<Asynchronous<K>>;

    fn builder<K: FileSink>(sink: K) -> ServerBuilder<Adapted<K>> {
        Server::builder(Bridge::new(Asynchronous::new(sink)))
    }

    fn serve<K: FileSink>(server: Server<Adapted<K>>) -> Result<(), ServerError> {
        let serve = async { accio_tokio::spawn_async(server)?.ended().await };
        crate::common::runtime().block_on(serve)
    }

    mod cases;
    mod proxied;
}

/// Locked by tests that measure times.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
