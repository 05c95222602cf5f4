//! The workloads; each produces one row of figures for each peer.

mod at_once;
mod client;
mod file;
mod held;
mod small;
mod start;

use std::io::Write;
use std::time::Instant;

use anyhow::Result;

use super::peers::Peer;
use super::report::Workload;
use super::workspace::{Storage, Workspace};

pub(super) const MIB: u64 = 1 << 20;

/// How to measure.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) workspace: Workspace,
    pub(super) quick: bool,
    pub(super) rounds: Option<usize>,
    /// Parts of the names of the peers wanted; ours are always there.
    pub(super) peers: Vec<String>,
    pub(super) strace: bool,
    pub(super) started: Instant,
}

/// A workload by its name.
pub(super) struct WorkloadKind {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// Whether a quick run has it.
    pub(super) quick: bool,
    pub(super) run: fn(&Bench, &WorkloadKind) -> Result<Workload>,
}

/// All workloads, in the order they run.
pub(super) const ALL: &[WorkloadKind] = &[
    WorkloadKind {
        name: "disk-256m",
        about: "one file of 256 MiB, to the disk",
        quick: true,
        run: |bench, kind| {
            file::run(bench, kind, Storage::Disk, 256 * MIB, file::everyone(bench.quick))
        },
    },
    WorkloadKind {
        name: "tmpfs-256m",
        about: "one file of 256 MiB, to tmpfs",
        quick: false,
        run: |bench, kind| {
            file::run(bench, kind, Storage::Tmpfs, 256 * MIB, file::everyone(bench.quick))
        },
    },
    WorkloadKind {
        name: "disk-2g",
        about: "one file of 2 GiB, to the disk",
        quick: false,
        run: |bench, kind| file::run(bench, kind, Storage::Disk, 2048 * MIB, file::fastest()),
    },
    WorkloadKind {
        name: "tmpfs-2g",
        about: "one file of 2 GiB, to tmpfs",
        quick: false,
        run: |bench, kind| file::run(bench, kind, Storage::Tmpfs, 2048 * MIB, file::fastest()),
    },
    WorkloadKind {
        name: "count",
        about: "one file of 1 GiB, counted and not stored",
        quick: true,
        run: |bench, kind| file::run(bench, kind, Storage::Disk, 1024 * MIB, file::counters()),
    },
    WorkloadKind {
        name: "client",
        about: "the client alone: 256 MiB into a server that drops them",
        quick: true,
        run: client::run,
    },
    WorkloadKind {
        name: "at-once-10",
        about: "10 files of 100 MiB at once, and one alone, to tmpfs",
        quick: false,
        run: |bench, kind| at_once::run(bench, kind, 10, 100 * MIB),
    },
    WorkloadKind {
        name: "at-once-100",
        about: "100 files of 100 MiB at once, and one alone, to tmpfs",
        quick: true,
        run: |bench, kind| at_once::run(bench, kind, 100, 100 * MIB),
    },
    WorkloadKind {
        name: "small-1k",
        about: "files of 1 KiB, a connection each, to tmpfs",
        quick: true,
        run: |bench, kind| small::run(bench, kind, 1 << 10),
    },
    WorkloadKind {
        name: "small-64k",
        about: "files of 64 KiB, a connection each, to tmpfs",
        quick: false,
        run: |bench, kind| small::run(bench, kind, 64 << 10),
    },
    WorkloadKind {
        name: "crowd",
        about: "files of 1 KiB to tmpfs, by more and more clients at a time",
        quick: true,
        run: small::crowd,
    },
    WorkloadKind {
        name: "idle",
        about: "one file of 256 MiB to tmpfs, among 10,000 silent connections",
        quick: true,
        run: |bench, kind| held::run(bench, kind, None),
    },
    WorkloadKind {
        name: "drip",
        about: "the same, each of the others sending a byte every 5 s",
        quick: false,
        run: |bench, kind| held::run(bench, kind, Some(5.0)),
    },
    WorkloadKind {
        name: "start",
        about: "from start to listening; idle memory; size",
        quick: true,
        run: start::run,
    },
    WorkloadKind {
        name: "sizes",
        about: "one file of 1 KiB to 5 GiB, to the disk",
        quick: false,
        run: file::sizes,
    },
    WorkloadKind {
        name: "paths-256m",
        about: "256 MiB to the disk, each fast path switched off in turn",
        quick: false,
        run: |bench, kind| file::run(bench, kind, Storage::Disk, 256 * MIB, file::without_each()),
    },
    WorkloadKind {
        name: "ideas-256m",
        about: "256 MiB to the disk, by bare loops: what there would be to gain",
        quick: false,
        run: |bench, kind| file::run(bench, kind, Storage::Disk, 256 * MIB, file::ideas()),
    },
    WorkloadKind {
        name: "paths-1k",
        about: "1 KiB to tmpfs, each fast path switched off in turn",
        quick: false,
        run: small::without_each,
    },
];

impl Bench {
    pub(super) fn rounds(&self, quick: usize, full: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { quick } else { full }).max(1)
    }

    /// The peers that are here and wanted.
    pub(super) fn select(&self, peers: Vec<Peer>) -> Vec<Peer> {
        peers.into_iter().filter(|peer| peer.is_here() && self.wants(peer)).collect()
    }

    fn wants(&self, peer: &Peer) -> bool {
        let ours = matches!(peer, Peer::Accio { .. } | Peer::Count { .. });
        ours || self.peers.is_empty() || self.peers.iter().any(|part| peer.name().contains(part))
    }

    /// Says on stderr what is going on.
    pub(super) fn progress(&self, line: impl std::fmt::Display) {
        // A closed stderr is no reason to stop.
        let _ =
            writeln!(std::io::stderr().lock(), "{:4} s  {line}", self.started.elapsed().as_secs());
    }
}

/// Starts the rounds with another peer each time, so that none always follows the same one.
fn rotated(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| (index + round) % count.max(1))
}

/// One of each kind of peer.
pub(super) fn all_peers() -> Vec<Peer> {
    let mut peers = file::everyone(false);
    peers.extend(file::counters().into_iter().skip(2));
    peers.extend(file::ideas().into_iter().filter(|peer| matches!(peer, Peer::Idea(_))));
    peers.extend(small::floors());
    peers
}
