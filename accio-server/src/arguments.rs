//! The command line.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use accio_cli::{ServeFlags, bytes, seconds};
use accio_proto::{Existing, FileSink, Network, Port, ServerBuilder};
use clap::{Parser, ValueEnum, builder::FalseyValueParser};

use crate::sandbox::Sandbox;

/// Receives files over TCP: the bytes of connection N become FILE-DIR/N.file
///
/// Connections count from 1 in the order they are accepted, and are served all at once. A file
/// appears when it is complete. When a client falls silent, resets the connection or breaks the
/// handshake, its file holds the word ERROR and nothing of what it sent.
#[derive(Debug, Parser)]
#[command(version, after_help = SHORT_END, after_long_help = END)]
pub(crate) struct Arguments {
    /// The port to listen on: 1 to 65535, or a service name
    #[arg(allow_hyphen_values = true)]
    pub(crate) port: Port,
    /// Where to keep the files; created when missing
    #[arg(value_name = "FILE-DIR")]
    pub(crate) file_dir: PathBuf,
    /// How many threads serve [default: one per core]
    #[arg(long, value_name = "N", env = "ACCIO_WORKERS", hide_env = true, hide_short_help = true)]
    pub(crate) workers: Option<NonZeroUsize>,
    /// Give up, once listening, what is not needed: other files, connecting out, running programs
    #[arg(long, value_name = "MODE", value_enum, default_value_t = Sandbox::Try,
          env = "ACCIO_SANDBOX", hide_env = true)]
    pub(crate) sandbox: Sandbox,
    // Before those that begin a heading.
    #[command(flatten)]
    pub(crate) serve: ServeFlags,
    #[command(flatten)]
    pub(crate) files: Files,
    #[cfg(feature = "store-core")]
    #[command(flatten)]
    pub(crate) store: StoreFlags,
    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// How the files are kept.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Files")]
pub(crate) struct Files {
    /// Confirm a file only when it is on the disk, to survive a power loss
    #[arg(long, env = "ACCIO_DURABLE", hide_env = true, value_parser = FalseyValueParser::new())]
    pub(crate) durable: bool,
    /// What becomes of files that are there already
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = WithExisting::Replace,
          env = "ACCIO_EXISTING", hide_env = true)]
    pub(crate) existing: WithExisting,
    /// The number of the first connection
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..),
          env = "ACCIO_IDS_FROM", hide_env = true)]
    pub(crate) ids_from: u64,
    /// The permissions of the files, such as 640, whatever the umask [default: 666 less the umask]
    #[arg(long, value_name = "OCTAL", value_parser = mode, env = "ACCIO_MODE", hide_env = true)]
    pub(crate) mode: Option<u32>,
    /// Run a command after each file is complete
    ///
    /// It is split into words as by a shell, at the start, and run without one. ACCIO_ID,
    /// ACCIO_PATH, ACCIO_BYTES and ACCIO_PEER in its environment say which file it is for. What it
    /// prints goes to stderr; its failure is logged and harms nothing.
    #[arg(long, value_name = "COMMAND", env = "ACCIO_ON_COMMIT", hide_env = true)]
    pub(crate) on_commit: Option<String>,
    /// How many of these commands run at once; the others wait, some ten thousand of them
    #[arg(
        long,
        value_name = "N",
        env = "ACCIO_ON_COMMIT_JOBS",
        hide_env = true,
        default_value = "4",
        hide_short_help = true
    )]
    pub(crate) on_commit_jobs: NonZeroUsize,
}

/// How files are kept in a store.
#[cfg(feature = "store-core")]
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Object stores")]
pub(crate) struct StoreFlags {
    /// The name of this receiver, which no other has: files become PREFIX/NAME/N.file [default: the
    /// host's name]
    #[arg(long, value_name = "NAME", env = "ACCIO_NODE", hide_env = true, hide_short_help = true)]
    pub(crate) node: Option<accio_store::NodeName>,
    /// Begin after the highest number this receiver has in the store
    #[arg(long, env = "ACCIO_IDS_FROM_STORE", hide_env = true, hide_short_help = true,
          value_parser = FalseyValueParser::new())]
    pub(crate) ids_from_store: bool,
    /// How much memory all uploads together may hold: bytes, or with K, M, G or T; at least 16M
    #[arg(long, value_name = "SIZE", value_parser = memory, default_value = "512M",
          env = "ACCIO_STORE_MEMORY", hide_env = true, hide_short_help = true)]
    pub(crate) store_memory: u64,
}

/// What one client, or all of them, may take.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// How many clients are served at once; more wait, not refused [default: what the descriptor
    /// limit allows]
    #[arg(long, value_name = "N", env = "ACCIO_MAX_CONNECTIONS", hide_env = true)]
    pub(crate) max_connections: Option<NonZeroUsize>,
    /// How many clients of one address are served at once; more are refused
    #[arg(long, value_name = "N", env = "ACCIO_MAX_PER_IP", hide_env = true)]
    pub(crate) max_per_ip: Option<NonZeroU32>,
    /// How large a file may be: bytes, or with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = bytes, env = "ACCIO_MAX_SIZE", hide_env = true)]
    pub(crate) max_size: Option<u64>,
    /// How long a transfer may take, however busy it is
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true,
          env = "ACCIO_MAX_DURATION", hide_env = true)]
    pub(crate) max_duration: Option<Duration>,
    /// How many bytes a second a client must send, over any ten seconds; with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = bytes, env = "ACCIO_MIN_RATE", hide_env = true)]
    pub(crate) min_rate: Option<u64>,
    /// How much of the disk must be free to accept a connection: bytes, or with K, M, G or T
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "0",
          hide_default_value = true, env = "ACCIO_MIN_FREE", hide_env = true)]
    pub(crate) min_free: u64,
    /// Serve only clients of this network (repeatable): an address, or one such as 10.0.0.0/8
    #[arg(long, value_name = "CIDR", env = "ACCIO_ALLOW", hide_env = true, value_delimiter = ',')]
    pub(crate) allow: Vec<Network>,
    /// Refuse clients of this network (repeatable), even if it is allowed too
    #[arg(long, value_name = "CIDR", env = "ACCIO_DENY", hide_env = true, value_delimiter = ',')]
    pub(crate) deny: Vec<Network>,
    /// Each connection comes from a proxy that says in a PROXY header whom it is for
    ///
    /// Versions 1 and 2, as of haproxy's send-proxy and send-proxy-v2. Limits, networks, journal and
    /// log then see that peer; a connection without such a header is reset and gets no number.
    /// Whoever can connect can claim any address, so let nobody but the proxy.
    #[cfg(feature = "proxy-protocol")]
    #[arg(long, help_heading = "Behind a balancer", env = "ACCIO_PROXY_PROTOCOL", hide_env = true,
          value_parser = FalseyValueParser::new())]
    pub(crate) proxy_protocol: bool,
}

impl Limits {
    /// Sets the limits of a server.
    pub(crate) fn apply<K: FileSink>(self, builder: ServerBuilder<K>) -> ServerBuilder<K> {
        let mut builder = builder.allow(self.allow).deny(self.deny);
        if let Some(max_connections) = self.max_connections {
            builder = builder.max_connections(max_connections);
        }
        if let Some(max_per_ip) = self.max_per_ip {
            builder = builder.max_per_ip(max_per_ip);
        }
        #[cfg(feature = "proxy-protocol")]
        {
            builder = builder.proxy_protocol(self.proxy_protocol);
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

/// What becomes of an `N.file` of an earlier run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WithExisting {
    /// Connection N replaces N.file
    Replace,
    /// Begin after the highest number there is, and never replace a file
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

/// Nine permission bits in octal.
fn mode(value: &str) -> Result<u32, String> {
    match u32::from_str_radix(value, 8) {
        Ok(mode) if mode <= 0o777 && !value.starts_with('+') => Ok(mode),
        _ => Err("not a mode between 000 and 777, in octal".to_owned()),
    }
}

/// Two parts at the least: while one is sent, another fills.
#[cfg(feature = "store-core")]
fn memory(value: &str) -> Result<u64, String> {
    match bytes(value)? {
        size if size < accio_store::StoreOptions::MIN_MEMORY => Err("less than 16M".to_owned()),
        size => Ok(size),
    }
}

const SHORT_END: &str = "Exit codes: 0 stopped by SIGINT, SIGTERM or SIGQUIT; 1 cannot listen or \
cannot use FILE-DIR; 2 usage. See --help for more, and for examples.";

const END: &str = "\
Examples:
  accio-server 5000 received
      Keep what comes in the folder \"received\".
  accio-server 5000 received --existing keep --durable --drain 30
      Go on where the last run ended, lose nothing to a power loss, and let transfers finish.
  accio-server 5000 received --journal log/accio.ndjson --metrics 9090 -v
      Tell about every connection in a file, on http://127.0.0.1:9090/metrics, and on stderr.
  accio-server 5000 received --on-commit ./index.sh
      Run a script for each complete file; it finds the file under \"$ACCIO_PATH\".

Environment:
  Each flag but -v and -q can be given as a variable: ACCIO_MAX_SIZE=1G is --max-size 1G. The
  command line wins. Where a flag is repeatable, commas separate the values.
  RUST_LOG says what is logged, NO_COLOR that it is not coloured.

Signals:
  SIGTERM, SIGINT, SIGQUIT end the server (see --drain), SIGHUP reopens the journal. Other signals
  have no effect.

Exit codes:
  0  stopped by a signal
  1  cannot listen, or cannot use FILE-DIR or the journal
  2  wrong usage";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_mode_is_nine_bits_in_octal() {
        assert_eq!(mode("640"), Ok(0o640));
        assert_eq!(mode("0777"), Ok(0o777));
        for bad in ["", "8", "1000", "-1", "+1", "rw", "0o640"] {
            assert!(mode(bad).is_err(), "{bad}");
        }
    }

    #[cfg(feature = "store-core")]
    #[test]
    fn memory_is_two_parts_at_least() {
        assert_eq!(memory("16M"), Ok(16 << 20));
        assert!(memory("15M").is_err());
        assert!(memory("x").is_err());
    }
}
