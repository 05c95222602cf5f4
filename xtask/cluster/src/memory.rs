//! Measures the memory, the threads and the throughput of a receiver during many concurrent uploads.
//!
//! The store is a directory, or a stub in this process that discards all bytes, so that it is fast and
//! its memory is not counted.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use accio_harness::program::command;
use accio_harness::work_dir::WorkDir;
use accio_harness::{ports, usage};
use accio_proto::{Client, Source};
use anyhow::{Context, Result};
use rustix::process::Pid;

use super::daemon::Daemon;
use super::s3_stub::S3Stub;

/// The receiver's `--store-memory`, in bytes; this is its default.
const MEMORY: u64 = 512 << 20;

/// Limit of its total memory, including threads and connections.
const LIMIT: u64 = MEMORY + MEMORY / 4;

/// Uploads `at_once` files of `mib` MiB at once, to a directory or to the stub; returns whether all were
/// stored within the limit.
pub(super) fn measure(
    server: &Path,
    (at_once, mib): (u32, u32),
    to_directory: bool,
    out: &mut impl Write,
) -> Result<bool> {
    let directory = WorkDir::new("memory", || ())?;
    let content = directory.path().join("content");
    create(&content, mib)?;
    let stub = S3Stub::start()?;
    let (port, metrics) = (ports::free()?, ports::free()?);
    let stored = directory.path().join("stored");
    let store = match to_directory {
        true => format!("file://{}", stored.display()),
        false => "s3://bucket/in".to_owned(),
    };
    let mut command = command(server);
    command
        .arg(port.to_string())
        .arg(store)
        .args(["--bind", "127.0.0.1", "--node", "measured"])
        .args(["--store-memory", &MEMORY.to_string()])
        .env("AWS_ACCESS_KEY_ID", "none")
        .env("AWS_SECRET_ACCESS_KEY", "none")
        .env("AWS_ENDPOINT", stub.endpoint())
        .env("AWS_REGION", "nowhere")
        .env("AWS_ALLOW_HTTP", "true");
    let mut receiver = Daemon::receiver("receiver", metrics, command, directory.path())?;

    // Do not count the requests of the receiver's start.
    let before = stub.requests();
    let began = Instant::now();
    let (pid, ended) = (receiver.pid(), AtomicBool::new(false));
    let (results, threads) = std::thread::scope(|scope| {
        let threads = scope.spawn(|| most_threads(pid, &ended));
        let sending: Vec<_> = (0..at_once).map(|_| scope.spawn(|| send(&content, port))).collect();
        let results = sending.into_iter().map(|sending| {
            sending.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))
        });
        let results: Vec<Result<bool>> = results.collect();
        ended.store(true, Ordering::Relaxed);
        (results, threads.join().unwrap_or_default())
    });
    let seconds = began.elapsed().as_secs_f64();
    let peak =
        usage::status_kib(receiver.pid(), "VmHWM").context("no VmHWM in /proc/PID/status")? << 10;
    let each = (stub.requests() - before) as f64 / f64::from(at_once);
    receiver.end()?;

    let confirmed = results.iter().filter(|result| matches!(result, Ok(true))).count();
    for error in results.iter().filter_map(|result| result.as_ref().err()).take(3) {
        writeln!(out, "a client failed: {error:#}")?;
    }
    let size = u64::from(mib) << 20;
    let stored = match to_directory {
        true => files_of(&stored.join("measured"), size)?,
        false => stub.objects_of(size),
    };
    let unfinished = stub.unfinished();
    let rate = f64::from(at_once) * f64::from(mib) / seconds;
    writeln!(
        out,
        "| uploads at once | confirmed | stored | seconds | MiB/s | threads | peak | requests each |\n\
         |---|---|---|---|---|---|---|---|\n\
         | {at_once} of {mib} MiB | {confirmed} | {stored} | {seconds:.1} | {rate:.0} | {threads} | \
         {} MiB | {each:.1} |",
        peak >> 20
    )?;
    let all = at_once as usize;
    let holds = (confirmed, stored, unfinished) == (all, all, 0) && peak <= LIMIT;
    if !holds {
        let limit = LIMIT >> 20;
        writeln!(out, "FAILED: not all stored, {unfinished} unfinished, or more than {limit} MiB")?;
    }
    Ok(holds)
}

/// Returns the highest number of threads of a process until it is told to end.
fn most_threads(pid: Pid, ended: &AtomicBool) -> u64 {
    let mut most = 0;
    while !ended.load(Ordering::Relaxed) {
        most = most.max(usage::status_kib(pid, "Threads").unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    most
}

/// Returns the number of files of this size.
fn files_of(directory: &Path, size: u64) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(directory)? {
        count += usize::from(entry?.metadata()?.len() == size);
    }
    Ok(count)
}

fn create(path: &Path, mib: u32) -> Result<()> {
    let mut file = File::create(path)?;
    let mut bytes = vec![0; 1 << 20];
    fastrand::Rng::new().fill(&mut bytes);
    (0..mib).try_for_each(|_| file.write_all(&bytes)).context("cannot write the file to upload")
}

/// Uploads with the client's default settings; returns whether it was confirmed.
fn send(content: &Path, port: u16) -> Result<bool> {
    let client = Client::builder().build()?;
    Ok(client.send("127.0.0.1", port, Source::from(File::open(content)?))?.confirmed)
}
