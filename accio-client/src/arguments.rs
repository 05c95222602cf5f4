//! The command line.

use std::net::SocketAddr;
use std::num::{IntErrorKind, NonZeroU64, NonZeroUsize, ParseIntError};
use std::path::{Path, PathBuf};
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::time::Duration;

use accio_cli::{ColorFlag, Failure, USAGE, Verbosity, ZonedAddress, bytes, count, seconds};
#[cfg(feature = "digest")]
use accio_proto::DigestAlgorithm;
use accio_proto::{Client, ClientBuilder, Dialect, Family, FastPath, FastPaths, Port};
use clap::{Parser, ValueEnum};

use crate::help;

/// Send files to an Accio server
///
/// Connects to HOST, waits for the greeting, sends FILE and waits until the server confirms it by
/// closing the connection. A failed transfer resets the connection, so that the server never
/// mistakes a partial file for a complete one. File names are not transmitted.
///
/// Each FILE is sent on its own connection; if one fails, the others are still sent. Bytes appended
/// to a file during its transfer are sent too; a file that shrinks fails. The addresses of HOST are
/// tried 250 ms apart, alternating IPv6 and IPv4; the first that answers is used.
#[derive(Debug, Parser)]
#[command(version, override_usage = help::USES, after_help = help::SHORT, after_long_help = help::LONG)]
pub(crate) struct Arguments {
    /// Name or IPv4 or IPv6 address of the server
    pub(crate) host: String,
    /// Port of the server: 1 to 65535, or a service name
    // A negative number is a wrong port, not an unknown flag.
    #[arg(allow_negative_numbers = true)]
    pub(crate) port: Port,
    /// Files and directories to send, in this order; - is standard input
    ///
    /// A directory is sent as a tar archive that is created during the transfer; if one of its
    /// files cannot be read, the upload is reset. If standard input is a pipe, the client cannot
    /// know whether the program that writes to it failed; use --from-command if that matters.
    #[arg(
        value_name = "FILE",
        required_unless_present_any = ["probe", "from_command"],
        conflicts_with_all = ["probe", "from_command"]
    )]
    pub(crate) files: Vec<PathBuf>,

    /// Speak dialect accio, confirm or direct
    #[arg(long, value_name = "DIALECT", default_value_t, env = "ACCIO_HANDSHAKE")]
    pub(crate) handshake: Dialect,
    /// Send the output of a command; fail unless it exits with 0
    ///
    /// The command line is split into words like in a shell, but run without one, and before the
    /// client connects. If the command exits with another status or is killed, the upload is reset
    /// and the server stores none of its output. If the upload fails, the command and the processes
    /// that it has started are killed.
    /// --retry runs it again.
    #[arg(long, value_name = "CMD", conflicts_with = "probe", env = "ACCIO_FROM_COMMAND")]
    pub(crate) from_command: Option<String>,
    /// Fail unless the server confirms the file
    ///
    /// Some servers never close the connection. By default such an upload succeeds with a note once
    /// the server has received all bytes. With this flag it fails with exit code 28.
    #[arg(long)]
    pub(crate) require_confirmation: bool,
    /// Compute a digest of each file: sha256 or blake3
    ///
    /// It is part of the last line and of --json, to be compared with the journal of a server with
    /// the same flag. The file then passes through this process instead of being sent by the
    /// kernel, which takes more CPU time.
    #[cfg(feature = "digest")]
    #[arg(long, value_name = "ALGORITHM", env = "ACCIO_DIGEST")]
    pub(crate) digest: Option<DigestAlgorithm>,
    /// Send this many files at once
    #[arg(short, long, value_name = "N", value_parser = count::<NonZeroUsize>, default_value = "1",
          env = "ACCIO_JOBS")]
    pub(crate) jobs: NonZeroUsize,
    /// Retry a failed file up to N times
    ///
    /// Retries temporary failures: no connection, a timeout, a reset. Each retry sends the whole
    /// file on a new connection; the server numbers it separately and usually stores ERROR for the
    /// failed attempt. Input from a pipe cannot be read twice and is not retried. The delay is 1 s,
    /// 2 s, 4 s and so on up to 60 s, randomly shortened by up to half.
    #[arg(
        long,
        value_name = "N",
        value_parser = retries,
        default_value = "0",
        hide_default_value = true,
        env = "ACCIO_RETRY"
    )]
    pub(crate) retry: u32,
    /// Maximum bytes per second and file, e.g. 2M
    ///
    /// The suffixes K, M, G and T are powers of 1024, as in curl.
    #[arg(long, value_name = "SPEED", value_parser = rate, env = "ACCIO_LIMIT_RATE")]
    pub(crate) limit_rate: Option<NonZeroU64>,
    /// Show the server's greeting without sending anything
    ///
    /// Connects over IPv4 and IPv6, waits 3 seconds or --timeout for the greeting, prints its exact
    /// bytes and the duration of each step, and resets the connection. An Accio server numbers the
    /// connection and stores ERROR for it. The exit code is 0 if an address greets as --handshake
    /// expects (direct: sends nothing). A server that requires TLS is silent.
    #[arg(long)]
    pub(crate) probe: bool,

    #[command(flatten)]
    pub(crate) network: Network,
    #[cfg(feature = "tls")]
    #[command(flatten)]
    pub(crate) tls: accio_cli::tls::ClientTlsFlags,
    /// The loaded TLS configuration, once `load_tls` has been called.
    #[cfg(feature = "tls")]
    #[arg(skip)]
    pub(crate) tls_config: Option<Arc<accio_cli::tls::ClientConfig>>,
    #[command(flatten)]
    pub(crate) output: Output,

    /// Disable one of the kernel's fast paths: sendfile, splice (repeatable)
    #[arg(
        long,
        value_name = "FAST-PATH",
        help_heading = "Diagnostics",
        hide_short_help = true,
        env = "ACCIO_WITHOUT",
        value_delimiter = ','
    )]
    pub(crate) without: Vec<FastPath>,
}

/// The flags for reaching the server.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Network")]
pub(crate) struct Network {
    /// Time limit of each step of a transfer [default: 10]
    ///
    /// Applies separately to connecting, the handshake, sending without progress, and the
    /// confirmation.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true,
          env = "ACCIO_TIMEOUT")]
    pub(crate) timeout: Option<Duration>,
    /// Time limit of resolving and connecting [default: --timeout]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true,
          env = "ACCIO_CONNECT_TIMEOUT")]
    pub(crate) connect_timeout: Option<Duration>,
    /// Time limit of each upload, from resolving to the confirmation
    #[arg(long, value_name = "SECONDS", value_parser = seconds, allow_negative_numbers = true,
          env = "ACCIO_MAX_TIME")]
    pub(crate) max_time: Option<Duration>,
    /// Connect from this local address, e.g. 192.0.2.1 or fe80::1%eth0
    #[arg(long, value_name = "ADDR", value_parser = source_address, env = "ACCIO_SOURCE")]
    pub(crate) source: Option<SocketAddr>,
    /// Use IPv4 only
    #[arg(short = '4', long, conflicts_with = "ipv6")]
    pub(crate) ipv4: bool,
    /// Use IPv6 only
    #[arg(short = '6', long)]
    pub(crate) ipv6: bool,
}

/// The flags for output.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Show progress on stderr: auto, plain or none
    ///
    /// auto: a bar on a terminal. plain: a line per second. Progress counts the bytes that the peer
    /// has acknowledged. -q disables it, and -v disables the bar.
    #[arg(
        long,
        value_name = "HOW",
        default_value = "auto",
        hide_possible_values = true,
        env = "ACCIO_PROGRESS"
    )]
    pub(crate) progress: ProgressStyle,
    /// Print events on stdout, one JSON object per line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) color: ColorFlag,
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressStyle {
    /// A bar per file on a terminal, nothing elsewhere
    Auto,
    /// A line per second
    Plain,
    /// Nothing
    None,
}

impl Arguments {
    /// Checks combinations that clap cannot express.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let usage = |what: &str, why: &str| Err(Failure::new(what, why).with_code(USAGE));
        if self.files.iter().filter(|file| is_stdin(file)).count() > 1 {
            return usage("FILE \"-\"", "standard input can be sent only once");
        }
        #[cfg(feature = "tls")]
        if self.probe && self.tls.is_on() {
            return usage("--probe", "it does not speak TLS; remove the --tls flags and variables");
        }
        match (self.network.source, self.family()) {
            (Some(source), family) if !family.has(source.ip()) => usage(
                &format!("--source {}", source.ip()),
                &format!("not an {family} address; remove one of the two flags"),
            ),
            _ => Ok(()),
        }
    }

    /// Configures the client.
    pub(crate) fn client(&self) -> ClientBuilder {
        let network = &self.network;
        let mut client = Client::builder()
            .dialect(self.handshake)
            .family(self.family())
            .fast_paths(FastPaths::without(self.without.iter().copied()));
        if let Some(limit) = network.timeout {
            client = client
                .connect_timeout(limit)
                .handshake_timeout(limit)
                .stall_timeout(limit)
                .confirm_timeout(limit);
        }
        if let Some(limit) = network.connect_timeout {
            client = client.connect_timeout(limit);
        }
        if let Some(source) = network.source {
            client = client.source_address(source);
        }
        if let Some(limit) = network.max_time {
            client = client.transfer_timeout(limit);
        }
        if let Some(rate) = self.limit_rate {
            client = client.rate_limit(rate);
        }
        #[cfg(feature = "digest")]
        if let Some(algorithm) = self.digest {
            client = client.digest(algorithm);
        }
        #[cfg(feature = "tls")]
        if let Some(config) = &self.tls_config {
            client = client.tls(Arc::clone(config));
        }
        client
    }

    /// Reads the keys and certificates that TLS needs.
    #[cfg(feature = "tls")]
    pub(crate) fn load_tls(&mut self) -> Result<(), Failure> {
        self.tls_config = self.tls.load()?;
        Ok(())
    }

    /// Returns whether the server must have a given key.
    pub(crate) fn is_pinned(&self) -> bool {
        #[cfg(feature = "tls")]
        return !self.tls.tls_pin.is_empty();
        #[cfg(not(feature = "tls"))]
        false
    }

    fn family(&self) -> Family {
        match (self.network.ipv4, self.network.ipv6) {
            (true, _) => Family::Ipv4,
            (_, true) => Family::Ipv6,
            _ => Family::Any,
        }
    }
}

/// Returns whether this FILE means standard input.
pub(crate) fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Parses an address of this machine; a link-local address with its zone may be in brackets.
fn source_address(value: &str) -> Result<SocketAddr, String> {
    let value = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(value);
    value.parse::<ZonedAddress>().map(|address| address.with_port(0))
}

fn retries(value: &str) -> Result<u32, String> {
    value.parse().map_err(|error: ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow => format!("too large: the maximum is {}", u32::MAX),
        _ => "not a whole number".to_owned(),
    })
}

fn rate(value: &str) -> Result<NonZeroU64, String> {
    NonZeroU64::new(bytes(value)?).ok_or_else(|| "must be above 0 bytes per second".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Arguments {
        Arguments::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn command_definition_is_valid() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn all_variables_are_listed_in_accio_cli() {
        assert_eq!(accio_cli::unlisted_variables(&Arguments::command()), [""; 0]);
    }

    #[test]
    fn accepts_flags_before_and_after_arguments() {
        let arguments =
            parse("accio-client h 80 f --handshake confirm --timeout 0.5 --without sendfile -v");
        assert_eq!((arguments.host.as_str(), arguments.port.number()), ("h", 80));
        assert_eq!(arguments.handshake, Dialect::Confirm);
        assert_eq!(arguments.network.timeout, Some(Duration::from_millis(500)));
        assert_eq!(arguments.without, [FastPath::Sendfile]);
        let arguments = parse("accio-client h http -v f");
        assert_eq!((arguments.port.number(), arguments.handshake), (80, Dialect::Accio));
        assert_eq!((arguments.network.timeout, arguments.output.verbosity.verbose), (None, 1));
        assert_eq!((arguments.retry, arguments.jobs.get(), arguments.probe), (0, 1, false));
    }

    #[test]
    fn accepts_several_files_and_standard_input() {
        let arguments = parse("accio-client -4 h 80 a - b --limit-rate 2k --jobs 3");
        assert_eq!(arguments.files, ["a", "-", "b"].map(PathBuf::from));
        assert_eq!(arguments.limit_rate.unwrap().get(), 2048);
        assert_eq!((arguments.family(), arguments.jobs.get()), (Family::Ipv4, 3));
        assert!(arguments.check().is_ok());
        assert!(parse("accio-client h 80 - a -").check().is_err());
        assert!(parse("accio-client --probe h 80").files.is_empty());
        let dashed = parse("accio-client h 80 -- -x");
        assert_eq!(dashed.files, [PathBuf::from("-x")]);
    }

    #[test]
    fn says_why_a_number_of_retries_is_invalid() {
        assert_eq!(retries("4294967295"), Ok(u32::MAX));
        let too_large = "too large: the maximum is 4294967295";
        assert_eq!(retries("4294967296").unwrap_err(), too_large);
        for value in ["-1", "x", ""] {
            assert_eq!(retries(value).unwrap_err(), "not a whole number");
        }
    }

    #[test]
    fn rejects_a_source_of_the_wrong_family() {
        assert!(parse("accio-client -6 --source 127.0.0.1 h 80 f").check().is_err());
        assert!(parse("accio-client -6 --source ::1 h 80 f").check().is_ok());
        assert!(parse("accio-client --source 127.0.0.1 h 80 f").check().is_ok());
    }

    #[test]
    fn each_flag_with_a_value_has_a_variable() {
        for argument in Arguments::command().get_arguments() {
            let Some(long) = argument.get_long() else { continue };
            if argument.get_num_args().is_some_and(|count| count.takes_values()) {
                let variable = format!("ACCIO_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(argument.get_env(), Some(variable.as_ref()), "--{long}");
            }
        }
    }
}
