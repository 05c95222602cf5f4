//! Broken transfers through TCP proxies.
//!
//! A TCP proxy ends one connection and opens another, and several turn a reset into an orderly end.
//! Without TLS a server then keeps a truncated file as complete, and a client takes a rejection for
//! a confirmation; the cases without TLS count both. With TLS neither may ever happen.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::directory_oracle::{content, survey};
use super::runner::{Case, RunOptions};
use accio_harness::context::{Context, Server, wait_until};
use accio_harness::ports;
use accio_harness::process::{Input, Process};
use accio_harness::tools::require;
use accio_harness::verdict::{Stop, Verdict, ensure, ensure_eq};

/// Number of concurrent transfers.
const LANES: usize = 8;

/// Maximum file size of the server, in bytes; a third of the files are larger.
const MAX_SIZE: usize = 1_000_000;

/// The program used as proxy.
#[derive(Debug, Clone, Copy)]
enum ProxyProgram {
    Haproxy,
    Stunnel,
    Socat,
}

impl ProxyProgram {
    fn name(self) -> &'static str {
        match self {
            ProxyProgram::Haproxy => "haproxy",
            ProxyProgram::Stunnel => "stunnel",
            ProxyProgram::Socat => "socat",
        }
    }
}

pub(super) fn cases(options: &RunOptions) -> Vec<Case> {
    let broken = options.scale(40, 300);
    let mut cases = Vec::new();
    for proxy in [ProxyProgram::Haproxy, ProxyProgram::Stunnel, ProxyProgram::Socat] {
        for tls in [true, false] {
            let (mode, about) = match tls {
                true => ("tls", "no truncated file is kept, no failure is confirmed"),
                false => (
                    "plain",
                    "counts truncated files that are kept and failures that are confirmed",
                ),
            };
            let name = format!("proxies/{}-{mode}", proxy.name());
            let case = Case::new(name, about, move |context| trial(context, proxy, tls, broken));
            cases.push(case.within(Duration::from_secs(300)));
        }
    }
    cases
}

/// Counters of a trial.
#[derive(Debug, Default)]
struct Counters {
    /// Uploads that must fail: clients killed mid-transfer, and files that are too large.
    broken: AtomicUsize,
    /// Uploads of files that are too large, yet were confirmed.
    false_confirmations: AtomicUsize,
    /// Tags of the confirmed uploads.
    confirmed: Mutex<Vec<u64>>,
    /// The last tag in use.
    next: AtomicU64,
}

fn trial(context: &Context, proxy: ProxyProgram, tls: bool, broken: usize) -> Verdict<String> {
    require(proxy.name())?;
    let state = context.fresh("state");
    let key = create_key(context, &state)?;
    let server = start_server(context, &state, tls)?;
    let pin = if tls { Some(pin(&server)?) } else { None };
    let (process, port) = start_proxy(context, proxy, server.port, &key)?;
    let counters = Counters::default();
    let results: Vec<Verdict> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES as u64)
            .map(|lane| {
                let (counters, pin) = (&counters, pin.as_deref());
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(context.seed().wrapping_add(lane));
                    while counters.broken.load(Ordering::Relaxed) < broken {
                        transfer(context, port, pin, counters, &mut random)?;
                    }
                    Ok(())
                })
            })
            .collect();
        let join = |lane: thread::ScopedJoinHandle<'_, Verdict>| {
            lane.join().unwrap_or_else(|_| Err(Stop::Trouble("a lane panicked".into())))
        };
        lanes.into_iter().map(join).collect()
    });
    results.into_iter().collect::<Verdict<Vec<()>>>()?;
    // Hanging connections end at the idle timeout.
    thread::sleep(Duration::from_secs(4));
    let found = survey(&server.dir)?;
    let confirmed = counters.confirmed.lock().map(|tags| tags.clone()).unwrap_or_default();
    found.ensure_kept(&confirmed)?;
    let (truncated, false_confirmations) =
        (found.partial.len() + found.empty, counters.false_confirmations.load(Ordering::Relaxed));
    if tls {
        ensure_eq("truncated files that were kept", 0, truncated)?;
        ensure_eq("failures that were confirmed", 0, false_confirmations)?;
        ensure(found.errors > 0, "some transfers to leave ERROR", || "none did".into())?;
    }
    drop(process);
    server.stop()?;
    Ok(format!(
        "{} broken: {truncated} kept, {false_confirmations} confirmed; {} complete",
        counters.broken.load(Ordering::Relaxed),
        confirmed.len()
    ))
}

/// Runs one upload that must fail: its client is killed at a random time, or its file is too large.
fn transfer(
    context: &Context,
    port: u16,
    pin: Option<&str>,
    counters: &Counters,
    random: &mut fastrand::Rng,
) -> Verdict {
    let tag = counters.next.fetch_add(1, Ordering::Relaxed) + 1;
    let is_large = tag.is_multiple_of(3);
    let size = if is_large { MAX_SIZE + 500_000 } else { 600_000 };
    let file = context.file(&content(tag, size))?;
    let mut flags = vec!["-q"];
    if !is_large {
        // The transfer takes 0.2 s, so that a random kill most likely interrupts it.
        flags.extend(["--limit-rate", "3M"]);
    }
    flags.extend(pin.map(|pin| ["--tls-pin", pin]).into_iter().flatten());
    let mut client = context.client("127.0.0.1", port, &file, &flags)?;
    if !is_large {
        thread::sleep(Duration::from_millis(random.u64(5..260)));
        client.kill()?;
    }
    let exit = client.wait(Duration::from_secs(30))?;
    match (exit.status.code(), is_large) {
        (Some(0), true) => {
            counters.false_confirmations.fetch_add(1, Ordering::Relaxed);
            counters.broken.fetch_add(1, Ordering::Relaxed);
        }
        (Some(0), false) => {
            if let Ok(mut confirmed) = counters.confirmed.lock() {
                confirmed.push(tag);
            }
        }
        _ => {
            counters.broken.fetch_add(1, Ordering::Relaxed);
        }
    }
    fs::remove_file(file)?;
    Ok(())
}

fn start_server(context: &Context, state: &Path, tls: bool) -> Verdict<Server> {
    let state = format!("XDG_STATE_HOME={}", state.display());
    let max_size = MAX_SIZE.to_string();
    let mut flags = vec!["--bind", "127.0.0.1", "--timeout", "3", "--max-size", &max_size];
    if tls {
        flags.push("--tls");
    }
    context.server_wrapped(&["env", &state], &flags)
}

/// Runs a server once to create its key and certificate, and returns their file.
fn create_key(context: &Context, state: &Path) -> Verdict<PathBuf> {
    start_server(context, state, true)?.stop()?;
    Ok(state.join("accio/server.pem"))
}

/// Returns the pin that the server printed.
fn pin(server: &Server) -> Verdict<String> {
    let find = || {
        let text = server.process.stderr().text();
        let word = text.split_whitespace().find(|word| word.starts_with("sha256//"));
        word.map(str::to_owned)
    };
    wait_until(Duration::from_secs(5), || find().is_some());
    find().ok_or_else(|| Stop::fault("the server to print its pin", "it did not"))
}

/// Starts a proxy to the server at `server` and returns its port.
fn start_proxy(
    context: &Context,
    proxy: ProxyProgram,
    server: u16,
    key: &Path,
) -> Verdict<(Process, u16)> {
    let program = require(proxy.name())?;
    let port = ports::free()?;
    let mut command = Command::new(program);
    let config = context.fresh("proxy.conf");
    match proxy {
        ProxyProgram::Haproxy => {
            let text = format!(
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
                 listen accio\n bind 127.0.0.1:{port}\n server accio 127.0.0.1:{server}\n"
            );
            fs::write(&config, text)?;
            command.arg("-db").arg("-f").arg(config);
        }
        ProxyProgram::Stunnel => {
            // stunnel requires TLS on one side: one service wraps the connection, the other unwraps
            // it.
            let between = ports::free()?;
            let text = format!(
                "foreground = yes\npid =\nsyslog = no\n\
                 [in]\nclient = yes\naccept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{between}\n\
                 [out]\naccept = 127.0.0.1:{between}\nconnect = 127.0.0.1:{server}\ncert = {}\n",
                key.display()
            );
            fs::write(&config, text)?;
            command.arg(config);
        }
        ProxyProgram::Socat => {
            command.arg(format!("TCP-LISTEN:{port},fork,reuseaddr,bind=127.0.0.1"));
            command.arg(format!("TCP:127.0.0.1:{server}"));
        }
    }
    let process = context.spawn(command, Input::Null)?;
    // A test connection would reach the server, so see whether the port is taken.
    let listens = || {
        TcpListener::bind(("127.0.0.1", port))
            .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    ensure(wait_until(Duration::from_secs(10), listens), "the proxy to listen", || {
        process.stderr().text()
    })?;
    Ok((process, port))
}
