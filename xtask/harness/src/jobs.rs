//! Runs jobs concurrently, each in its own thread and with a deadline. Jobs that mostly wait all
//! run at once, the others a few at a time. When a job ends, so do the processes that it started.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::context::Context;
use super::verdict::{Stop, Verdict};
use super::{cores, process, spinning};

/// When a job exceeds its limit, its processes are killed; then its thread has this long to end.
const GRACE: Duration = Duration::from_secs(20);

/// The load that a job puts on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// It mostly waits, so all jobs of this kind run at once.
    Waits,
    /// It waits for a slow network, so all jobs of this kind run at once. Its programs transfer data,
    /// and may use the CPU all the time.
    Transfers,
    /// It uses the CPU or the disk, so only a few run at once.
    Works,
}

impl Load {
    /// Returns the default time limit of a job with this load, for a slow and busy machine.
    pub fn limit(self) -> Duration {
        match self {
            Load::Waits => Duration::from_secs(75),
            Load::Transfers | Load::Works => Duration::from_secs(120),
        }
    }
}

/// The number of jobs to run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// One at a time, whatever their load.
    Alone,
    /// All jobs that wait, and this number of those with [`Load::Works`].
    Working(usize),
    /// All jobs that wait, and as many of those with [`Load::Works`] as this machine can
    /// run, together with those of all other runs in this process.
    Shared,
}

/// The function of a job; it may return a value for the report.
pub type Work<T = ()> = dyn Fn(&Context) -> Verdict<T> + Send + Sync;

/// A unit of work with a time limit.
pub struct Job<T = ()> {
    /// The name of its thread.
    pub name: String,
    /// The load it puts on the machine.
    pub load: Load,
    /// Its time limit.
    pub limit: Duration,
    /// The environment of the work.
    pub context: Arc<Context>,
    /// The work.
    pub work: Arc<Work<T>>,
}

impl<T> Clone for Job<T> {
    fn clone(&self) -> Job<T> {
        let (context, work) = (Arc::clone(&self.context), Arc::clone(&self.work));
        Job { name: self.name.clone(), load: self.load, limit: self.limit, context, work }
    }
}

impl<T> fmt::Debug for Job<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A finished job.
#[derive(Debug)]
pub struct FinishedJob<T = ()> {
    /// Its index among the jobs.
    pub index: usize,
    /// The result.
    pub verdict: Verdict<T>,
    /// Its duration.
    pub took: Duration,
}

/// Runs all `jobs` and calls `report` for each when it has ended.
pub fn run<T: Send + 'static>(
    jobs: &[Job<T>],
    concurrency: Concurrency,
    mut report: impl FnMut(FinishedJob<T>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (sender, verdicts) = mpsc::channel();
    let mut queue: VecDeque<usize> = (0..jobs.len()).collect();
    let mut running: Vec<RunningJob> = Vec::new();
    let mut waiting = None;
    loop {
        // Start as many jobs as the concurrency allows.
        let mut later = VecDeque::new();
        let (mut waits_may_start, mut works_may_start) = (true, true);
        for index in queue {
            let working = running.iter().filter(|one| one.load == Load::Works).count();
            let may_start = match concurrency {
                Concurrency::Alone => running.is_empty(),
                Concurrency::Working(places) => jobs[index].load != Load::Works || working < places,
                // What the first of a kind may not, the others may not either.
                Concurrency::Shared => match jobs[index].load {
                    Load::Waits | Load::Transfers => waits_may_start && cores::try_start_waiting(),
                    Load::Works => works_may_start && cores::try_start(),
                },
            };
            if may_start {
                if concurrency == Concurrency::Shared && jobs[index].load == Load::Waits {
                    spinning::watch(jobs[index].context.owner());
                }
                running.push(RunningJob::start(index, &jobs[index], sender.clone())?);
            } else {
                match jobs[index].load {
                    Load::Waits | Load::Transfers => waits_may_start = false,
                    Load::Works => works_may_start = false,
                }
                later.push_back(index);
            }
        }
        queue = later;
        if running.is_empty() && queue.is_empty() {
            return Ok(());
        }

        // Wait until a job ends or reaches its limit, or another one may start.
        let next = running.iter().map(|one| one.until).min();
        let left = next.map(|next| next.saturating_duration_since(Instant::now()));
        if concurrency != Concurrency::Shared || queue.is_empty() {
            waiting = None;
        } else if waiting.is_none() {
            waiting = Some(cores::WaitingRun::new());
        }
        let retry = waiting.as_ref().map(cores::WaitingRun::retry_after);
        let left = left.into_iter().chain(retry).min().unwrap_or_default();
        let mut ended = Vec::new();
        match verdicts.recv_timeout(left) {
            Ok((index, verdict)) => {
                // An abandoned job may end after all; it has been reported already.
                if let Some(place) = running.iter().position(|one| one.index == index) {
                    let one = running.swap_remove(place);
                    let late = one.ending || Instant::now() > one.began + one.limit;
                    let verdict = if late { Err(overdue(&one, verdict.err())) } else { verdict };
                    ended.push((one, verdict));
                }
            }
            Err(_) => {
                for one in running.extract_if(.., |one| one.must_be_abandoned()) {
                    let fault = overdue(&one, None);
                    ended.push((one, Err(fault)));
                }
            }
        }
        for (one, verdict) in ended {
            if concurrency == Concurrency::Shared {
                match one.load {
                    Load::Waits => spinning::forget(one.owner),
                    Load::Transfers => {}
                    Load::Works => cores::ended(),
                }
            }
            report(FinishedJob { index: one.index, verdict, took: one.began.elapsed() })?;
        }
    }
}

struct RunningJob {
    index: usize,
    load: Load,
    limit: Duration,
    owner: usize,
    began: Instant,
    /// The time at which its limit, or afterwards its grace period, ends.
    until: Instant,
    /// Whether its processes have been killed.
    ending: bool,
}

impl RunningJob {
    fn start<T: Send + 'static>(
        index: usize,
        job: &Job<T>,
        sender: mpsc::Sender<(usize, Verdict<T>)>,
    ) -> io::Result<RunningJob> {
        let (context, work) = (Arc::clone(&job.context), Arc::clone(&job.work));
        let owner = context.owner();
        let began = Instant::now();
        thread::Builder::new().name(job.name.clone()).spawn(move || {
            let verdict = panic::catch_unwind(AssertUnwindSafe(|| work(&context)));
            let verdict =
                verdict.unwrap_or_else(|_| Err(Stop::Trouble("the scenario panicked".into())));
            process::end_all_of(owner);
            // The receiver is gone if the run has been aborted.
            let _ = sender.send((index, verdict));
        })?;
        let (load, limit) = (job.load, job.limit);
        Ok(RunningJob { index, load, limit, owner, began, until: began + limit, ending: false })
    }

    /// Kills the processes of a job that has reached its limit, so that its thread stops waiting
    /// for them. Returns whether the thread has not ended within the grace period either.
    fn must_be_abandoned(&mut self) -> bool {
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

/// Returns the fault for a job that exceeded its limit, with the fault that resulted from that.
fn overdue(one: &RunningJob, then: Option<Stop>) -> Stop {
    let then = match then {
        Some(Stop::Fault(fault)) => format!(", then: {} / {}", fault.expected, fault.actual),
        _ => String::new(),
    };
    Stop::fault(
        format!("the job to end within {} s", one.limit.as_secs()),
        format!("it did not; its processes were killed{then}"),
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use super::*;
    use crate::process::Input;
    use crate::subject::Subject;
    use crate::wait::wait_until;

    fn job(limit: Duration, work: impl Fn(&Context) -> Verdict + Send + Sync + 'static) -> Job {
        let context = Context::new(Arc::new(Subject::default()), PathBuf::new(), 1);
        let (name, load) = ("job".to_owned(), Load::Works);
        Job { name, load, limit, context: Arc::new(context), work: Arc::new(work) }
    }

    /// A program of a job that waits should not use a CPU all the time; one that transfers data may.
    #[test]
    fn only_spinning_programs_of_waiting_jobs_lose_their_priority() {
        let (nices, seen) = mpsc::channel();
        let spins = |load: Load| {
            let nices = nices.clone();
            let work = move |context: &Context| {
                let mut command = Command::new("sh");
                command.args(["-c", "while :; do :; done"]);
                let process = context.spawn(command, Input::Null)?;
                let nice = || rustix::process::getpriority_process(Some(process.pid()));
                let before = nice()?;
                let is_lower = || nice().is_ok_and(|now| now > before);
                let limit = if load == Load::Waits { 60 } else { 4 };
                let changed = wait_until(Duration::from_secs(limit), is_lower);
                let _ = nices.send((load, changed));
                Ok(())
            };
            Job { load, ..job(Duration::from_secs(90), work) }
        };
        run(&[spins(Load::Waits), spins(Load::Transfers)], Concurrency::Shared, |_| Ok(()))
            .unwrap();
        let mut seen: Vec<(Load, bool)> = seen.try_iter().collect();
        seen.sort_by_key(|(_, changed)| *changed);
        assert_eq!(seen, [(Load::Transfers, false), (Load::Waits, true)]);
    }

    #[test]
    fn a_job_beyond_its_limit_is_a_fault_and_its_processes_are_killed() {
        let sleeps = job(Duration::from_millis(200), |context| {
            let mut command = Command::new("sleep");
            command.arg("1000");
            let mut process = context.spawn(command, Input::Null)?;
            process.wait(Duration::from_secs(30)).map(drop)
        });
        let panics = job(Duration::from_secs(30), |_| panic!("its own"));
        let began = Instant::now();
        let mut ends = Vec::new();
        run(&[sleeps, panics], Concurrency::Alone, |ended| {
            ends.push(ended.verdict);
            Ok(())
        })
        .unwrap();
        assert!(began.elapsed() < Duration::from_secs(20));
        let [Err(Stop::Fault(fault)), Err(Stop::Trouble(why))] = &ends[..] else {
            panic!("{ends:?}")
        };
        assert!(fault.actual.contains("processes were killed"), "{fault:?}");
        assert!(why.contains("panicked"), "{why}");
    }
}
