//! Prints a line for each connection.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use accio_cli::{Failure, Program};
use accio_proto::{Acknowledgement, Outcome, os_error_text};

/// Prints the number of bytes of each connection's file, or ERROR.
///
/// A separate thread prints the lines, and a client is notified once its line is printed. While
/// stdout is not read, the next client waits, but a signal still ends the server.
pub(crate) struct Counter {
    /// `None` once the last connection has ended.
    lines: Mutex<Option<Sender<Line>>>,
    /// Closed when all lines are printed.
    printed: Mutex<Receiver<()>>,
}

struct Line {
    outcome: Outcome,
    client: Acknowledgement,
}

impl Counter {
    /// Starts the printing thread.
    pub(crate) fn start() -> Result<Self, Failure> {
        let (lines, queue) = mpsc::channel();
        let (running, printed) = mpsc::channel();
        let print_all = move || {
            let _running: Sender<()> = running;
            print_all(&queue);
        };
        thread::Builder::new()
            .name("accio-print".to_owned())
            .spawn(print_all)
            .map_err(|error| Failure::new("cannot start a thread", os_error_text(&error)))?;
        Ok(Counter { lines: Mutex::new(Some(lines)), printed: Mutex::new(printed) })
    }
}

impl Program for Counter {
    fn records(&self) -> bool {
        true
    }

    fn record(&self, outcome: Outcome, client: Acknowledgement) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = &*lines {
            // The thread runs until the last line, so it still receives.
            let _ = lines.send(Line { outcome, client });
        }
    }

    fn finish(&self, deadline: &dyn Fn() -> Instant) {
        drop(self.lines.lock().unwrap_or_else(PoisonError::into_inner).take());
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let left = deadline().saturating_duration_since(Instant::now());
        if printed.recv_timeout(left) == Err(mpsc::RecvTimeoutError::Timeout) {
            log::error!("stdout was not read: the last count is missing");
        }
    }
}

fn print_all(queue: &Receiver<Line>) {
    for Line { outcome, client } in queue {
        if let Err(error) = print(&outcome) {
            // Without stdout, counts would be lost: end the server rather than continue silently.
            accio_cli::exit(cannot_print(&error));
        }
        client.send();
    }
}

fn cannot_print(error: &io::Error) -> Failure {
    Failure::new("cannot print to stdout", os_error_text(error))
}

fn print(outcome: &Outcome) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match outcome.result {
        Ok(()) => writeln!(stdout, "{}", outcome.bytes)?,
        Err(_) => writeln!(stdout, "ERROR")?,
    }
    stdout.flush()
}
