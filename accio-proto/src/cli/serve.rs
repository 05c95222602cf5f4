//! What the two servers share: their common flags, their signals, their end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::Signals;

use super::{Failure, Verbosity, seconds};
use crate::{FastPath, FastPaths, FileSink, Port, ServerBuilder, ServerDialect};

/// How long a stopped server may take to abort what is unfinished. It exits within a second, even
/// if a disk or a pipe holds a worker up.
const GRACE: Duration = Duration::from_millis(900);

/// The flags of both servers, to be flattened into their arguments.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeFlags {
    /// The dialect to speak: auto, accio, confirm or direct
    #[arg(long, value_name = "DIALECT", default_value_t)]
    pub handshake: ServerDialect,
    /// The address to listen on, IPv4 or IPv6
    #[arg(long, value_name = "ADDR", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub bind: IpAddr,
    /// How long a client may be silent, in seconds; fractions allowed
    #[arg(long, value_name = "SECONDS", value_parser = seconds,
          default_value = "10", allow_negative_numbers = true)]
    pub timeout: Duration,
    /// Do without one of the kernel's fast paths (repeatable): splice, truncate, tmpfile,
    /// preallocate, empty-path
    #[arg(long, value_name = "FAST-PATH", help_heading = "Diagnostics")]
    pub without: Vec<FastPath>,
    #[expect(missing_docs, reason = "a doc comment would become its help")]
    #[command(flatten)]
    pub verbosity: Verbosity,
}

impl ServeFlags {
    /// The fast paths that are left.
    pub fn fast_paths(&self) -> FastPaths {
        FastPaths::without(self.without.iter().copied())
    }

    /// Listens on `port`, gives up privileges by `confine`, says on stderr where it listens, and
    /// serves until a signal ends it.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, `confine` fails, or the server cannot start or go on.
    pub fn serve<K: FileSink>(
        &self,
        builder: ServerBuilder<K>,
        port: Port,
        confine: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<ExitCode, Failure> {
        raise_descriptor_limit();
        // Before anyone can connect, so that no signal ever ends the process another way.
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGQUIT])
            .map_err(|error| Failure::new("cannot watch for signals", error))?;
        // A file that grows past the process's limit then fails to write, as on a full disk.
        signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))
            .map_err(|error| Failure::new("cannot watch for signals", error))?;

        let server = builder
            .dialect(self.handshake)
            .idle_timeout(self.timeout)
            .fast_paths(self.fast_paths())
            .bind(SocketAddr::new(self.bind, port.number()))
            .map_err(Failure::from)?;
        // Before any other thread starts, for threads inherit it.
        confine()?;
        if !self.verbosity.quiet {
            super::say(format_args!("listening on {}", server.local_addr()));
        }

        let handle = server.handle();
        let (finished, is_finished) = mpsc::channel::<()>();
        let watch = move || {
            if let Some(signal) = signals.forever().next() {
                log::info!("stopping on signal {signal}");
                handle.stop();
                if is_finished.recv_timeout(GRACE) == Err(mpsc::RecvTimeoutError::Timeout) {
                    log::warn!("a file was held up; its transfer is reset");
                    std::process::exit(0);
                }
            }
        };
        // Dropped, its handle lets it go on by itself.
        std::thread::Builder::new()
            .name("accio-signals".into())
            .spawn(watch)
            .map_err(|error| Failure::new("cannot watch for signals", error))?;
        let served = server.run();
        drop(finished);
        served.map_err(Failure::from)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Allows as many descriptors as the system lets us have.
fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => log::debug!("descriptor limit raised from {current:?} to {maximum:?}"),
        Err(error) => log::warn!("cannot raise the descriptor limit of {current:?}: {error}"),
    }
}
