//! Runs cases, several at a time, and prints their results.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};

use accio_harness::context::Context;
use accio_harness::jobs::{self, Concurrency, Ended, Job, Load, Work};
use accio_harness::report::{Tally, explain, tidy};
use accio_harness::seeds::seed_for;
use accio_harness::subject::Subject;
use accio_harness::verdict::{Stop, Verdict};

/// How a run is done.
#[derive(Debug, Clone)]
pub(crate) struct RunOptions {
    /// A bounded share only.
    pub(crate) quick: bool,
    /// Nothing that wants root, a tracer or mounts.
    pub(crate) unprivileged: bool,
    /// The seed of everything random.
    pub(crate) seed: u64,
    /// Cases at a time.
    pub(crate) jobs: usize,
    /// Whether the files and outputs of failures stay.
    pub(crate) keep: bool,
}

impl RunOptions {
    /// One number for the quick run, one for the full.
    pub(crate) fn scale(&self, quick: usize, full: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

/// One fault, made to happen.
pub(crate) struct Case {
    /// `part/what`.
    pub(crate) name: String,
    /// The expected behaviour.
    pub(crate) about: String,
    /// Whether it needs the machine to itself, for it measures time or fills it up.
    alone: bool,
    limit: Duration,
    /// Returns what it counted, for the report.
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
    plan: RunOptions,
    tally: Tally,
    failures: String,
    owners: usize,
}

impl Runner {
    pub(crate) fn new(subject: Arc<Subject>, dir: PathBuf, plan: &RunOptions) -> Runner {
        let plan = plan.clone();
        Runner { subject, dir, plan, tally: Tally::default(), failures: String::new(), owners: 0 }
    }

    /// A context for the case or part `name`.
    pub(crate) fn context(&mut self, name: &str) -> io::Result<Context> {
        self.owners += 1;
        let plain: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let dir = self.dir.join(format!("{}-{plain}", self.owners));
        fs::create_dir_all(&dir)?;
        let seed = seed_for(name, self.plan.seed);
        Ok(Context::new(Arc::clone(&self.subject), dir, seed))
    }

    /// Counts something as skipped.
    pub(crate) fn skip(&mut self, out: &mut impl Write, name: &str, why: &str) -> io::Result<()> {
        self.tally.skipped += 1;
        row(out, name, AnsiColor::Yellow, "skipped", Duration::ZERO, why)
    }

    /// Runs them all and writes the table.
    pub(crate) fn run(
        &mut self,
        out: &mut impl Write,
        part: &str,
        cases: Vec<Case>,
    ) -> anyhow::Result<()> {
        let (began, before) = (Instant::now(), self.tally);
        let (alone, together): (Vec<Case>, Vec<Case>) =
            cases.into_iter().partition(|case| case.alone);
        self.run_batch(out, together, Concurrency::Working(self.plan.jobs))?;
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
        Ended { took, verdict, .. }: Ended<String>,
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
        tidy(context, failed, self.plan.keep)
    }

    /// Says once more what failed, and the closing line.
    pub(crate) fn close(&self, out: &mut impl Write, took: Duration) -> io::Result<Tally> {
        let tally = self.tally;
        if tally.failed > 0 {
            writeln!(out, "\nwhat failed:\n{}", self.failures)?;
            if self.plan.keep {
                writeln!(out, "files and outputs of failures: {}", self.dir.display())?;
            }
        }
        writeln!(out, "\nseed {}, {:.0} s", self.plan.seed, took.as_secs_f64())?;
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
