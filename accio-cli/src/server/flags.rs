//! The flags of a server program.

#[cfg(feature = "metrics")]
use std::net::SocketAddr;
#[cfg(feature = "operations")]
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "operations")]
use accio_proto::{FastPath, FastPaths};
use accio_proto::{FileSink, ServerBuilder, ServerDialect};

#[cfg(feature = "operations")]
use crate::Failure;
#[cfg(feature = "metrics")]
use crate::USAGE;
use crate::{ColorFlag, Verbosity, ZonedAddress, seconds};

/// The flags of every server, to be flattened into its arguments.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerFlags {
    /// Speak dialect auto, accio, confirm or direct
    #[arg(long, value_name = "DIALECT", env = "ACCIO_HANDSHAKE", default_value_t)]
    pub handshake: ServerDialect,
    /// Listen on this IPv4 or IPv6 address (repeatable) [default: all]
    ///
    /// Without this flag, the server listens on all interfaces: 0.0.0.0 and, if the machine has
    /// IPv6, also ::. The address :: alone accepts IPv6 and IPv4; together with an IPv4 address,
    /// IPv6 only. A link-local address needs its zone: fe80::1%eth0.
    #[arg(long, value_name = "ADDR", env = "ACCIO_BIND", value_delimiter = ',')]
    pub bind: Vec<ZonedAddress>,
    /// Abort a transfer after this idle time, e.g. 2.5
    #[arg(long, value_name = "SECONDS", env = "ACCIO_TIMEOUT",
          value_parser = seconds, default_value = "10", allow_negative_numbers = true)]
    pub timeout: Duration,
    #[expect(missing_docs, reason = "a doc comment would become its help")]
    #[command(flatten)]
    pub verbosity: Verbosity,
    #[expect(missing_docs, reason = "a doc comment would become its help")]
    #[command(flatten)]
    pub color: ColorFlag,
}

impl ServerFlags {
    /// Applies the dialect and the idle timeout to a server.
    pub(super) fn configure<K: FileSink>(&self, builder: ServerBuilder<K>) -> ServerBuilder<K> {
        builder.dialect(self.handshake).idle_timeout(self.timeout)
    }
}

/// The flags for operating a server unattended, to be flattened into its arguments.
#[cfg(feature = "operations")]
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Operations")]
pub struct OperationFlags {
    /// Let transfers finish for this long after a signal
    ///
    /// The first SIGTERM, SIGINT or SIGQUIT stops accepting; unfinished transfers are aborted after
    /// this time. A second signal aborts them immediately.
    #[arg(long, value_name = "SECONDS", env = "ACCIO_DRAIN",
          value_parser = seconds_or_zero, default_value = "0", allow_negative_numbers = true)]
    pub drain: Duration,
    /// Append a JSON line per connection to this file (-: stdout)
    ///
    /// Fields: time, id, peer, identity (with TLS), dialect, bytes, digest (with --digest), duration,
    /// outcome (complete or error), and for an error reason (one stable word) and error (text). A
    /// failed TLS handshake has the outcome refused and no id. SIGHUP reopens the file, for rotation.
    /// The file must be outside the directory of received files; its directory is created if missing.
    #[arg(long, value_name = "FILE", env = "ACCIO_JOURNAL")]
    pub journal: Option<PathBuf>,
    /// Serve a status page, Prometheus metrics and /health on this address
    ///
    /// A port alone means loopback: 9090 is 127.0.0.1:9090. There is no authentication; bind it to
    /// a trusted address only. The status page is /; /status.json has the same for scripts.
    #[cfg(feature = "metrics")]
    #[arg(long, value_name = "ADDR", env = "ACCIO_METRICS", value_parser = super::metrics::address)]
    pub metrics: Option<SocketAddr>,
    /// Serve no status page, only metrics and /health
    #[cfg(feature = "metrics")]
    #[arg(long, env = "ACCIO_METRICS_ONLY", hide_short_help = true,
          value_parser = clap::builder::FalseyValueParser::new())]
    pub metrics_only: bool,
    /// Answer the status page under this host name, too (repeatable)
    ///
    /// Addresses, names without a dot and the name of this machine need no flag. Other names are
    /// refused, because a web site could point its own name at this address and read the page.
    #[cfg(feature = "metrics")]
    #[arg(
        long,
        value_name = "NAME",
        env = "ACCIO_METRICS_NAME",
        hide_short_help = true,
        value_delimiter = ','
    )]
    pub metrics_name: Vec<String>,
    /// Disable one of the kernel's fast paths (repeatable)
    ///
    /// One of splice, truncate, tmpfile, preallocate, empty-path, read-back.
    #[arg(
        long,
        value_name = "FAST-PATH",
        hide_short_help = true,
        env = "ACCIO_WITHOUT",
        value_delimiter = ','
    )]
    pub without: Vec<FastPath>,
    #[expect(missing_docs, reason = "a doc comment would become its help")]
    #[cfg(feature = "tls-server")]
    #[command(flatten)]
    pub tls: crate::tls::ServerTlsFlags,
}

#[cfg(feature = "operations")]
impl OperationFlags {
    /// Returns the fast paths that are not disabled.
    pub fn fast_paths(&self) -> FastPaths {
        FastPaths::without(self.without.iter().copied())
    }

    /// Checks the combination of flags without reading any file, so that a usage error comes before
    /// everything else.
    ///
    /// # Errors
    ///
    /// Returns an error if a flag requires another one that is missing.
    #[cfg_attr(
        not(any(feature = "tls-server", feature = "metrics")),
        allow(
            clippy::unused_self,
            clippy::unnecessary_wraps,
            reason = "only TLS and metrics have such flags"
        )
    )]
    pub fn check(&self) -> Result<(), Failure> {
        #[cfg(feature = "metrics")]
        if self.metrics.is_none() {
            let flags = [
                ("--metrics-only", self.metrics_only),
                ("--metrics-name", !self.metrics_name.is_empty()),
            ];
            if let Some((flag, _)) = flags.into_iter().find(|(_, is_given)| *is_given) {
                return Err(Failure::new(flag, "it needs --metrics").with_code(USAGE));
            }
        }
        #[cfg(feature = "tls-server")]
        self.tls.check()?;
        Ok(())
    }
}

/// Parses a time limit in seconds, or 0 for none.
#[cfg(feature = "operations")]
fn seconds_or_zero(value: &str) -> Result<Duration, String> {
    match value.trim_end_matches('s').parse() {
        Ok(0.0) => Ok(Duration::ZERO),
        _ => seconds(value),
    }
}

#[cfg(all(test, feature = "operations"))]
mod tests {
    use super::*;

    #[test]
    fn zero_disables_draining() {
        assert_eq!(seconds_or_zero("0"), Ok(Duration::ZERO));
        assert_eq!(seconds_or_zero("0s"), Ok(Duration::ZERO));
        assert_eq!(seconds_or_zero("1.5"), Ok(Duration::from_millis(1500)));
        for bad in ["-1", "", "ten"] {
            assert!(seconds_or_zero(bad).is_err(), "{bad}");
        }
    }
}
