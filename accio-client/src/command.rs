//! `--from-command`: sends the output of a command, and fails unless the command succeeds.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use accio_cli::{Failure, USAGE};
use accio_proto::Source;

use crate::descendants;

/// Splits a command line the way a shell does, without running a shell.
pub(crate) fn split(line: &str) -> Result<Vec<String>, Failure> {
    let failure = |why: &dyn std::fmt::Display| {
        Failure::new(format_args!("--from-command {line:?}"), why).with_code(USAGE)
    };
    let words = shell_words::split(line).map_err(|error| failure(&error))?;
    if words.is_empty() { Err(failure(&"no command")) } else { Ok(words) }
}

/// Starts a command and returns its standard output. Reading it fails at the end unless the command
/// exits with 0. [`descendants::watch`] must have been called.
pub(crate) fn output(words: &[String]) -> io::Result<Source<'static>> {
    let [program, arguments @ ..] = words else { return Err(io::ErrorKind::NotFound.into()) };
    let mut child = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn()?;
    // stdout was configured as a pipe above.
    let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut running = RunningCommand { child, has_succeeded: false };
    let outcome = move || {
        let status = match running.child.try_wait() {
            Ok(None) => return None,
            // The signal is the cause, and ends this process right away.
            Ok(Some(_)) if descendants::is_ending() => return None,
            Ok(Some(status)) => status,
            Err(error) => return Some(Err(error)),
        };
        running.has_succeeded = status.success();
        Some(match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(status.to_string())),
        })
    };
    Ok(Source::with_outcome(File::from(OwnedFd::from(output)), outcome))
}

/// A running command, killed with its descendants when dropped, unless it has succeeded.
struct RunningCommand {
    child: Child,
    has_succeeded: bool,
}

impl Drop for RunningCommand {
    fn drop(&mut self) {
        if self.has_succeeded {
            return;
        }
        // Both calls fail only if the command has ended and was waited for.
        let _ = self.child.kill();
        descendants::kill_all();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_a_command_line_like_a_shell() {
        assert_eq!(split("sh -c 'echo \"$A\"'").unwrap(), ["sh", "-c", "echo \"$A\""]);
        for bad in ["", "  ", "sh 'open"] {
            assert_eq!(split(bad).unwrap_err().code(), USAGE);
        }
    }
}
