//! Receives files into an object store.

use std::fmt::Display;
use std::io;
use std::num::NonZeroUsize;
use std::panic;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use accio_cli::{Failure, Program, USAGE};
use accio_proto::{Port, Server, Threading, os_error_text};
use accio_store::{AsyncStoreSink, NodeName, StoreError, StoreOptions};
use accio_tokio::Bridge;
use tokio::runtime::{self, Runtime};

use crate::arguments::{Arguments, WithExisting};
#[cfg(linux_sys)]
use crate::sandbox::Sandbox;

/// Maximum number of threads for calls that block: those of file:// and of host name resolution.
const BLOCKING_THREADS: usize = 16;

/// Default of --max-connections. A connection that waits for memory holds up to 80 KiB in addition to
/// --store-memory.
const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// Receives files into the store at `address`.
pub(crate) fn run(address: &str, port: Port, arguments: Arguments) -> Result<ExitCode, Failure> {
    #[cfg(linux_sys)]
    let sandbox = arguments.sandbox;
    let Arguments { workers, files, limits, server, operations, store, .. } = arguments;
    server.verbosity.start_log();
    operations.check()?;
    let inapplicable = [
        ("--on-commit", files.on_commit.is_some()),
        #[cfg(linux_sys)]
        ("--accept-if", files.accept_if.is_some()),
        ("--mode", files.mode.is_some()),
        ("--existing keep", files.existing == WithExisting::Keep),
        ("--min-free", limits.min_free > 0),
        #[cfg(linux_sys)]
        ("--sandbox require", sandbox == Sandbox::Require),
    ];
    if let Some((flag, _)) = inapplicable.into_iter().find(|(_, given)| *given) {
        let why = "applies to directories, not to a store";
        return Err(Failure::new(flag, why).with_code(USAGE));
    }
    let node = match store.node {
        Some(node) => node,
        None => host_name()?,
    };
    let runtime = start_runtime(workers)?;
    let options = StoreOptions::new(node.clone()).memory(store.store_memory);
    let sink = runtime.block_on(options.open_async(address)).map_err(|error| match error {
        StoreError::NotBuiltIn { scheme, .. } => {
            super::another_build(&scheme, "stores except file://")
        }
        error => Failure::from_error(error),
    })?;
    let highest = runtime.block_on(sink.highest());
    let first_id = first_id(&sink, highest, &node, files.ids_from, store.ids_from_store)?;
    log::info!("writing as node \"{node}\", from {first_id}.file");
    let builder = Server::builder(Bridge::new(sink.clone())).max_connections(MAX_CONNECTIONS);
    let builder = limits.apply(files.apply(builder)).first_id(first_id);
    let builder = builder.threading(Threading::Runtime);
    operations.run_with(&server, builder, port, Receiver { sink }, |server| {
        let served = runtime.block_on(async { accio_tokio::spawn_async(server)?.ended().await });
        // Do not wait for calls that are stuck.
        runtime.shutdown_background();
        served
    })
}

/// Starts the threads that serve connections and send requests.
fn start_runtime(workers: Option<NonZeroUsize>) -> Result<Runtime, Failure> {
    let workers = workers.or_else(|| thread::available_parallelism().ok());
    let build = || {
        runtime::Builder::new_multi_thread()
            .worker_threads(workers.map_or(1, NonZeroUsize::get))
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("accio-store")
            .enable_all()
            .build()
    };
    // tokio panics if a thread cannot be started.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let built = panic::catch_unwind(build);
    panic::set_hook(hook);
    let failure = |why: &str| Failure::new("cannot start a thread", why);
    match built {
        Ok(built) => built.map_err(|error| failure(&os_error_text(&error))),
        Err(panic) => {
            let why = panic.downcast_ref::<String>().map_or("unknown error", String::as_str);
            Err(failure(why))
        }
    }
}

/// The hooks of a server that receives into a store.
struct Receiver {
    sink: AsyncStoreSink,
}

impl Program for Receiver {
    fn stopping(&self) {
        self.sink.close();
    }

    fn grace(&self) -> Duration {
        // Aborting an upload takes one or two requests; a store that does not answer gets no more
        // time.
        AsyncStoreSink::CLOSE_TIMEOUT + Duration::from_secs(1)
    }
}

/// Returns the number of the first connection.
fn first_id(
    sink: &AsyncStoreSink,
    highest: io::Result<Option<u64>>,
    node: &NodeName,
    ids_from: u64,
    ids_from_store: bool,
) -> Result<u64, Failure> {
    let failure =
        |why: &dyn Display| Failure::new(format_args!("cannot use store {}", sink.address()), why);
    let highest = highest.map_err(|error| failure(&os_error_text(&error)))?;
    let first = match highest {
        Some(highest) if ids_from_store => {
            let next = highest.checked_add(1);
            next.ok_or_else(|| failure(&"its highest number is the largest possible"))?
        }
        Some(highest) if highest >= ids_from => {
            let why = format!(
                "objects up to {} exist: use --ids-from-store to continue after them, or another --node \
                 if another receiver is called \"{node}\"",
                sink.path(highest)
            );
            return Err(failure(&why));
        }
        _ => 0,
    };
    Ok(first.max(ids_from))
}

fn host_name() -> Result<NodeName, Failure> {
    let system = rustix::system::uname();
    let host = system.nodename().to_string_lossy();
    host.parse().map_err(|why| {
        Failure::new(format_args!("host name {host:?}"), format_args!("{why}; set --node"))
            .with_code(USAGE)
    })
}
