//! `cargo xtask torture`: injects the faults that SECURITY.md promises to survive.
//!
//! A [`Part`] groups the cases ([`runner::Case`]) of one kind of fault. The cases of `syscalls` are
//! generated from a recorded run of the real programs, so that no system call is forgotten. Every
//! case ends by asking the same oracle ([`directory_oracle`]): does the directory contain only
//! whole files and error markers, and every upload that was confirmed to its client?
#![forbid(unsafe_code)]

mod chaos;
mod directory_oracle;
mod disk;
mod errno_table;
mod exhaustion;
mod fault_proxy;
mod journal_oracle;
mod kill;
mod load;
mod network;
mod panics;
mod power_loss;
mod power_switch;
mod privileges;
#[cfg(test)]
mod promises;
mod proxies;
mod runner;
mod saturation;
mod slow_disk;
mod stop;
mod strace;
mod syscalls;
mod volume;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use clap::{Parser, ValueEnum};

use accio_harness::context::Context;
use accio_harness::subject::Subject;
use accio_harness::verdict::{Stop, Verdict};
use accio_harness::work_dir::WorkDir;
use accio_harness::{TROUBLE, namespace, resource_limits, scheduling_delay};
use runner::{Case, RunOptions};

/// Inject faults: system calls, kills, power loss, full disks, lossy networks
#[derive(Debug, Parser)]
#[command(name = "accio-torture")]
struct Arguments {
    /// Parts to run [default: all]
    #[arg(value_enum, value_name = "PART")]
    parts: Vec<Part>,
    /// Run fewer cases, in a few minutes
    #[arg(long)]
    quick: bool,
    /// Leave out cases that need root, a tracer or mounts
    #[arg(long)]
    unprivileged: bool,
    /// Run only parts that other load on the machine may disturb (`timed`), or the others (`untimed`)
    #[arg(long, value_name = "KIND", conflicts_with = "parts")]
    only: Option<Kind>,
    #[command(flatten)]
    run: accio_harness::options::RunOptions,
}

/// Whether a part measures how late something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Timed,
    Untimed,
}

/// A group of cases with the same kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Make each system call of a recorded run fail with each possible error, once and repeatedly
    Syscalls,
    /// Kill servers and clients at random points under load
    Kill,
    /// Cut the power of a durable server's file system at random points under load
    Power,
    /// Fill the disk, use up inodes, limit the file size, remove the directory
    Disk,
    /// Use up file descriptors; hold ten thousand silent connections
    Exhaustion,
    /// Slice, delay, stall, half-close and reset connections in a proxy
    Chaos,
    /// Drop some or all packets
    Network,
    /// Upload at full speed while silent connections wait for their time limit
    Saturation,
    /// Commit files to a disk that takes seconds for each commit
    SlowDisk,
    /// Send a signal during many uploads while nothing reads the server's stderr and journal
    Stop,
    /// Let a sink panic in a program as it is released
    Panics,
    /// Connect through TCP proxies that turn resets into orderly ends
    Proxies,
}

impl Part {
    fn cases(self, context: &Context, options: &RunOptions) -> Verdict<Vec<Case>> {
        match self {
            Part::Syscalls => syscalls::cases(context, options),
            Part::Kill => Ok(kill::cases(options)),
            Part::Power => Ok(power_loss::cases(options)),
            Part::Disk => Ok(disk::cases(options)),
            Part::Exhaustion => Ok(exhaustion::cases(options)),
            Part::Chaos => Ok(chaos::cases(options)),
            Part::Network => Ok(network::cases(options)),
            Part::Saturation => Ok(saturation::cases(options)),
            Part::SlowDisk => Ok(slow_disk::cases(options)),
            Part::Stop => Ok(stop::cases(options)),
            Part::Panics => Ok(panics::cases(options)),
            Part::Proxies => Ok(proxies::cases(options)),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn kind(self) -> Kind {
        match self {
            Part::Disk
            | Part::Exhaustion
            | Part::Network
            | Part::Saturation
            | Part::SlowDisk
            | Part::Stop => Kind::Timed,
            Part::Syscalls
            | Part::Kill
            | Part::Power
            | Part::Chaos
            | Part::Panics
            | Part::Proxies => Kind::Untimed,
        }
    }

    /// Returns whether all of its cases need root or a tracer.
    fn is_privileged(self) -> bool {
        matches!(self, Part::Syscalls | Part::Power | Part::Network)
    }
}

fn main() -> ExitCode {
    accio_harness::report::exit_code(run(&Arguments::parse()))
}

/// Builds the programs, runs the cases and reports the results.
fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let Some(bin) = arguments.run.programs()? else {
        // Cargo has printed the reason.
        return Ok(ExitCode::from(TROUBLE));
    };
    // Before the first thread starts. Where this is not allowed, neither are mounts, and the cases
    // that need them are skipped.
    let _ = namespace::hide_mounts();
    let subject = Arc::new(Subject::own(&bin)?);
    let mut dir = WorkDir::new("torture", undo)?;
    // This process holds the client side of ten thousand connections.
    resource_limits::raise_descriptor_limit(None)?;
    scheduling_delay::start();

    let options = RunOptions {
        quick: arguments.quick,
        unprivileged: arguments.unprivileged,
        seed: arguments.run.seed(),
        jobs: arguments.run.jobs(2),
        keep: arguments.run.keep,
    };
    let parts = match arguments.parts.as_slice() {
        [] => Part::value_variants(),
        chosen => chosen,
    };
    let mut out = anstream::stdout().lock();
    let mut runner = runner::Runner::new(subject, dir.path().to_owned(), &options);
    let is_chosen = |part: &&Part| arguments.only.is_none_or(|kind| part.kind() == kind);
    for part in parts.iter().filter(is_chosen) {
        let name = part.name();
        if options.unprivileged && part.is_privileged() {
            runner.skip(&mut out, &name, "left out by --unprivileged")?;
            continue;
        }
        let mut cases = match part.cases(&runner.context(&name)?, &options) {
            Ok(cases) => cases,
            Err(Stop::Skip(why)) => {
                runner.skip(&mut out, &name, &why)?;
                continue;
            }
            Err(stop) => {
                let fails = move |_: &Context| Err(stop.clone());
                vec![Case::new(format!("{name}/record"), "a healthy run", fails)]
            }
        };
        cases.retain(|case| arguments.run.selects(&case.name));
        if arguments.run.list {
            for case in &cases {
                writeln!(out, "{}: {}", case.name, case.about)?;
            }
            continue;
        }
        runner.run(&mut out, &name, cases)?;
    }
    if arguments.run.list {
        return Ok(ExitCode::SUCCESS);
    }
    let tally = runner.close(&mut out, began.elapsed())?;
    if arguments.run.keep && tally.failed > 0 {
        dir.keep();
    }
    Ok(tally.exit_code())
}

/// Removes mounts and namespaces, which outlive this process.
fn undo() {
    volume::unmount_all();
    namespace::remove_all();
}
