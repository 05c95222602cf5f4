//! Runs jobs: those that mostly wait all at once, the others a few at a time; each on a thread of
//! its own, with a limit on its time. Whatever a job started is ended with it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::context::Context;
use super::process;
use super::verdict::{Stop, Verdict};

/// Beyond its limit a job's processes are ended; then its thread has this long to notice.
const GRACE: Duration = Duration::from_secs(20);

/// What a job costs the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Next to nothing: it mostly waits, so all of these run side by side.
    Waits,
    /// Processor or disk: as many at once as there are places.
    Works,
}

impl Load {
    /// How long such a job may take at the most, on a slow and busy machine.
    fn limit(self) -> Duration {
        match self {
            Load::Waits => Duration::from_secs(75),
            Load::Works => Duration::from_secs(120),
        }
    }
}

/// How many jobs run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// One after another, whatever they cost.
    Alone,
    /// All that wait, and this many of those that work.
    Working(usize),
}

/// What a job does.
pub type Work = dyn Fn(&Context) -> Verdict + Send + Sync;

/// Something to be run once.
#[derive(Clone)]
pub struct Job {
    /// The name of its thread.
    pub name: String,
    /// What it costs.
    pub load: Load,
    /// What it is given.
    pub context: Arc<Context>,
    /// What it does.
    pub work: Arc<Work>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The end of a job.
#[derive(Debug)]
pub struct Ended {
    /// Its place among the jobs.
    pub index: usize,
    /// What it came to.
    pub verdict: Verdict,
    /// How long it took.
    pub took: Duration,
}

/// Runs all `jobs` and tells of each one's end as it comes.
pub fn drive(
    jobs: &[Job],
    pace: Pace,
    mut tell: impl FnMut(Ended) -> io::Result<()>,
) -> io::Result<()> {
    let (report, reports) = mpsc::channel();
    let mut queue: VecDeque<usize> = (0..jobs.len()).collect();
    let mut running: Vec<Running> = Vec::new();
    loop {
        // Start what may start.
        let mut later = VecDeque::new();
        for index in queue {
            let working = running.iter().filter(|one| one.load == Load::Works).count();
            let may_start = match pace {
                Pace::Alone => running.is_empty(),
                Pace::Working(places) => jobs[index].load == Load::Waits || working < places,
            };
            if may_start {
                running.push(Running::start(index, &jobs[index], report.clone())?);
            } else {
                later.push_back(index);
            }
        }
        queue = later;
        if running.is_empty() {
            return Ok(());
        }

        // Wait for an end, or for a limit.
        let next = running.iter().map(|one| one.until).min().unwrap_or_else(Instant::now);
        let mut ended = Vec::new();
        match reports.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok((index, verdict)) => {
                // An abandoned one may still report; it has been told of.
                if let Some(place) = running.iter().position(|one| one.index == index) {
                    let one = running.swap_remove(place);
                    let verdict = if one.ending { Err(overdue(&one)) } else { verdict };
                    ended.push((one, verdict));
                }
            }
            Err(_) => {
                for one in running.extract_if(.., |one| one.is_hopeless()) {
                    let fault = overdue(&one);
                    ended.push((one, Err(fault)));
                }
            }
        }
        for (one, verdict) in ended {
            tell(Ended { index: one.index, verdict, took: one.began.elapsed() })?;
        }
    }
}

struct Running {
    index: usize,
    load: Load,
    owner: usize,
    began: Instant,
    /// The end of its time, or of its grace.
    until: Instant,
    /// Whether its processes have been ended.
    ending: bool,
}

impl Running {
    fn start(
        index: usize,
        job: &Job,
        report: mpsc::Sender<(usize, Verdict)>,
    ) -> io::Result<Running> {
        let (context, work) = (Arc::clone(&job.context), Arc::clone(&job.work));
        let owner = context.owner();
        let began = Instant::now();
        thread::Builder::new().name(job.name.clone()).spawn(move || {
            let verdict = panic::catch_unwind(AssertUnwindSafe(|| work(&context)));
            let verdict =
                verdict.unwrap_or_else(|_| Err(Stop::Trouble("the scenario panicked".into())));
            process::end_all_of(owner);
            // The other end may have given up on us.
            let _ = report.send((index, verdict));
        })?;
        let until = began + job.load.limit();
        Ok(Running { index, load: job.load, owner, began, until, ending: false })
    }

    /// At its limit its processes are ended, so that what waits for them goes on; a while later
    /// there is no hope.
    fn is_hopeless(&mut self) -> bool {
        if Instant::now() < self.until {
            return false;
        }
        if self.ending {
            return true;
        }
        process::end_all_of(self.owner);
        self.until = Instant::now() + GRACE;
        self.ending = true;
        false
    }
}

fn overdue(one: &Running) -> Stop {
    Stop::fault(
        format!("an end within {} s", one.load.limit().as_secs()),
        "none came; the processes were ended",
    )
}
