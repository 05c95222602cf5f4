//! The workloads. Each produces one row of figures per peer.

mod at_once;
mod client;
mod durable;
mod file;
mod held;
mod secure;
mod small;
mod start;

use std::io::Write;
use std::time::Instant;

use anyhow::Result;

use super::peers::Peer;
use super::report::Workload;
use super::workspace::{Storage, Workspace};

pub(super) const MIB: u64 = 1 << 20;

/// The options and state of a run.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) workspace: Workspace,
    pub(super) quick: bool,
    pub(super) rounds: Option<usize>,
    /// Parts of the names of the peers to run in addition to our programs; empty for all.
    pub(super) peers: Vec<String>,
    pub(super) strace: bool,
    pub(super) started: Instant,
}

/// A workload and the function that runs it.
pub(super) struct WorkloadKind {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// Whether it is part of a quick run.
    pub(super) quick: bool,
    pub(super) run: fn(&Bench, &WorkloadKind) -> Result<Workload>,
}

/// All workloads, in the order they run.
pub(super) const ALL: &[WorkloadKind] = &[
    WorkloadKind {
        name: "disk-256m",
        about: "one file of 256 MiB, to the disk",
        quick: true,
        run: |bench, kind| file::run(bench, kind, Storage::Disk, 256 * MIB, file::all(bench.quick)),
    },
    WorkloadKind {
        name: "tmpfs-256m",
        about: "one file of 256 MiB, to tmpfs",
        quick: false,
        run: |bench, kind| {
            file::run(bench, kind, Storage::Tmpfs, 256 * MIB, file::all(bench.quick))
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
        name: "digest-256m",
        about: "one file of 256 MiB to the disk, with digests and without",
        quick: true,
        run: |bench, kind| file::run(bench, kind, Storage::Disk, 256 * MIB, file::digests()),
    },
    WorkloadKind {
        name: "count",
        about: "one file of 1 GiB, counted and not stored",
        quick: true,
        run: |bench, kind| file::run(bench, kind, Storage::Disk, 1024 * MIB, file::counters()),
    },
    WorkloadKind {
        name: "client",
        about: "the client alone: 256 MiB to a server that discards them",
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
        name: "durable-1k",
        about: "files of 1 KiB to the disk, durable and not, into new directories",
        quick: true,
        run: durable::small,
    },
    WorkloadKind {
        name: "durable-1g",
        about: "one durable file of 1 GiB, to the disk",
        quick: false,
        run: durable::large,
    },
    WorkloadKind {
        name: "tls-256m",
        about: "one file of 256 MiB with TLS, to the disk",
        quick: true,
        run: |bench, kind| file::run(bench, kind, Storage::Disk, 256 * MIB, secure::peers()),
    },
    WorkloadKind {
        name: "tls-1k",
        about: "files of 1 KiB with TLS, a new connection each, to tmpfs",
        quick: true,
        run: secure::small,
    },
    WorkloadKind {
        name: "tls-idle",
        about: "silent connections with TLS",
        quick: true,
        run: secure::idle,
    },
    WorkloadKind {
        name: "crowd",
        about: "files of 1 KiB to tmpfs, by increasing numbers of concurrent clients",
        quick: true,
        run: small::crowd,
    },
    WorkloadKind {
        name: "idle",
        about: "one file of 256 MiB to tmpfs, among 10,000 silent connections",
        quick: true,
        run: |bench, kind| held::run(bench, kind, None, &OURS),
    },
    WorkloadKind {
        name: "drip",
        about: "the same, with connections that send a byte every 5 s",
        quick: false,
        run: |bench, kind| held::run(bench, kind, Some(5.0), &OURS),
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
        about: "256 MiB to the disk, by minimal servers: what accio-server could gain",
        quick: false,
        run: |bench, kind| file::run(bench, kind, Storage::Disk, 256 * MIB, file::alternatives()),
    },
    WorkloadKind {
        name: "tokio-256m",
        about: "one file of 256 MiB to tmpfs, by accio-server and by the server on tokio",
        quick: false,
        run: |bench, kind| {
            let mut peers = on_tokio();
            // The part of the difference that splice makes, where a server does not use it.
            peers.push(Peer::Accio { without: &["splice"] });
            file::run(bench, kind, Storage::Tmpfs, 256 * MIB, peers)
        },
    },
    WorkloadKind {
        name: "tokio-1k",
        about: "files of 1 KiB to tmpfs, by accio-server and by the server on tokio",
        quick: false,
        run: |bench, kind| small::compare(bench, kind, 1 << 10, on_tokio()),
    },
    WorkloadKind {
        name: "tokio-idle",
        about: "the server on tokio and accio-server with 10,000 silent connections",
        quick: false,
        run: |bench, kind| held::run(bench, kind, None, &on_tokio()),
    },
    WorkloadKind {
        name: "paths-1k",
        about: "1 KiB to tmpfs, each fast path switched off in turn",
        quick: false,
        run: small::without_each,
    },
];

/// Our programs as they are.
const OURS: [Peer; 1] = [Peer::Accio { without: &[] }];

/// Returns accio-server and the server on tokio.
fn on_tokio() -> Vec<Peer> {
    vec![Peer::Accio { without: &[] }, Peer::Tokio]
}

impl Bench {
    pub(super) fn rounds(&self, quick: usize, full: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { quick } else { full }).max(1)
    }

    /// Returns the peers that are installed and selected, and after ours the one of `--before`.
    pub(super) fn select(&self, peers: Vec<Peer>) -> Vec<Peer> {
        let is_selected = |peer: &Peer| peer.is_installed() && self.is_selected(peer);
        let with_before = |peer: Peer| {
            let before = self.before(&peer);
            [Some(peer), before].into_iter().flatten()
        };
        peers.into_iter().filter(is_selected).flat_map(with_before).collect()
    }

    /// Returns the peer of `--before` to compare `ours` with.
    fn before(&self, ours: &Peer) -> Option<Peer> {
        let durable = match ours {
            Peer::Accio { without: [] } => false,
            Peer::Durable => true,
            _ => return None,
        };
        self.workspace.before().map(|_| Peer::Before { durable })
    }

    fn is_selected(&self, peer: &Peer) -> bool {
        let ours = matches!(
            peer,
            Peer::Accio { .. }
                | Peer::Durable
                | Peer::Digest { .. }
                | Peer::Tls
                | Peer::Tokio
                | Peer::Count { .. }
        );
        ours || self.peers.is_empty() || self.peers.iter().any(|part| peer.name().contains(part))
    }

    /// Prints a progress line on stderr.
    pub(super) fn progress(&self, line: impl std::fmt::Display) {
        // Continue even if stderr is closed.
        let _ =
            writeln!(std::io::stderr().lock(), "{:4} s  {line}", self.started.elapsed().as_secs());
    }
}

/// Returns the indices of the peers in the order for this round, which starts with a different peer
/// each time.
fn rotated(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| (index + round) % count.max(1))
}

/// Returns one peer of each kind.
pub(super) fn all_peers() -> Vec<Peer> {
    let mut peers = file::all(false);
    peers.extend(file::counters().into_iter().skip(2));
    peers.extend(
        file::alternatives().into_iter().filter(|peer| matches!(peer, Peer::Alternative(_))),
    );
    peers.extend(small::lower_bounds());
    peers.extend([Peer::Durable, Peer::DurableLoop]);
    peers.extend(file::digests().into_iter().skip(1));
    peers.extend(secure::peers());
    peers.push(Peer::Tokio);
    peers
}
