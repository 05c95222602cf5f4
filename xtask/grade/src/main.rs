//! The conformance kit: grades any implementation of the three programs, in any language.
//!
//! A [`check::Check`] is a row of the courses' grading tables or a further rule of their documents.
//! It runs in a [`trial::Trial`], which connects the subject's programs to the reference programs
//! made of accio-proto ([`mod@reference`]) or to misbehaving peers ([`broken`]), over a network
//! that may be emulated ([`network_emulator`], [`accio_harness::namespace`]). [`grade`] runs the
//! checks on a submission, and [`report`] writes the results.

#![forbid(unsafe_code)]

mod broken;
mod broken_server;
mod build;
mod cause;
mod check;
mod checks;
mod connection_end;
mod content;
mod demo_server;
mod detect;
mod discovery;
mod expectations;
mod fingerprint;
mod grade;
mod interop;
mod network_emulator;
mod options;
mod outcome;
mod own_time;
mod patience;
mod printed;
mod received;
mod reference;
mod remark;
mod report;
mod roster;
mod rubric;
mod running_server;
mod settings;
#[cfg_attr(not(linux_sys), path = "sock_diag_missing.rs")]
mod sock_diag;
mod socket_entry;
mod sockets;
mod source_checks;
mod startup_failures;
mod submissions;
mod trial;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};

/// Grade any implementation of the three programs with the courses' checks
#[derive(Debug, Parser)]
#[command(name = "accio-grade", version, args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    options: options::Options,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Further commands.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run a misbehaving server to test clients
    #[command(after_help = broken_server::names())]
    Broken(broken_server::Arguments),
    /// Run a correct server that prints connections and the start of their content
    Demo(demo_server::Arguments),
}

impl CommandLine {
    /// Returns the command with `--generate`; the help of the options that all tools share speaks of
    /// checks.
    fn described() -> clap::Command {
        let mut command = accio_cli::add_generate_flag(CommandLine::command());
        for (option, help) in [
            ("list", "List the checks instead of running them"),
            ("filter", "Run only checks with this text in id or description (repeatable)"),
            ("keep", "Keep the files and outputs of failed checks and print their path"),
            ("jobs", "Number of concurrent checks that use the CPU [default: by cores]"),
            ("bin_dir", "Grade our own programs in this directory instead of building them"),
        ] {
            command = command.mut_arg(option, |argument| argument.help(help));
        }
        command
    }

    /// Parses the command line, or returns the text that `--generate` requests.
    fn parse_arguments() -> clap::error::Result<Result<CommandLine, Vec<u8>>> {
        let mut command = CommandLine::described();
        let matches = command.try_get_matches_from_mut(std::env::args_os())?;
        if let Some(text) = accio_cli::generated(&matches, &command)? {
            return Ok(Err(text));
        }
        let line = CommandLine::from_arg_matches(&matches);
        line.map(Ok).map_err(|error| error.format(&mut command))
    }
}

fn main() -> ExitCode {
    if let Some(code) = accio_harness::sandbox::helper() {
        return code;
    }
    let CommandLine { options, command } = match CommandLine::parse_arguments() {
        Ok(Ok(line)) => line,
        Ok(Err(text)) => {
            let printed = std::io::stdout().write_all(&text).map(|()| ExitCode::SUCCESS);
            return accio_harness::report::exit_code(printed.map_err(Into::into));
        }
        Err(error) if error.use_stderr() => {
            let failure = accio_cli::Failure::from_usage_error(&error);
            failure.say();
            return ExitCode::from(failure.code());
        }
        // Help or the version.
        Err(error) => error.exit(),
    };
    accio_harness::report::exit_code(match command {
        None => options.run(),
        Some(Command::Broken(arguments)) => broken_server::run(&arguments),
        Some(Command::Demo(arguments)) => demo_server::run(&arguments),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::described().debug_assert();
    }

    #[test]
    fn the_man_page_and_the_completions_have_all_options() {
        for kind in ["man", "complete-bash", "complete-zsh", "complete-fish"] {
            let command = CommandLine::described();
            let line = ["accio-grade", "--generate", kind];
            let matches = command.clone().try_get_matches_from(line).unwrap();
            let text = accio_cli::generated(&matches, &command).unwrap().unwrap();
            let text = String::from_utf8(text).unwrap();
            for part in ["submissions", "handshake", "broken", "demo"] {
                assert!(text.contains(part), "{kind}: no {part} in {text}");
            }
        }
    }
}
