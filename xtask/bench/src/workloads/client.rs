//! The client alone: the server discards all bytes without copying them.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Bench, MIB, WorkloadKind, rotated};
use crate::peers::{self, Peer};
use crate::ports;
use crate::report::{Figure, Row, Workload};
use crate::roles::DrainProtocol;
use accio_harness::process::{AtDrop, Process};

const SIZE: u64 = 256 * MIB;

struct Sender {
    name: &'static str,
    peer: Peer,
    protocol: DrainProtocol,
    port: u16,
    /// Killed on drop.
    _drain: Process,
    walls: Vec<f64>,
    cpus: Vec<f64>,
}

pub(super) fn run(bench: &Bench, kind: &WorkloadKind) -> Result<Workload> {
    let source = bench.workspace.source(SIZE)?;
    let senders = [
        ("accio-client", Peer::Accio { without: &[] }, DrainProtocol::Accio),
        (
            "accio-client without sendfile",
            Peer::Accio { without: &["sendfile"] },
            DrainProtocol::Accio,
        ),
        ("curl", Peer::Nginx { workers: 1 }, DrainProtocol::Http),
        ("nc", Peer::Nc, DrainProtocol::Nothing),
        ("ncat", Peer::Ncat, DrainProtocol::Nothing),
        ("socat 1 MiB", Peer::Socat(Some(1 << 20)), DrainProtocol::Nothing),
        ("python 64 KiB", Peer::Python(64 << 10), DrainProtocol::Accio),
        ("read/write", Peer::Loop, DrainProtocol::Accio),
        ("io::copy", Peer::Copy, DrainProtocol::Accio),
    ];
    let mut lineup = Vec::new();
    for (name, peer, protocol) in senders {
        if bench.select(vec![peer.clone()]).is_empty() {
            continue;
        }
        let port = accio_harness::ports::free()?;
        let word = match protocol {
            DrainProtocol::Accio => "accio",
            DrainProtocol::Nothing => "nothing",
            DrainProtocol::Http => "http",
        };
        let mut command = bench.workspace.role("drain");
        command.args([&port.to_string(), word]).stdin(Stdio::null());
        let mut drain = Process::spawn_logged(command, None, AtDrop::Terminate)?;
        ports::await_listener(port, &mut drain)?;
        let (walls, cpus) = (Vec::new(), Vec::new());
        lineup.push(Sender { name, peer, protocol, port, _drain: drain, walls, cpus });
    }
    let rounds = bench.rounds(3, 7);
    for round in 0..=rounds {
        bench.progress(format_args!("{}: round {round} of {rounds}", kind.name));
        for index in rotated(lineup.len(), round) {
            let sender = &mut lineup[index];
            let mut command: Command = match sender.protocol {
                DrainProtocol::Http => {
                    peers::curl(&source, &format!("http://127.0.0.1:{}/file", sender.port))?
                }
                _ => sender.peer.client_command(&bench.workspace, sender.port, &source, 1)?,
            };
            command.stdout(Stdio::null());
            let started = Instant::now();
            let log = source.with_extension("client.log");
            let exit = Process::spawn_logged(command, Some(&log), AtDrop::Terminate)?
                .finish(Duration::from_secs(60))?;
            // The first round warms up.
            if round > 0 {
                sender.walls.push((exit.at - started).as_secs_f64());
                sender.cpus.push(exit.cpu.as_secs_f64());
            }
        }
    }
    let gigabytes = SIZE as f64 / 1e9;
    let rows = lineup.into_iter().map(|sender| {
        let mut row = Row::new(sender.name);
        let rates = sender.walls.iter().map(|wall| gigabytes / wall);
        row.add(Figure::Throughput, "GB/s", rates.collect());
        let cpus = sender.cpus.iter().map(|cpu| cpu / gigabytes);
        row.add(Figure::ClientCpu, "s/GB", cpus.collect());
        row
    });
    Ok(Workload { name: kind.name.into(), title: kind.about.into(), rows: rows.collect() })
}
