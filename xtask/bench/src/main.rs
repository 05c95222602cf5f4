//! `cargo xtask bench`: throughput, CPU time and memory, compared with other programs.
#![forbid(unsafe_code)]

mod compare;
mod goals;
mod machine;
mod peers;
mod plot;
mod ports;
mod report;
mod roles;
mod stats;
mod strace;
mod table;
mod workloads;
mod workspace;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use machine::{BackgroundLoad, Machine};
use report::{Report, VERSION};
use workloads::{Bench, WorkloadKind};
use workspace::Workspace;

/// Measure throughput, CPU time and memory, and compare with other installed programs
#[derive(Debug, clap::Parser)]
#[command(name = "accio-bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Run the main workloads in few rounds; takes about a minute
    #[arg(long)]
    quick: bool,
    /// Write the figures to a file, for --compare
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw plots: all into a directory, or the first into an .svg file
    #[arg(long, value_name = "PATH")]
    svg: Option<PathBuf>,
    /// Compare two --json files; print changes that exceed the noise
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"])]
    compare: Option<Vec<PathBuf>>,
    /// Print the Debian packages of the programs to compare with
    #[arg(long)]
    install_hint: bool,
    /// List the workloads and the peers
    #[arg(long)]
    list: bool,
    /// Run only workloads whose name contains this text (repeatable)
    #[arg(long, value_name = "WORKLOAD")]
    only: Vec<String>,
    /// Run only our programs and peers with one of these texts in the name
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    peers: Vec<String>,
    /// Also measure this accio-server, in the same rounds, as "before"
    #[arg(long, value_name = "PROGRAM")]
    before: Option<PathBuf>,
    /// Number of rounds [default: depends on the workload]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Directory on disk for stored files [default: target/bench]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Do not count system calls, which takes one extra upload per peer
    #[arg(long)]
    no_strace: bool,
    /// Keep the files and logs
    #[arg(long)]
    keep: bool,
    /// A part of the benchmark that runs in its own process.
    #[command(subcommand)]
    role: Option<roles::Role>,
}

fn main() -> ExitCode {
    let arguments = <Arguments as clap::Parser>::parse();
    accio_harness::report::exit_code(run(&arguments))
}

/// Runs the benchmark, one of its roles, or one of the actions that measure nothing.
fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    if let Some(role) = &arguments.role {
        drop(out);
        return role.run().map(|()| ExitCode::SUCCESS);
    }
    if let Some([before, after]) = arguments.compare.as_deref() {
        let (before, after) = (compare::read(before)?, compare::read(after)?);
        compare::write(&before, &after, &mut out)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.install_hint {
        return install_hint(&mut out).map(|()| ExitCode::SUCCESS);
    }
    if arguments.list {
        return list(&mut out).map(|()| ExitCode::SUCCESS);
    }
    drop(out);
    let report = measure(arguments)?;
    let mut out = io::stdout().lock();
    table::write(&report, &mut out)?;
    if let Some(path) = &arguments.json {
        let file = std::fs::File::create(path).with_context(|| format!("cannot write {path:?}"))?;
        serde_json::to_writer_pretty(io::BufWriter::new(file), &report)?;
    }
    if let Some(path) = &arguments.svg {
        for file in plot::draw(&report, path)? {
            writeln!(out, "drawn: {}", file.display())?;
        }
    }
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn measure(arguments: &Arguments) -> Result<Report> {
    let wanted = |kind: &&WorkloadKind| {
        if arguments.only.is_empty() {
            !arguments.quick || kind.quick
        } else {
            arguments.only.iter().any(|part| kind.name.contains(part.as_str()))
        }
    };
    let kinds: Vec<&WorkloadKind> = workloads::ALL.iter().filter(wanted).collect();
    if kinds.is_empty() {
        bail!("no workload matches {}: see --list", arguments.only.join(" or "));
    }
    // If this fails, the benchmark holds fewer connections, and the report gives their number.
    let _ = accio_harness::resource_limits::raise_descriptor_limit(None);
    let workspace = {
        let (dir, before) = (arguments.dir.as_deref(), arguments.before.as_deref());
        Workspace::set_up(dir, before, arguments.keep)?
    };
    let mut machine = Machine::detect(&workspace);
    let background_load = BackgroundLoad::start();
    let bench = Bench {
        workspace,
        quick: arguments.quick,
        rounds: arguments.rounds,
        peers: arguments.peers.clone(),
        strace: !arguments.no_strace && peers::strace().is_some(),
        started: Instant::now(),
    };
    let mut workloads = Vec::new();
    let mut failures = Vec::new();
    for kind in kinds {
        bench.progress(format_args!("{}: {}", kind.name, kind.about));
        match (kind.run)(&bench, kind) {
            Ok(workload) => workloads.push(workload),
            // Measure the remaining workloads nevertheless.
            Err(error) => {
                let failure = format!("{}: {error:#}", kind.name);
                bench.progress(format_args!("FAILED: {failure}"));
                failures.push(failure);
            }
        }
    }
    machine.disturbance = background_load.share(machine.cores);
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let mut report = Report {
        version: VERSION,
        command: format!("cargo xtask bench {command}"),
        machine,
        missing: missing(),
        failures,
        workloads,
        goals: Vec::new(),
    };
    report.goals = goals::of(&report);
    Ok(report)
}

fn missing() -> Vec<String> {
    let tools = peers::TOOLS.iter().filter(|tool| tool.find().is_none());
    let mut missing: Vec<String> = tools.map(|tool| tool.program.to_owned()).collect();
    if !missing.contains(&"iperf3".to_owned()) && !peers::iperf_skips_the_copy() {
        missing.push("iperf3 with --skip-rx-copy (newer than 3.18)".into());
    }
    missing
}

fn install_hint(out: &mut impl Write) -> Result<()> {
    let packages: Vec<&str> = peers::TOOLS.iter().map(|tool| tool.package).collect();
    writeln!(out, "apt-get install --no-install-recommends {}", packages.join(" "))?;
    for tool in peers::TOOLS {
        let state = if tool.find().is_some() { "installed" } else { "missing" };
        writeln!(out, "  {:12} {:16} {state}", tool.program, tool.package)?;
    }
    Ok(())
}

fn list(out: &mut impl Write) -> Result<()> {
    writeln!(out, "Workloads (* in --quick too):")?;
    for kind in workloads::ALL {
        let mark = if kind.quick { '*' } else { ' ' };
        writeln!(out, "  {mark} {:12} {}", kind.name, kind.about)?;
    }
    writeln!(out, "\nPeers:")?;
    for peer in workloads::all_peers() {
        let absent = peer.tools().into_iter().filter(|tool| tool.find().is_none());
        let absent: Vec<&str> = absent.map(|tool| tool.program).collect();
        let note = match absent[..] {
            [] => String::new(),
            _ => format!(" (missing: {})", absent.join(", ")),
        };
        writeln!(out, "  {:16} {}{note}", peer.name(), peer.about())?;
    }
    Ok(())
}
