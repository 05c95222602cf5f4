//! One upload at a time.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::Pid;

use super::{Bench, MIB, WorkloadKind, rotated};
use crate::peers::{Peer, PeerServer};
use crate::report::{Figure, Row, Workload};
use crate::roles::Alternative;
use crate::strace::{self, CallCounter};
use crate::workspace::{Storage, Workspace, check_copy};
use accio_harness::process::{AtDrop, Process};
use accio_harness::usage::{tree_cpu, tree_memory};

const LIMIT: Duration = Duration::from_secs(120);

pub(super) fn all(quick: bool) -> Vec<Peer> {
    let mut peers = fastest();
    peers.extend([Peer::Nc, Peer::Rsync, Peer::Vsftpd]);
    if !quick {
        peers.extend([
            Peer::Ncat,
            Peer::Socat(None),
            Peer::Python(1 << 10),
            Peer::Python(64 << 10),
        ]);
    }
    peers
}

pub(super) fn fastest() -> Vec<Peer> {
    vec![
        Peer::Accio { without: &[] },
        Peer::Count { without: &[] },
        Peer::Nginx { workers: 1 },
        Peer::Socat(Some(1 << 20)),
        Peer::Loop,
        Peer::Copy,
    ]
}

pub(super) fn counters() -> Vec<Peer> {
    vec![
        Peer::Count { without: &[] },
        Peer::Count { without: &["truncate"] },
        Peer::Iperf,
        Peer::Limit,
    ]
}

pub(super) fn without_each() -> Vec<Peer> {
    let sets: [&[&str]; 6] =
        [&[], &["splice"], &["preallocate"], &["tmpfile"], &["empty-path"], &["sendfile"]];
    sets.into_iter().map(|without| Peer::Accio { without }).collect()
}

pub(super) fn digests() -> Vec<Peer> {
    let mut peers = vec![Peer::Accio { without: &[] }];
    for algorithm in ["blake3", "sha256"] {
        peers.extend([false, true].map(|both| Peer::Digest { algorithm, both }));
    }
    peers
}

pub(super) fn alternatives() -> Vec<Peer> {
    let mut peers = vec![Peer::Accio { without: &[] }];
    peers.extend(Alternative::ALL.map(Peer::Alternative));
    peers.push(Peer::Count { without: &[] });
    peers
}

/// A peer with its directory and its server, which keeps running between uploads.
pub(super) struct PeerSetup<'a> {
    workspace: &'a Workspace,
    pub(super) peer: Peer,
    dir: PathBuf,
    server: Option<PeerServer>,
}

/// Wall-clock and CPU time of one upload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measurement {
    pub(super) wall: Duration,
    pub(super) server_cpu: Duration,
    pub(super) client_cpu: Duration,
}

/// Peak memory of the server's and the client's processes, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PeakMemory {
    server: u64,
    client: u64,
}

pub(super) fn run(
    bench: &Bench,
    kind: &WorkloadKind,
    storage: Storage,
    size: u64,
    peers: Vec<Peer>,
) -> Result<Workload> {
    let source = bench.workspace.source(size)?;
    let gigabytes = size as f64 / 1e9;
    let mut setups = bench
        .select(peers)
        .into_iter()
        .map(|peer| PeerSetup::new(&bench.workspace, storage, peer))
        .collect::<Result<Vec<_>>>()?;
    let mut memory = Vec::new();
    for setup in &mut setups {
        memory.push(setup.upload(&source, true)?.1);
    }
    let rounds = bench.rounds(3, if size > 1024 * MIB { 3 } else { 6 });
    let mut measures = vec![Vec::new(); setups.len()];
    for round in 0..rounds {
        bench.progress(format_args!("{}: round {} of {rounds}", kind.name, round + 1));
        for index in rotated(setups.len(), round) {
            measures[index].push(setups[index].upload(&source, false)?.0);
        }
    }
    let mut rows = Vec::new();
    for ((mut setup, measures), memory) in setups.into_iter().zip(measures).zip(memory) {
        let mut row = Row::new(setup.peer.name());
        let each = |of: fn(&Measurement) -> Duration| -> Vec<f64> {
            measures.iter().map(|measure| of(measure).as_secs_f64()).collect()
        };
        let per_gb = |times: Vec<f64>| times.into_iter().map(|time| time / gigabytes).collect();
        let walls = each(|measure| measure.wall);
        row.add(Figure::Throughput, "GB/s", walls.iter().map(|wall| gigabytes / wall).collect());
        row.add(Figure::ServerCpu, "s/GB", per_gb(each(|measure| measure.server_cpu)));
        row.add(Figure::ClientCpu, "s/GB", per_gb(each(|measure| measure.client_cpu)));
        row.add(Figure::ServerMemory, "MiB", vec![memory.server as f64 / 1024.0]);
        row.add(Figure::ClientMemory, "MiB", vec![memory.client as f64 / 1024.0]);
        // iperf3 moves as many bytes as it can, so the number of its calls means nothing.
        if bench.strace && setup.peer != Peer::Iperf {
            setup.count_calls(&source, &mut row)?;
        }
        rows.push(row);
    }
    let title = format!("{} ({})", kind.about, bench.workspace.file_system(storage));
    Ok(Workload { name: kind.name.into(), title, rows })
}

/// Measures how the cost of an upload grows with its size.
pub(super) fn sizes(bench: &Bench, kind: &WorkloadKind) -> Result<Workload> {
    let sizes: &[(&str, u64)] = &[
        ("1 KiB", 1 << 10),
        ("64 KiB", 64 << 10),
        ("1 MiB", MIB),
        ("16 MiB", 16 * MIB),
        ("256 MiB", 256 * MIB),
        ("1 GiB", 1024 * MIB),
        ("5 GiB", 5120 * MIB),
    ];
    let mut rows = Vec::new();
    for (name, size) in sizes {
        if bench.quick && *size > 256 * MIB {
            continue;
        }
        bench.progress(format_args!("{}: {name}", kind.name));
        let source = bench.workspace.source(*size)?;
        let mut setup =
            PeerSetup::new(&bench.workspace, Storage::Disk, Peer::Accio { without: &[] })?;
        let memory = setup.upload(&source, true)?.1;
        let rounds = bench.rounds(3, if *size > 1024 * MIB { 2 } else { 9 });
        let measures = (0..rounds)
            .map(|_| Ok(setup.upload(&source, false)?.0))
            .collect::<Result<Vec<Measurement>>>()?;
        let mut row = Row::new(*name);
        let each = |of: fn(&Measurement) -> Duration, unit: f64| -> Vec<f64> {
            measures.iter().map(|measure| of(measure).as_secs_f64() * unit).collect()
        };
        row.add(Figure::Wall, "ms", each(|measure| measure.wall, 1e3));
        row.add(Figure::ServerCpu, "ms", each(|measure| measure.server_cpu, 1e3));
        row.add(Figure::ClientCpu, "ms", each(|measure| measure.client_cpu, 1e3));
        let throughput = measures.iter().map(|m| *size as f64 / 1e9 / m.wall.as_secs_f64());
        row.add(Figure::Throughput, "GB/s", throughput.collect());
        row.add(Figure::ServerMemory, "MiB", vec![memory.server as f64 / 1024.0]);
        row.add(Figure::ClientMemory, "MiB", vec![memory.client as f64 / 1024.0]);
        rows.push(row);
    }
    let title = format!("{} ({})", kind.about, bench.workspace.file_system(Storage::Disk));
    Ok(Workload { name: kind.name.into(), title, rows })
}

impl<'a> PeerSetup<'a> {
    pub(super) fn new(workspace: &'a Workspace, storage: Storage, peer: Peer) -> Result<Self> {
        let dir = workspace.dir(storage, &peer.name().replace([' ', ',', '/', ':'], "-"))?;
        Ok(Self::in_dir(workspace, dir, peer))
    }

    pub(super) fn in_dir(workspace: &'a Workspace, dir: PathBuf, peer: Peer) -> Self {
        PeerSetup { workspace, peer, dir, server: None }
    }

    /// Returns the server; starts it if it is not running.
    pub(super) fn server(&mut self) -> Result<&mut PeerServer> {
        let server = match self.server.take() {
            Some(server) => server,
            None => self.peer.serve(self.workspace, &self.dir)?,
        };
        Ok(self.server.insert(server))
    }

    /// Uploads `source`, then checks and removes the stored file.
    pub(super) fn upload(
        &mut self,
        source: &Path,
        watch: bool,
    ) -> Result<(Measurement, PeakMemory)> {
        let (peer, workspace) = (self.peer.clone(), self.workspace);
        let server = self.server()?;
        server.connections += 1;
        let (number, pid) = (server.connections, server.process.pid());
        let command = peer.client_command(workspace, server.port, source, number)?;
        let cpu_before = tree_cpu(pid);
        let started = Instant::now();
        let log = self.dir.with_extension("client.log");
        let mut client = Process::spawn_logged(command, Some(&log), AtDrop::Terminate)?;
        let watched = watch.then(|| MemoryMonitor::start(pid, client.pid()));
        let client_exit = client.finish(LIMIT).context("client")?;
        let (ended, server_cpu) = if peer.serves_once() {
            let mut server = self.server.take().context("no server")?;
            let exit = server.process.finish(LIMIT).context("server")?;
            (exit.at.max(client_exit.at), exit.cpu.saturating_sub(cpu_before))
        } else {
            (client_exit.at, settled_cpu(pid).saturating_sub(cpu_before))
        };
        let memory = watched.map(MemoryMonitor::finish).unwrap_or_default();
        let mut measure =
            Measurement { wall: ended - started, server_cpu, client_cpu: client_exit.cpu };
        if peer == Peer::Iperf {
            measure = iperf_share(&mut client, std::fs::metadata(source)?.len(), measure)?;
        }
        if peer.stores() {
            let stored = peer.stored(&self.dir, number);
            check_copy(source, &stored).with_context(|| format!("stored by {}", peer.name()))?;
            std::fs::remove_file(stored)?;
        }
        Ok((measure, memory))
    }

    /// Counts the system calls of both sides in an extra upload, which is not timed.
    fn count_calls(&mut self, source: &Path, row: &mut Row) -> Result<()> {
        let (peer, workspace) = (self.peer.clone(), self.workspace);
        let output = self.dir.with_extension("calls");
        let client_output = self.dir.with_extension("client-calls");
        let server = self.server()?;
        server.connections += 1;
        let counter = CallCounter::attach(server.process.pid(), &output)?;
        let command = peer.client_command(workspace, server.port, source, server.connections)?;
        let mut client = strace::wrap(&command, &client_output)?;
        client.stdout(Stdio::null()).stdin(Stdio::null());
        if matches!(peer, Peer::Nc | Peer::Ncat) {
            client.stdin(std::fs::File::open(source)?);
        }
        let log = self.dir.with_extension("client.log");
        let mut client = Process::spawn_logged(client, Some(&log), AtDrop::Terminate)?;
        client.finish(LIMIT)?;
        if peer.serves_once() {
            let mut server = self.server.take().context("no server")?;
            server.process.finish(LIMIT)?;
        }
        let server = counter.finish()?;
        let client = strace::read(&client_output)?;
        row.add(Figure::ServerCalls, "", vec![server.total as f64]);
        row.add(Figure::ClientCalls, "", vec![client.total as f64]);
        row.calls.insert(Figure::ServerCalls, server.list);
        row.calls.insert(Figure::ClientCalls, client.list);
        Ok(())
    }
}

/// Waits until the server's processes are idle, since a client may end a little earlier, and
/// returns their CPU time.
pub(super) fn settled_cpu(pid: Pid) -> Duration {
    let mut last = tree_cpu(pid);
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(2));
        let now = tree_cpu(pid);
        if now == last {
            break;
        }
        last = now;
    }
    last
}

/// Scales iperf3's times to `size` bytes, because it sends for a fixed time.
fn iperf_share(client: &mut Process, size: u64, whole: Measurement) -> Result<Measurement> {
    let output = client.take_output().context("no output")?;
    let output: serde_json::Value = serde_json::from_reader(output)?;
    let received = &output["end"]["sum_received"];
    let named = |name: &str| received[name].as_f64().filter(|figure| *figure > 0.0);
    let rate = named("bits_per_second").context("the output of iperf3 has no rate")?;
    let share =
        size as f64 / named("bytes").context("the output of iperf3 has no number of bytes")?;
    Ok(Measurement {
        wall: Duration::from_secs_f64(size as f64 * 8.0 / rate),
        server_cpu: whole.server_cpu.mul_f64(share),
        client_cpu: whole.client_cpu.mul_f64(share),
    })
}

/// A thread that samples the memory during an upload that is not timed.
struct MemoryMonitor {
    state: std::sync::Arc<(AtomicBool, AtomicU64, AtomicU64)>,
    thread: std::thread::JoinHandle<()>,
}

impl MemoryMonitor {
    fn start(server: Pid, client: Pid) -> Self {
        let state = std::sync::Arc::new(Default::default());
        let shared = std::sync::Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let (is_done, server_peak, client_peak) = &*shared;
            while !AtomicBool::load(is_done, Ordering::Relaxed) {
                AtomicU64::fetch_max(server_peak, tree_memory(server, "VmHWM"), Ordering::Relaxed);
                AtomicU64::fetch_max(client_peak, tree_memory(client, "VmHWM"), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        MemoryMonitor { state, thread }
    }

    fn finish(self) -> PeakMemory {
        self.state.0.store(true, Ordering::Relaxed);
        // The thread cannot panic.
        let _ = self.thread.join();
        let (_, server, client) = &*self.state;
        PeakMemory {
            server: server.load(Ordering::Relaxed),
            client: client.load(Ordering::Relaxed),
        }
    }
}
