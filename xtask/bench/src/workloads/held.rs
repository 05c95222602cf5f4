//! An upload among many open connections.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, getrlimit};

use super::file::PeerSetup;
use super::{Bench, MIB, WorkloadKind};
use crate::peers::Peer;
use crate::report::{Figure, Row, Workload};
use crate::workspace::Storage;
use accio_harness::process::{AtDrop, Process};
use accio_harness::usage::{tree_cpu, tree_memory};

pub(super) fn run(
    bench: &Bench,
    kind: &WorkloadKind,
    drip: Option<f64>,
    peers: &[Peer],
) -> Result<Workload> {
    // A server on tokio has five descriptors for each connection: a duplicate in the event queue, a pipe.
    let most = max_connections();
    let most = if peers.contains(&Peer::Tokio) { most * 2 / 5 } else { most };
    let count = most.min(10_000);
    let mut rows = Vec::new();
    for peer in peers {
        rows.extend(measure(bench, kind, drip, count, peer)?);
    }
    let title = kind.about.replace("10,000", &count.to_string());
    Ok(Workload { name: kind.name.into(), title, rows })
}

/// Measures one peer: with `count` connections and with none.
fn measure(
    bench: &Bench,
    kind: &WorkloadKind,
    drip: Option<f64>,
    count: u64,
    peer: &Peer,
) -> Result<[Row; 2]> {
    let source = bench.workspace.source(256 * MIB)?;
    let setup = |name| {
        let dir = bench.workspace.dir(Storage::Tmpfs, name)?;
        anyhow::Ok(PeerSetup::in_dir(&bench.workspace, dir, peer.clone()))
    };
    let mut crowded = setup("crowded")?;
    crowded.upload(&source, false)?;
    let (pid, port) = {
        let server = crowded.server()?;
        server.connections += count;
        (server.process.pid(), server.port)
    };
    let before = tree_memory(pid, "RssAnon");
    bench.progress(format_args!("{}: opening {count} connections", kind.name));
    let holder = hold(bench, port, count, drip, None)?;
    let after = tree_memory(pid, "RssAnon");

    bench.progress(format_args!("{}: watching them", kind.name));
    let watched = Duration::from_secs(if bench.quick { 3 } else { 6 });
    let (cpu, started) = (tree_cpu(pid), Instant::now());
    std::thread::sleep(watched);
    let cpu = tree_cpu(pid).saturating_sub(cpu).as_secs_f64() / started.elapsed().as_secs_f64();

    let mut empty = setup("alone")?;
    empty.upload(&source, false)?;
    let mut walls = [Vec::new(), Vec::new()];
    for round in 0..bench.rounds(5, 9) {
        bench.progress(format_args!("{}: round {}", kind.name, round + 1));
        for index in super::rotated(2, round) {
            let setup = if index == 0 { &mut empty } else { &mut crowded };
            let (measure, _) = setup.upload(&source, false)?;
            walls[index].push(measure.wall.as_secs_f64() * 1e3);
        }
    }
    drop(holder);
    let slowdown = walls[1].iter().zip(&walls[0]).map(|(with, without)| with / without).collect();
    let [without, with] = walls;
    let name = peer.name();
    let mut rows = [Row::new(format!("{name}, none held")), Row::new(name)];
    rows[0].add(Figure::Wall, "ms", without);
    rows[1].add(Figure::Wall, "ms", with);
    rows[1].add(Figure::Slowdown, "×", slowdown);
    rows[1].add(Figure::ServerCpu, "% of a core", vec![cpu * 100.0]);
    let each = after.saturating_sub(before) as f64 * 1024.0 / count as f64;
    rows[1].add(Figure::PerConnection, "B", vec![each]);
    rows[1].add(Figure::Connections, "", vec![count as f64]);
    Ok(rows)
}

/// Starts a process that opens the connections and holds them until it ends.
pub(super) fn hold(
    bench: &Bench,
    port: u16,
    count: u64,
    drip: Option<f64>,
    pin: Option<&str>,
) -> Result<Process> {
    let mut command = bench.workspace.role("hold");
    command.args([port.to_string(), count.to_string()]);
    if let Some(seconds) = drip {
        command.args(["--drip", &seconds.to_string()]);
    }
    if let Some(pin) = pin {
        command.args(["--pin", pin]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let log = bench.workspace.root(Storage::Disk)?.join("hold.log");
    let mut holder = Process::spawn_logged(command, Some(&log), AtDrop::Terminate)?;
    let mut line = String::new();
    BufReader::new(holder.take_output().context("no output")?).read_line(&mut line)?;
    if line.is_empty() {
        holder.finish(Duration::from_secs(1))?;
        bail!("the holder of connections ended immediately");
    }
    Ok(holder)
}

/// Returns how many connections the server can hold here: each takes two descriptors, and 224 are for
/// everything else.
pub(super) fn max_connections() -> u64 {
    let limit = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    (limit.saturating_sub(224) / 2).saturating_sub(64)
}
