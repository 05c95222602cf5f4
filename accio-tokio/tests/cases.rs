//! The tests of the blocking server, with tokio.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

/// The files of the blocking server's tests.
#[path = "../../accio-proto/tests/server"]
mod runtime {
    use accio_proto::{FileSink, Server, ServerError, Threading};

    const THREADING: Threading = Threading::Runtime;

    /// Serves on a runtime of its own until the server ends.
    fn serve<K: FileSink>(server: Server<K>) -> Result<(), ServerError> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async { accio_tokio::spawn(server)?.ended().await })
    }

    mod cases;
    mod proxied;
}

/// Locked by tests that measure times.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
