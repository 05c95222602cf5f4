//! The lines that server-s prints.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::own_time::OwnTime;
use super::running_server::{ENDING, ExpectedResult, RunningServer};
use accio_harness::payload;
use accio_harness::process::Capture;
use accio_harness::process_table;
use accio_harness::subject::Program;
use accio_harness::verdict::{Certain, Verdict, ensure};

/// How long a server may take to print a result.
const PRINTED: Duration = Duration::from_secs(3);
/// How long to wait for further lines after that.
const LATE: Duration = Duration::from_millis(100);
/// How long to wait until a server has printed its announcement.
const ANNOUNCED: Duration = Duration::from_millis(300);
/// Number of lines of stderr that are shown.
const SHOWN: usize = 3;

impl RunningServer {
    /// Counts the lines that server-s prints before its first connection.
    pub(crate) fn note_start_up_lines(&self) {
        if self.program == Program::ServerS {
            self.start_up_lines.get_or_init(|| {
                process_table::settles(self.process.pid(), ANNOUNCED);
                all_lines(self.process.stdout()).len()
            });
        }
    }

    /// Returns the first `count` non-empty lines of stdout after the start-up lines. If there are
    /// fewer, stops the server to see whether its output was buffered.
    pub(crate) fn lines(&mut self, count: usize) -> Verdict<Vec<String>> {
        self.lines_within(PRINTED, count)
    }

    fn lines_within(&mut self, limit: Duration, count: usize) -> Verdict<Vec<String>> {
        let before = self.start_up_lines.get().copied().unwrap_or(0);
        let stdout = self.process.stdout().clone();
        let has_all = || {
            all_lines(&stdout).len() >= before.saturating_add(count)
                && stdout.text().ends_with('\n')
        };
        let time = OwnTime::of(&[self.process.pid()]);
        // On a busy machine the server may need some time to print.
        let printed = loop {
            if has_all() {
                break true;
            }
            if self.process.is_over()? || time.exceeds(limit) {
                self.settles();
                std::thread::sleep(Duration::from_millis(50));
                break has_all();
            }
            std::thread::sleep(Duration::from_millis(3));
        };
        if !printed {
            // It may have ended by now.
            let _ = self.signal(Signal::INT);
            let until = Instant::now() + ENDING;
            while !self.process.has_ended()? && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(10));
            }
            // Wait until the rest of the pipe has been read.
            stdout.wait(Duration::from_millis(300), |_, closed| closed.then_some(()));
        }
        let mut found = all_lines(&stdout).split_off(before.min(all_lines(&stdout).len()));
        found.truncate(count);
        Ok(found)
    }

    /// Returns a fault unless the only connection's result is exactly this line, and nothing else was
    /// printed before.
    pub(crate) fn expect_line(&mut self, line: &str) -> Verdict {
        if !self.ends_with(&[line.to_owned()], str::to_owned)? {
            let lines = self.lines_within(LATE, 1)?;
            ensure(lines == [line], format!("the line {line} on stdout"), || self.printed())?;
        }
        let lines = all_lines(self.process.stdout());
        let before: Vec<String> = lines
            .iter()
            .take_while(|printed| *printed != line)
            .map(|printed| format!("\"{}\"", payload::escape_line(printed)))
            .collect();
        let alone = self.may_announce || before.is_empty();
        ensure(alone, format!("only the line {line} on stdout"), || {
            let before = before.join(", ");
            format!("the line {line}, but before it {before}: print nothing else to stdout")
        })
        .certain()
    }

    /// Returns a fault unless these results were printed. Words around a number are ignored, so that
    /// only the checks of the format fail because of them, and so are lines before the first result.
    pub(super) fn expect_printed(&mut self, results: &[ExpectedResult<'_>]) -> Verdict {
        let expected: Vec<String> = results.iter().map(ExpectedResult::line).collect();
        if self.ends_with(&expected, counted)? {
            return Ok(());
        }
        let lines = self.lines_within(LATE, results.len())?;
        let actual: Vec<String> = lines.iter().map(|line| counted(line)).collect();
        ensure(actual == expected, format!("printed to stdout: {expected:?}"), || self.printed())
    }

    /// Returns a fault unless the only connection's count was printed, among words or alone.
    pub(crate) fn expect_count(&mut self, count: u64) -> Verdict {
        let count = count.to_string();
        if self.ends_with(std::slice::from_ref(&count), counted)? {
            return Ok(());
        }
        let lines = self.lines_within(LATE, usize::MAX)?;
        let right = lines.iter().any(|line| line.contains(&count));
        ensure(right, format!("the count {count} on stdout"), || self.printed())
    }

    /// Returns whether the last lines of stdout soon are these, reduced by `reduce`.
    fn ends_with(&self, expected: &[String], reduce: fn(&str) -> String) -> Verdict<bool> {
        let time = OwnTime::of(&[self.process.pid()]);
        loop {
            let is_over = self.process.is_over()? || time.exceeds(PRINTED);
            let lines = all_lines(self.process.stdout());
            let last = &lines[lines.len().saturating_sub(expected.len())..];
            if last.iter().map(|line| reduce(line)).eq(expected.iter().cloned()) {
                return Ok(true);
            }
            if is_over {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Describes all that was printed.
    pub(crate) fn printed(&self) -> String {
        let lines = all_lines(self.process.stdout());
        let stderr = self.process.stderr().text();
        let stderr: Vec<String> = stderr
            .lines()
            .take(SHOWN)
            .map(|line| format!("\"{}\"", payload::escape_line(line)))
            .collect();
        match (lines.is_empty(), stderr.is_empty()) {
            (false, _) => format!("{lines:?}"),
            (true, true) => "nothing was printed".into(),
            (true, false) => format!("nothing on stdout, but on stderr {}", stderr.join(", ")),
        }
    }
}

impl ExpectedResult<'_> {
    fn line(&self) -> String {
        match self {
            ExpectedResult::Content(content) => content.len().to_string(),
            ExpectedResult::Error => "ERROR".to_owned(),
        }
    }
}

/// Returns the non-empty lines of an output.
fn all_lines(output: &Capture) -> Vec<String> {
    let text = output.text();
    let lines = text.lines().map(|line| line.trim().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

/// Reduces a printed line to its only number, or to `ERROR`.
fn counted(line: &str) -> String {
    let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    match (numbers.next(), numbers.next()) {
        (Some(number), None) => number.to_owned(),
        (None, _) if line.contains("ERROR") => "ERROR".to_owned(),
        _ => line.to_owned(),
    }
}
