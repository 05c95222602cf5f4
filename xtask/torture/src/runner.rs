//! Runs cases: several at a time, each with a limit on its time, and tells people what came of
//! them.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};

use accio_harness::context::Context;
use accio_harness::process;
use accio_harness::report::{Tally, explain, tidy};
use accio_harness::subject::Subject;
use accio_harness::verdict::{Stop, Verdict};

/// How a run is done.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// A bounded share only.
    pub(crate) quick: bool,
    /// Nothing that wants root, a tracer or mounts.
    pub(crate) unprivileged: bool,
    /// What everything random is drawn from.
    pub(crate) seed: u64,
    /// Cases at a time.
    pub(crate) jobs: usize,
    /// Whether the files and outputs of failures stay.
    pub(crate) keep: bool,
}

impl Plan {
    /// One number for the quick run, one for the full.
    pub(crate) fn scale(&self, quick: usize, full: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

/// What a case does; it returns what it counted, for people.
type Run = Box<dyn FnOnce(&Context) -> Verdict<String> + Send>;

/// One fault, made to happen.
pub(crate) struct Case {
    /// `part/what`.
    pub(crate) name: String,
    /// What must hold.
    pub(crate) about: String,
    /// Whether it needs the machine to itself, for it measures time or fills it up.
    alone: bool,
    limit: Duration,
    run: Run,
}

impl Case {
    pub(crate) fn new(
        name: impl Into<String>,
        about: impl Into<String>,
        run: impl FnOnce(&Context) -> Verdict<String> + Send + 'static,
    ) -> Case {
        let limit = Duration::from_secs(90);
        Case { name: name.into(), about: about.into(), alone: false, limit, run: Box::new(run) }
    }

    /// The same, with nothing beside it.
    pub(crate) fn alone(self) -> Case {
        Case { alone: true, ..self }
    }

    /// The same, with this much time.
    pub(crate) fn within(self, limit: Duration) -> Case {
        Case { limit, ..self }
    }
}

/// Runs the cases of one part after the other and keeps the score.
pub(crate) struct Runner {
    subject: Arc<Subject>,
    dir: PathBuf,
    plan: Plan,
    tally: Tally,
    failures: String,
    owners: usize,
}

struct Ended {
    name: String,
    about: String,
    took: Duration,
    context: Context,
    verdict: Verdict<String>,
}

/// The owner number and the end of the time of each running case.
type Running = Mutex<Vec<(usize, Instant)>>;

impl Runner {
    pub(crate) fn new(subject: Arc<Subject>, dir: PathBuf, plan: &Plan) -> Runner {
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
        let seed = name.bytes().fold(self.plan.seed, |seed, byte| {
            seed.wrapping_mul(0x0100_0000_01b3).wrapping_add(byte.into())
        });
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
    ) -> io::Result<()> {
        let (began, before) = (Instant::now(), self.tally);
        let (alone, together): (Vec<Case>, Vec<Case>) =
            cases.into_iter().partition(|case| case.alone);
        self.run_batch(out, together, self.plan.jobs)?;
        self.run_batch(out, alone, 1)?;
        writeln!(
            out,
            "{part}: {} passed, {} failed, {} skipped in {:.0} s",
            self.tally.passed - before.passed,
            self.tally.failed - before.failed,
            self.tally.skipped - before.skipped,
            began.elapsed().as_secs_f64()
        )?;
        out.flush()
    }

    fn run_batch(&mut self, out: &mut impl Write, cases: Vec<Case>, jobs: usize) -> io::Result<()> {
        let mut queue = VecDeque::with_capacity(cases.len());
        for case in cases {
            let context = self.context(&case.name)?;
            let owner = context.owner();
            queue.push_back((case, context, owner));
        }
        let queue = Mutex::new(queue);
        let running = Running::default();
        let (report, reports) = mpsc::channel();
        thread::scope(|scope| -> io::Result<()> {
            for _ in 0..jobs {
                let (queue, running, report) = (&queue, &running, report.clone());
                thread::Builder::new()
                    .spawn_scoped(scope, move || work(queue, running, &report))?;
            }
            drop(report);
            loop {
                match reports.recv_timeout(Duration::from_millis(200)) {
                    Ok(ended) => self.count(out, ended)?,
                    Err(mpsc::RecvTimeoutError::Timeout) => end_overdue(&running),
                    Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
        })
    }

    fn count(&mut self, out: &mut impl Write, ended: Ended) -> io::Result<()> {
        let Ended { name, about, took, context, verdict } = ended;
        let (word, colour, note) = match &verdict {
            Ok(note) => ("passed", AnsiColor::Green, note.as_str()),
            Err(Stop::Skip(why)) => ("skipped", AnsiColor::Yellow, why.as_str()),
            Err(Stop::Fault(_)) => ("FAILED", AnsiColor::Red, ""),
            Err(Stop::Trouble(_)) => ("TROUBLE", AnsiColor::Magenta, ""),
        };
        row(out, &name, colour, word, took, note)?;
        let mut failed = false;
        match &verdict {
            Ok(_) => self.tally.passed += 1,
            Err(Stop::Skip(_)) => self.tally.skipped += 1,
            Err(stop) => {
                failed = true;
                self.tally.failed += 1;
                self.tally.troubled += usize::from(matches!(stop, Stop::Trouble(_)));
                let text = explain(&name, &about, stop, &context);
                write!(out, "{text}")?;
                self.failures.push_str(&text);
            }
        }
        tidy(&context, failed, self.plan.keep)
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

fn work(
    queue: &Mutex<VecDeque<(Case, Context, usize)>>,
    running: &Running,
    report: &mpsc::Sender<Ended>,
) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some((Case { name, about, limit, run, .. }, context, owner)) = next else { return };
        let began = Instant::now();
        let until = began + limit;
        running.lock().unwrap_or_else(PoisonError::into_inner).push((owner, until));
        let verdict = panic::catch_unwind(AssertUnwindSafe(|| run(&context)));
        running.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _)| *of != owner);
        let mut verdict =
            verdict.unwrap_or_else(|_| Err(Stop::Trouble("the case panicked".into())));
        if Instant::now() > until {
            let expected = format!("the case to end within {} s", limit.as_secs());
            let mut actual = "it did not; its processes were ended".to_owned();
            if let Err(Stop::Fault(fault)) = verdict {
                // A string takes everything.
                let _ = write!(actual, ", then: {} / {}", fault.expected, fault.actual);
            }
            verdict = Err(Stop::fault(expected, actual));
        }
        let ended = Ended { name, about, took: began.elapsed(), context, verdict };
        if report.send(ended).is_err() {
            return;
        }
    }
}

/// Ends the processes of cases that take too long, so that what waits for them goes on.
fn end_overdue(running: &Running) {
    let now = Instant::now();
    for (owner, until) in running.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if *until < now {
            process::end_all_of(*owner);
        }
    }
}
