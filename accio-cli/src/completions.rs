//! `--generate`: the man page and the completions of shells, from the arguments' own definitions.

use std::io;

use clap::{Arg, ArgMatches, Command, ValueEnum, value_parser};
use clap_complete::Shell;
use roff::{Roff, roman};

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
        Kind::Man => return man_page(command),
        Kind::CompleteBash => Shell::Bash,
        Kind::CompleteZsh => Shell::Zsh,
        Kind::CompleteFish => Shell::Fish,
    };
    clap_complete::generate(shell, &mut command, name, &mut text);
    Ok(text)
}

/// The man page. What `--help` prints after the flags becomes sections, one for each heading.
fn man_page(command: Command) -> io::Result<Vec<u8>> {
    let has_version = command.get_version().is_some();
    let end = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let page = clap_mangen::Man::new(
        // The page leaves out the text of a flag that only the short help hides.
        command.mut_args(|argument| argument.hide_short_help(false)),
    );
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    sections(&end).to_writer(&mut text)?;
    if has_version {
        page.render_version_section(&mut text)?;
    }
    Ok(text)
}

/// The sections of a text in which each heading is a line that is not indented and ends with a colon.
fn sections(text: &str) -> Roff {
    let mut sections = Roff::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(heading) = line.strip_suffix(':').filter(|line| !line.starts_with(' ')) else {
            sections.text([roman(line)]);
            continue;
        };
        // "Exit codes, as curl has them" is the section EXIT CODES, which begins with the rest.
        let (name, rest) = heading.split_once(", ").unwrap_or((heading, ""));
        sections.control("SH", [name.to_uppercase().as_str()]);
        if !rest.is_empty() {
            sections.text([roman(format!("{rest}:"))]);
        }
        // Lines are kept as they are: examples and tables.
        sections.control("nf", []);
        while let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with(' ')) {
            if !line.is_empty() || lines.peek().is_some_and(|next| next.starts_with(' ')) {
                sections.text([roman(line)]);
            }
        }
        sections.control("fi", []);
    }
    sections
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
