//! What the two servers share: their common flags, what they tell while they serve, their end.

mod journal;
#[cfg(feature = "metrics")]
mod metrics;
mod shutdown;
mod systemd;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::SIGXFSZ;

use accio_proto::{
    Acknowledgement, FastPath, FastPaths, FileSink, Outcome, Port, Server, ServerBuilder,
    ServerDialect,
};
use journal::Journal;
use shutdown::End;

use crate::{
    ColorFlag, Failure, USAGE, Verbosity, log_writer, raise_descriptor_limit, reason, seconds,
};

/// The flags of both servers, to be flattened into their arguments.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeFlags {
    /// The dialect to speak: auto, accio, confirm or direct
    #[arg(long, value_name = "DIALECT", env = "ACCIO_HANDSHAKE", hide_env = true, default_value_t)]
    pub handshake: ServerDialect,
    /// The address to listen on, IPv4 or IPv6 (repeatable)
    ///
    /// `::` is every interface, IPv6 and IPv4; beside an IPv4 address it is IPv6 alone. Without
    /// effect when systemd hands over sockets.
    #[arg(
        long,
        value_name = "ADDR",
        env = "ACCIO_BIND",
        hide_env = true,
        value_delimiter = ',',
        default_value = "0.0.0.0"
    )]
    pub bind: Vec<IpAddr>,
    /// How long a client may be silent, in seconds; fractions allowed
    #[arg(long, value_name = "SECONDS", env = "ACCIO_TIMEOUT", hide_env = true,
          value_parser = seconds, default_value = "10", allow_negative_numbers = true)]
    pub timeout: Duration,
    /// How long transfers may go on after SIGTERM, SIGINT or SIGQUIT, in seconds
    ///
    /// The first signal stops accepting; transfers have this long to finish, and are aborted then.
    /// A second signal aborts them at once.
    #[arg(long, value_name = "SECONDS", env = "ACCIO_DRAIN", hide_env = true,
          value_parser = seconds_or_none, default_value = "0", allow_negative_numbers = true)]
    pub drain: Duration,
    /// Write a line of JSON for every connection to this file; - is stdout
    ///
    /// Fields: time, id, peer, dialect, bytes, duration, outcome (complete or error), and for an
    /// error reason (one stable word) and error (text). SIGHUP opens the file anew, for rotation.
    /// It may not be inside the folder of the files.
    #[arg(long, value_name = "FILE", env = "ACCIO_JOURNAL", hide_env = true)]
    pub journal: Option<PathBuf>,
    /// Serve numbers for Prometheus on this address, under /metrics, and /health
    ///
    /// A bare port is one of this machine alone: 9090 is 127.0.0.1:9090. Nobody is asked who they
    /// are, so think before giving another address.
    #[cfg(feature = "metrics")]
    #[arg(long, value_name = "ADDR", env = "ACCIO_METRICS", hide_env = true,
          value_parser = metrics::address)]
    pub metrics: Option<SocketAddr>,
    /// Do without one of the kernel's fast paths (repeatable): splice, truncate, tmpfile,
    /// preallocate, empty-path
    #[arg(
        long,
        value_name = "FAST-PATH",
        help_heading = "Diagnostics",
        hide_short_help = true,
        env = "ACCIO_WITHOUT",
        hide_env = true,
        value_delimiter = ','
    )]
    pub without: Vec<FastPath>,
    #[expect(missing_docs, reason = "a doc comment would become its help")]
    #[command(flatten)]
    pub verbosity: Verbosity,
    #[expect(missing_docs, reason = "a doc comment would become its help")]
    #[command(flatten)]
    pub color: ColorFlag,
}

/// What one of the servers does beside serving.
pub trait Program: Send + Sync + 'static {
    /// The folder that the peers' files are in; nothing else is written there.
    fn folder(&self) -> Option<&Path> {
        None
    }

    /// Whether a client is told of a complete file only when that is on the disk. Its line in the
    /// journal then is too.
    fn is_durable(&self) -> bool {
        false
    }

    /// Whether stdout is free for the journal.
    fn has_stdout(&self) -> bool {
        true
    }

    /// The sockets are open, and no other thread has started: does what needs rights of its own,
    /// then gives them up, all but those on the directory `journal` is in.
    ///
    /// # Errors
    ///
    /// The program ends.
    fn confine(&self, journal: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
        let _ = journal;
        Ok(())
    }

    /// Checks whether files can be received. It may block: another thread then reports that there
    /// was no answer.
    ///
    /// # Errors
    ///
    /// The reason why the server is not ready, in a few words.
    fn readiness(&self) -> Result<(), String> {
        Ok(())
    }

    /// A connection has ended. Called by a worker, which it holds up.
    fn observe(&self, outcome: &Outcome) {
        let _ = outcome;
    }

    /// What is unfinished is about to be aborted: from now on, nothing may hold a worker up.
    fn stopping(&self) {}

    /// How long that may take before the process ends regardless.
    fn grace(&self) -> Duration {
        shutdown::GRACE
    }

    /// The last connection has ended: waits for what they left to do, until `deadline()` at most,
    /// which a second signal may move.
    fn finish(&self, deadline: &dyn Fn() -> Instant) {
        let _ = deadline;
    }
}

impl ServeFlags {
    /// The fast paths that are left.
    pub fn fast_paths(&self) -> FastPaths {
        FastPaths::without(self.without.iter().copied())
    }

    /// Listens on `port`, or on the sockets that systemd hands over, says so on stderr and to
    /// systemd, and serves until a signal ends it.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, the journal cannot be opened, `program` cannot be
    /// confined, or the server cannot start or go on.
    pub fn serve<K: FileSink>(
        &self,
        builder: ServerBuilder<K>,
        port: Port,
        program: impl Program,
    ) -> Result<ExitCode, Failure> {
        // First, while nobody else could inherit them.
        let handed = systemd::sockets()?;
        raise_descriptor_limit();
        let program = Arc::new(program);
        let journal = self.journal.as_deref().map(|path| open_journal(path, &*program));
        let journal = journal.transpose()?.map(Arc::new);
        // Before anyone can connect, so that no signal ends the process another way.
        let end = End::watch(self.drain, journal.clone())?;
        // A file that grows past the process's limit then fails to write, as on a full disk.
        signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))
            .map_err(|error| Failure::new("cannot watch for signals", error))?;

        #[cfg(feature = "metrics")]
        let metrics = self.metrics.map(metrics::Metrics::bind).transpose()?;
        let record = {
            let program = Arc::clone(&program);
            let journal = journal.clone();
            #[cfg(feature = "metrics")]
            let metrics = metrics.as_ref().map(metrics::Metrics::observer);
            move |outcome: Outcome, acknowledgement: Acknowledgement| {
                #[cfg(feature = "metrics")]
                if let Some(observe) = &metrics {
                    observe(&outcome);
                }
                program.observe(&outcome);
                match &journal {
                    // Dropped when the line is written, which tells the client.
                    Some(journal) => journal.record(&outcome, Box::new(acknowledgement)),
                    None => acknowledgement.send(),
                }
            }
        };
        let builder = builder
            .dialect(self.handshake)
            .idle_timeout(self.timeout)
            .fast_paths(self.fast_paths())
            .recorder(record);
        let server = self.listen(builder, port, handed)?;
        program.confine(journal.as_ref().and_then(|journal| journal.directory()))?;
        // From here on, so that the writing thread is confined too.
        log_writer::start()
            .map_err(|error| Failure::new("cannot start a thread", reason(&error)))?;
        let listening = self.announce(&server);
        if let Some(journal) = &journal {
            journal.start()?;
        }
        let ending = end.control(server.handle(), program.clone())?;
        #[cfg(feature = "metrics")]
        if let Some(metrics) = metrics {
            if !self.verbosity.quiet {
                crate::say(format_args!("metrics on http://{}/metrics", metrics.address()));
            }
            let ending = ending.started();
            metrics.serve(server.handle(), program.clone(), journal.clone(), ending)?;
        }
        systemd::ready(&listening);
        let served = server.run();
        program.finish(&|| ending.deadline());
        if let Some(journal) = &journal {
            journal.finish(ending.deadline());
        }
        ending.finished();
        served.map_err(Failure::from)?;
        Ok(ExitCode::SUCCESS)
    }

    fn listen<K: FileSink>(
        &self,
        builder: ServerBuilder<K>,
        port: Port,
        handed: Vec<std::net::TcpListener>,
    ) -> Result<Server<K>, Failure> {
        let server = if handed.is_empty() {
            let address = |ip: &IpAddr| SocketAddr::new(*ip, port.number());
            let addresses: Vec<_> = self.bind.iter().map(address).collect();
            builder.bind_all(&addresses)
        } else {
            builder.listen_all(handed)
        };
        server.map_err(Failure::from)
    }

    /// Says where the server listens; returns it too.
    fn announce<K: FileSink>(&self, server: &Server<K>) -> String {
        let addresses: Vec<_> = server.local_addrs().iter().map(ToString::to_string).collect();
        let listening = format!("listening on {}", addresses.join(", "));
        if !self.verbosity.quiet {
            crate::say(&listening);
        }
        listening
    }
}

fn open_journal(path: &Path, program: &impl Program) -> Result<Journal, Failure> {
    if path == Path::new("-") {
        if !program.has_stdout() {
            let why = "stdout has the counts; give a file";
            return Err(Failure::new("--journal -", why).with_code(USAGE));
        }
        return Journal::stdout();
    }
    Journal::open(path, program.folder(), program.is_durable())
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map(drop).map_err(|error| Failure::new("cannot start a thread", reason(&error)))
}

/// A time limit in seconds, or 0 for none.
fn seconds_or_none(value: &str) -> Result<Duration, String> {
    match value.parse() {
        Ok(0.0) => Ok(Duration::ZERO),
        _ => seconds(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_may_be_none() {
        assert_eq!(seconds_or_none("0"), Ok(Duration::ZERO));
        assert_eq!(seconds_or_none("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["-1", "", "ten"] {
            assert!(seconds_or_none(bad).is_err(), "{bad}");
        }
    }
}
