//! Runs scenarios: those that mostly wait all at once, the others a few at a time; each on a thread
//! of its own, with a limit on its time.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};

use super::context::Context;
use super::process;
use super::subject::Subject;
use super::verdict::{Stop, Verdict};

/// Beyond its limit a scenario's processes are ended; then its thread has this long to notice.
const GRACE: Duration = Duration::from_secs(20);
/// Lines of an output shown with a failure.
const TAIL: usize = 8;
/// Processes whose output is shown with a failure.
const PROCESSES: usize = 4;

/// One thing to be shown of the programs.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// `theme/what`.
    pub(crate) name: &'static str,
    /// What must hold, in a line.
    pub(crate) about: &'static str,
    /// What it costs the machine.
    pub(crate) load: Load,
    /// How it is shown.
    pub(crate) run: fn(&Context) -> Verdict,
}

/// What a scenario costs the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    /// Next to nothing: it mostly waits, so all of these run side by side.
    Waits,
    /// Processor or disk: as many at once as there are jobs.
    Works,
}

impl Load {
    /// How long such a scenario may take at the most, on a slow and busy machine.
    fn limit(self) -> Duration {
        match self {
            Load::Waits => Duration::from_secs(75),
            Load::Works => Duration::from_secs(120),
        }
    }
}

/// How a run is done.
#[derive(Debug)]
pub(crate) struct Options {
    /// Working scenarios at a time.
    pub(crate) jobs: usize,
    /// Where scenarios write.
    pub(crate) dir: PathBuf,
    /// Whether the files and outputs of failures stay there.
    pub(crate) keep: bool,
    /// What contents are made from.
    pub(crate) seed: u64,
}

/// How many scenarios came to what.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    /// All held.
    pub(crate) passed: usize,
    /// The subject's faults and our own troubles.
    pub(crate) failed: usize,
    /// Not to be shown here.
    pub(crate) skipped: usize,
    /// How many of the failed are our own troubles.
    pub(crate) troubled: usize,
}

/// Runs them all and writes the table, the failures and the closing line to `out`.
pub(crate) fn run(
    subject: &Arc<Subject>,
    scenarios: &[&'static Scenario],
    options: &Options,
    out: &mut impl Write,
) -> io::Result<Tally> {
    let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    let (report, reports) = mpsc::channel();
    let mut queue: VecDeque<usize> = (0..scenarios.len()).collect();
    let mut running: Vec<Running> = Vec::new();
    let mut failures = String::new();
    let mut tally = Tally::default();

    loop {
        // Start what may start.
        let mut working = running.iter().filter(|one| one.load == Load::Works).count();
        let mut later = VecDeque::new();
        for index in queue {
            let scenario = scenarios[index];
            if scenario.load == Load::Works && working >= options.jobs {
                later.push_back(index);
                continue;
            }
            working += usize::from(scenario.load == Load::Works);
            running.push(Running::start(index, scenario, subject, options, report.clone())?);
        }
        queue = later;
        if running.is_empty() {
            break;
        }

        // Wait for an end, or for a limit.
        let next = running.iter().map(|one| one.until).min().unwrap_or_else(Instant::now);
        let wait = next.saturating_duration_since(Instant::now());
        let mut ended = Vec::new();
        match reports.recv_timeout(wait) {
            Ok((index, verdict)) => {
                // An abandoned one may still report; it has been counted.
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
            let name = scenarios[one.index].name;
            let (word, colour, why) = match &verdict {
                Ok(()) => ("passed", AnsiColor::Green, ""),
                Err(Stop::Skip(why)) => ("skipped", AnsiColor::Yellow, why.as_str()),
                Err(Stop::Fault(_)) => ("FAILED", AnsiColor::Red, ""),
                Err(Stop::Trouble(_)) => ("TROUBLE", AnsiColor::Magenta, ""),
            };
            let style = Style::new().fg_color(Some(colour.into()));
            let time = one.began.elapsed().as_secs_f64();
            writeln!(out, "{name:width$}  {style}{word:7}{style:#}  {time:5.1} s  {why}")?;
            out.flush()?;
            match &verdict {
                Ok(()) => tally.passed += 1,
                Err(Stop::Skip(_)) => tally.skipped += 1,
                Err(stop) => {
                    tally.failed += 1;
                    tally.troubled += usize::from(matches!(stop, Stop::Trouble(_)));
                    let scenario = scenarios[one.index];
                    failures.push_str(&explain(scenario.name, scenario.about, stop, &one.context));
                }
            }
            tidy(
                &one.context,
                verdict.is_err_and(|stop| !matches!(stop, Stop::Skip(_))),
                options.keep,
            )?;
        }
    }

    write!(out, "{failures}")?;
    if tally.failed > 0 {
        writeln!(out, "\nseed {} (--seed repeats the same contents)", options.seed)?;
        if options.keep {
            writeln!(out, "files and outputs of failures: {}", options.dir.display())?;
        }
    }
    writeln!(out, "\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped)?;
    out.flush()?;
    Ok(tally)
}

struct Running {
    index: usize,
    load: Load,
    context: Arc<Context>,
    began: Instant,
    /// The end of its time, or of its grace.
    until: Instant,
    /// Whether its processes have been ended.
    ending: bool,
}

impl Running {
    fn start(
        index: usize,
        scenario: &'static Scenario,
        subject: &Arc<Subject>,
        options: &Options,
        report: mpsc::Sender<(usize, Verdict)>,
    ) -> io::Result<Running> {
        let dir = options.dir.join(scenario.name.replace('/', "-"));
        fs::create_dir_all(&dir)?;
        // Contents depend on the scenario, not on what else runs.
        let seed = scenario.name.bytes().fold(options.seed, |seed, byte| {
            seed.wrapping_mul(0x0100_0000_01b3).wrapping_add(byte.into())
        });
        let context = Arc::new(Context::new(Arc::clone(subject), dir, seed, index));
        let shared = Arc::clone(&context);
        let began = Instant::now();
        thread::Builder::new().name(scenario.name.into()).spawn(move || {
            let verdict = panic::catch_unwind(AssertUnwindSafe(|| (scenario.run)(&shared)));
            let verdict =
                verdict.unwrap_or_else(|_| Err(Stop::Trouble("the scenario panicked".into())));
            // The runner may have given up on us.
            let _ = report.send((index, verdict));
        })?;
        let (load, until) = (scenario.load, began + scenario.load.limit());
        Ok(Running { index, load, context, began, until, ending: false })
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
        process::kill_groups_of(self.index);
        self.until = Instant::now() + GRACE;
        self.ending = true;
        false
    }
}

fn overdue(one: &Running) -> Stop {
    Stop::fault(
        format!("the scenario to end within {} s", one.load.limit().as_secs()),
        "it did not; its processes were ended",
    )
}

/// What went wrong, for people.
pub(crate) fn explain(name: &str, about: &str, stop: &Stop, context: &Context) -> String {
    let mut text = format!("\n{name}: {about}\n");
    // Writing to a string does not fail.
    let _ = match stop {
        Stop::Fault(fault) => {
            let places: String =
                fault.during.iter().rev().map(|place| format!("  during    {place}\n")).collect();
            write!(text, "{places}  expected  {}\n  actual    {}\n", fault.expected, fault.actual)
        }
        Stop::Trouble(why) => writeln!(text, "  the kit's own trouble: {why}"),
        Stop::Skip(why) => writeln!(text, "  skipped: {why}"),
    };
    let logs = context.logs();
    let spoken = logs.iter().rev().filter(|log| !log.stderr.text().is_empty()).take(PROCESSES);
    for log in spoken {
        let stderr = log.stderr.text();
        let lines: Vec<&str> = stderr.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        let _ = writeln!(text, "  stderr of {}", log.command);
        for line in tail {
            let _ = writeln!(text, "    | {}", line.escape_debug());
        }
    }
    text
}

/// Removes a scenario's folder, or completes it with the outputs.
pub(crate) fn tidy(context: &Context, failed: bool, keep: bool) -> io::Result<()> {
    if !(failed && keep) {
        // A scenario that was given up on may still write there; the whole folder goes in the end.
        let _ = fs::remove_dir_all(context.dir());
        return Ok(());
    }
    for (number, log) in context.logs().iter().enumerate() {
        let text = format!(
            "$ {}\n--- stdout\n{}\n--- stderr\n{}\n",
            log.command,
            log.stdout.text(),
            log.stderr.text()
        );
        fs::write(context.dir().join(format!("process-{number}.log")), text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    static GOOD: Scenario =
        Scenario { name: "a/good", about: "holds", load: Load::Works, run: |_| Ok(()) };
    static BAD: Scenario = Scenario {
        name: "a/bad",
        about: "does not hold",
        load: Load::Waits,
        run: |context| {
            context.file(b"left behind")?;
            Err(Stop::fault("this", "that"))
        },
    };
    static SKIPS: Scenario = Scenario {
        name: "a/skips",
        about: "cannot be shown",
        load: Load::Waits,
        run: |_| Err(Stop::skip("no such thing here")),
    };
    static PANICS: Scenario =
        Scenario { name: "a/panics", about: "is ours", load: Load::Works, run: |_| panic!("ours") };

    fn run_all(keep: bool, dir: &Path) -> (Tally, String) {
        let subject = Arc::new(Subject::own(Path::new("/nowhere")).unwrap());
        let options = Options { jobs: 1, dir: dir.into(), keep, seed: 1 };
        let mut out = Vec::new();
        let tally = run(&subject, &[&GOOD, &BAD, &SKIPS, &PANICS], &options, &mut out).unwrap();
        (tally, String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_end_is_counted_and_explained() {
        let dir = tempfile::tempdir().unwrap();
        let (tally, text) = run_all(false, dir.path());
        assert_eq!(tally, Tally { passed: 1, failed: 2, skipped: 1, troubled: 1 });
        assert_eq!(text.lines().last(), Some("1 passed, 2 failed, 1 skipped"));
        assert!(text.contains("no such thing here"));
        assert!(text.contains("expected  this\n  actual    that"));
        assert!(text.contains("own trouble: the scenario panicked"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_failures_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        run_all(true, dir.path());
        let left = |name: &str| dir.path().join(name).exists();
        assert!(left("a-bad/0-source") && left("a-panics") && !left("a-good") && !left("a-skips"));
    }
}
