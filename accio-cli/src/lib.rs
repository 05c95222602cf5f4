//! What Accio's programs share above the library: the `ERROR:` line, verbosity, signals.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::error::ErrorKind;
use env_logger::{Target, WriteStyle};
use log::LevelFilter;

#[cfg(feature = "client")]
use accio_proto::ClientError;
#[cfg(feature = "server")]
use accio_proto::ServerError;
use accio_proto::{DirError, limits};

mod color;
mod completions;
mod descriptors;
mod escape;
#[cfg_attr(not(feature = "server"), expect(dead_code, reason = "servers alone start the thread"))]
mod log_writer;
#[cfg(feature = "server")]
mod server;
mod stdio;

pub use color::{Color, ColorFlag};
pub use descriptors::raise_descriptor_limit;
pub use escape::{escape, escape_json, is_unprintable};
#[cfg(feature = "server")]
pub use server::{Program, ServeFlags};
pub use stdio::{check_stdin, check_stdout};

/// Why a program ends early: the one `ERROR: …` line and the exit code.
#[derive(Debug)]
pub struct Failure {
    line: String,
    code: u8,
}

/// The exit code of a usage error.
pub const USAGE: u8 = 2;

impl Failure {
    /// `what` failed because of `why`; exit code 1.
    pub fn new(what: impl Display, why: impl Display) -> Self {
        Failure { line: format!("{what}: {why}"), code: 1 }
    }

    /// `error` says what failed and why; exit code 1.
    pub fn from_error(error: impl std::error::Error) -> Self {
        Failure { line: error.to_string(), code: 1 }
    }

    /// The same with another exit code.
    pub fn with_code(self, code: u8) -> Self {
        Failure { code, ..self }
    }

    /// The same with `advice` on what to do next.
    pub fn with_advice(self, advice: impl Display) -> Self {
        Failure { line: format!("{}; {advice}", self.line), ..self }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Prints the line on stderr.
    pub fn say(&self) {
        print_line(&format!("{} {}", color::error_prefix(), escape(&self.line)));
    }
}

impl Display for Failure {
    /// What failed and why.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.line)
    }
}

#[cfg(feature = "server")]
impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        Failure { line: error.to_string(), code: 1 }
    }
}

impl From<DirError> for Failure {
    fn from(error: DirError) -> Self {
        Failure { line: error.to_string(), code: 1 }
    }
}

#[cfg(feature = "client")]
impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Failure { line: error.to_string(), code: 1 }
    }
}

/// `-v` and `-q`, to be flattened into a program's arguments.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Verbosity {
    /// Say more on stderr (-vv: even more); RUST_LOG says it in detail
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Say nothing on stderr but errors
    #[arg(short, long)]
    pub quiet: bool,
}

impl Verbosity {
    fn level(self) -> LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::Error,
            (_, 0) => LevelFilter::Warn,
            (_, 1) => LevelFilter::Info,
            (_, 2) => LevelFilter::Debug,
            _ => LevelFilter::Trace,
        }
    }

    /// Starts the log on stderr; RUST_LOG, where set, has the last word.
    pub fn start_log(self) {
        color::choose();
        let style = if color::is_on_for_stderr() { WriteStyle::Always } else { WriteStyle::Never };
        env_logger::Builder::new()
            .filter_level(self.level())
            .parse_default_env()
            .write_style(style)
            .target(Target::Pipe(Box::new(log_writer::Stderr)))
            .format(|line, record| {
                let (time, level) = (line.timestamp_millis(), record.level());
                let style = line.default_level_style(level);
                let text = record.args().to_string();
                writeln!(line, "[{time} {style}{level:<5}{style:#}] {}", escape(&text))
            })
            .init();
    }
}

/// The `main` of each program: parse the arguments, run, print what went wrong, exit.
///
/// Help and version go to stdout with exit code 0; every failure, a usage error too, is one line
/// `ERROR: what: why` on stderr.
pub fn main<A: Parser>(run: impl FnOnce(A) -> Result<ExitCode, Failure>) -> ExitCode {
    let outcome = match parse::<A>() {
        Ok(Parsed::Arguments(arguments)) => run(arguments),
        Ok(Parsed::Generated(text)) => printed(check_stdout().and_then(|()| {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&text).and_then(|()| stdout.flush())
        })),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                printed(check_stdout().and_then(|()| error.print()))
            }
            _ => Err(Failure { line: usage_line(&error), code: USAGE }),
        },
    };
    let code = outcome.unwrap_or_else(|failure| {
        failure.say();
        ExitCode::from(failure.code)
    });
    log_writer::flush(log_writer::LAST_LINES);
    code
}

fn printed(result: io::Result<()>) -> Result<ExitCode, Failure> {
    let failure = |error| Failure::new("cannot print to stdout", reason(&error));
    result.map(|()| ExitCode::SUCCESS).map_err(failure)
}

/// What a command line came to.
enum Parsed<A> {
    Arguments(A),
    /// What was to be generated from the arguments' definitions.
    Generated(Vec<u8>),
}

/// What `A::try_parse` does, in the colours asked for, and `--generate`.
fn parse<A: Parser>() -> Result<Parsed<A>, clap::Error> {
    let mut command = completions::add(A::command()).color(color::choose().into());
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    if let Some(kind) = completions::wanted(&matches) {
        return Ok(Parsed::Generated(completions::text(kind, command)?));
    }
    let arguments = A::from_arg_matches_mut(&mut matches);
    arguments.map(Parsed::Arguments).map_err(|error| error.format(&mut command))
}

/// Ends the process at once for a failure that nobody can wait for.
pub fn exit(failure: Failure) -> ! {
    failure.say();
    log_writer::flush(log_writer::LAST_LINES);
    std::process::exit(failure.code.into())
}

/// What the system said, without the number and in lower case: `connection refused`.
pub fn reason(error: &io::Error) -> String {
    accio_proto::os_error_text(error)
}

/// Prints a line on stderr, with control characters escaped. In a server that has started, this
/// never blocks.
pub fn say(line: impl Display) {
    print_line(&escape(&line.to_string()));
}

fn print_line(line: &str) {
    // In one write, so that no other process's words come in between.
    log_writer::write(format!("{line}\n").as_bytes());
}

/// clap's several lines as one: what is wrong, then how it is used.
fn usage_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut line = String::new();
    for part in lines.filter(|line| !line.starts_with("For more information")) {
        let gap = match line.chars().last() {
            None => "",
            Some(':' | ',') => " ",
            Some(_) => "; ",
        };
        line.push_str(gap);
        line.push_str(part);
    }
    line
}

/// Parses a time limit in seconds, fractions allowed; for clap's `value_parser`.
///
/// # Errors
///
/// Says what is wrong with the value: not a number, not above 0, or above
/// [`limits::MAX_TIMEOUT`].
pub fn seconds(value: &str) -> Result<Duration, String> {
    let number: f64 = value.parse().map_err(|_| "not a number of seconds".to_owned())?;
    match Duration::try_from_secs_f64(number) {
        Ok(duration) if duration.is_zero() => Err("must be above 0 seconds".into()),
        Ok(duration) if duration <= limits::MAX_TIMEOUT => Ok(duration),
        _ => Err(format!("must be between 0 and {} seconds", limits::MAX_TIMEOUT.as_secs())),
    }
}

/// Parses a number of bytes with an optional suffix K, M, G or T (powers of 1024); for clap's
/// `value_parser`.
///
/// # Errors
///
/// Says what is wrong with the value: not a whole number, an unknown suffix, or too large.
pub fn bytes(value: &str) -> Result<u64, String> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &value[digits.len()..] {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return Err("unknown suffix: use K, M, G or T".to_owned()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "not a number of bytes: use one such as 4096, 64K or 10G".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "more bytes than can be counted".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[arg(long, value_parser = seconds)]
        timeout: Option<Duration>,
        file: String,
    }

    #[test]
    fn usage_errors_are_one_line() {
        for arguments in [&["test"][..], &["test", "a", "b"], &["test", "a", "--timeout", "-1"]] {
            let line = usage_line(&Arguments::try_parse_from(arguments).unwrap_err());
            assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
        }
        let line = usage_line(&Arguments::try_parse_from(["test"]).unwrap_err());
        assert!(line.contains("required") && line.contains("Usage: test"), "{line}");
    }

    #[test]
    fn seconds_take_fractions_and_refuse_the_rest() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["0", "-1", "nan", "inf", "1e300", "ten", ""] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_take_suffixes_and_refuse_the_rest() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("64k"), Ok(64 << 10));
        assert_eq!(bytes("16777215T"), Ok(16777215 << 40));
        for bad in ["", "-1", "1.5G", "G", "1KB", "1 K", "16777216T", "99999999999999999999"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }
}
