//! Runs scenarios and prints their results.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anstyle::{AnsiColor, Style};

use accio_harness::context::Context;
use accio_harness::jobs::{self, Concurrency, Job, Load};
use accio_harness::report::{Tally, explain, tidy};
use accio_harness::seeds::seed_for;
use accio_harness::subject::Subject;
use accio_harness::verdict::{Stop, Verdict};

/// A test of one behaviour of the programs.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// `group/scenario`.
    pub(crate) name: &'static str,
    /// The expected behaviour, in one line.
    pub(crate) about: &'static str,
    /// The load it puts on the machine.
    pub(crate) load: Load,
    /// The test.
    pub(crate) run: fn(&Context) -> Verdict,
}

/// Defines a scenario that mostly waits.
pub(crate) const fn waits(
    name: &'static str,
    about: &'static str,
    run: fn(&Context) -> Verdict,
) -> Scenario {
    Scenario { name, about, load: Load::Waits, run }
}

/// Defines a scenario that uses the CPU or the disk.
pub(crate) const fn works(
    name: &'static str,
    about: &'static str,
    run: fn(&Context) -> Verdict,
) -> Scenario {
    Scenario { name, about, load: Load::Works, run }
}

/// The options of a run.
#[derive(Debug)]
pub(crate) struct Options {
    /// Number of concurrent scenarios with [`Load::Works`].
    pub(crate) jobs: usize,
    /// The directory for the scenarios' files.
    pub(crate) dir: PathBuf,
    /// Keeps the files and outputs of failed scenarios.
    pub(crate) keep: bool,
    /// The seed of file contents.
    pub(crate) seed: u64,
}

/// Runs the scenarios and writes the table, the failures and the summary to `out`.
pub(crate) fn run(
    subject: &Arc<Subject>,
    scenarios: &[&'static Scenario],
    options: &Options,
    out: &mut impl Write,
) -> anyhow::Result<Tally> {
    let width = scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    let mut failures = String::new();
    let mut tally = Tally::default();
    // A scenario may fail because the machine is busy. So a scenario that fails among others runs
    // again by itself, and only that result counts.
    let mut again = Vec::new();
    for concurrency in [Concurrency::Working(options.jobs), Concurrency::Alone] {
        let chosen = match concurrency {
            Concurrency::Alone => std::mem::take(&mut again),
            _ => scenarios.to_vec(),
        };
        let suffix = if concurrency == Concurrency::Alone { "-again" } else { "" };
        let jobs = chosen
            .iter()
            .map(|scenario| job(scenario, suffix, subject, options))
            .collect::<io::Result<Vec<Job>>>()?;
        jobs::run(&jobs, concurrency, |ended| {
            let (scenario, context) = (chosen[ended.index], &jobs[ended.index].context);
            let name = scenario.name;
            let failed = matches!(&ended.verdict, Err(stop) if !matches!(stop, Stop::Skip(_)));
            let (word, colour, why) = match &ended.verdict {
                Ok(()) if concurrency == Concurrency::Alone => {
                    ("passed", AnsiColor::Green, "by itself")
                }
                Ok(()) => ("passed", AnsiColor::Green, ""),
                Err(Stop::Skip(why)) => ("skipped", AnsiColor::Yellow, why.as_str()),
                Err(_) if concurrency != Concurrency::Alone => {
                    ("again", AnsiColor::Yellow, "failed: see below")
                }
                Err(Stop::Fault(_)) => ("FAILED", AnsiColor::Red, ""),
                Err(Stop::Trouble(_)) => ("TROUBLE", AnsiColor::Magenta, ""),
            };
            let style = Style::new().fg_color(Some(colour.into()));
            let time = ended.took.as_secs_f64();
            writeln!(out, "{name:width$}  {style}{word:7}{style:#}  {time:5.1} s  {why}")?;
            out.flush()?;
            match &ended.verdict {
                Ok(()) => tally.passed += 1,
                Err(Stop::Skip(_)) => tally.skipped += 1,
                Err(stop) => {
                    failures.push_str(&explain(name, scenario.about, stop, context));
                    if concurrency == Concurrency::Alone {
                        tally.failed += 1;
                        tally.troubled += usize::from(matches!(stop, Stop::Trouble(_)));
                    } else {
                        again.push(scenario);
                    }
                }
            }
            Ok(tidy(context, failed, options.keep)?)
        })?;
    }

    write!(out, "{failures}")?;
    if tally.failed > 0 {
        writeln!(out, "\nseed {} (--seed repeats the same contents)", options.seed)?;
        if options.keep {
            writeln!(out, "files and outputs of failed scenarios: {}", options.dir.display())?;
        }
    }
    writeln!(out, "\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped)?;
    out.flush()?;
    Ok(tally)
}

fn job(
    scenario: &'static Scenario,
    suffix: &str,
    subject: &Arc<Subject>,
    options: &Options,
) -> io::Result<Job> {
    let dir = options.dir.join(scenario.name.replace('/', "-") + suffix);
    fs::create_dir_all(&dir)?;
    let seed = seed_for(scenario.name, options.seed);
    Ok(Job {
        name: scenario.name.to_owned(),
        load: scenario.load,
        limit: scenario.load.limit(),
        context: Arc::new(Context::new(Arc::clone(subject), dir, seed)),
        work: Arc::new(scenario.run),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

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
        about: "cannot run here",
        load: Load::Waits,
        run: |_| Err(Stop::skip("no such thing here")),
    };
    static PANICS: Scenario =
        Scenario { name: "a/panics", about: "is ours", load: Load::Works, run: |_| panic!("ours") };

    static FIRST: AtomicBool = AtomicBool::new(true);
    static BUSY: Scenario = Scenario {
        name: "a/busy",
        about: "fails only among others",
        load: Load::Waits,
        run: |_| match FIRST.swap(false, Ordering::SeqCst) {
            true => Err(Stop::fault("in time", "late")),
            false => Ok(()),
        },
    };

    #[test]
    fn a_failed_scenario_that_passes_by_itself_has_passed() {
        let dir = tempfile::tempdir().unwrap();
        let subject = Arc::new(Subject::own(Path::new("/nowhere")).unwrap());
        let options = Options { jobs: 1, dir: dir.path().into(), keep: false, seed: 1 };
        let mut out = Vec::new();
        let tally = run(&subject, &[&BUSY, &GOOD], &options, &mut out).unwrap();
        assert_eq!(tally, Tally { passed: 2, ..Tally::default() });
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("again") && text.contains("actual    late"), "{text}");
    }

    fn run_all(keep: bool, dir: &Path) -> (Tally, String) {
        let subject = Arc::new(Subject::own(Path::new("/nowhere")).unwrap());
        let options = Options { jobs: 1, dir: dir.into(), keep, seed: 1 };
        let mut out = Vec::new();
        let tally = run(&subject, &[&GOOD, &BAD, &SKIPS, &PANICS], &options, &mut out).unwrap();
        (tally, String::from_utf8(out).unwrap())
    }

    #[test]
    fn counts_and_explains_all_results() {
        let dir = tempfile::tempdir().unwrap();
        let (tally, text) = run_all(false, dir.path());
        assert_eq!(tally, Tally { passed: 1, failed: 2, skipped: 1, troubled: 1 });
        assert_eq!(text.lines().last(), Some("1 passed, 2 failed, 1 skipped"));
        assert!(text.contains("no such thing here"));
        assert!(text.contains("expected  this\n  actual    that"));
        assert!(text.contains("itself failed: the scenario panicked"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn keeps_only_the_files_of_failed_scenarios() {
        let dir = tempfile::tempdir().unwrap();
        run_all(true, dir.path());
        let left = |name: &str| dir.path().join(name).exists();
        assert!(left("a-bad/0-source") && left("a-panics") && !left("a-good") && !left("a-skips"));
    }
}
