//! Runs cases, several at a time, and prints their results.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};

use accio_harness::context::Context;
use accio_harness::jobs::{self, Concurrency, FinishedJob, Job, Load, Work};
use accio_harness::report::{Tally, explain, tidy};
use accio_harness::seeds::seed_for;
use accio_harness::subject::Subject;
use accio_harness::verdict::{Stop, Verdict};

/// The options of a run that cases depend on.
#[derive(Debug, Clone)]
pub(crate) struct RunOptions {
    /// Runs a bounded part only.
    pub(crate) quick: bool,
    /// Skips cases that need root, a tracer or mounts.
    pub(crate) unprivileged: bool,
    /// The seed that all random choices derive from.
    pub(crate) seed: u64,
    /// Number of concurrent cases.
    pub(crate) jobs: usize,
    /// Keeps the files and outputs of failed cases.
    pub(crate) keep: bool,
}

impl RunOptions {
    /// Returns `quick` in a quick run and `full` otherwise.
    pub(crate) fn scale(&self, quick: usize, full: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

/// A test that injects one fault or one kind of fault.
#[must_use]
pub(crate) struct Case {
    /// `part/case`.
    pub(crate) name: String,
    /// The expected behaviour.
    pub(crate) about: String,
    /// Runs it while no other case does, because it measures time or uses up a shared resource.
    alone: bool,
    limit: Duration,
    /// Runs the case and returns a note for the report, mostly counts.
    work: Arc<Work<String>>,
}

impl Case {
    pub(crate) fn new(
        name: impl Into<String>,
        about: impl Into<String>,
        work: impl Fn(&Context) -> Verdict<String> + Send + Sync + 'static,
    ) -> Case {
        let limit = Duration::from_secs(90);
        Case { name: name.into(), about: about.into(), alone: false, limit, work: Arc::new(work) }
    }

    /// Runs the case alone.
    pub(crate) fn alone(self) -> Case {
        Case { alone: true, ..self }
    }

    /// Sets the time limit.
    pub(crate) fn within(self, limit: Duration) -> Case {
        Case { limit, ..self }
    }
}

/// Runs the cases of one part after the other and keeps the score.
pub(crate) struct Runner {
    subject: Arc<Subject>,
    dir: PathBuf,
    options: RunOptions,
    tally: Tally,
    failures: String,
    owners: usize,
}

impl Runner {
    pub(crate) fn new(subject: Arc<Subject>, dir: PathBuf, options: &RunOptions) -> Runner {
        let options = options.clone();
        Runner {
            subject,
            dir,
            options,
            tally: Tally::default(),
            failures: String::new(),
            owners: 0,
        }
    }

    /// Returns a context for the case or part `name`.
    pub(crate) fn context(&mut self, name: &str) -> io::Result<Context> {
        self.owners += 1;
        let plain: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let dir = self.dir.join(format!("{}-{plain}", self.owners));
        fs::create_dir_all(&dir)?;
        let seed = seed_for(name, self.options.seed);
        Ok(Context::new(Arc::clone(&self.subject), dir, seed))
    }

    /// Counts and prints `name` as skipped.
    pub(crate) fn skip(&mut self, out: &mut impl Write, name: &str, why: &str) -> io::Result<()> {
        self.tally.skipped += 1;
        row(out, name, AnsiColor::Yellow, "skipped", Duration::ZERO, why)
    }

    /// Runs the cases of a part, prints a row for each and a summary.
    pub(crate) fn run(
        &mut self,
        out: &mut impl Write,
        part: &str,
        cases: Vec<Case>,
    ) -> anyhow::Result<()> {
        let (began, before) = (Instant::now(), self.tally);
        let (alone, together): (Vec<Case>, Vec<Case>) =
            cases.into_iter().partition(|case| case.alone);
        self.run_batch(out, together, Concurrency::Working(self.options.jobs))?;
        self.run_batch(out, alone, Concurrency::Alone)?;
        writeln!(
            out,
            "{part}: {} passed, {} failed, {} skipped in {:.0} s",
            self.tally.passed - before.passed,
            self.tally.failed - before.failed,
            self.tally.skipped - before.skipped,
            began.elapsed().as_secs_f64()
        )?;
        Ok(out.flush()?)
    }

    fn run_batch(
        &mut self,
        out: &mut impl Write,
        cases: Vec<Case>,
        concurrency: Concurrency,
    ) -> anyhow::Result<()> {
        let jobs = cases
            .iter()
            .map(|case| {
                Ok(Job {
                    name: case.name.clone(),
                    load: Load::Works,
                    limit: case.limit,
                    context: Arc::new(self.context(&case.name)?),
                    work: Arc::clone(&case.work),
                })
            })
            .collect::<io::Result<Vec<_>>>()?;
        jobs::run(&jobs, concurrency, |ended| {
            let (case, job) = (&cases[ended.index], &jobs[ended.index]);
            Ok(self.count(out, case, &job.context, ended)?)
        })
    }

    fn count(
        &mut self,
        out: &mut impl Write,
        Case { name, about, .. }: &Case,
        context: &Context,
        FinishedJob { took, verdict, .. }: FinishedJob<String>,
    ) -> io::Result<()> {
        let (word, colour, note) = match &verdict {
            Ok(note) => ("passed", AnsiColor::Green, note.as_str()),
            Err(Stop::Skip(why)) => ("skipped", AnsiColor::Yellow, why.as_str()),
            Err(Stop::Fault(_)) => ("FAILED", AnsiColor::Red, ""),
            Err(Stop::Trouble(_)) => ("TROUBLE", AnsiColor::Magenta, ""),
        };
        row(out, name, colour, word, took, note)?;
        let mut failed = false;
        match &verdict {
            Ok(_) => self.tally.passed += 1,
            Err(Stop::Skip(_)) => self.tally.skipped += 1,
            Err(stop) => {
                failed = true;
                self.tally.failed += 1;
                self.tally.troubled += usize::from(matches!(stop, Stop::Trouble(_)));
                let text = explain(name, about, stop, context);
                write!(out, "{text}")?;
                self.failures.push_str(&text);
            }
        }
        tidy(context, failed, self.options.keep)
    }

    /// Prints all failures again, then the closing lines.
    pub(crate) fn close(&self, out: &mut impl Write, took: Duration) -> io::Result<Tally> {
        let tally = self.tally;
        if tally.failed > 0 {
            writeln!(out, "\nfailures:\n{}", self.failures)?;
            if self.options.keep {
                writeln!(out, "files and outputs of failed cases: {}", self.dir.display())?;
            }
        }
        writeln!(out, "\nseed {}, {:.0} s", self.options.seed, took.as_secs_f64())?;
        writeln!(
            out,
            "{} passed, {} failed, {} skipped",
            tally.passed, tally.failed, tally.skipped
        )?;
        out.flush()?;
        Ok(tally)
    }
}

fn row(
    out: &mut impl Write,
    name: &str,
    colour: AnsiColor,
    word: &str,
    took: Duration,
    note: &str,
) -> io::Result<()> {
    let style = Style::new().fg_color(Some(colour.into()));
    writeln!(out, "{name:58}  {style}{word:7}{style:#}  {:6.1} s  {note}", took.as_secs_f64())?;
    out.flush()
}
