//! Grades many submissions concurrently, with a progress bar and a report for each.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::build;
use super::check::Check;
use super::discovery;
use super::fingerprint::Fingerprint;
use super::grade;
use super::outcome::{self, Report};
use super::report::saved::{self, Reuse};
use super::report::{self, json, table};
use super::settings::{Settings, Submission};
use accio_harness::peer::Dialect;
use accio_harness::quoting::quote_untrusted;
use accio_harness::subject::{Program, Subject};
use accio_proto::os_error_text;
use anyhow::{anyhow, bail};

/// Returns a submission for each directory in `dir`, sorted by name. If its programs are not found,
/// it has no programs, but a reason. If `builds`, compiled ones are found by their build files.
pub(crate) fn find(
    dir: &Path,
    dialect: Dialect,
    builds: bool,
) -> anyhow::Result<Vec<(Submission, Option<String>)>> {
    let entries = fs::read_dir(dir)
        .map_err(|error| {
            let (dir, why) = (dir.display(), os_error_text(&error));
            anyhow!("--submissions {dir}: {why}: name a directory with a directory per submission")
        })?
        .flatten()
        .filter(|entry| entry.path().is_dir());
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.file_name().is_none_or(|name| name.as_encoded_bytes()[0] != b'.'));
    paths.sort();
    if paths.is_empty() {
        bail!(
            "--submissions {}: has no subdirectories: put each submission into its own directory",
            dir.display()
        );
    }
    let submission = |path: PathBuf| {
        let build = build::tool(&path).filter(|_| builds);
        let (programs, problem) = match discovery::programs(&path) {
            _ if build.is_some() => (Subject::default(), None),
            Ok(programs) => (programs, None),
            Err(why) => {
                // The path on this machine means nothing to the student.
                let name = printable(&path);
                let text = accio_cli::escape(&why.to_string()).into_owned();
                let text = text.rsplit_once(&format!("{name}: ")).map_or(&*text, |(_, text)| text);
                (Subject::default(), Some(text.to_owned()))
            }
        };
        let subject = quote_untrusted(&path.to_string_lossy());
        let submission = Submission {
            name: printable(&path),
            programs,
            dialect,
            directory: std::path::absolute(&path).ok(),
            options: format!("{subject} --handshake {}", dialect.name()),
            build,
            files: vec![path],
        };
        (submission, problem)
    };
    Ok(paths.into_iter().map(submission).collect())
}

/// Returns a directory's name with control characters escaped.
fn printable(path: &Path) -> String {
    accio_cli::escape(&path.file_name().unwrap_or_default().to_string_lossy()).into_owned()
}

/// Grades submissions, `at_once` at a time, and writes reports for each to `results`.
pub(crate) fn grade(
    submissions: &[(Submission, Option<String>)],
    chosen: &[&'static Check],
    settings: &Settings,
    at_once: usize,
    (results, reuse): (&Path, Reuse),
) -> anyhow::Result<Vec<Report>> {
    let at_once = at_once.clamp(1, submissions.len().max(1));
    let checks: usize =
        submissions.iter().map(|(one, _)| grade::checks_for(one, chosen).len()).sum();
    let bar = progress_bar(checks)?;
    let done = AtomicUsize::new(0);
    bar.set_message(format!("0 of {} submissions", submissions.len()));

    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..submissions.len()).collect());
    let reports: Mutex<Vec<Option<Report>>> = Mutex::new(vec![None; submissions.len()]);
    let work = || -> anyhow::Result<()> {
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(index) = next else { return Ok(()) };
            let (submission, problem) = &submissions[index];
            let dir = settings.dir.join(index.to_string());
            let settings = Settings { dir, ..settings.clone() };
            let path = results.join(format!("{}.json", submission.name));
            let now = Fingerprint::of(submission, chosen, &settings);
            let earlier = saved::read(&path, submission, chosen, &now, reuse);
            if let Some(report) = earlier.filter(|report| report.problem == *problem) {
                bar.inc(grade::checks_for(submission, chosen).len() as u64);
                reports.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(report);
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                bar.set_message(format!("{done} of {} submissions", submissions.len()));
                continue;
            }
            let mut report = grade::grade(submission, chosen, &settings, |_, is_final| {
                bar.inc(u64::from(is_final));
            })?;
            report.problem = problem.clone();
            write_one(&report, results)?;
            reports.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(report);
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            bar.set_message(format!("{done} of {} submissions", submissions.len()));
        }
    };
    let outcome = thread::scope(|scope| {
        let threads: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow!("a grading thread panicked")))
        })
    });
    bar.finish_and_clear();
    outcome?;
    let reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(reports.into_iter().flatten().collect())
}

/// Returns a bar for this number of checks.
pub(crate) fn progress_bar(checks: usize) -> anyhow::Result<ProgressBar> {
    let bar = ProgressBar::new(checks as u64);
    let style = "{elapsed_precise} [{wide_bar}] {pos}/{len} checks, {msg}, about {eta} left";
    bar.set_style(ProgressStyle::with_template(style)?);
    bar.enable_steady_tick(Duration::from_millis(500));
    Ok(bar)
}

/// Writes the two reports of a submission: text and JSON.
fn write_one(report: &Report, results: &Path) -> anyhow::Result<()> {
    let mut text = anstream::StripStream::new(Vec::new());
    for row in &report.rows {
        table::line(&mut text, row)?;
    }
    table::failures(&mut text, report)?;
    table::scores(&mut text, report)?;
    report::write(&results.join(format!("{}.txt", report.name)), text.into_inner())?;
    let json = json::text(std::slice::from_ref(report))?;
    report::write(&results.join(format!("{}.json", report.name)), json)?;
    Ok(())
}

/// Prints a table with the points of all submissions.
pub(crate) fn summary(out: &mut impl Write, reports: &[Report]) -> io::Result<()> {
    const NAME: &str = "submission";
    let longest = reports.iter().map(|report| report.name.chars().count()).max().unwrap_or(0);
    let width = longest.max(NAME.len());
    writeln!(
        out,
        "{NAME:width$}  {:>9}  {:>9}  {:>9}  {:>9}  {:>7}",
        "client", "server-s", "server", "total", "time"
    )?;
    for report in reports {
        write!(out, "{:width$}", report.name)?;
        if let Some(problem) = &report.problem {
            writeln!(out, "  nothing to grade: {}", outcome::first_line(problem))?;
            continue;
        }
        let programs = [Some(Program::Client), Some(Program::ServerS), Some(Program::Server), None];
        for program in programs {
            let score = report.score(program);
            let text = match score.published {
                0 => "-".to_owned(),
                _ => format!("{}/{}", score.earned, score.possible),
            };
            write!(out, "  {text:>9}")?;
        }
        writeln!(out, "  {:5.1} s", report.took.as_secs_f64())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_control_characters_in_names() {
        assert_eq!(printable(Path::new("class/O'Brien, Zoë")), "O'Brien, Zoë");
        assert_eq!(printable(Path::new("class/\u{1b}[2J\n")), "\\u{1b}[2J\\n");
        assert_eq!(printable(Path::new("a\u{9b}\u{202e}b\u{2066}")), r"a\u{9b}\u{202e}b\u{2066}");
    }
}
