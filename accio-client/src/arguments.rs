//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use accio_proto::cli::{Verbosity, seconds};
use accio_proto::{Dialect, FastPath, Port};
use clap::Parser;

/// Sends a file to an Accio server
///
/// Connects to HOST, waits for the server's greeting, sends FILE and waits until the server has
/// confirmed it by closing the connection. Whatever ends the transfer early resets the connection,
/// so the server never takes a part for the whole.
#[derive(Debug, Parser)]
#[command(version, after_long_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Name or address of the server, IPv4 or IPv6
    pub(crate) host: String,
    /// Its port, 1 to 65535, or a service name such as http
    // A negative number is a wrong port, not an unknown flag.
    #[arg(allow_negative_numbers = true)]
    pub(crate) port: Port,
    /// The file to send
    pub(crate) file: PathBuf,

    /// How the connection is opened: accio, confirm or direct
    #[arg(long, value_name = "DIALECT", default_value_t)]
    pub(crate) handshake: Dialect,
    /// The limit for connecting, the handshake, a send without progress and the confirmation, each
    /// [default: 10]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true)]
    pub(crate) timeout: Option<Duration>,

    #[command(flatten)]
    pub(crate) verbosity: Verbosity,

    /// Do without a fast path of the kernel, such as sendfile (repeatable)
    #[arg(long, value_name = "FASTPATH", help_heading = "Diagnostics", hide_short_help = true)]
    pub(crate) without: Vec<FastPath>,
}

const EXIT_CODES: &str = "\
Exit codes, as curl has them:
   0  sent; a note says when the server did not confirm
   2  wrong usage
   6  the host's name has no address
   7  no connection
  26  the file cannot be read
  28  a time limit
  55  the sending broke off
  56  the handshake was wrong, or the server reset the connection instead of confirming";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn flags_and_positions() {
        let line = "accio-client h 80 f --handshake confirm --timeout 0.5 --without sendfile -v";
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        assert_eq!((arguments.host.as_str(), arguments.port.number()), ("h", 80));
        assert_eq!(arguments.handshake, Dialect::Confirm);
        assert_eq!(arguments.timeout, Some(Duration::from_millis(500)));
        assert_eq!(arguments.without, [FastPath::Sendfile]);
        let arguments = Arguments::try_parse_from(["accio-client", "h", "http", "-v", "f"]);
        let arguments = arguments.unwrap();
        assert_eq!((arguments.port.number(), arguments.handshake), (80, Dialect::Accio));
        assert_eq!((arguments.timeout, arguments.verbosity.verbose), (None, 1));
    }
}
