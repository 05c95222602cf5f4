//! `-v` and `-q`, and the log on stderr.

use std::io::Write;

use env_logger::{Target, WriteStyle};
use log::LevelFilter;

use crate::escape::escape;
use crate::{color, environment, log_writer};

/// `-v` and `-q`, to be flattened into a program's arguments.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Verbosity {
    /// Log more on stderr (-vv: even more); RUST_LOG overrides it
    #[arg(short, long, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Print only errors on stderr
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

    /// Starts the log on stderr. The variable RUST_LOG takes precedence.
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
        environment::log_unknown();
    }
}
