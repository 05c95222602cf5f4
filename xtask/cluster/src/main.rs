//! `cargo xtask test-cluster`: runs a real cluster and kills parts of it during the uploads.
//!
//! Three nodes of Garage that keep everything three times, haproxy before them, a balancer before
//! three receivers, all on loopback; then uploads of all sizes, and half-way one receiver is killed
//! and one node of the store stopped. What the clients were told is then compared with what is
//! stored.
#![forbid(unsafe_code)]

mod balance;
mod daemon;
mod memory;
mod s3_stub;
mod store;
mod throughput;
mod tools;
mod topology;
mod uploads;
mod verdict;

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
use tools::Tools;
use topology::Cluster;
use uploads::{UploadResult, content};
use verdict::judge;

/// Kill receivers and store nodes of a real cluster during uploads, then check every upload
#[derive(Debug, clap::Parser)]
#[command(name = "accio-cluster")]
struct Arguments {
    /// Print how to install what is missing, and do nothing else
    #[arg(long)]
    install: bool,
    /// Number of files to send
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..),
          conflicts_with = "measured")]
    uploads: u64,
    /// Kill nothing
    #[arg(long, conflicts_with = "measured")]
    calm: bool,
    /// Load balancer in front of the receivers [default: nft, or direct where nft is not possible]
    ///
    /// Through haproxy a client whose last byte it has taken cannot tell a receiver's death from
    /// its confirmation: what it confirms so is counted, and is of those that were open there.
    #[arg(long, value_enum, value_name = "BALANCER", conflicts_with = "measured")]
    through: Option<Balancer>,
    /// The same as --through direct
    #[arg(long, conflicts_with_all = ["through", "measured"])]
    direct: bool,
    /// Measure instead: how fast one, two and three receivers store, and the store's usual client
    #[arg(long, group = "measured")]
    throughput: bool,
    /// Number of rounds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..),
          requires = "throughput", conflicts_with = "memory")]
    rounds: u32,
    /// Measure instead: the memory of one receiver under many uploads at once, into a store on
    /// loopback that discards them; nothing else is needed
    #[arg(long, group = "measured")]
    memory: bool,
    /// Number of concurrent uploads
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..),
          requires = "memory", conflicts_with = "throughput")]
    at_once: u32,
    /// Size of each file in MiB [default: 16, with --memory 128]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), requires = "measured")]
    mib: Option<u32>,
    /// This is the run within the namespace
    #[arg(long, hide = true)]
    inside: bool,
    /// Path of garage, if it is not in PATH
    #[arg(long, value_name = "PROGRAM", env = "ACCIO_GARAGE")]
    garage: Option<PathBuf>,
    /// The accio-server to use, with the features store and proxy-protocol, instead of building one
    #[arg(long, value_name = "PROGRAM", env = "ACCIO_STORE_SERVER")]
    server: Option<PathBuf>,
}

const INSTALL: &str = "\
garage   cargo install garage --version 2.5.0 --locked      (an S3 store; AGPL, only ever run)
haproxy  apt-get install haproxy
envoy    as www.envoyproxy.io says, 1.40 or later            (only for --through envoy)
curl     apt-get install curl                               (7.75 or later)
nft      apt-get install nftables iproute2 util-linux       (for a balancer below TCP)
rclone   apt-get install rclone                             (only compared with, by --throughput)";

/// Clients at once.
const CLIENTS: usize = 16;

fn main() -> ExitCode {
    accio_harness::report::exit_code(run(&<Arguments as clap::Parser>::parse()))
}

/// Runs it all, if all is installed.
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
    let held = memory::measure(&server, arguments.at_once, arguments.mib.unwrap_or(128), out)?;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn test_or_measure(arguments: &Arguments, out: &mut impl Write) -> Result<ExitCode> {
    let tools = match Tools::find(arguments.garage.as_deref(), arguments.through) {
        Ok(_) if arguments.server.is_none() && !has_cargo() => {
            writeln!(
                out,
                "skipped: test-cluster: no cargo to build accio-server with: give --server"
            )?;
            return Ok(ExitCode::SUCCESS);
        }
        Ok(tools) => tools,
        Err(missing) => {
            writeln!(out, "skipped: test-cluster: no {missing} on this machine: see --install")?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    if arguments.throughput {
        let server = server(arguments, true)?;
        let sizes = (arguments.rounds, arguments.mib.unwrap_or(16));
        throughput::measure(&tools, &server, sizes, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    let way = match choose(arguments, out)? {
        Chosen::Here(way) => way,
        Chosen::Done(code) => return Ok(code),
    };
    let server = server(arguments, false)?;
    let held = test(arguments, way, &tools, &server, out)?;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The result of choosing a load balancer.
enum Chosen {
    /// This process runs the test with it.
    Here(Balancer),
    /// Another process has run the test, or it was skipped.
    Done(ExitCode),
}

/// The way that was asked for, or the best there is.
fn choose(arguments: &Arguments, out: &mut impl Write) -> Result<Chosen> {
    if arguments.direct {
        return Ok(Chosen::Here(Balancer::Direct));
    }
    if arguments.inside {
        PrivateNamespace::start_loopback()?;
        return Ok(Chosen::Here(Balancer::Nft));
    }
    match arguments.through {
        Some(way @ (Balancer::Haproxy | Balancer::Envoy | Balancer::Direct)) => {
            return Ok(Chosen::Here(way));
        }
        Some(Balancer::Nft) | None => {}
    }
    match balance::namespace() {
        Ok(namespace) => {
            // What this needs of the network is not within.
            server(arguments, false)?;
            let code = namespace.run_self("--inside")?.code();
            let code = code.and_then(|code| u8::try_from(code).ok());
            Ok(Chosen::Done(code.map_or(ExitCode::FAILURE, ExitCode::from)))
        }
        Err(why) if arguments.through.is_some() => {
            writeln!(out, "skipped: test-cluster --through nft: {why}")?;
            Ok(Chosen::Done(ExitCode::SUCCESS))
        }
        Err(why) => {
            writeln!(out, "skipped: a balancer below TCP: {why}; continuing as with --direct")?;
            Ok(Chosen::Here(Balancer::Direct))
        }
    }
}

fn has_cargo() -> bool {
    let mut version = cargo();
    version.arg("--version");
    process::output(version, b"", Duration::from_secs(60)).is_ok()
}

/// Returns the receiver, built in a folder of its own: other commands use one without a store.
fn server(arguments: &Arguments, release: bool) -> Result<PathBuf> {
    if let Some(server) = &arguments.server {
        return server.canonicalize().with_context(|| format!("--server {}", server.display()));
    }
    let mut build = cargo();
    build
        .args(["build", "--quiet", "--package", "accio-server"])
        .args(["--features", "store,proxy-protocol"])
        .args(release.then_some("--release"))
        .args(["--target-dir", "target/cluster"]);
    let built = process::foreground(&mut build)
        .context("cargo, to build accio-server; or give it with --server")?;
    anyhow::ensure!(built.success(), "accio-server does not build; or give it with --server");
    let profile = if release { "release" } else { "debug" };
    Ok(Path::new("target/cluster").join(profile).join("accio-server"))
}

fn test(
    arguments: &Arguments,
    way: Balancer,
    tools: &Tools,
    server: &Path,
    out: &mut impl Write,
) -> Result<bool> {
    let mut cluster = Cluster::start(tools, server).context("start")?;
    let through = match way {
        Balancer::Nft => "nftables before the receivers, haproxy before the store",
        Balancer::Haproxy => "haproxy before both",
        Balancer::Envoy => "Envoy before the receivers, haproxy before the store",
        Balancer::Direct => "haproxy before the store",
    };
    if way == Balancer::Nft {
        cluster.spread(&[0, 1, 2])?;
    }
    writeln!(out, "three store nodes, three receivers, {through}; sending")?;

    let began = Instant::now();
    let uploads = arguments.uploads;
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let told = Mutex::new(BTreeMap::new());
    let ports = cluster.front(way);
    let mut killed = None;
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..CLIENTS {
            scope.spawn(|| send_all(uploads, way, &ports, &next, &done, &told));
        }
        if !arguments.calm {
            while done.load(Ordering::SeqCst) < uploads as usize / 2 {
                std::thread::sleep(Duration::from_millis(5));
            }
            killed = Some(SystemTime::now());
            cluster.kill_receiver(1)?;
            if way == Balancer::Nft {
                // A balancer's checks take a moment to notice; connections until then are refused.
                std::thread::sleep(Duration::from_millis(100));
                cluster.spread(&[0, 2])?;
            }
            cluster.stop_node(2)?;
        }
        Ok(())
    })?;
    let told = told.into_inner().unwrap_or_default();
    let seconds = began.elapsed().as_secs_f64();

    // It clears away what its predecessor left; then all end as they would in service.
    if !arguments.calm {
        cluster.start_receiver(1)?;
    }
    cluster.stop_receivers()?;
    let open = match killed {
        Some(moment) if way == Balancer::Haproxy => {
            balance::open_at(&cluster.balancers_log()?, "r1", moment)
        }
        _ => Vec::new(),
    };
    let verdict = judge(&cluster, &told, &open)?;
    let kept = told.values().filter(|told| **told == UploadResult::Kept).count();
    let died =
        if arguments.calm { "nothing was killed" } else { "1 receiver killed, 1 node stopped" };
    writeln!(out, "{} uploads, {died}, {seconds:.1} s", told.len())?;
    writeln!(out, "  confirmed                     {kept}")?;
    writeln!(out, "  failed at their client        {}", told.len() - kept)?;
    verdict.write(out)?;
    Ok(verdict.holds())
}

fn send_all(
    uploads: u64,
    way: Balancer,
    ports: &[u16],
    next: &AtomicUsize,
    done: &AtomicUsize,
    told: &Mutex<BTreeMap<u64, UploadResult>>,
) {
    loop {
        let index = next.fetch_add(1, Ordering::SeqCst) as u64;
        if index >= uploads {
            return;
        }
        let port = ports[index as usize % ports.len()];
        let mut client = Client::builder();
        if way == Balancer::Haproxy {
            client = client.source_address((balance::source(index), 0));
        }
        // The default limits are in range.
        let Ok(client) = client.build() else { return };
        let sent = client.send("127.0.0.1", port, &content(index)[..]);
        let result = match sent {
            Ok(sent) if sent.confirmed => UploadResult::Kept,
            Ok(_) | Err(_) => UploadResult::Failed,
        };
        if let Ok(mut told) = told.lock() {
            told.insert(index, result);
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_is_ignored() {
        let parses = |line: &str| {
            <Arguments as clap::Parser>::try_parse_from(format!("x {line}").split_whitespace())
                .is_ok()
        };
        for line in ["", "--calm --uploads 20", "--throughput --mib 4 --rounds 1", "--memory"] {
            assert!(parses(line), "{line}");
        }
        assert!(parses("--memory --at-once 20 --mib 64"));
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
