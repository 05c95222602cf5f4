//! The command line.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use accio_cli::{OperationFlags, ServerFlags, bytes, count, seconds};
#[cfg(feature = "digest")]
use accio_proto::DigestAlgorithm;
use accio_proto::{Existing, FileSink, Network, Port, ServerBuilder};
use clap::{Parser, ValueEnum, builder::FalseyValueParser};

#[cfg(linux_sys)]
use crate::sandbox::Sandbox;

/// Receive files over TCP: the bytes of connection N become FILE-DIR/N.file
///
/// Connections are numbered from 1 in the order they are accepted and are served concurrently. A
/// file appears once it is complete. If a client is idle for too long, resets the connection or
/// breaks the handshake, its file contains the word ERROR and none of the bytes it sent. Without
/// --tls there is no encryption or authentication: use a trusted network or a tunnel.
#[derive(Debug, Parser)]
#[command(version, override_usage = USES, after_help = SHORT_END, after_long_help = END)]
pub(crate) struct Arguments {
    /// Port to listen on: 1 to 65535, or a service name
    // A negative number is an invalid port; other words with a hyphen are flags.
    #[arg(
        allow_negative_numbers = true,
        required_unless_present = "verify",
        conflicts_with = "verify"
    )]
    pub(crate) port: Option<Port>,
    /// Directory for received files; created if missing
    #[arg(value_name = "FILE-DIR", required_unless_present = "verify", conflicts_with = "verify")]
    pub(crate) file_dir: Option<PathBuf>,
    /// Compare the files in FILE-DIR with a journal, and serve nothing
    ///
    /// Prints each file that is missing, changed (its size or its digest), ERROR or not in the
    /// journal, and their numbers. The last record of a file counts. A journal named - is standard
    /// input. Exits with 0 if all files match the journal, including those that it lists as ERROR;
    /// with 1 if not; with 2 if the journal or FILE-DIR cannot be read.
    #[arg(long, num_args = 2, value_names = ["JOURNAL", "FILE-DIR"])]
    pub(crate) verify: Option<Vec<PathBuf>>,
    /// Print the result of --verify as JSON, one object per line
    #[arg(long, hide_short_help = true)]
    pub(crate) json: bool,
    /// Serve with this many threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = workers, env = "ACCIO_WORKERS",
          hide_short_help = true)]
    pub(crate) workers: Option<NonZeroUsize>,
    /// Sandbox the server: try, require or off
    ///
    /// Once it is listening, Landlock and seccomp prevent the server from reading files except those
    /// of TLS, writing outside FILE-DIR, connecting to other machines and running programs.
    /// try: as far as the kernel supports it. require: fail without it. off: no sandbox.
    #[cfg(linux_sys)]
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Sandbox::Try,
          hide_possible_values = true,
          env = "ACCIO_SANDBOX")]
    pub(crate) sandbox: Sandbox,
    // Flattened before the groups of flags that have a heading.
    #[command(flatten)]
    pub(crate) server: ServerFlags,
    #[command(flatten)]
    pub(crate) operations: OperationFlags,
    #[command(flatten)]
    pub(crate) files: Files,
    #[cfg(feature = "store-core")]
    #[command(flatten)]
    pub(crate) store: StoreFlags,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// The flags for received files.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct Files {
    /// Confirm a file only once it is on disk, to survive power loss
    #[arg(long, env = "ACCIO_DURABLE", value_parser = FalseyValueParser::new())]
    pub(crate) durable: bool,
    /// Replace or keep existing files
    ///
    /// replace: connection N replaces N.file. keep: start after the highest existing number and
    /// never replace a file.
    #[arg(long, value_name = "ACTION", value_enum, default_value_t = WithExisting::Replace,
          hide_possible_values = true,
          env = "ACCIO_EXISTING")]
    pub(crate) existing: WithExisting,
    /// Number the first connection N
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..),
          env = "ACCIO_IDS_FROM")]
    pub(crate) ids_from: u64,
    /// Set the files' permissions, e.g. 640 [default: 666 minus umask]
    #[arg(long, value_name = "OCTAL", value_parser = mode, env = "ACCIO_MODE")]
    pub(crate) mode: Option<u32>,
    /// Compute a digest of each file: sha256 or blake3
    ///
    /// It is in the journal and in the environment of commands, to be compared with what a client
    /// with the same flag prints. It takes CPU time: large files are read back while they are received,
    /// and all other bytes pass through this process instead of being moved by the kernel.
    #[cfg(feature = "digest")]
    #[arg(long, value_name = "ALGORITHM", env = "ACCIO_DIGEST")]
    pub(crate) digest: Option<DigestAlgorithm>,
    /// Keep a file only if a command exits with 0
    ///
    /// The command runs for each complete file before it is named and confirmed, with the file as
    /// its standard input and the same environment as for --on-commit, without ACCIO_PATH. If it exits
    /// with another status, the file becomes ERROR and the client is reset; the first line that it
    /// printed on stderr is in the journal.
    #[cfg(linux_sys)]
    #[arg(long, value_name = "COMMAND", env = "ACCIO_ACCEPT_IF")]
    pub(crate) accept_if: Option<String>,
    /// Run at most this many commands of --accept-if at once
    ///
    /// Further files wait in the order in which they were complete.
    #[cfg(linux_sys)]
    #[arg(long, value_name = "N", value_parser = count::<NonZeroUsize>, requires = "accept_if", env = "ACCIO_ACCEPT_JOBS",
          default_value = "4", hide_short_help = true)]
    pub(crate) accept_jobs: NonZeroUsize,
    /// Reject a file if its command takes longer
    ///
    /// The time counts from the start of the command. Clients wait ten seconds by default.
    #[cfg(linux_sys)]
    #[arg(long, value_name = "SECONDS", requires = "accept_if", env = "ACCIO_ACCEPT_TIMEOUT",
          default_value = "8", value_parser = seconds, allow_negative_numbers = true,
          hide_short_help = true)]
    pub(crate) accept_timeout: Duration,
    /// Run a command after each file is complete
    ///
    /// The command line is split into words at startup like in a shell, but run without one.
    /// ACCIO_ID, ACCIO_PATH, ACCIO_BYTES, ACCIO_PEER, ACCIO_IDENTITY and ACCIO_FILE_DIGEST (with
    /// --digest) in its environment describe the file. Its output goes to stderr. A failure is logged
    /// and does not affect the transfer.
    #[arg(long, value_name = "COMMAND", env = "ACCIO_ON_COMMIT")]
    pub(crate) on_commit: Option<String>,
    /// Run at most this many commands at once
    #[arg(long, value_name = "N", value_parser = count::<NonZeroUsize>, requires = "on_commit", env = "ACCIO_ON_COMMIT_JOBS",
          default_value = "4", hide_short_help = true)]
    pub(crate) on_commit_jobs: NonZeroUsize,
    /// Queue at most this many files for the command
    ///
    /// Files that do not fit into the queue get no command; the log and the metrics count them.
    #[arg(long, value_name = "N", requires = "on_commit", env = "ACCIO_ON_COMMIT_QUEUE",
          default_value = "65536", hide_short_help = true,
          value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub(crate) on_commit_queue: u32,
}

impl Files {
    /// Sets what a server computes of its files.
    pub(crate) fn apply<K: FileSink>(&self, builder: ServerBuilder<K>) -> ServerBuilder<K> {
        #[cfg(feature = "digest")]
        if let Some(algorithm) = self.digest {
            return builder.digest(algorithm);
        }
        builder
    }
}

/// The flags for files in an object store.
#[cfg(feature = "store-core")]
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Object stores")]
pub(crate) struct StoreFlags {
    /// Set the name of this receiver, unique in the store [default: host name]
    ///
    /// Files become PREFIX/NAME/N.file.
    #[arg(long, value_name = "NAME", env = "ACCIO_NODE", hide_short_help = true)]
    pub(crate) node: Option<accio_store::NodeName>,
    /// Start after the highest number of this receiver in the store
    #[arg(long, env = "ACCIO_IDS_FROM_STORE", hide_short_help = true,
          value_parser = FalseyValueParser::new())]
    pub(crate) ids_from_store: bool,
    /// Limit the memory of all uploads together, e.g. 1G; at least 16M
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "512M",
          env = "ACCIO_STORE_MEMORY", hide_short_help = true)]
    pub(crate) store_memory: u64,
}

/// The limits per client and in total.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Maximum number of concurrent clients [default: by descriptor limit]
    ///
    /// Further clients wait in the backlog.
    #[arg(long, value_name = "N", value_parser = count::<NonZeroUsize>,
          env = "ACCIO_MAX_CONNECTIONS")]
    pub(crate) max_connections: Option<NonZeroUsize>,
    /// Maximum concurrent clients per address [default: 3/4 of all clients]
    ///
    /// Further connections are reset. The addresses of an IPv6 /64 network count as one. The default
    /// is unlimited if --max-connections is below 64.
    #[arg(long, value_name = "N", value_parser = count::<NonZeroU32>, env = "ACCIO_MAX_PER_IP")]
    pub(crate) max_per_ip: Option<NonZeroU32>,
    /// Maximum number of new connections per address and second
    ///
    /// Further connections are reset. The addresses of an IPv6 /64 network count as one.
    #[arg(long, value_name = "N", value_parser = count::<NonZeroU32>, env = "ACCIO_MAX_NEW_PER_IP")]
    pub(crate) max_new_per_ip: Option<NonZeroU32>,
    /// Maximum file size, e.g. 500M
    #[arg(long, value_name = "SIZE", value_parser = bytes, env = "ACCIO_MAX_SIZE")]
    pub(crate) max_size: Option<u64>,
    /// Maximum duration of a transfer, idle or not
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true,
          env = "ACCIO_MAX_DURATION")]
    pub(crate) max_duration: Option<Duration>,
    /// Minimum bytes per second, over any ten seconds, e.g. 64K
    #[arg(long, value_name = "SIZE", value_parser = bytes, env = "ACCIO_MIN_RATE")]
    pub(crate) min_rate: Option<u64>,
    /// Minimum free disk space to accept a connection, e.g. 10G
    ///
    /// One percent of the file system's inodes must be free, too, but at most 1024.
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "0",
          hide_default_value = true, env = "ACCIO_MIN_FREE")]
    pub(crate) min_free: u64,
    /// Accept only this address or network, e.g. 10.0.0.0/8 (repeatable)
    #[arg(long, value_name = "CIDR", env = "ACCIO_ALLOW", value_delimiter = ',')]
    pub(crate) allow: Vec<Network>,
    /// Refuse this address or network, even if allowed (repeatable)
    #[arg(long, value_name = "CIDR", env = "ACCIO_DENY", value_delimiter = ',')]
    pub(crate) deny: Vec<Network>,
    /// Take the client's address from the proxy's PROXY header
    ///
    /// Accepts versions 1 and 2, as sent by HAProxy's send-proxy and send-proxy-v2. Limits,
    /// networks, journal and log use that address; a connection without a header is reset and gets
    /// no number. A header can claim any address: let only the proxy connect.
    #[arg(long, help_heading = "Behind a balancer", env = "ACCIO_PROXY_PROTOCOL",
          value_parser = FalseyValueParser::new())]
    pub(crate) proxy_protocol: bool,
}

impl Limits {
    /// Sets the limits on a server's builder.
    pub(crate) fn apply<K: FileSink>(self, builder: ServerBuilder<K>) -> ServerBuilder<K> {
        let mut builder =
            builder.allow(self.allow).deny(self.deny).proxy_protocol(self.proxy_protocol);
        if let Some(max_connections) = self.max_connections {
            builder = builder.max_connections(max_connections);
        }
        if let Some(max_per_ip) = self.max_per_ip {
            builder = builder.max_per_ip(max_per_ip);
        }
        if let Some(max_new_per_ip) = self.max_new_per_ip {
            builder = builder.max_new_per_ip(max_new_per_ip);
        }
        if let Some(max_size) = self.max_size {
            builder = builder.max_size(max_size);
        }
        if let Some(max_duration) = self.max_duration {
            builder = builder.max_duration(max_duration);
        }
        if let Some(min_rate) = self.min_rate {
            builder = builder.min_rate(min_rate);
        }
        builder
    }
}

/// Handling of an existing `N.file`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WithExisting {
    /// Connection N replaces N.file
    Replace,
    /// Start after the highest existing number and never replace a file
    Keep,
}

impl From<WithExisting> for Existing {
    fn from(existing: WithExisting) -> Self {
        match existing {
            WithExisting::Replace => Existing::Replace,
            WithExisting::Keep => Existing::Keep,
        }
    }
}

/// Parses a number of threads that the library accepts.
fn workers(value: &str) -> Result<NonZeroUsize, String> {
    let max = accio_proto::limits::MAX_WORKERS;
    match count::<NonZeroUsize>(value)? {
        workers if workers.get() > max => Err(format!("too large: the maximum is {max}")),
        workers => Ok(workers),
    }
}

/// Parses nine permission bits in octal.
fn mode(value: &str) -> Result<u32, String> {
    match u32::from_str_radix(value, 8) {
        Ok(mode) if mode <= 0o777 && !value.starts_with('+') => Ok(mode),
        _ => Err("not an octal mode between 000 and 777".to_owned()),
    }
}

/// Parses the memory limit, which must hold two parts, so that one can be filled while the other is
/// sent.
#[cfg(feature = "store-core")]
fn memory(value: &str) -> Result<u64, String> {
    match bytes(value)? {
        size if size < accio_store::StoreOptions::MIN_MEMORY => Err("less than 16M".to_owned()),
        size => Ok(size),
    }
}

const USES: &str = "accio-server [OPTIONS] <PORT> <FILE-DIR>
       accio-server --verify <JOURNAL> <FILE-DIR> [--json]";

const SHORT_END: &str =
    "Exit codes: 0 stopped by a signal; 1 cannot listen or use FILE-DIR; 2 usage.
See --help for details and examples.";

/// The example of a flag that only Linux has.
#[cfg(linux_sys)]
macro_rules! accept_if_example {
    () => {
        "  accio-server 5000 received --accept-if ./scan.sh
      Keep only the files for which a script exits with 0.
"
    };
}
#[cfg(not(linux_sys))]
macro_rules! accept_if_example {
    () => {
        ""
    };
}

const END: &str = concat!(
    "\
Examples:
  accio-server 5000 received
      Store files in the directory \"received\".
  accio-server 5000 received --existing keep --durable --drain 30
      Continue after the last run, survive power loss, and let transfers finish on shutdown.
  accio-server 5000 received --journal log/accio.ndjson --metrics 9090 -v
      Report connections in a file, on http://127.0.0.1:9090/metrics, and on stderr.
  accio-server --verify log/accio.ndjson received
      Check that the files in \"received\" are those in the journal.
",
    accept_if_example!(),
    "  accio-server 5000 received --on-commit ./index.sh
      Run a script for each complete file, whose path is in \"$ACCIO_PATH\".

Environment:
  Each flag except -v, -q, --verify and --json has a variable: ACCIO_MAX_SIZE=1G is --max-size 1G.
  The command line takes precedence. Commas separate the values of a repeatable flag. RUST_LOG
  selects what is logged, NO_COLOR disables colour.

Values:
  K, M, G and T in sizes are powers of 1024: 64K, 1.5G, 10MB (the same as 10M). Times are seconds,
  or have a unit: 2.5, 500ms, 10s, 5m.

Signals:
  SIGTERM, SIGINT, SIGQUIT and SIGXCPU end the server (see --drain). SIGHUP reopens the journal and
  reloads the files of TLS. SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF and SIGIO have no effect.

Exit codes:
  0  stopped by a signal; with --verify, no difference
  1  cannot listen, or cannot use FILE-DIR, the journal, the files of TLS or the required sandbox;
     with --verify, a difference
  2  usage error; with --verify, cannot read the journal or FILE-DIR"
);

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_definition_is_valid() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn all_variables_are_listed_in_accio_cli() {
        assert_eq!(accio_cli::unlisted_variables(&Arguments::command()), [""; 0]);
    }

    #[test]
    fn parses_a_mode_of_nine_bits_in_octal() {
        assert_eq!(mode("640"), Ok(0o640));
        assert_eq!(mode("0777"), Ok(0o777));
        for bad in ["", "8", "1000", "-1", "+1", "rw", "0o640"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[cfg(feature = "store-core")]
    #[test]
    fn requires_memory_for_two_parts() {
        assert_eq!(memory("16M"), Ok(16 << 20));
        assert!(memory("15M").is_err());
        assert!(memory("x").is_err());
    }
}
