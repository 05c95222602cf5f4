//! Uploads to a server that confirms them only once they are on the disk.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::file::{PeerSetup, settled_cpu};
use super::small::{Afterwards, Results, check, generate};
use super::{Bench, MIB, WorkloadKind, rotated};
use crate::peers::{Peer, dd};
use crate::report::{Figure, Row, Workload};
use crate::workspace::{Storage, check_copy};
use accio_harness::process::{AtDrop, Process};
use accio_harness::usage::tree_cpu;

const SIZE: usize = 1 << 10;

/// How long `dd` may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Measures small files, many at a time and one at a time. Every round has its own directory, and
/// nothing is removed before the end: for some seconds after a mass delete, ext4 takes five times
/// as long to create a file.
pub(super) fn small(bench: &Bench, kind: &WorkloadKind) -> Result<Workload> {
    let lineup = [
        (Peer::Accio { without: &[] }, 128, 10_000),
        (Peer::Durable, 128, 10_000),
        (Peer::Durable, 1, 1_000),
        (Peer::DurableLoop, 1, 1_000),
    ];
    let lineup = lineup.into_iter().flat_map(|(peer, concurrent, uploads)| {
        let peers = match peer {
            Peer::DurableLoop => vec![peer],
            peer => bench.select(vec![peer]),
        };
        peers.into_iter().map(move |peer| (peer, concurrent, uploads, Results::default()))
    });
    let mut lineup: Vec<_> = lineup.collect();
    let rounds = bench.rounds(3, 7);
    for round in 0..=rounds {
        bench.progress(format_args!("{}: round {round} of {rounds}", kind.name));
        for index in rotated(lineup.len(), round) {
            let (peer, concurrent, uploads, results) = &mut lineup[index];
            let measured = load(bench, peer, *concurrent, *uploads, &format!("{index}-{round}"))?;
            // The first round warms up.
            if round > 0 {
                results.add(measured);
            }
        }
    }
    let mut rows = Vec::new();
    for (peer, concurrent, _, results) in lineup {
        let mut row = Row::new(format!("{}, {concurrent} at a time", peer.name()));
        results.fill(&mut row);
        rows.push(row);
    }
    let title = format!("{} ({})", kind.about, bench.workspace.file_system(Storage::Disk));
    Ok(Workload { name: kind.name.into(), title, rows })
}

/// Measures uploads to a new server with a new directory.
fn load(bench: &Bench, peer: &Peer, concurrent: u64, uploads: u64, name: &str) -> Result<Results> {
    let dir = bench.workspace.dir(Storage::Disk, &format!("durable-{name}"))?;
    settle(&dir)?;
    let server = peer.serve(&bench.workspace, &dir)?;
    let pid = server.process.pid();
    let cpu = tree_cpu(pid);
    let plan = (uploads, concurrent, SIZE, 1);
    let (wall, client_cpu) = generate(&bench.workspace, server.port, peer.protocol(), plan)
        .with_context(|| peer.name())?;
    let server_cpu = settled_cpu(pid).saturating_sub(cpu);
    check(&dir, uploads, SIZE, 1, Afterwards::Keep).with_context(|| peer.name())?;
    Ok(Results::of(uploads, wall, server_cpu, client_cpu))
}

/// Measures one large file, and `dd`, which only writes the same file to the disk.
pub(super) fn large(bench: &Bench, kind: &WorkloadKind) -> Result<Workload> {
    let size = 1024 * MIB;
    let gigabytes = size as f64 / 1e9;
    let source = bench.workspace.source(size)?;
    let peers = bench.select(vec![Peer::Durable, Peer::Accio { without: &[] }]);
    let mut setups = peers
        .into_iter()
        .map(|peer| PeerSetup::new(&bench.workspace, Storage::Disk, peer))
        .collect::<Result<Vec<_>>>()?;
    let dir = bench.workspace.dir(Storage::Disk, "dd")?;
    let mut rows: Vec<_> = setups.iter().map(|setup| Row::new(setup.peer.name())).collect();
    rows.push(Row::new("dd"));
    let mut figures = vec![(Vec::new(), Vec::new()); rows.len()];
    let rounds = bench.rounds(3, 5);
    for round in 0..=rounds {
        bench.progress(format_args!("{}: round {round} of {rounds}", kind.name));
        for index in rotated(rows.len(), round) {
            settle(&dir)?;
            let (wall, cpu) = match setups.get_mut(index) {
                Some(setup) => {
                    let measure = setup.upload(&source, false)?.0;
                    (measure.wall, measure.server_cpu)
                }
                None => copy(&source, &dir.join("copy"))?,
            };
            if round > 0 {
                figures[index].0.push(gigabytes / wall.as_secs_f64());
                figures[index].1.push(cpu.as_secs_f64() / gigabytes);
            }
        }
    }
    for (row, (throughputs, cpus)) in rows.iter_mut().zip(figures) {
        row.add(Figure::Throughput, "GB/s", throughputs);
        row.add(Figure::ServerCpu, "s/GB", cpus);
    }
    let title = format!("{} ({})", kind.about, bench.workspace.file_system(Storage::Disk));
    Ok(Workload { name: kind.name.into(), title, rows })
}

/// Returns how long `dd` takes, and its CPU time.
fn copy(source: &Path, copy: &Path) -> Result<(Duration, Duration)> {
    let log = copy.with_extension("log");
    let mut dd = Process::spawn_logged(dd(source, copy)?, Some(&log), AtDrop::Terminate)?;
    let started = dd.started();
    let exit = dd.finish(TIMEOUT).context("dd")?;
    check_copy(source, copy).context("stored by dd")?;
    std::fs::remove_file(copy)?;
    Ok((exit.at - started, exit.cpu))
}

/// Waits until the data of earlier measurements is on the disk.
fn settle(dir: &Path) -> Result<()> {
    Ok(rustix::fs::syncfs(std::fs::File::open(dir)?)?)
}
