//! `--generate`: the man page and the completions of shells, from the arguments' own definitions.

use std::io;

use clap::{Arg, ArgMatches, Command, ValueEnum, value_parser};
use clap_complete::Shell;

/// What can be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Man,
    CompleteBash,
    CompleteZsh,
    CompleteFish,
}

const NAME: &str = "generate";

/// Adds the flag to a program's own.
pub(super) fn add(command: Command) -> Command {
    let flag = Arg::new(NAME)
        .long(NAME)
        .value_name("KIND")
        .value_parser(value_parser!(Kind))
        .exclusive(true)
        .help_heading("Packaging")
        .hide_short_help(true)
        .hide_possible_values(true)
        .help("Print the man page (man) or completions (complete-bash, -zsh, -fish)");
    command.arg(flag)
}

/// What the command line asks for.
pub(super) fn wanted(matches: &ArgMatches) -> Option<Kind> {
    matches.get_one(NAME).copied()
}

/// The text asked for.
pub(super) fn text(kind: Kind, mut command: Command) -> io::Result<Vec<u8>> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    let shell = match kind {
        Kind::Man => {
            clap_mangen::Man::new(command).render(&mut text)?;
            return Ok(text);
        }
        Kind::CompleteBash => Shell::Bash,
        Kind::CompleteZsh => Shell::Zsh,
        Kind::CompleteFish => Shell::Fish,
    };
    clap_complete::generate(shell, &mut command, name, &mut text);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        add(Command::new("some")
            .arg(Arg::new("file").required(true))
            .arg(Arg::new("x").long("extra")))
    }

    #[test]
    fn the_flag_stands_alone_and_every_kind_names_the_flags() {
        for kind in Kind::value_variants() {
            let name = kind.to_possible_value().unwrap();
            let line = ["some", "--generate", name.get_name()];
            let matches = command().try_get_matches_from(line).unwrap();
            assert_eq!(wanted(&matches), Some(*kind));
            let text = String::from_utf8(text(*kind, command()).unwrap()).unwrap();
            assert!(text.contains("some") && text.contains("extra"), "{text}");
        }
        assert!(command().try_get_matches_from(["some", "a", "--generate", "man"]).is_err());
        assert!(command().try_get_matches_from(["some"]).is_err(), "the file is still required");
    }
}
