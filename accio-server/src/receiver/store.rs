//! Receives files into an object store.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use accio_cli::{Failure, Program, USAGE};
use accio_proto::{Port, Server, os_error_text};
use accio_store::{NodeName, StoreError, StoreOptions, StoreSink};

use crate::arguments::{Arguments, WithExisting};
#[cfg(linux_sys)]
use crate::sandbox::Sandbox;

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
    let sink = StoreOptions::new(node.clone()).memory(store.store_memory).open(address).map_err(
        |error| match error {
            StoreError::NotBuiltIn { scheme, .. } => {
                super::another_build(&scheme, "stores except file://")
            }
            error => Failure::from_error(error),
        },
    )?;
    let first_id = first_id(&sink, &node, files.ids_from, store.ids_from_store)?;
    log::info!("writing as node \"{node}\", from {first_id}.file");
    let builder = files.apply(Server::builder(sink.clone()));
    let mut builder = limits.apply(builder).first_id(first_id);
    if let Some(workers) = workers {
        builder = builder.workers(workers);
    }
    operations.run(&server, builder, port, Receiver { sink })
}

/// The hooks of a server that receives into a store.
struct Receiver {
    sink: StoreSink,
}

impl Program for Receiver {
    fn stopping(&self) {
        self.sink.close();
    }

    fn grace(&self) -> Duration {
        // Aborting an upload takes one or two requests; a store that does not answer gets no more
        // time.
        StoreSink::CLOSE_TIMEOUT + Duration::from_secs(1)
    }
}

/// Returns the number of the first connection.
fn first_id(
    sink: &StoreSink,
    node: &NodeName,
    ids_from: u64,
    ids_from_store: bool,
) -> Result<u64, Failure> {
    let failure =
        |why: &dyn Display| Failure::new(format_args!("cannot use store {}", sink.address()), why);
    let highest = sink.highest().map_err(|error| failure(&os_error_text(&error)))?;
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
