//! TLS: large files, new connections, idle connections.

use anyhow::Result;

use super::held::{hold, max_connections};
use super::small::{compare, worker_counts};
use super::{Bench, WorkloadKind};
use crate::peers::Peer;
use crate::report::{Figure, Row, Workload};
use crate::workspace::Storage;
use accio_harness::usage::tree_memory;

/// Number of idle connections.
const IDLE: u64 = 5_000;

pub(super) fn peers() -> Vec<Peer> {
    vec![Peer::Tls, Peer::NginxTls { workers: 1 }]
}

/// Measures small files, with a complete handshake each.
pub(super) fn small(bench: &Bench, kind: &WorkloadKind) -> Result<Workload> {
    let mut peers = vec![Peer::Tls];
    peers.extend(worker_counts().into_iter().map(|workers| Peer::NginxTls { workers }));
    compare(bench, kind, 1 << 10, peers)
}

/// Measures the server's memory per connection that has been greeted and then sends nothing.
pub(super) fn idle(bench: &Bench, kind: &WorkloadKind) -> Result<Workload> {
    let count = max_connections().min(IDLE);
    let pin = &bench.workspace.identity()?.pin;
    let mut each = Vec::new();
    for round in 0..bench.rounds(2, 3) {
        bench.progress(format_args!("{}: {count} connections, {}", kind.name, round + 1));
        let dir = bench.workspace.dir(Storage::Tmpfs, "tls-idle")?;
        let server = Peer::Tls.serve(&bench.workspace, &dir)?;
        let pid = server.process.pid();
        let before = tree_memory(pid, "RssAnon");
        let holder = hold(bench, server.port, count, None, Some(pin))?;
        let after = tree_memory(pid, "RssAnon");
        each.push(after.saturating_sub(before) as f64 * 1024.0 / count as f64);
        drop(holder);
    }
    let mut row = Row::new(Peer::Tls.name());
    row.add(Figure::PerConnection, "B", each);
    row.add(Figure::Connections, "", vec![count as f64]);
    let title = format!("{count} {}", kind.about);
    Ok(Workload { name: kind.name.into(), title, rows: vec![row] })
}
