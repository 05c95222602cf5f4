//! How much memory one receiver takes for many uploads at once.
//!
//! The store is a stub that discards: it is as fast as can be had, and none of its memory counts.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use accio_harness::work_dir::WorkDir;
use accio_harness::{ports, usage};
use accio_proto::{Client, Source};
use anyhow::{Context, Result};

use super::daemon::Daemon;
use super::s3_stub::Stub;

/// Bytes of content that the receiver may hold: its default.
const MEMORY: u64 = 512 << 20;

/// Limit of its whole memory: threads and connections come on top.
const BOUND: u64 = MEMORY + MEMORY / 4;

/// Sends so many files of so many MiB at once; whether all were kept, within the bound.
pub(super) fn measure(server: &Path, at_once: u32, mib: u32, out: &mut impl Write) -> Result<bool> {
    let folder = WorkDir::new("memory", || ())?;
    let content = folder.path().join("content");
    make(&content, mib)?;
    let stub = Stub::start()?;
    let (port, metrics) = (ports::free()?, ports::free()?);
    let mut command = Daemon::command(server);
    command
        .arg(port.to_string())
        .arg("s3://bucket/in")
        .args(["--bind", "127.0.0.1", "--node", "measured"])
        .args(["--store-memory", &MEMORY.to_string()])
        .env("AWS_ACCESS_KEY_ID", "none")
        .env("AWS_SECRET_ACCESS_KEY", "none")
        .env("AWS_ENDPOINT", stub.endpoint())
        .env("AWS_REGION", "nowhere")
        .env("AWS_ALLOW_HTTP", "true");
    let mut receiver = Daemon::receiver("receiver", metrics, command, folder.path())?;

    // Those of its start are not an upload's.
    let before = stub.requests();
    let began = Instant::now();
    let told: Vec<Result<bool>> = std::thread::scope(|scope| {
        let sending: Vec<_> = (0..at_once).map(|_| scope.spawn(|| send(&content, port))).collect();
        let told = sending.into_iter().map(|sending| {
            sending.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a client panicked")))
        });
        told.collect()
    });
    let seconds = began.elapsed().as_secs_f64();
    let peak =
        usage::status_kib(receiver.pid(), "VmHWM").context("no VmHWM in /proc/PID/status")? << 10;
    let each = (stub.requests() - before) as f64 / f64::from(at_once);
    receiver.end()?;

    let confirmed = told.iter().filter(|told| matches!(told, Ok(true))).count();
    for error in told.iter().filter_map(|told| told.as_ref().err()).take(3) {
        writeln!(out, "a client failed: {error:#}")?;
    }
    let (stored, unfinished) = (stub.objects_of(u64::from(mib) << 20), stub.unfinished());
    writeln!(
        out,
        "| uploads at once | confirmed | stored | seconds | peak | requests each |\n\
         |---|---|---|---|---|---|\n\
         | {at_once} of {mib} MiB | {confirmed} | {stored} | {seconds:.1} | {} MiB | {each:.1} |",
        peak >> 20
    )?;
    let all = at_once as usize;
    let holds = (confirmed, stored, unfinished) == (all, all, 0) && peak <= BOUND;
    if !holds {
        let most = BOUND >> 20;
        writeln!(out, "FAILED: not all kept, {unfinished} unfinished, or more than {most} MiB")?;
    }
    Ok(holds)
}

fn make(path: &Path, mib: u32) -> Result<()> {
    let mut file = File::create(path)?;
    let mut bytes = vec![0; 1 << 20];
    fastrand::Rng::new().fill(&mut bytes);
    (0..mib).try_for_each(|_| file.write_all(&bytes)).context("the file that is sent")
}

/// Sends with the client's default options.
fn send(content: &Path, port: u16) -> Result<bool> {
    let client = Client::builder().build()?;
    Ok(client.send("127.0.0.1", port, Source::from(File::open(content)?))?.confirmed)
}
