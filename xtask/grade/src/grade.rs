//! Runs the checks on a submission and reports its results.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::check::Check;
use super::outcome::{Outcome, Report, Row};
use super::startup_failures::{STARTING, StartupFailures};
use super::trial::{Network, Trial};
use accio_harness::context::Context;
use accio_harness::jobs::{self, Concurrency, Job};
use accio_harness::payload;
use accio_harness::peer::Dialect;
use accio_harness::resource_limits::{self, Limits};
use accio_harness::subject::Subject;
use accio_harness::verdict::{Stop, Verdict};
use accio_harness::{report as outputs, seeds::seed_for};

/// Number of lines of an output that are kept with a failure.
const TAIL: usize = 8;
/// Number of processes whose output is kept with a failure.
const PROCESSES: usize = 3;

/// The programs to grade.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    /// Its name in reports.
    pub(crate) name: String,
    /// Its programs.
    pub(crate) programs: Subject,
    /// The dialect to check.
    pub(crate) dialect: Dialect,
    /// The command-line options that select it.
    pub(crate) options: String,
}

/// The settings for grading a submission.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The seed of contents and of the network emulator.
    pub(crate) seed: u64,
    /// Number of concurrent checks that use the CPU.
    pub(crate) jobs: usize,
    /// How delay and loss are emulated.
    pub(crate) network: Network,
    /// Resource limits for the processes of a check.
    pub(crate) limits: Limits,
    /// The working directory of the programs; `None` for a new directory each.
    pub(crate) workdir: Option<PathBuf>,
    /// The directory for the checks' files.
    pub(crate) dir: PathBuf,
    /// Whether to run a failed check again by itself.
    pub(crate) retry: bool,
    /// Whether to keep the files of a failed check.
    pub(crate) keep: bool,
    /// Further command-line options that are needed to repeat a check.
    pub(crate) repeat: String,
}

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
    let mut rows: Vec<Option<Row>> = vec![None; checks.len()];
    let mut to_run = Vec::new();
    for (index, check) in checks.iter().enumerate() {
        match not_run(check, submission) {
            Some(outcome) => {
                let row = row(submission, settings, check, outcome);
                report(&row, true);
                rows[index] = Some(row);
            }
            None => to_run.push(index),
        }
    }

    let mut again = Vec::new();
    let first = pending(submission, &checks, &to_run, settings, 1)?;
    jobs::run(&jobs_of(&first), Concurrency::Working(settings.jobs), |ended| {
        let (place, run) = (to_run[ended.index], &first[ended.index]);
        let mut row = row(submission, settings, checks[place], Outcome::Passed);
        run.finish(&mut row, ended.verdict, ended.took, settings.keep);
        let is_final =
            !settings.retry || !matches!(row.outcome, Outcome::Failed { .. } | Outcome::Trouble(_));
        report(&row, is_final);
        if !is_final {
            again.push(place);
        }
        rows[place] = Some(row);
        Ok(())
    })?;

    // Try programs that did not start first: if one fails to start again, its other checks are not
    // repeated.
    again.sort_unstable();
    let mut unstartable: BTreeSet<String> = BTreeSet::new();
    let mut startup_failures: BTreeMap<String, usize> = BTreeMap::new();
    for place in &again {
        if let Some(what) = rows[*place].as_ref().and_then(|row| start_failure(&row.outcome)) {
            startup_failures.entry(what).or_insert(*place);
        }
    }
    let startup_failures: Vec<usize> = startup_failures.into_values().collect();
    again.retain(|place| !startup_failures.contains(place));
    // The startup failures run at once, since they mostly wait; the others one by one.
    let batches = [startup_failures].into_iter().chain(again.into_iter().map(|place| vec![place]));
    for mut batch in batches {
        batch.retain(|place| match &mut rows[*place] {
            Some(row) if cannot_start(row, &unstartable) => {
                row.notes.push("not repeated: the program does not start".into());
                report(row, true);
                false
            }
            row => row.is_some(),
        });
        let second = pending(submission, &checks, &batch, settings, 2)?;
        jobs::run(&jobs_of(&second), Concurrency::Working(batch.len()), |ended| {
            let Some(row) = &mut rows[batch[ended.index]] else { return Ok(()) };
            row.attempts = 2;
            second[ended.index].finish(row, ended.verdict, ended.took, settings.keep);
            if row.outcome == Outcome::Passed {
                row.notes.push("passed when repeated by itself".into());
            }
            unstartable.extend(start_failure(&row.outcome));
            report(row, true);
            Ok(())
        })?;
    }
    Ok(Report {
        name: submission.name.clone(),
        dialect: submission.dialect,
        seed: settings.seed,
        rows: rows.into_iter().flatten().collect(),
        took: began.elapsed(),
        problem: None,
    })
}

/// Returns the outcome of a check that is not run.
fn not_run(check: &Check, submission: &Submission) -> Option<Outcome> {
    let dialect = submission.dialect;
    if check.run.is_none() {
        return Some(Outcome::NotGraded("about the repository, which the kit cannot check".into()));
    }
    if !check.dialects.contains(&dialect) {
        let why = format!("does not apply to the dialect {}", dialect.name());
        return Some(Outcome::NotGraded(why));
    }
    let has_client = submission.programs.client.is_some();
    (check.with_client && !has_client).then(|| Outcome::Skipped("no client was given".into()))
}

/// Whether the check needs a program that is known not to start.
fn cannot_start(row: &Row, unstartable: &BTreeSet<String>) -> bool {
    let own = format!("{STARTING}{}", row.check.program.name());
    unstartable.contains(&own)
        || start_failure(&row.outcome).is_some_and(|what| unstartable.contains(&what))
}

/// Returns the name of the step if the fault was that a program did not start.
fn start_failure(outcome: &Outcome) -> Option<String> {
    let Outcome::Failed { during, .. } = outcome else { return None };
    during.iter().find(|place| place.starts_with(STARTING)).cloned()
}

fn row(
    submission: &Submission,
    settings: &Settings,
    check: &'static Check,
    outcome: Outcome,
) -> Row {
    let command = format!(
        "cargo xtask grade {}{} --filter {} --seed {}",
        submission.options, settings.repeat, check.id, settings.seed
    );
    let (notes, stderr) = (Vec::new(), Vec::new());
    Row { check, outcome, took: Duration::ZERO, attempts: 1, notes, stderr, command }
}

/// A check that is running or about to run.
struct PendingCheck {
    job: Job,
    notes: Arc<Mutex<Vec<String>>>,
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
    let run = |place: &usize| -> io::Result<PendingCheck> {
        let check = checks[*place];
        let name = check.id.replace('/', "-");
        let dir = settings.dir.join(format!("{name}-{attempt}"));
        fs::create_dir_all(&dir)?;
        let seed = seed_for(&check.id, settings.seed);
        let context = Context::new(Arc::clone(&programs), dir, seed).guarded(settings.limits);
        let notes = Arc::new(Mutex::new(Vec::new()));
        let for_work = Arc::clone(&notes);
        let startup_failures = Arc::clone(&startup_failures);
        let (dialect, network) = (submission.dialect, settings.network);
        let workdir = settings.workdir.clone();
        let work = move |context: &Context| -> Verdict {
            let run = check.run.ok_or_else(|| Stop::skip("nothing to run"))?;
            run(&Trial {
                context,
                dialect,
                program: check.program,
                workdir: workdir.as_deref(),
                network,
                notes: &for_work,
                startup_failures: &startup_failures,
            })
        };
        let job = Job {
            name: check.id.to_owned(),
            load: check.load,
            limit: check.load.limit(),
            context: Arc::new(context),
            work: Arc::new(work),
        };
        Ok(PendingCheck { job, notes })
    };
    places.iter().map(run).collect()
}

impl PendingCheck {
    /// Stores the result in `row` and removes the directory.
    fn finish(&self, row: &mut Row, verdict: Verdict, took: Duration, keep: bool) {
        let context = &self.job.context;
        row.took = took;
        row.notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        row.stderr = Vec::new();
        let ended = resource_limits::reasons(context.owner());
        row.outcome = match verdict {
            Ok(()) => Outcome::Passed,
            Err(Stop::Skip(why)) => Outcome::Skipped(why),
            Err(Stop::Trouble(why)) => Outcome::Trouble(why),
            Err(Stop::Fault(mut fault)) => {
                fault.during.reverse();
                // The start of a program is added both where it is started and where failures are
                // counted.
                fault.during.dedup();
                let ended = ended.iter().map(|why| format!("; the kit killed it: {why}"));
                let actual = fault.actual + &ended.collect::<String>();
                let dir = context.dir();
                row.stderr = last_output(context);
                Outcome::Failed {
                    expected: tidy(&fault.expected, dir),
                    actual: tidy(&actual, dir),
                    during: fault.during.iter().map(|place| tidy(place, dir)).collect(),
                }
            }
        };
        let keeps = keep && matches!(row.outcome, Outcome::Failed { .. });
        // An error here, such as a full disk, does not affect the outcome.
        let _ = outputs::tidy(context, keeps, keep);
        if keeps {
            row.stderr.push(format!("files and outputs: {}", context.dir().display()));
        }
    }
}

/// Removes the paths of the run's temporary directories from a text, and escapes characters that a
/// program under test may have chosen to change how the report is displayed.
fn tidy(text: &str, dir: &Path) -> String {
    accio_cli::escape(&text.replace(&format!("{}/", dir.to_string_lossy()), "")).into_owned()
}

/// Returns the last lines that the programs printed to stderr, escaped.
fn last_output(context: &Context) -> Vec<String> {
    let logs = context.logs();
    let with_output = logs.iter().rev().filter(|log| !log.stderr.text().is_empty()).take(PROCESSES);
    let mut output = Vec::new();
    for log in with_output {
        output.push(format!("stderr of {}", tidy(&log.command, context.dir())));
        let stderr = log.stderr.text();
        let lines: Vec<&str> = stderr.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        output.extend(tail.iter().map(|line| format!("  | {}", payload::escape_line(line))));
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_lose_temporary_paths_and_display_as_they_are() {
        let dir = Path::new("/tmp/run");
        let text = "/tmp/run/1.file contains \u{9b}31m\u{202e}drow";
        assert_eq!(tidy(text, dir), "1.file contains \\u{9b}31m\\u{202e}drow");
    }
}
