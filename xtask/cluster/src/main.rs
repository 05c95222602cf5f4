//! `cargo xtask test-cluster`: runs a real cluster and kills parts of it during the uploads.
//!
//! The cluster runs on the loopback interface: three Garage nodes with three copies of each object,
//! haproxy in front of them, and a load balancer in front of three receivers. Clients upload files
//! of all sizes. Half-way, one receiver is killed and one store node is stopped. At the end, the
//! stored objects are compared with the results that the clients saw.
#![forbid(unsafe_code)]

mod balance;
mod comparison;
mod daemon;
mod memory;
mod s3_stub;
mod store;
mod throughput;
mod tools;
mod topology;
mod uploads;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use accio_harness::cargo::cargo;
use accio_harness::namespace::PrivateNamespace;
use accio_harness::process;
use accio_proto::Client;
use anyhow::{Context, Result};

use balance::Balancer;
use comparison::compare;
use tools::Tools;
use topology::Cluster;
use uploads::{UploadResult, content};

/// Kill receivers and store nodes of a real cluster during uploads, then check every upload
#[derive(Debug, clap::Parser)]
#[command(name = "accio-cluster")]
struct Arguments {
    /// Print how to install the required programs
    #[arg(long)]
    install: bool,
    /// Number of files to upload
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..),
          conflicts_with = "measured")]
    uploads: u64,
    /// Do not kill or stop any part
    #[arg(long, conflicts_with = "measured")]
    calm: bool,
    /// Load balancer [default: nft if available, otherwise direct]
    ///
    /// haproxy turns the reset of a killed receiver into an orderly end, which looks like a
    /// confirmation to a client that has sent its last byte. Such uploads are counted separately,
    /// if they were open at the killed receiver.
    #[arg(long, value_enum, value_name = "BALANCER", conflicts_with = "measured")]
    through: Option<Balancer>,
    /// Same as --through direct
    #[arg(long, conflicts_with_all = ["through", "measured"])]
    direct: bool,
    /// Measure the throughput of one to three receivers and of rclone
    #[arg(long, group = "measured")]
    throughput: bool,
    /// Number of measured rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..),
          requires = "throughput", conflicts_with = "memory")]
    rounds: u32,
    /// Measure the memory of one receiver during concurrent uploads
    ///
    /// A built-in store discards the uploads.
    #[arg(long, group = "measured")]
    memory: bool,
    /// Store in a directory (file://) instead of the built-in store
    #[arg(long, requires = "memory", conflicts_with = "throughput")]
    to_directory: bool,
    /// Number of concurrent uploads
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..),
          requires = "memory", conflicts_with = "throughput")]
    at_once: u32,
    /// Size of each file in MiB [default: 16; with --memory 128]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), requires = "measured")]
    mib: Option<u32>,
    /// Marks the process that runs inside the namespace
    #[arg(long, hide = true)]
    inside: bool,
    /// Path to garage [default: search in PATH]
    #[arg(long, value_name = "PROGRAM", env = "ACCIO_GARAGE")]
    garage: Option<PathBuf>,
    /// Path to an accio-server with the feature store [default: build it]
    ///
    /// ACCIO_STORE_SERVER sets it, too.
    #[arg(long, value_name = "PROGRAM", env = "ACCIO_STORE_SERVER", hide_env = true)]
    server: Option<PathBuf>,
}

const INSTALL: &str = "\
garage   cargo install garage --version 2.5.0 --locked      (an S3 store; AGPL, only run)
haproxy  apt-get install haproxy
envoy    see www.envoyproxy.io                              (1.40 or later, for --through envoy)
curl     apt-get install curl                               (7.75 or later)
nft      apt-get install nftables iproute2 util-linux       (for --through nft)
rclone   apt-get install rclone                             (only for --throughput)";

/// Number of concurrent clients.
const CLIENTS: usize = 16;

fn main() -> ExitCode {
    accio_harness::report::exit_code(run(&<Arguments as clap::Parser>::parse()))
}

/// Runs the test or measurement, if the required programs are installed.
fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    if arguments.install {
        writeln!(out, "{INSTALL}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let result = if arguments.memory {
        measure_memory(arguments, &mut out)
    } else {
        test_or_measure(arguments, &mut out)
    };
    result.context("test-cluster")
}

fn measure_memory(arguments: &Arguments, out: &mut impl Write) -> Result<ExitCode> {
    let server = server(arguments, true)?;
    let uploads = (arguments.at_once, arguments.mib.unwrap_or(128));
    let passed = memory::measure(&server, uploads, arguments.to_directory, out)?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn test_or_measure(arguments: &Arguments, out: &mut impl Write) -> Result<ExitCode> {
    let tools = match Tools::find(arguments.garage.as_deref(), arguments.through) {
        Ok(_) if arguments.server.is_none() && !has_cargo() => {
            writeln!(
                out,
                "skipped: test-cluster: cannot build accio-server without cargo: add --server"
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        Ok(tools) => tools,
        Err(missing) => {
            writeln!(out, "skipped: test-cluster: {missing} is not installed: see --install")?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    if arguments.throughput {
        let server = server(arguments, true)?;
        let sizes = (arguments.rounds, arguments.mib.unwrap_or(16));
        throughput::measure(&tools, &server, sizes, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let balancer = match choose(arguments, out)? {
        BalancerChoice::Use(balancer) => balancer,
        BalancerChoice::Done(code) => return Ok(code),
    };
    let server = server(arguments, false)?;
    let passed = test(arguments, balancer, &tools, &server, out)?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The result of choosing a load balancer.
enum BalancerChoice {
    /// This process runs the test with this balancer.
    Use(Balancer),
    /// Another process has run the test, or the test is skipped.
    Done(ExitCode),
}

/// Returns the selected load balancer, or the default.
fn choose(arguments: &Arguments, out: &mut impl Write) -> Result<BalancerChoice> {
    if arguments.direct {
        return Ok(BalancerChoice::Use(Balancer::Direct));
    }
    if arguments.inside {
        PrivateNamespace::start_loopback()?;
        return Ok(BalancerChoice::Use(Balancer::Nft));
    }
    match arguments.through {
        Some(balancer @ (Balancer::Haproxy | Balancer::Envoy | Balancer::Direct)) => {
            return Ok(BalancerChoice::Use(balancer));
        }
        Some(Balancer::Nft) | None => {}
    }
    match balance::namespace() {
        Ok(namespace) => {
            // Build it here, because there is no network inside the namespace.
            server(arguments, false)?;
            let code = namespace.run_self("--inside")?.code();
            let code = code.and_then(|code| u8::try_from(code).ok());
            Ok(BalancerChoice::Done(code.map_or(ExitCode::FAILURE, ExitCode::from)))
        }
        Err(why) if arguments.through.is_some() => {
            writeln!(out, "skipped: test-cluster --through nft: {why}")?;
            Ok(BalancerChoice::Done(ExitCode::SUCCESS))
        }
        Err(why) => {
            writeln!(out, "skipped: a balancer below TCP: {why}; continuing with --direct")?;
            Ok(BalancerChoice::Use(Balancer::Direct))
        }
    }
}

fn has_cargo() -> bool {
    let mut version = cargo();
    version.arg("--version");
    process::output(version, b"", Duration::from_secs(60)).is_ok()
}

/// Returns the path of accio-server. It is built in a separate target directory, because other
/// commands need it without the store.
fn server(arguments: &Arguments, release: bool) -> Result<PathBuf> {
    if let Some(server) = &arguments.server {
        return server.canonicalize().with_context(|| format!("--server {}", server.display()));
    }
    let mut build = cargo();
    build
        .args(["build", "--quiet", "--package", "accio-server"])
        .args(["--features", "store"])
        .args(release.then_some("--release"))
        .args(["--target-dir", "target/cluster"]);
    let built = process::foreground(&mut build)
        .context("cannot run cargo to build accio-server: add --server")?;
    anyhow::ensure!(built.success(), "accio-server does not build: see above, or add --server");
    let profile = if release { "release" } else { "debug" };
    Ok(Path::new("target/cluster").join(profile).join("accio-server"))
}

fn test(
    arguments: &Arguments,
    balancer: Balancer,
    tools: &Tools,
    server: &Path,
    out: &mut impl Write,
) -> Result<bool> {
    let mut cluster = Cluster::start(tools, server).context("start")?;
    let through = match balancer {
        Balancer::Nft => "nftables in front of the receivers, haproxy in front of the store",
        Balancer::Haproxy => "haproxy in front of both",
        Balancer::Envoy => "Envoy in front of the receivers, haproxy in front of the store",
        Balancer::Direct => "haproxy in front of the store",
    };
    if balancer == Balancer::Nft {
        cluster.spread(&[0, 1, 2])?;
    }
    writeln!(out, "three store nodes, three receivers, {through}; uploading")?;

    let began = Instant::now();
    let uploads = arguments.uploads;
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results = Mutex::new(BTreeMap::new());
    let ports = cluster.client_ports(balancer);
    let mut killed = None;
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..CLIENTS {
            scope.spawn(|| send_all(uploads, balancer, &ports, &next, &done, &results));
        }
        if !arguments.calm {
            while done.load(Ordering::SeqCst) < uploads as usize / 2 {
                std::thread::sleep(Duration::from_millis(5));
            }
            killed = Some(SystemTime::now());
            cluster.kill_receiver(1)?;
            if balancer == Balancer::Nft {
                // Health checks take a moment to notice; until then connections are refused.
                std::thread::sleep(Duration::from_millis(100));
                cluster.spread(&[0, 2])?;
            }
            cluster.stop_node(2)?;
        }
        Ok(())
    })?;
    let results = results.into_inner().unwrap_or_default();
    let seconds = began.elapsed().as_secs_f64();

    // The restarted receiver removes the leftovers of the killed one. Then all receivers stop.
    if !arguments.calm {
        cluster.start_receiver(1)?;
    }
    cluster.stop_receivers()?;
    let open = match killed {
        Some(moment) if balancer == Balancer::Haproxy => {
            balance::open_at(&cluster.haproxy_log()?, "r1", moment)
        }
        _ => Vec::new(),
    };
    let comparison = compare(&cluster, &results, &open)?;
    let kept = results.values().filter(|result| **result == UploadResult::Kept).count();
    let killed =
        if arguments.calm { "nothing was killed" } else { "1 receiver killed, 1 node stopped" };
    writeln!(out, "{} uploads, {killed}, {seconds:.1} s", results.len())?;
    writeln!(out, "  confirmed                     {kept}")?;
    writeln!(out, "  failed for the client         {}", results.len() - kept)?;
    comparison.write(out)?;
    Ok(comparison.passes())
}

fn send_all(
    uploads: u64,
    balancer: Balancer,
    ports: &[u16],
    next: &AtomicUsize,
    done: &AtomicUsize,
    results: &Mutex<BTreeMap<u64, UploadResult>>,
) {
    loop {
        let index = next.fetch_add(1, Ordering::SeqCst) as u64;
        if index >= uploads {
            return;
        }
        let port = ports[index as usize % ports.len()];
        let mut client = Client::builder();
        if balancer == Balancer::Haproxy {
            client = client.source_address((balance::source(index), 0));
        }
        // The default settings are valid.
        let Ok(client) = client.build() else { return };
        let sent = client.send("127.0.0.1", port, &content(index)[..]);
        let result = match sent {
            Ok(sent) if sent.confirmed => UploadResult::Kept,
            Ok(_) | Err(_) => UploadResult::Failed,
        };
        if let Ok(mut results) = results.lock() {
            results.insert(index, result);
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_flags_without_effect() {
        let parses = |line: &str| {
            <Arguments as clap::Parser>::try_parse_from(format!("x {line}").split_whitespace())
                .is_ok()
        };
        for line in ["", "--calm --uploads 20", "--throughput --mib 4 --rounds 1", "--memory"] {
            assert!(parses(line), "{line}");
        }
        assert!(parses("--memory --at-once 20 --mib 64 --to-directory"));
        let meaningless = [
            "--mib 4",
            "--rounds 1",
            "--at-once 5",
            "--memory --rounds 2",
            "--throughput --at-once 5",
            "--memory --throughput",
            "--memory --calm",
            "--throughput --direct",
        ];
        for line in meaningless {
            assert!(!parses(line), "{line}");
        }
    }
}
