//! Runs commands, several at once, and passes on the output of each when it ends.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use accio_harness::{TROUBLE, process};

/// A command and the title of its output.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) title: String,
    pub(crate) command: Command,
}

#[derive(Debug)]
pub(crate) struct FinishedStep {
    pub(crate) title: String,
    /// Its exit code.
    pub(crate) code: u8,
    /// Its stdout and stderr.
    pub(crate) output: String,
    pub(crate) took: Duration,
}

/// Runs the steps in order, `at_once` at the same time, each even if others fail, and calls
/// `report` when one has ended. The commands stay in the process group of this process, so that
/// Ctrl-C in a terminal ends them, too. Returns the highest exit code.
pub(crate) fn run(
    steps: Vec<Step>,
    at_once: usize,
    report: impl Fn(&FinishedStep) -> io::Result<()> + Sync,
) -> io::Result<u8> {
    let queue = Mutex::new(VecDeque::from(steps));
    let work = || -> io::Result<u8> {
        let mut worst = 0;
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(step) = next else { return Ok(worst) };
            let finished = step.run()?;
            worst = worst.max(finished.code);
            report(&finished)?;
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        let mut worst = 0;
        for worker in workers {
            let code = worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
            worst = worst.max(code?);
        }
        Ok(worst)
    })
}

impl Step {
    fn run(mut self) -> io::Result<FinishedStep> {
        let start = Instant::now();
        let mut file = tempfile::tempfile()?;
        self.command.stdout(file.try_clone()?).stderr(file.try_clone()?);
        let code = code(&mut self.command)?;
        let output = read_all(&mut file)?;
        Ok(FinishedStep { title: self.title, code, output, took: start.elapsed() })
    }
}

fn read_all(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl FinishedStep {
    /// Prints the output as a whole, while other steps run.
    pub(crate) fn print(&self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "\n== {}", self.title)?;
        stdout.write_all(self.output.as_bytes())?;
        stdout.flush()
    }
}

/// Runs a tool and returns its exit code.
pub(crate) fn code(command: &mut Command) -> io::Result<u8> {
    let code = process::foreground(command)?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.unwrap_or(TROUBLE))
}
