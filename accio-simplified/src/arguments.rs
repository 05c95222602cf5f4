//! The command line.

use std::num::NonZeroUsize;

use accio_cli::ServerFlags;
#[cfg(not(feature = "diagnostics"))]
use accio_proto::CountSink;
use accio_proto::{Port, Server, ServerBuilder};
use clap::Parser;

/// Count the bytes that each client sends, one client at a time
///
/// Prints a line for each connection: the number of bytes of its file, or ERROR if the client is
/// idle for too long, resets the connection or breaks the handshake. Further clients wait in the
/// backlog; they get no greeting until it is their turn.
#[derive(Debug, Parser)]
#[command(name = "server-s", version, after_help = SHORT_END, after_long_help = END)]
pub(crate) struct Arguments {
    /// Port to listen on: 1 to 65535, or a service name
    // A negative number is an invalid port; other words with a hyphen are flags.
    #[arg(allow_negative_numbers = true)]
    pub(crate) port: Port,
    #[command(flatten)]
    pub(crate) server: ServerFlags,
    /// Disable one of the kernel's fast paths (repeatable)
    #[cfg(feature = "diagnostics")]
    #[arg(long, value_name = "FAST-PATH")]
    pub(crate) without: Vec<accio_proto::FastPath>,
    /// Serve connections concurrently, and panic when connection N sends content
    #[cfg(feature = "diagnostics")]
    #[arg(long, value_name = "N")]
    pub(crate) panic_on: Option<u64>,
}

#[cfg(feature = "diagnostics")]
pub(crate) type Sink = crate::panicking::PanickingSink;
#[cfg(not(feature = "diagnostics"))]
pub(crate) type Sink = CountSink;

impl Arguments {
    /// Configures a server that counts bytes with one worker, one connection at a time.
    #[cfg(not(feature = "diagnostics"))]
    pub(crate) fn builder(&self) -> ServerBuilder<Sink> {
        one_at_a_time(CountSink)
    }

    /// Configures the same server, unless a flag for tests changes it.
    #[cfg(feature = "diagnostics")]
    pub(crate) fn builder(&self) -> ServerBuilder<Sink> {
        let builder = one_at_a_time(Sink { panic_on: self.panic_on })
            .fast_paths(accio_proto::FastPaths::without(self.without.iter().copied()));
        match (self.panic_on, NonZeroUsize::new(100)) {
            (Some(_), Some(limit)) => builder.max_connections(limit),
            _ => builder,
        }
    }
}

fn one_at_a_time(sink: Sink) -> ServerBuilder<Sink> {
    Server::builder(sink).workers(NonZeroUsize::MIN).max_connections(NonZeroUsize::MIN)
}

const SHORT_END: &str = "Exit codes: 0 stopped by a signal; 1 cannot listen or print; 2 usage.
See --help for details and examples.";

const END: &str = "\
Examples:
  server-s 5000
      Count the bytes that each client sends.
  server-s 5000 --handshake direct --timeout 3
      Send no greeting, and abort idle clients after 3 seconds.

Environment:
  ACCIO_HANDSHAKE, ACCIO_BIND (separated by commas), ACCIO_TIMEOUT and ACCIO_COLOR set the
  corresponding flags; the command line takes precedence. RUST_LOG selects what is logged,
  NO_COLOR disables colour.

Signals:
  SIGTERM, SIGINT and SIGQUIT abort running transfers and end the server.

Exit codes:
  0  stopped by a signal
  1  cannot listen, or cannot print the counts
  2  usage error";

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

    /// Journal, metrics, draining and fast paths are features of accio-server.
    #[cfg(not(feature = "diagnostics"))]
    #[test]
    fn has_no_flags_of_accio_server() {
        let command = Arguments::command();
        let flags: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        assert_eq!(flags, ["handshake", "bind", "timeout", "verbose", "quiet", "color"]);
    }
}
