//! `--color`: whether help and errors are coloured.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Color {
    /// Use colour on a terminal, unless NO_COLOR is set or TERM is dumb
    #[default]
    Auto,
    /// Always use colour
    Always,
    /// Never use colour
    Never,
}

/// `--color`, to be flattened into a program's arguments. [`main`](super::main) applies it.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct ColorFlag {
    /// Colour help and errors: auto, always or never
    ///
    /// auto: on a terminal, unless NO_COLOR is set or TERM is dumb.
    #[arg(long, value_name = "WHEN", default_value = "auto", env = VARIABLE,
          hide_possible_values = true)]
    pub color: Color,
}

/// The environment variable that sets the flag.
const VARIABLE: &str = "ACCIO_COLOR";

static CHOSEN: OnceLock<Color> = OnceLock::new();

/// Reads the flag before the command line is parsed, because usage errors are coloured too.
pub(super) fn choose() -> Color {
    let variable = || std::env::var_os(VARIABLE);
    let chosen = || named(std::env::args_os().skip(1)).or_else(|| parse(&variable()?));
    *CHOSEN.get_or_init(|| chosen().unwrap_or_default())
}

/// Returns whether stderr is coloured.
pub(super) fn is_on_for_stderr() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    match CHOSEN.get().copied().unwrap_or_default() {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => io::stderr().is_terminal() && !no_color && !dumb,
    }
}

/// Returns `ERROR:`, coloured if stderr is.
pub(super) fn error_prefix() -> &'static str {
    if is_on_for_stderr() { "\x1b[1;31mERROR:\x1b[0m" } else { "ERROR:" }
}

impl From<Color> for clap::ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => clap::ColorChoice::Auto,
            Color::Always => clap::ColorChoice::Always,
            Color::Never => clap::ColorChoice::Never,
        }
    }
}

/// Returns the value of the flag; an invalid value is left for clap to report.
fn named(arguments: impl Iterator<Item = OsString>) -> Option<Color> {
    let mut arguments = arguments.take_while(|argument| argument != "--");
    while let Some(argument) = arguments.next() {
        if argument == "--color" {
            return parse(&arguments.next()?);
        }
        if let Some(value) = argument.to_str().and_then(|text| text.strip_prefix("--color=")) {
            return parse(value.as_ref());
        }
    }
    None
}

fn parse(value: &std::ffi::OsStr) -> Option<Color> {
    clap::ValueEnum::from_str(value.to_str()?, false).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_flag_at_any_position() {
        let found = |line: &str| named(line.split(' ').map(OsString::from));
        assert_eq!(found("h 80 f --color never -v"), Some(Color::Never));
        assert_eq!(found("--color=always h"), Some(Color::Always));
        for line in ["h 80 f", "--color", "--color mauve", "h -- --color=always", "--colors=never"]
        {
            assert_eq!(found(line), None, "{line}");
        }
    }
}
