//! Many small files, one connection each.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::at_once::bench_cores;
use super::file::settled_cpu;
use super::{Bench, WorkloadKind, rotated};
use crate::peers::{Peer, PeerServer};
use crate::report::{Figure, Row, Workload};
use crate::roles::{Design, Protocol, pattern};
use crate::strace::CallCounter;
use crate::workspace::{Storage, Workspace};
use accio_harness::process::{AtDrop, Process};
use accio_harness::usage::{tree_cpu, tree_memory};

/// Number of concurrent clients, except in the workload that varies it.
const CONCURRENT: u64 = 16;

struct Target {
    peer: Peer,
    dir: PathBuf,
    server: PeerServer,
    results: Results,
}

/// One value of each figure per round.
#[derive(Default)]
pub(super) struct Results {
    rates: Vec<f64>,
    server_cpus: Vec<f64>,
    client_cpus: Vec<f64>,
}

pub(super) fn run(bench: &Bench, kind: &WorkloadKind, size: usize) -> Result<Workload> {
    let mut peers = vec![Peer::Accio { without: &[] }];
    peers.extend(worker_counts().into_iter().map(|workers| Peer::Nginx { workers }));
    peers.extend(lower_bounds());
    if !bench.quick {
        peers.extend([Peer::Python(64 << 10), Peer::Copy]);
    }
    compare(bench, kind, size, peers)
}

/// Returns the numbers of nginx workers to compare with.
pub(super) fn worker_counts() -> Vec<usize> {
    let cores = bench_cores();
    let mut counts: Vec<usize> = [1, cores / 2, cores].into_iter().filter(|n| *n > 0).collect();
    counts.dedup();
    counts
}

pub(super) fn lower_bounds() -> Vec<Peer> {
    let cores = bench_cores();
    [(Design::Threads, 2 * cores), (Design::Epoll, cores)]
        .map(|(design, threads)| Peer::LowerBound { design, threads })
        .to_vec()
}

pub(super) fn without_each(bench: &Bench, kind: &WorkloadKind) -> Result<Workload> {
    let sets: [&[&str]; 4] = [&[], &["tmpfile"], &["empty-path"], &["splice", "preallocate"]];
    compare(bench, kind, 1 << 10, sets.map(|without| Peer::Accio { without }).to_vec())
}

/// Uploads files of `size` bytes to each peer.
pub(super) fn compare(
    bench: &Bench,
    kind: &WorkloadKind,
    size: usize,
    peers: Vec<Peer>,
) -> Result<Workload> {
    let uploads = match size {
        ..=4096 if bench.quick => 10_000,
        ..=4096 => 20_000,
        _ => 5_000,
    };
    let mut targets = bench
        .select(peers)
        .into_iter()
        .map(|peer| Target::new(&bench.workspace, peer))
        .collect::<Result<Vec<_>>>()?;
    let rounds = bench.rounds(3, 7);
    for round in 0..=rounds {
        bench.progress(format_args!("{}: round {round} of {rounds}", kind.name));
        for index in rotated(targets.len(), round) {
            let target = &mut targets[index];
            let results = target.load(&bench.workspace, uploads, CONCURRENT, size)?;
            // The first round warms up.
            if round > 0 {
                target.results.add(results);
            }
        }
    }
    let mut rows = Vec::new();
    for mut target in targets {
        let mut row = Row::new(target.peer.name());
        std::mem::take(&mut target.results).fill(&mut row);
        let memory = tree_memory(target.server.process.pid(), "VmHWM");
        row.add(Figure::ServerMemory, "MiB", vec![memory as f64 / 1024.0]);
        if bench.strace {
            let counted = 500;
            let output = target.dir.with_extension("calls");
            let counter = CallCounter::attach(target.server.process.pid(), &output)?;
            target.load(&bench.workspace, counted, CONCURRENT, size)?;
            let calls = counter.finish()?;
            row.add(Figure::ServerCalls, "", vec![calls.total as f64 / counted as f64]);
            row.calls.insert(Figure::ServerCalls, format!("for {counted} uploads: {}", calls.list));
        }
        rows.push(row);
    }
    Ok(Workload { name: kind.name.into(), title: kind.about.into(), rows })
}

/// Measures how the cost of an upload grows with the number of concurrent clients.
pub(super) fn crowd(bench: &Bench, kind: &WorkloadKind) -> Result<Workload> {
    let max = super::held::max_connections();
    let crowds: &[u64] = if bench.quick { &[16, 5000] } else { &[1, 16, 100, 1000, 5000, 10_000] };
    let mut targets = Vec::new();
    for crowd in crowds {
        for peer in bench.select(vec![Peer::Accio { without: &[] }]) {
            targets.push(((*crowd).min(max), Target::new(&bench.workspace, peer)?));
        }
    }
    let rounds = bench.rounds(2, 5);
    for round in 0..=rounds {
        bench.progress(format_args!("{}: round {round} of {rounds}", kind.name));
        for index in rotated(targets.len(), round) {
            let (crowd, target) = &mut targets[index];
            let results = target.load(&bench.workspace, 20_000, *crowd, 1 << 10)?;
            if round > 0 {
                target.results.add(results);
            }
        }
    }
    let mut rows = Vec::new();
    for (crowd, target) in targets {
        let mut row = Row::new(format!("{}, {crowd} at a time", target.peer.name()));
        target.results.fill(&mut row);
        let memory = tree_memory(target.server.process.pid(), "VmHWM");
        row.add(Figure::ServerMemory, "MiB", vec![memory as f64 / 1024.0]);
        rows.push(row);
    }
    Ok(Workload { name: kind.name.into(), title: kind.about.into(), rows })
}

impl Target {
    fn new(workspace: &Workspace, peer: Peer) -> Result<Self> {
        static NUMBER: AtomicU16 = AtomicU16::new(0);
        let name = format!("small-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let dir = workspace.dir(Storage::Tmpfs, &name)?;
        let server = peer.serve(workspace, &dir)?;
        Ok(Target { peer, dir, server, results: Results::default() })
    }

    /// Uploads `uploads` files of `size` bytes, `concurrent` at a time, then checks and removes
    /// them.
    fn load(
        &mut self,
        workspace: &Workspace,
        uploads: u64,
        concurrent: u64,
        size: usize,
    ) -> Result<Results> {
        let pid = self.server.process.pid();
        let first = self.server.connections + 1;
        self.server.connections += uploads;
        let cpu = tree_cpu(pid);
        let load = (uploads, concurrent, size, first);
        let (wall, client_cpu) = generate(workspace, self.server.port, self.peer.protocol(), load)
            .with_context(|| self.peer.name())?;
        let server_cpu = settled_cpu(pid).saturating_sub(cpu);
        if self.peer.stores() {
            check(&self.dir, uploads, size, first, Afterwards::Remove)
                .with_context(|| self.peer.name())?;
        }
        Ok(Results::of(uploads, wall, server_cpu, client_cpu))
    }
}

impl Results {
    pub(super) fn of(
        uploads: u64,
        wall: Duration,
        server_cpu: Duration,
        client_cpu: Duration,
    ) -> Self {
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / uploads as f64;
        Results {
            rates: vec![uploads as f64 / wall.as_secs_f64()],
            server_cpus: vec![micros(server_cpu)],
            client_cpus: vec![micros(client_cpu)],
        }
    }

    pub(super) fn add(&mut self, more: Results) {
        self.rates.extend(more.rates);
        self.server_cpus.extend(more.server_cpus);
        self.client_cpus.extend(more.client_cpus);
    }

    pub(super) fn fill(self, row: &mut Row) {
        row.add(Figure::Rate, "/s", self.rates);
        row.add(Figure::ServerCpu, "µs", self.server_cpus);
        row.add(Figure::ClientCpu, "µs", self.client_cpus);
    }
}

/// Runs one load generator per core; returns the duration and the CPU time of all of them.
pub(super) fn generate(
    workspace: &Workspace,
    port: u16,
    protocol: Protocol,
    (uploads, concurrent, size, first): (u64, u64, usize, u64),
) -> Result<(Duration, Duration)> {
    // Do not use the same source ports twice within a minute: they may still be in TIME-WAIT.
    static HOST: AtomicU16 = AtomicU16::new(1);
    let host = HOST.fetch_add(4, Ordering::Relaxed);
    let processes = (bench_cores() as u64).min(concurrent);
    let share =
        |total: u64, index: u64| total * (index + 1) / processes - total * index / processes;
    let mut next = first;
    let mut generators = Vec::new();
    for index in 0..processes {
        let mut command = workspace.role("load");
        let uploads = share(uploads, index);
        let numbers =
            [uploads, share(concurrent, index), size as u64, next, index + 2, host.into()];
        command
            .arg(port.to_string())
            .arg(protocol.name())
            .args(numbers.map(|number| number.to_string()));
        if protocol.is_secure() {
            command.args(["--pin", &workspace.identity()?.pin]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        next += uploads;
        let log = workspace.root(Storage::Disk)?.join("load.log");
        let mut process = Process::spawn_logged(command, Some(&log), AtDrop::Terminate)?;
        let output = process.take_output().context("no output")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        if line.is_empty() {
            process.finish(Duration::from_secs(1))?;
            bail!("a load generator ended immediately");
        }
        generators.push((process, output));
    }
    let started = Instant::now();
    for (process, _) in &mut generators {
        process.take_input().context("no input")?.write_all(b"\n")?;
    }
    let (mut ended, mut cpu) = (started, Duration::ZERO);
    for (process, _output) in &mut generators {
        let exit = process.finish(Duration::from_secs(300))?;
        ended = ended.max(exit.at);
        cpu += exit.cpu;
    }
    Ok((ended - started, cpu))
}

/// The action that `check` takes on a file that it has checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    Remove,
    Keep,
}

/// Checks that each upload is stored once and completely, and nothing else.
pub(super) fn check(
    dir: &Path,
    uploads: u64,
    size: usize,
    first: u64,
    afterwards: Afterwards,
) -> Result<()> {
    let pattern = pattern(size);
    let mut seen = HashSet::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            continue;
        }
        let bytes = std::fs::read(&path)?;
        let name = path.display();
        ensure!(bytes.len() == size, "{name} has {} bytes instead of {size}", bytes.len());
        let (number, rest) = bytes.split_at(8);
        ensure!(rest == &pattern[8..], "{name} has wrong content");
        // The split leaves eight bytes.
        let number = u64::from_le_bytes(number.try_into()?);
        ensure!((first..first + uploads).contains(&number), "{name} is from another run");
        ensure!(seen.insert(number), "upload {number} is stored twice");
        if afterwards == Afterwards::Remove {
            std::fs::remove_file(&path)?;
        }
    }
    ensure!(seen.len() as u64 == uploads, "{} of {uploads} uploads are stored", seen.len());
    Ok(())
}
