//! Runs the checks on a submission and reports its results.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::cause;
use super::check::Check;
use super::fingerprint::Fingerprint;
use super::outcome::{Outcome, Report, Row};
use super::settings::{Settings, Submission};
use super::source_checks;
use super::startup_failures::{NOT_TRIED, StartupFailures};
use super::trial::Trial;
use accio_harness::context::Context;
use accio_harness::jobs::{self, Concurrency, Job};
use accio_harness::payload;
use accio_harness::process::{self, OwnEnd};
use accio_harness::resource_limits;
use accio_harness::scheduling_delay;
use accio_harness::subject::Program;
use accio_harness::timeline::{self, Timeline};
use accio_harness::verdict::{Stop, Verdict};
use accio_harness::{report as outputs, seeds::seed_for};

/// Number of lines of an output that are kept with a failure.
const TAIL: usize = 8;
/// Maximum length of such a line, and of another text of a failure, in bytes before they are escaped.
/// The rest may be a megabyte that a program printed without a line end.
const LINE: usize = 400;
const TEXT: usize = 4000;
/// Number of processes whose output is kept with a failure.
const PROCESSES: usize = 3;

/// Returns the checks among `chosen` for programs of the submission.
pub(crate) fn checks_for(
    submission: &Submission,
    chosen: &[&'static Check],
) -> Vec<&'static Check> {
    let has = |check: &Check| submission.programs.template(check.program).is_ok();
    chosen.iter().copied().filter(|check| has(check)).collect()
}

/// Grades a submission. Calls `report` for each outcome; the flag is false for a failed check that
/// will run again, which is reported a second time.
pub(crate) fn grade(
    submission: &Submission,
    chosen: &[&'static Check],
    settings: &Settings,
    mut report: impl FnMut(&Row, bool),
) -> anyhow::Result<Report> {
    let began = Instant::now();
    let checks = checks_for(submission, chosen);
    let sources = source_checks::inspect(submission, settings);
    let mut rows: Vec<Option<Row>> = vec![None; checks.len()];
    let mut to_run = Vec::new();
    for (index, check) in checks.iter().enumerate() {
        match not_run(check, submission) {
            Some(outcome) => {
                let outcome = match check.run.is_none() && settings.repository_points {
                    true => sources.outcome(check.program),
                    false => outcome,
                };
                let row = row(submission, settings, check, outcome);
                report(&row, true);
                rows[index] = Some(row);
            }
            None => to_run.push(index),
        }
    }

    // Failed checks run again only if a delay of this machine may be the reason.
    let mut again = Vec::new();
    let first = pending(submission, &checks, &to_run, settings, 1)?;
    jobs::run(&jobs_of(&first), Concurrency::Shared, |ended| {
        let (place, run) = (to_run[ended.index], &first[ended.index]);
        let mut row = row(submission, settings, checks[place], Outcome::Passed);
        let is_final = run.finish(&mut row, ended.verdict, ended.took) || !settings.retry;
        report(&row, is_final);
        if !is_final {
            again.push(place);
        }
        rows[place] = Some(row);
        Ok(())
    })?;

    again.sort_unstable();
    let second = pending(submission, &checks, &again, settings, 2)?;
    jobs::run(&jobs_of(&second), Concurrency::Shared, |ended| {
        let Some(row) = &mut rows[again[ended.index]] else { return Ok(()) };
        row.attempts = 2;
        second[ended.index].finish(row, ended.verdict, ended.took);
        if row.outcome == Outcome::Passed {
            row.notes.push("passed when repeated: this machine was busy the first time".into());
        }
        report(row, true);
        Ok(())
    })?;
    Ok(Report {
        name: submission.name.clone(),
        dialect: submission.dialect,
        seed: settings.seed,
        rows: rows.into_iter().flatten().collect(),
        took: began.elapsed(),
        protections: settings.support.protections(),
        fingerprint: Fingerprint::of(submission, chosen, settings),
        remarks: sources.remarks,
        problem: None,
    })
}

/// Returns the outcome of a check that is not run.
fn not_run(check: &Check, submission: &Submission) -> Option<Outcome> {
    let dialect = submission.dialect;
    if check.run.is_none() {
        return Some(Outcome::NotGraded(
            "about the repository: --repository-points grades it".into(),
        ));
    }
    if !check.dialects.contains(&dialect) {
        let why = format!("does not apply to the dialect {}", dialect.name());
        return Some(Outcome::NotGraded(why));
    }
    let has_client = submission.programs.client.is_some();
    (check.with_client && !has_client).then(|| Outcome::Skipped("no client was given".into()))
}

fn row(
    submission: &Submission,
    settings: &Settings,
    check: &'static Check,
    outcome: Outcome,
) -> Row {
    // Set by cargo, which runs the kit in its repository; otherwise the kit is installed.
    let kit = std::env::var_os("CARGO").map_or("accio-grade", |_| "cargo xtask grade");
    let command = format!(
        "{kit} {}{} --filter {} --seed {}",
        submission.options, settings.repeat, check.id, settings.seed
    );
    Row {
        check,
        outcome,
        took: Duration::ZERO,
        attempts: 1,
        cause: None,
        timeline: Vec::new(),
        notes: Vec::new(),
        stderr: Vec::new(),
        command,
    }
}

/// A check that is running or about to run.
struct PendingCheck {
    job: Job,
    notes: Arc<Mutex<Vec<String>>>,
    /// The bytes of its connections.
    timeline: Arc<Mutex<Option<Arc<Timeline>>>>,
    /// The processes that it started.
    started: Arc<Mutex<Vec<(Pid, Program)>>>,
    /// The directories of the submission.
    directories: Vec<PathBuf>,
    /// When the checks of this attempt were prepared.
    since: Instant,
    /// Whether to keep the files of a failed check.
    keep: bool,
}

/// Returns the jobs of these checks, to run them.
fn jobs_of(checks: &[PendingCheck]) -> Vec<Job> {
    checks.iter().map(|check| check.job.clone()).collect()
}

fn pending(
    submission: &Submission,
    checks: &[&'static Check],
    places: &[usize],
    settings: &Settings,
    attempt: u32,
) -> io::Result<Vec<PendingCheck>> {
    let programs = Arc::new(submission.programs.clone());
    let startup_failures = Arc::new(StartupFailures::default());
    let since = Instant::now();
    let run = |place: &usize| -> io::Result<PendingCheck> {
        let check = checks[*place];
        let name = check.id.replace('/', "-");
        let dir = settings.dir.join(format!("{name}-{attempt}"));
        fs::create_dir_all(&dir)?;
        let seed = seed_for(&check.id, settings.seed);
        let context = Context::new(Arc::clone(&programs), dir, seed).guarded(settings.limits);
        let notes = Arc::new(Mutex::new(Vec::new()));
        let for_work = Arc::clone(&notes);
        let started = Arc::new(Mutex::new(Vec::new()));
        let started_by_work = Arc::clone(&started);
        let startup_failures = Arc::clone(&startup_failures);
        let (dialect, network) = (submission.dialect, settings.network);
        let workdir = settings.workdir.clone();
        let may_announce = settings.may_announce;
        let timeline = Arc::new(Mutex::new(None));
        let recorded = Arc::clone(&timeline);
        let (support, keep) = (Arc::clone(&settings.support), settings.keep);
        let files = settings.files([submission]);
        let work = move |context: &Context| -> Verdict {
            let run = check.run.ok_or_else(|| Stop::skip("nothing to run"))?;
            context.enter_sandbox(&support, &files, keep)?;
            *recorded.lock().unwrap_or_else(PoisonError::into_inner) = Some(timeline::start());
            run(&Trial {
                context,
                dialect,
                program: check.program,
                workdir: workdir.as_deref(),
                network,
                notes: &for_work,
                started: &started_by_work,
                startup_failures: &startup_failures,
                may_announce,
            })
        };
        let job = Job {
            name: check.id.to_owned(),
            load: check.load,
            limit: LIMIT,
            context: Arc::new(context),
            work: Arc::new(work),
        };
        let directories = submission.directory.iter().chain(&submission.files).cloned().collect();
        Ok(PendingCheck { job, notes, timeline, started, directories, since, keep: settings.keep })
    };
    places.iter().map(run).collect()
}

/// Time limit of a check. It ends only programs that the check itself does not give up, so it leaves
/// enough time for a slow program on a machine that is busy with others.
const LIMIT: Duration = Duration::from_secs(1800);

/// Longer delays of this process or of a program may cause a fault. The time limits of the checks
/// leave much more.
const DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(1));

/// In a shorter time, a program does not reach a timeout of its own, which a busy machine could have
/// caused: those of the courses are ten seconds.
const OWN_TIMEOUT: Duration = Duration::from_secs(7);

impl PendingCheck {
    /// Stores the result in `row` and removes the directory. Returns whether the result is final: a
    /// repetition would not change it.
    fn finish(&self, row: &mut Row, verdict: Verdict, took: Duration) -> bool {
        let context = &self.job.context;
        row.took = took;
        row.notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        row.stderr = Vec::new();
        (row.cause, row.timeline) = (None, Vec::new());
        let killed = resource_limits::reasons(context.owner());
        let ended = process::take_ended(context.owner());
        let mut is_final = true;
        row.outcome = match verdict {
            Ok(()) => Outcome::Passed,
            Err(Stop::Skip(why)) => Outcome::Skipped(why),
            Err(Stop::Trouble(why)) => {
                is_final = false;
                Outcome::Trouble(why)
            }
            Err(Stop::Fault(mut fault)) => {
                // A finding of other checks may be due to a delay of those.
                let began = if fault.actual.starts_with(NOT_TRIED) {
                    self.since
                } else {
                    Instant::now().checked_sub(took).unwrap_or(self.since)
                };
                let delayed =
                    scheduling_delay::worst_since(began) > DELAYS.0 || ended.waited > DELAYS.1;
                is_final = (fault.certain && took < OWN_TIMEOUT) || !delayed;
                fault.during.reverse();
                // The start of a program is added both where it is started and where failures are
                // counted.
                fault.during.dedup();
                let mut actual = fault.actual;
                actual.extend(self.own_end(&actual, &ended.ends));
                actual.extend(killed.iter().map(|why| format!("; the kit killed it: {why}")));
                row.stderr = self.last_output();
                Outcome::Failed {
                    expected: self.tidy(&fault.expected),
                    actual: self.tidy(&actual),
                    during: fault.during.iter().map(|place| self.tidy(place)).collect(),
                }
            }
        };
        self.explain(row);
        context.leave_sandbox();
        let keeps = self.keep && matches!(row.outcome, Outcome::Failed { .. });
        // An error here, such as a full disk, does not affect the outcome.
        let _ = outputs::tidy(context, keeps, self.keep);
        if keeps {
            row.stderr.push(format!("files and outputs: {}", context.dir().display()));
        }
        is_final
    }

    /// Adds the timeline and the probable cause of a failure.
    fn explain(&self, row: &mut Row) {
        let Outcome::Failed { expected, actual, .. } = &row.outcome else { return };
        let timeline = self.timeline.lock().unwrap_or_else(PoisonError::into_inner);
        let events = timeline.as_ref().map(|timeline| timeline.events()).unwrap_or_default();
        row.cause = cause::find(row.check, expected, actual, &events).map(str::to_owned);
        let name = row.check.program.name();
        row.timeline = events.iter().map(|event| event.line(name)).collect();
    }

    /// Describes how a program ended by itself, if that may explain what was observed.
    fn own_end(&self, actual: &str, ends: &[OwnEnd]) -> Option<String> {
        if ["exit code", "death by signal", NOT_TRIED].iter().any(|text| actual.contains(text)) {
            return None;
        }
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        ends.iter().rev().find_map(|end| {
            let (_, program) = started.iter().find(|(pid, _)| *pid == end.pid)?;
            let client_is_done = *program == Program::Client && end.how == "exit code 0";
            (!client_is_done).then(|| format!("; the {} had ended: {}", program.name(), end.how))
        })
    }

    /// Returns the last lines that the programs printed to stderr, escaped.
    fn last_output(&self) -> Vec<String> {
        let logs = self.job.context.logs();
        let with_output =
            logs.iter().rev().filter(|log| !log.stderr.text().is_empty()).take(PROCESSES);
        let mut output = Vec::new();
        for log in with_output {
            output.push(format!("stderr of {}", self.tidy(&log.command)));
            let stderr = self.without_paths(&log.stderr.text());
            let lines: Vec<&str> = stderr.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL)..];
            let shown = |line: &&str| payload::escape_line(&shortened((*line).to_owned(), LINE));
            output.extend(tail.iter().map(|line| format!("  | {}", shown(line))));
        }
        output
    }

    /// Removes the paths of this machine from a text, and escapes characters that a program under
    /// test may have chosen to change how the report is displayed.
    fn tidy(&self, text: &str) -> String {
        accio_cli::escape(&shortened(self.without_paths(text), TEXT)).into_owned()
    }

    fn without_paths(&self, text: &str) -> String {
        let own = self.directories.iter().map(PathBuf::as_path);
        without_paths(text, own.chain([self.job.context.dir()]))
    }
}

/// Cuts off what is longer than `most` bytes.
fn shortened(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let more = text.len() - end;
        text.truncate(end);
        text.push_str(&format!("… and {more} more bytes"));
    }
    text
}

/// Removes these directories from the paths in a text.
fn without_paths<'a>(text: &str, directories: impl IntoIterator<Item = &'a Path>) -> String {
    directories.into_iter().fold(text.to_owned(), |text, directory| {
        text.replace(&format!("{}/", directory.to_string_lossy()), "")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_off_between_characters() {
        assert_eq!(shortened("short".into(), 5), "short");
        assert_eq!(shortened("1234ä6".into(), 5), "1234… and 3 more bytes");
    }

    #[test]
    fn texts_lose_the_paths_of_this_machine_and_display_as_they_are() {
        let directories = ["/tmp/run", "/class/ann"].map(Path::new);
        let text = "python3 /class/ann/client.py: /tmp/run/1.file contains \u{9b}31m";
        let shown = without_paths(text, directories);
        assert_eq!(shown, "python3 client.py: 1.file contains \u{9b}31m");
        assert_eq!(accio_cli::escape("\u{9b}31m\u{202e}drow"), "\\u{9b}31m\\u{202e}drow");
    }
}
