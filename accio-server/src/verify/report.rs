//! The report of a comparison: lines for people, or JSON.

use std::io::{self, BufWriter, Stdout, Write};

use accio_cli::{ListedFiles, escape, escape_json};
use serde::Serialize;

use super::check::{Finding, State};

/// Prints findings as they come, and their numbers at the end.
#[derive(Debug)]
pub(super) struct Report {
    out: BufWriter<Stdout>,
    json: bool,
    quiet: bool,
    numbers: Numbers,
    /// The first error of stdout, after which nothing more is printed.
    result: io::Result<()>,
}

#[derive(Debug, Default, Serialize)]
struct Numbers {
    complete: u64,
    error: u64,
    missing: u64,
    changed: u64,
    unverifiable: u64,
    unreadable: u64,
    unlisted: u64,
    /// The complete files of which only the size was compared.
    size_only: u64,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    finding: &'a str,
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Summary<'a> {
    finding: &'a str,
    #[serde(flatten)]
    numbers: &'a Numbers,
    lost_lines: u64,
    torn_lines: u64,
}

impl Report {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        let (out, numbers) = (BufWriter::new(io::stdout()), Numbers::default());
        Report { out, json, quiet, numbers, result: Ok(()) }
    }

    /// Counts a finding, and prints it unless all is well.
    pub(super) fn add(&mut self, Finding { name, state }: Finding) {
        let (finding, reason, message) = match &state {
            State::Complete { digest } => {
                self.numbers.complete += 1;
                self.numbers.size_only += u64::from(!digest);
                return;
            }
            State::Error(reason) => {
                self.numbers.error += 1;
                ("error", Some(reason.as_str()), None)
            }
            State::Missing => {
                self.numbers.missing += 1;
                ("missing", None, None)
            }
            State::Changed(why) => {
                self.numbers.changed += 1;
                ("changed", None, Some(why.as_str()))
            }
            State::Unverifiable(why) => {
                self.numbers.unverifiable += 1;
                ("unverifiable", None, Some(why.as_str()))
            }
            State::Unreadable(why) => {
                self.numbers.unreadable += 1;
                ("unreadable", None, Some(why.as_str()))
            }
            State::Unlisted => {
                self.numbers.unlisted += 1;
                ("unlisted", None, None)
            }
        };
        let line = match self.json {
            true => json(&Line { finding, file: &name, reason, message }),
            false => {
                let word = if finding == "error" { "ERROR" } else { finding };
                let more = reason.or(message).map(|more| format!(": {more}")).unwrap_or_default();
                escape(&format!("{name}: {word}{more}")).into_owned()
            }
        };
        self.print(&line);
    }

    /// Prints the numbers; returns whether the directory is as the journal describes it.
    pub(super) fn finish(mut self, listed: &ListedFiles) -> io::Result<bool> {
        let (lost, torn) = (listed.lost, listed.torn);
        let numbers = std::mem::take(&mut self.numbers);
        let Numbers { complete, error, missing, changed, unlisted, size_only, .. } = numbers;
        if self.json {
            let (finding, numbers) = ("summary", &numbers);
            self.print(&json(&Summary { finding, numbers, lost_lines: lost, torn_lines: torn }));
        } else {
            let rare = [(numbers.unverifiable, "unverifiable"), (numbers.unreadable, "unreadable")];
            let rare = rare.iter().filter(|(count, _)| *count > 0);
            let rare: String = rare.map(|(count, word)| format!(", {count} {word}")).collect();
            self.print(&format!(
                "{complete} complete, {error} ERROR, {missing} missing, {changed} changed, \
                 {unlisted} unlisted{rare}"
            ));
            if size_only > 0 {
                let files = plural(size_only, "complete file was", "complete files were");
                self.print(&format!("note: {files} compared by size only, without a digest"));
            }
            if lost > 0 {
                let lines = plural(lost, "line", "lines");
                self.print(&format!(
                    "note: the journal lacks {lines} that the server could not write"
                ));
            }
            if torn > 0 {
                let lines = plural(torn, "line", "lines");
                self.print(&format!("note: {lines} of the journal cannot be read"));
            }
        }
        self.result?;
        self.out.flush()?;
        let unknown = numbers.unverifiable + numbers.unreadable;
        Ok(missing + changed + unknown + unlisted == 0)
    }

    fn print(&mut self, line: &str) {
        if !self.quiet && self.result.is_ok() {
            self.result = writeln!(self.out, "{line}");
        }
    }
}

fn plural(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

fn json(value: &impl Serialize) -> String {
    // Numbers and strings can always be represented in JSON.
    escape_json(serde_json::to_string(value).unwrap_or_default())
}
