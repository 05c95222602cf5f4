//! The time from the start of a server until it listens, and its memory while idle.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Bench, WorkloadKind};
use crate::report::{Figure, Row, Workload};
use crate::workspace::Storage;
use accio_harness::process::{AtDrop, Process};
use accio_harness::usage::tree_memory;

pub(super) fn run(bench: &Bench, kind: &WorkloadKind) -> Result<Workload> {
    let mut rows = Vec::new();
    for name in ["accio-server", "server-s"] {
        bench.progress(format_args!("{}: {name}", kind.name));
        let (mut starts, mut memory, mut private) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..=bench.rounds(10, 20) {
            let mut command = bench.workspace.program(name);
            command.args(["--bind", "127.0.0.1", &accio_harness::ports::free()?.to_string()]);
            if name == "accio-server" {
                command.arg(bench.workspace.dir(Storage::Disk, "start")?);
            }
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            let started = Instant::now();
            let mut server = Process::spawn_logged(command, None, AtDrop::Terminate)?;
            let stderr = server.take_error().context("no output")?;
            let mut line = String::new();
            BufReader::new(stderr).read_line(&mut line)?;
            starts.push(started.elapsed().as_secs_f64() * 1e3);
            ensure!(line.starts_with("listening on "), "{name} printed {line:?}");
            // Wait for the start of all threads.
            std::thread::sleep(Duration::from_millis(20));
            memory.push(tree_memory(server.pid(), "VmRSS") as f64 / 1024.0);
            private.push(tree_memory(server.pid(), "RssAnon") as f64 / 1024.0);
            ensure!(server.stop()?.status.success(), "{name} failed");
        }
        // Discard the first start, because it reads the program from the disk.
        starts.remove(0);
        let mut row = Row::new(name);
        row.add(Figure::Start, "ms", starts);
        row.add(Figure::ServerMemory, "MiB", memory);
        row.add(Figure::PrivateMemory, "MiB", private);
        let size = std::fs::metadata(bench.workspace.binary(name))?.len();
        row.add(Figure::Size, "MiB", vec![size as f64 / f64::from(1 << 20)]);
        rows.push(row);
    }
    Ok(Workload { name: kind.name.into(), title: kind.about.into(), rows })
}
