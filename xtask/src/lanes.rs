//! Runs commands at the same time and prints the output of each when it ends.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::process::Command;
use std::thread;

use accio_harness::{TROUBLE, process};

/// A command and the title of its output.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) title: String,
    pub(crate) command: Command,
}

/// Runs all lanes at the same time, and the steps of a lane one after another, each even if others
/// fail. The commands stay in the process group of this process, so that Ctrl-C in a terminal ends
/// them, too. Returns the highest exit code.
pub(crate) fn run(lanes: Vec<Vec<Step>>) -> io::Result<u8> {
    thread::scope(|scope| {
        let lanes: Vec<_> = lanes.into_iter().map(|lane| scope.spawn(|| run_lane(lane))).collect();
        let mut worst = 0;
        for lane in lanes {
            let code = lane.join().unwrap_or_else(|_| Err(io::Error::other("a lane panicked")))?;
            worst = worst.max(code);
        }
        Ok(worst)
    })
}

fn run_lane(lane: Vec<Step>) -> io::Result<u8> {
    let mut worst = 0;
    for Step { title, mut command } in lane {
        let mut output = tempfile::tempfile()?;
        command.stdout(output.try_clone()?).stderr(output.try_clone()?);
        let code = code(&mut command)?;
        worst = worst.max(code);
        print(&title, &mut output)?;
    }
    Ok(worst)
}

/// Prints a step's output as a whole, while other steps run.
fn print(title: &str, output: &mut File) -> io::Result<()> {
    output.rewind()?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "\n== {title}")?;
    io::copy(output, &mut stdout)?;
    stdout.flush()
}

/// Runs a tool and returns its exit code.
pub(crate) fn code(command: &mut Command) -> io::Result<u8> {
    let code = process::foreground(command)?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(TROUBLE))
}
