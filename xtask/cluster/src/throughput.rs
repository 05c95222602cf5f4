//! How fast one, two and three receivers store, against the store's usual client and a folder.
//!
//! Rounds in which all take turns, each with files of its own that the store has not seen: it
//! keeps equal blocks once. Others use the machine too: the ratios within a run are what counts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use accio_harness::process;
use accio_harness::tools::find;
use accio_harness::usage::tree_cpu;
use accio_proto::{Client, Source};
use anyhow::{Context, Result, ensure};
use rustix::process::Pid;

use super::balance::Balancer;
use super::store::BUCKET;
use super::tools::Tools;
use super::topology::Cluster;

/// Files at once, each with a connection of its own.
const FILES: u64 = 8;

/// How long a client waits for the store: this measures, whatever it takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program that stores the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Rclone,
    Receivers(usize),
    Folder,
}

/// Wall-clock and CPU times of one round, in seconds.
#[derive(Debug, Clone, Copy)]
struct Taken {
    wall: f64,
    /// Of the processors: the store with its proxy, and the receivers.
    store: f64,
    receivers: f64,
}

pub(super) fn measure(
    tools: &Tools,
    server: &Path,
    (rounds, mib): (u32, u32),
    out: &mut impl Write,
) -> Result<()> {
    let mut cluster = Cluster::start(tools, server).context("start")?;
    let folder_port = cluster.start_folder_receiver()?;
    let ports = cluster.front(Balancer::Direct);
    let rclone = find("rclone");
    let mut subjects =
        vec![Subject::Receivers(1), Subject::Receivers(2), Subject::Receivers(3), Subject::Folder];
    if rclone.is_some() {
        subjects.insert(0, Subject::Rclone);
    } else {
        writeln!(out, "skipped: rclone: not installed: see --install")?;
    }
    let mut all = BTreeMap::<Subject, Vec<Taken>>::new();
    // The first round warms up.
    for round in 0..=rounds as usize {
        for turn in 0..subjects.len() {
            let subject = subjects[(round + turn) % subjects.len()];
            let files = Files::make(cluster.folder(), mib)?;
            let before = cpu(&cluster);
            let began = Instant::now();
            match (subject, &rclone) {
                (Subject::Rclone, Some(rclone)) => {
                    copy(rclone, &cluster, &files, &format!("rclone/{round}"))?;
                }
                (Subject::Receivers(count), _) => files.send(&ports[..count])?,
                (Subject::Folder | Subject::Rclone, _) => files.send(&[folder_port])?,
            }
            let wall = began.elapsed().as_secs_f64();
            let after = cpu(&cluster);
            if round > 0 {
                let (store, receivers) = (after.0 - before.0, after.1 - before.1);
                all.entry(subject).or_default().push(Taken { wall, store, receivers });
            }
        }
    }
    cluster.stop_receivers()?;
    let megabytes = ((FILES * u64::from(mib)) << 20) as f64 / 1e6;
    writeln!(
        out,
        "{FILES} files of {mib} MiB at once, {rounds} rounds, medians; three copies of each\n\
         | | MB/s | slowest to fastest | store's CPU s/GB | receivers' CPU s/GB |\n\
         |---|---|---|---|---|"
    )?;
    for (subject, taken) in all {
        let name = match subject {
            Subject::Rclone => "rclone".to_owned(),
            Subject::Folder => "1 receiver, a folder".to_owned(),
            Subject::Receivers(1) => "1 receiver".to_owned(),
            Subject::Receivers(count) => format!("{count} receivers"),
        };
        let of = |what: &dyn Fn(&Taken) -> f64| {
            let mut values: Vec<f64> = taken.iter().map(what).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let rates = of(&|taken| megabytes / taken.wall);
        let per_gb = |values: Vec<f64>| median(&values) / megabytes * 1000.0;
        writeln!(
            out,
            "| {name} | {:.0} | {:.0} to {:.0} | {:.1} | {:.1} |",
            median(&rates),
            rates.first().copied().unwrap_or_default(),
            rates.last().copied().unwrap_or_default(),
            per_gb(of(&|taken| taken.store)),
            per_gb(of(&|taken| taken.receivers)),
        )?;
    }
    Ok(())
}

/// Of sorted values.
fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    match values {
        [] => 0.0,
        _ if values.len().is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// Files of random bytes; they go with their handle.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn make(within: &Path, mib: u32) -> Result<Files> {
        let folder = tempfile::tempdir_in(within)?;
        let mut random = fastrand::Rng::new();
        let mut bytes = vec![0; 1 << 20];
        for index in 0..FILES {
            let mut file = File::create(folder.path().join(index.to_string()))?;
            random.fill(&mut bytes);
            for block in 0..u64::from(mib) {
                // No two blocks are equal.
                bytes[..8].copy_from_slice(&(random.u64(..) ^ block).to_le_bytes());
                file.write_all(&bytes)?;
            }
        }
        Ok(Files { folder })
    }

    fn paths(&self) -> Vec<PathBuf> {
        (0..FILES).map(|index| self.folder.path().join(index.to_string())).collect()
    }

    /// To the receivers in turn, all at once; each must be confirmed.
    fn send(&self, ports: &[u16]) -> Result<()> {
        std::thread::scope(|scope| {
            let sending: Vec<_> = self
                .paths()
                .into_iter()
                .zip(ports.iter().cycle())
                .map(|(path, port)| {
                    scope.spawn(move || -> Result<()> {
                        let client = Client::builder()
                            .stall_timeout(PATIENCE)
                            .confirm_timeout(PATIENCE)
                            .build()?;
                        let source = Source::from(File::open(path)?);
                        let sent = client.send("127.0.0.1", *port, source)?;
                        ensure!(sent.confirmed, "not confirmed");
                        Ok(())
                    })
                })
                .collect();
            for sending in sending {
                sending.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            }
            Ok(())
        })
    }
}

/// Uploads with rclone: as many files at once, the same part size and number of parts in flight.
fn copy(rclone: &Path, cluster: &Cluster, files: &Files, to: &str) -> Result<()> {
    let bucket = cluster.store();
    let mut command = Command::new(rclone);
    command
        .args(["copy", "--no-check-dest", "--s3-no-check-bucket", "--retries", "1"])
        .args(["--transfers", &FILES.to_string(), "--s3-upload-concurrency", "3"])
        .args(["--s3-upload-cutoff", "8M", "--s3-chunk-size", "8M"])
        .arg(files.folder.path())
        .arg(format!("accio:{BUCKET}/{to}"))
        .env("RCLONE_CONFIG", cluster.folder().join("rclone.conf"))
        .env("RCLONE_CONFIG_ACCIO_TYPE", "s3")
        .env("RCLONE_CONFIG_ACCIO_PROVIDER", "Other")
        .env("RCLONE_CONFIG_ACCIO_REGION", "garage")
        .env("RCLONE_CONFIG_ACCIO_ENDPOINT", &bucket.endpoint)
        .env("RCLONE_CONFIG_ACCIO_ACCESS_KEY_ID", &bucket.key)
        .env("RCLONE_CONFIG_ACCIO_SECRET_ACCESS_KEY", &bucket.secret)
        // It refuses one for its own kind of connection, and there is no TLS here.
        .env_remove("AWS_CA_BUNDLE");
    Ok(process::checked_output(command, b"", 10 * PATIENCE).map(drop)?)
}

/// Seconds of the processors that the store with its proxy and the receivers have had.
fn cpu(cluster: &Cluster) -> (f64, f64) {
    let (store, receivers) = cluster.processes();
    let sum = |pids: Vec<Pid>| pids.into_iter().map(|pid| tree_cpu(pid).as_secs_f64()).sum();
    (sum(store), sum(receivers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median(&[1.0, 2.0, 9.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[1.0, 2.0, 4.0, 9.0]) - 3.0).abs() < 1e-9);
    }
}
