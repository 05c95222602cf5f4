//! Many concurrent uploads, each by its own client process.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use super::file::settled_cpu;
use super::{Bench, MIB, WorkloadKind, rotated};
use crate::peers::{Peer, PeerServer};
use crate::ports;
use crate::report::{Figure, Row, Workload};
use crate::workspace::{Storage, check_copy};
use accio_harness::process::{AtDrop, Process, wait_any};
use accio_harness::usage::tree_cpu;

#[derive(Default)]
struct Results {
    rates: Vec<f64>,
    cpus: Vec<f64>,
    last_to_first: Vec<f64>,
}

pub(super) fn run(bench: &Bench, kind: &WorkloadKind, count: usize, size: u64) -> Result<Workload> {
    // The stored files are in memory, so they must fit next to everything else.
    let size = if bench.quick { size / 4 } else { size };
    let size = size.min(available_memory()? / 2 / count as u64) / MIB * MIB;
    let source = bench.workspace.source(size)?;
    let mut peers = vec![Peer::Accio { without: &[] }, Peer::Nginx { workers: bench_cores() }];
    if !bench.quick {
        peers.push(Peer::Loop);
        if count <= 10 {
            peers.extend([Peer::Vsftpd, Peer::Python(64 << 10)]);
        }
    }
    let peers = bench.select(peers);
    let mut lineup = Vec::new();
    for peer in peers {
        let dir = bench.workspace.dir(Storage::Tmpfs, &peer.name().replace([' ', '/'], "-"))?;
        let server = peer.serve(&bench.workspace, &dir)?;
        lineup.push((peer, dir, server, Results::default(), Results::default()));
    }
    let rounds = bench.rounds(2, if count > 10 { 3 } else { 5 });
    for round in 0..=rounds {
        bench.progress(format_args!("{}: round {round} of {rounds}", kind.name));
        for index in rotated(lineup.len(), round) {
            let (peer, dir, server, alone, together) = &mut lineup[index];
            // A single upload is short, so repeat it.
            for (results, count, times) in [(&mut *alone, 1, 5), (&mut *together, count, 1)] {
                let mut wall = Duration::ZERO;
                let mut unfairness = 1.0;
                let cpu = tree_cpu(server.process.pid());
                for _ in 0..times {
                    let first = server.connections + 1;
                    server.connections += count as u64;
                    let ends = upload(bench, peer, server, &source, first, count)?;
                    let (Some(first_end), Some(last_end)) = (ends.first(), ends.last()) else {
                        bail!("no uploads");
                    };
                    wall += *last_end;
                    unfairness = last_end.as_secs_f64() / first_end.as_secs_f64();
                    let stored = (first..first + count as u64).map(|id| peer.stored(dir, id));
                    check_copies(&source, stored.collect()).with_context(|| peer.name())?;
                }
                let cpu = settled_cpu(server.process.pid()).saturating_sub(cpu);
                let gigabytes = (size * (count * times) as u64) as f64 / 1e9;
                // The first round warms up.
                if round > 0 {
                    results.rates.push(gigabytes / wall.as_secs_f64());
                    results.cpus.push(cpu.as_secs_f64() / gigabytes);
                    results.last_to_first.push(unfairness);
                }
            }
        }
    }
    let mut rows = Vec::new();
    for (peer, _, _, alone, together) in lineup {
        for (name, results) in
            [(format!("{}, one alone", peer.name()), alone), (peer.name(), together)]
        {
            let mut row = Row::new(name);
            row.add(Figure::Throughput, "GB/s", results.rates);
            row.add(Figure::ServerCpu, "s/GB", results.cpus);
            row.add(Figure::LastToFirst, "×", results.last_to_first);
            rows.push(row);
        }
    }
    let title = format!("{count} files of {} MiB at once, and one alone, to tmpfs", size / MIB);
    Ok(Workload { name: kind.name.into(), title, rows })
}

/// Checks and removes the stored files, with all cores.
fn check_copies(source: &Path, stored: Vec<PathBuf>) -> Result<()> {
    std::thread::scope(|scope| {
        let share = stored.len().div_ceil(bench_cores());
        let check = |stored: &[PathBuf]| {
            stored.iter().try_for_each(|stored| {
                check_copy(source, stored)?;
                Ok(std::fs::remove_file(stored)?)
            })
        };
        let threads: Vec<_> =
            stored.chunks(share).map(|stored| scope.spawn(move || check(stored))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a check panicked"),
        })
    })
}

/// Runs concurrent clients and returns the time at which each was done, in order. They start
/// together, because the server is stopped until all have connected.
fn upload(
    bench: &Bench,
    peer: &Peer,
    server: &PeerServer,
    source: &Path,
    first: u64,
    count: usize,
) -> Result<Vec<Duration>> {
    let log = source.with_extension("client.log");
    server.process.signal_group(Signal::STOP);
    let mut clients = (first..first + count as u64)
        .map(|number| {
            let command = peer.client_command(&bench.workspace, server.port, source, number)?;
            Ok(Process::spawn_logged(command, Some(&log), AtDrop::Terminate)?)
        })
        .collect::<Result<Vec<_>>>()?;
    ports::await_queue(server.port, count);
    let started = Instant::now();
    server.process.signal_group(Signal::CONT);
    let mut ends = Vec::new();
    while !clients.is_empty() {
        let all: Vec<&Process> = clients.iter().collect();
        let index = wait_any(&all, Duration::from_secs(120))?;
        ends.push(started.elapsed());
        let mut client = clients.swap_remove(index.context("clients are not done after 120 s")?);
        client.finish(Duration::ZERO)?;
    }
    Ok(ends)
}

pub(super) fn bench_cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn available_memory() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 = line.context("no MemAvailable")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
