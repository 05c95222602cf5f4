//! Runs the checks on one submission and says what it earned.

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

/// Lines of an output kept with a failure.
const TAIL: usize = 8;
/// Processes whose output is kept with a failure.
const PROCESSES: usize = 3;

/// The programs to grade.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    /// Its name in reports.
    pub(crate) name: String,
    /// Its programs.
    pub(crate) programs: Subject,
    /// The dialect it should speak.
    pub(crate) dialect: Dialect,
    /// The options that name it on a command line.
    pub(crate) options: String,
}

/// How it is graded.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The seed of contents and of the network emulator.
    pub(crate) seed: u64,
    /// Working checks at a time.
    pub(crate) jobs: usize,
    /// How delay and loss are made.
    pub(crate) network: Network,
    /// Limits of one check's processes.
    pub(crate) limits: Limits,
    /// Where programs run, if not in a folder of their own each.
    pub(crate) workdir: Option<PathBuf>,
    /// Where checks write.
    pub(crate) dir: PathBuf,
    /// Whether a failed check is run once more alone.
    pub(crate) retry: bool,
    /// Whether the files of a failed check stay.
    pub(crate) keep: bool,
    /// Options without which a check run again would not be the same.
    pub(crate) repeat: String,
}

/// The checks among `chosen` that are about programs of the submission.
pub(crate) fn checks_for(
    submission: &Submission,
    chosen: &[&'static Check],
) -> Vec<&'static Check> {
    let has = |check: &Check| submission.programs.template(check.program).is_ok();
    chosen.iter().copied().filter(|check| has(check)).collect()
}

/// Grades a submission; tells of each check's outcome as it comes, of failed ones a second time
/// when they have been run again.
pub(crate) fn grade(
    submission: &Submission,
    chosen: &[&'static Check],
    settings: &Settings,
    mut tell: impl FnMut(&Row, bool),
) -> anyhow::Result<Report> {
    let began = Instant::now();
    let checks = checks_for(submission, chosen);
    let mut rows: Vec<Option<Row>> = vec![None; checks.len()];
    let mut to_run = Vec::new();
    for (index, check) in checks.iter().enumerate() {
        match not_run(check, submission) {
            Some(outcome) => {
                let row = row(submission, settings, check, outcome);
                tell(&row, true);
                rows[index] = Some(row);
            }
            None => to_run.push(index),
        }
    }

    let mut again = Vec::new();
    let first = jobs(submission, &checks, &to_run, settings, 1)?;
    jobs::run(&first.jobs(), Concurrency::Working(settings.jobs), |ended| {
        let (place, run) = (to_run[ended.index], &first.0[ended.index]);
        let mut row = row(submission, settings, checks[place], Outcome::Passed);
        run.finish(&mut row, ended.verdict, ended.took, settings.keep);
        let stands =
            !settings.retry || !matches!(row.outcome, Outcome::Failed { .. } | Outcome::Trouble(_));
        tell(&row, stands);
        if !stands {
            again.push(place);
        }
        rows[place] = Some(row);
        Ok(())
    })?;

    // A program that does not start again, first: nothing of it is run once more then.
    again.sort_unstable();
    let mut hopeless: BTreeSet<String> = BTreeSet::new();
    let mut startup_failures: BTreeMap<String, usize> = BTreeMap::new();
    for place in &again {
        if let Some(what) = rows[*place].as_ref().and_then(|row| start_failure(&row.outcome)) {
            startup_failures.entry(what).or_insert(*place);
        }
    }
    let startup_failures: Vec<usize> = startup_failures.into_values().collect();
    again.retain(|place| !startup_failures.contains(place));
    // These mostly wait, for one program each.
    let batches = [startup_failures].into_iter().chain(again.into_iter().map(|place| vec![place]));
    for mut batch in batches {
        batch.retain(|place| match &mut rows[*place] {
            Some(row) if is_hopeless(row, &hopeless) => {
                row.notes.push("not run once more: the program does not start".into());
                tell(row, true);
                false
            }
            row => row.is_some(),
        });
        let second = jobs(submission, &checks, &batch, settings, 2)?;
        jobs::run(&second.jobs(), Concurrency::Working(batch.len()), |ended| {
            let Some(row) = &mut rows[batch[ended.index]] else { return Ok(()) };
            row.attempts = 2;
            second.0[ended.index].finish(row, ended.verdict, ended.took, settings.keep);
            if row.outcome == Outcome::Passed {
                row.notes.push("passed when run once more, alone".into());
            }
            hopeless.extend(start_failure(&row.outcome));
            tell(row, true);
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

/// Why a check is not even tried.
fn not_run(check: &Check, submission: &Submission) -> Option<Outcome> {
    let dialect = submission.dialect;
    if check.run.is_none() {
        return Some(Outcome::NotGraded("about the repository, which no program shows".into()));
    }
    if !check.dialects.contains(&dialect) {
        let why = format!("means nothing in the dialect {}", dialect.name());
        return Some(Outcome::NotGraded(why));
    }
    let has_client = submission.programs.client.is_some();
    (check.with_client && !has_client).then(|| Outcome::Skipped("no client was given".into()))
}

/// Whether a program that the check needs is known not to start.
fn is_hopeless(row: &Row, hopeless: &BTreeSet<String>) -> bool {
    let own = format!("{STARTING}{}", row.check.program.name());
    hopeless.contains(&own)
        || start_failure(&row.outcome).is_some_and(|what| hopeless.contains(&what))
}

/// The program that did not start, if that was the fault.
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
    let (notes, said) = (Vec::new(), Vec::new());
    Row { check, outcome, took: Duration::ZERO, attempts: 1, notes, said, command }
}

/// A check about to be run, or running.
struct Run {
    job: Job,
    notes: Arc<Mutex<Vec<String>>>,
}

struct Runs(Vec<Run>);

impl Runs {
    fn jobs(&self) -> Vec<Job> {
        self.0.iter().map(|run| run.job.clone()).collect()
    }
}

fn jobs(
    submission: &Submission,
    checks: &[&'static Check],
    places: &[usize],
    settings: &Settings,
    attempt: u32,
) -> io::Result<Runs> {
    let programs = Arc::new(submission.programs.clone());
    let startup_failures = Arc::new(StartupFailures::default());
    let run = |place: &usize| -> io::Result<Run> {
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
        Ok(Run { job, notes })
    };
    places.iter().map(run).collect::<io::Result<Vec<_>>>().map(Runs)
}

impl Run {
    /// Enters the result into `row` and removes the folder.
    fn finish(&self, row: &mut Row, verdict: Verdict, took: Duration, keep: bool) {
        let context = &self.job.context;
        row.took = took;
        row.notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        row.said = Vec::new();
        let ended = resource_limits::reasons(context.owner());
        row.outcome = match verdict {
            Ok(()) => Outcome::Passed,
            Err(Stop::Skip(why)) => Outcome::Skipped(why),
            Err(Stop::Trouble(why)) => Outcome::Trouble(why),
            Err(Stop::Fault(mut fault)) => {
                fault.during.reverse();
                // A program's start is noted where it is started and where failures are counted.
                fault.during.dedup();
                let ended = ended.iter().map(|why| format!("; the kit ended it: {why}"));
                let actual = fault.actual + &ended.collect::<String>();
                let dir = context.dir();
                row.said = said(context);
                Outcome::Failed {
                    expected: tidy(&fault.expected, dir),
                    actual: tidy(&actual, dir),
                    during: fault.during.iter().map(|place| tidy(place, dir)).collect(),
                }
            }
        };
        let keeps = keep && matches!(row.outcome, Outcome::Failed { .. });
        // A disk that is full by now changes nothing about the outcome.
        let _ = outputs::tidy(context, keeps, keep);
        if keeps {
            row.said.push(format!("files and outputs: {}", context.dir().display()));
        }
    }
}

/// Without the folders of the run, which mean nothing to anybody.
fn tidy(text: &str, dir: &Path) -> String {
    text.replace(&format!("{}/", dir.to_string_lossy()), "")
}

/// The last things that programs said on stderr, escaped.
fn said(context: &Context) -> Vec<String> {
    let logs = context.logs();
    let spoken = logs.iter().rev().filter(|log| !log.stderr.text().is_empty()).take(PROCESSES);
    let mut said = Vec::new();
    for log in spoken {
        said.push(format!("stderr of {}", tidy(&log.command, context.dir())));
        let stderr = log.stderr.text();
        let lines: Vec<&str> = stderr.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        said.extend(tail.iter().map(|line| format!("  | {}", payload::escape_line(line))));
    }
    said
}
