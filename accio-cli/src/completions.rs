//! `--generate`: prints the man page and shell completions, generated from the definitions of the
//! arguments.

use std::io;

use clap::{Arg, ArgMatches, Command, ValueEnum, value_parser};
use clap_complete::Shell;
use roff::{Roff, roman};

/// An output of `--generate`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Man,
    CompleteBash,
    CompleteZsh,
    CompleteFish,
}

const NAME: &str = "generate";

/// Adds `--generate` to a program's flags.
#[must_use]
pub fn add_generate_flag(command: Command) -> Command {
    let flag = Arg::new(NAME)
        .long(NAME)
        .value_name("KIND")
        .value_parser(value_parser!(Output))
        .exclusive(true)
        .help_heading("Packaging")
        .hide_short_help(true)
        .hide_possible_values(true)
        .help("Print the man page (man) or completions (complete-bash, -zsh, -fish)");
    command.arg(flag)
}

/// Returns the text that `--generate` requests, if it is on the command line.
pub fn generated(matches: &ArgMatches, command: &Command) -> io::Result<Option<Vec<u8>>> {
    requested(matches).map(|output| generate(output, command.clone())).transpose()
}

fn requested(matches: &ArgMatches) -> Option<Output> {
    matches.get_one(NAME).copied()
}

fn generate(output: Output, mut command: Command) -> io::Result<Vec<u8>> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    let shell = match output {
        Output::Man => return man_page(command),
        Output::CompleteBash => Shell::Bash,
        Output::CompleteZsh => Shell::Zsh,
        Output::CompleteFish => Shell::Fish,
    };
    clap_complete::generate(shell, &mut command, name, &mut text);
    Ok(text)
}

/// Renders the man page. The text after the flags in `--help` becomes one section per heading.
fn man_page(command: Command) -> io::Result<Vec<u8>> {
    let has_version = command.get_version().is_some();
    let subcommands = subcommands(&command);
    let end = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let page = clap_mangen::Man::new(
        // The man page would omit flags that are hidden from the short help.
        command.mut_args(|argument| argument.hide_short_help(false)),
    );
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    sections(&subcommands).to_writer(&mut text)?;
    sections(&end).to_writer(&mut text)?;
    if has_version {
        page.render_version_section(&mut text)?;
    }
    Ok(text)
}

/// Lists the subcommands. The crate's own section would name pages that do not exist.
fn subcommands(command: &Command) -> String {
    let lines = command.get_subcommands().map(|subcommand| {
        let about = subcommand.get_about().map(ToString::to_string).unwrap_or_default();
        format!("  {}\n      {about}\n", subcommand.get_name())
    });
    let list: String = lines.collect();
    if list.is_empty() { list } else { format!("Commands:\n{list}") }
}

/// Splits a text into sections. A heading is a line that is not indented and ends with a colon.
fn sections(text: &str) -> Roff {
    let mut sections = Roff::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(heading) = line.strip_suffix(':').filter(|line| !line.starts_with(' ')) else {
            sections.text([roman(line)]);
            continue;
        };
        // "Exit codes, as in curl" becomes the section EXIT CODES, which begins with "as in curl".
        let (name, rest) = heading.split_once(", ").unwrap_or((heading, ""));
        sections.control("SH", [name.to_uppercase().as_str()]);
        if !rest.is_empty() {
            sections.text([roman(format!("{rest}:"))]);
        }
        // Lines are kept unchanged, because they are examples and tables.
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
        add_generate_flag(
            Command::new("some")
                .arg(Arg::new("file").required(true))
                .arg(Arg::new("x").long("extra")),
        )
    }

    #[test]
    fn generate_needs_no_other_argument_and_lists_the_flags() {
        for output in Output::value_variants() {
            let name = output.to_possible_value().unwrap();
            let line = ["some", "--generate", name.get_name()];
            let matches = command().try_get_matches_from(line).unwrap();
            assert_eq!(requested(&matches), Some(*output));
            let text = String::from_utf8(generate(*output, command()).unwrap()).unwrap();
            assert!(text.contains("some") && text.contains("extra"), "{text}");
        }
        assert!(command().try_get_matches_from(["some", "a", "--generate", "man"]).is_err());
        assert!(command().try_get_matches_from(["some"]).is_err(), "the file is still required");
        let matches = command().try_get_matches_from(["some", "a"]).unwrap();
        assert_eq!(generated(&matches, &command()).unwrap(), None);
    }

    #[test]
    fn the_man_page_lists_subcommands() {
        let command = command().subcommand(Command::new("demo").about("Show it"));
        let page = String::from_utf8(generate(Output::Man, command).unwrap()).unwrap();
        assert!(page.contains("\n.SH COMMANDS\n"), "{page}");
        assert!(page.contains("  demo\n") && page.contains("      Show it\n"), "{page}");
    }
}
