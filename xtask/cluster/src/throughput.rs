//! Measures the throughput of one, two and three receivers, of rclone, and of a receiver that
//! stores into a directory.
//!
//! In each round all programs take turns. Each gets new files, because the store deduplicates equal
//! blocks. Since other programs use the machine, too, only the ratios within a run are meaningful.

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

/// Number of concurrent files, one connection each.
const FILES: u64 = 8;

/// Timeout of the clients; generous, because this is a measurement.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A program that stores files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StoringProgram {
    Rclone,
    Receivers(usize),
    Directory,
}

/// The duration and the CPU times of a round, in seconds.
#[derive(Debug, Clone, Copy)]
struct RoundTimes {
    wall: f64,
    /// CPU time of the store and the proxy in front of it.
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
    let directory_port = cluster.start_directory_receiver()?;
    let ports = cluster.client_ports(Balancer::Direct);
    let rclone = find("rclone");
    let mut programs = vec![
        StoringProgram::Receivers(1),
        StoringProgram::Receivers(2),
        StoringProgram::Receivers(3),
        StoringProgram::Directory,
    ];
    if rclone.is_some() {
        programs.insert(0, StoringProgram::Rclone);
    } else {
        writeln!(out, "skipped: rclone: not installed: see --install")?;
    }
    let mut all = BTreeMap::<StoringProgram, Vec<RoundTimes>>::new();
    // The first round warms up.
    for round in 0..=rounds as usize {
        for turn in 0..programs.len() {
            let program = programs[(round + turn) % programs.len()];
            let files = Files::create(cluster.directory(), mib)?;
            let before = cpu(&cluster);
            let began = Instant::now();
            match (program, &rclone) {
                (StoringProgram::Rclone, Some(rclone)) => {
                    copy(rclone, &cluster, &files, &format!("rclone/{round}"))?;
                }
                (StoringProgram::Receivers(count), _) => files.send(&ports[..count])?,
                (StoringProgram::Directory | StoringProgram::Rclone, _) => {
                    files.send(&[directory_port])?
                }
            }
            let wall = began.elapsed().as_secs_f64();
            let after = cpu(&cluster);
            if round > 0 {
                let (store, receivers) = (after.0 - before.0, after.1 - before.1);
                all.entry(program).or_default().push(RoundTimes { wall, store, receivers });
            }
        }
    }
    cluster.stop_receivers()?;
    let megabytes = ((FILES * u64::from(mib)) << 20) as f64 / 1e6;
    writeln!(
        out,
        "{FILES} files of {mib} MiB at once, {rounds} rounds, medians; three copies of each\n\
         | | MB/s | range | store's CPU s/GB | receivers' CPU s/GB |\n\
         |---|---|---|---|---|"
    )?;
    for (program, times) in all {
        let name = match program {
            StoringProgram::Rclone => "rclone".to_owned(),
            StoringProgram::Directory => "1 receiver, a directory".to_owned(),
            StoringProgram::Receivers(1) => "1 receiver".to_owned(),
            StoringProgram::Receivers(count) => format!("{count} receivers"),
        };
        let of = |what: &dyn Fn(&RoundTimes) -> f64| {
            let mut values: Vec<f64> = times.iter().map(what).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let rates = of(&|times| megabytes / times.wall);
        let per_gb = |values: Vec<f64>| median(&values) / megabytes * 1000.0;
        writeln!(
            out,
            "| {name} | {:.0} | {:.0} to {:.0} | {:.1} | {:.1} |",
            median(&rates),
            rates.first().copied().unwrap_or_default(),
            rates.last().copied().unwrap_or_default(),
            per_gb(of(&|times| times.store)),
            per_gb(of(&|times| times.receivers)),
        )?;
    }
    Ok(())
}

/// Returns the median of sorted values.
fn median(values: &[f64]) -> f64 {
    let middle = values.len() / 2;
    match values {
        [] => 0.0,
        _ if values.len().is_multiple_of(2) => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// Files of random bytes, removed on drop.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn create(within: &Path, mib: u32) -> Result<Files> {
        let directory = tempfile::tempdir_in(within)?;
        let mut random = fastrand::Rng::new();
        let mut bytes = vec![0; 1 << 20];
        for index in 0..FILES {
            let mut file = File::create(directory.path().join(index.to_string()))?;
            random.fill(&mut bytes);
            for block in 0..u64::from(mib) {
                // No two blocks are equal.
                bytes[..8].copy_from_slice(&(random.u64(..) ^ block).to_le_bytes());
                file.write_all(&bytes)?;
            }
        }
        Ok(Files { directory })
    }

    fn paths(&self) -> Vec<PathBuf> {
        (0..FILES).map(|index| self.directory.path().join(index.to_string())).collect()
    }

    /// Uploads all files at once, to the receivers in turn; each must be confirmed.
    fn send(&self, ports: &[u16]) -> Result<()> {
        std::thread::scope(|scope| {
            let sending: Vec<_> = self
                .paths()
                .into_iter()
                .zip(ports.iter().cycle())
                .map(|(path, port)| {
                    scope.spawn(move || -> Result<()> {
                        let client = Client::builder()
                            .stall_timeout(TIMEOUT)
                            .confirm_timeout(TIMEOUT)
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

/// Uploads with rclone, with the same concurrency, part size and number of parts in flight.
fn copy(rclone: &Path, cluster: &Cluster, files: &Files, to: &str) -> Result<()> {
    let bucket = cluster.store();
    let mut command = Command::new(rclone);
    command
        .args(["copy", "--no-check-dest", "--s3-no-check-bucket", "--retries", "1"])
        .args(["--transfers", &FILES.to_string(), "--s3-upload-concurrency", "3"])
        .args(["--s3-upload-cutoff", "8M", "--s3-chunk-size", "8M"])
        .arg(files.directory.path())
        .arg(format!("accio:{BUCKET}/{to}"))
        .env("RCLONE_CONFIG", cluster.directory().join("rclone.conf"))
        .env("RCLONE_CONFIG_ACCIO_TYPE", "s3")
        .env("RCLONE_CONFIG_ACCIO_PROVIDER", "Other")
        .env("RCLONE_CONFIG_ACCIO_REGION", "garage")
        .env("RCLONE_CONFIG_ACCIO_ENDPOINT", &bucket.endpoint)
        .env("RCLONE_CONFIG_ACCIO_ACCESS_KEY_ID", &bucket.key)
        .env("RCLONE_CONFIG_ACCIO_SECRET_ACCESS_KEY", &bucket.secret)
        // rclone would fail to parse it, and TLS is not used here.
        .env_remove("AWS_CA_BUNDLE");
    Ok(process::checked_output(command, b"", 10 * TIMEOUT).map(drop)?)
}

/// Returns the CPU times, in seconds, of the store with its proxy and of the receivers.
fn cpu(cluster: &Cluster) -> (f64, f64) {
    let (store, receivers) = cluster.processes();
    let sum = |pids: Vec<Pid>| pids.into_iter().map(|pid| tree_cpu(pid).as_secs_f64()).sum();
    (sum(store), sum(receivers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computes_medians_of_odd_and_even_numbers_of_values() {
        assert!((median(&[1.0, 2.0, 9.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[1.0, 2.0, 4.0, 9.0]) - 3.0).abs() < 1e-9);
    }
}
