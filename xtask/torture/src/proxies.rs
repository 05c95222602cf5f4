//! TCP proxies in the way of transfers that break.
//!
//! They end one connection and open another, and several turn a reset into an orderly end. Without
//! TLS a server then keeps a part as a whole file, and a client takes a refusal for a confirmation;
//! those cases count what the proxies do. With TLS neither may ever happen.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::folder_oracle::{content, survey};
use super::runner::{Case, RunOptions};
use accio_harness::context::{Context, Server, wait_until};
use accio_harness::ports;
use accio_harness::process::{Input, Process};
use accio_harness::tools::require;
use accio_harness::verdict::{Stop, Verdict, ensure, ensure_eq};

/// Transfers at a time.
const LANES: usize = 8;

/// The server's size limit, which a third of the files exceed.
const MAX_SIZE: usize = 1_000_000;

#[derive(Debug, Clone, Copy)]
enum Kind {
    Haproxy,
    Stunnel,
    Socat,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Haproxy => "haproxy",
            Kind::Stunnel => "stunnel",
            Kind::Socat => "socat",
        }
    }
}

pub(super) fn cases(plan: &RunOptions) -> Vec<Case> {
    let broken = plan.scale(40, 300);
    let mut cases = Vec::new();
    for kind in [Kind::Haproxy, Kind::Stunnel, Kind::Socat] {
        for tls in [true, false] {
            let (way, about) = match tls {
                true => ("tls", "no part is kept as a whole file, no failure is confirmed"),
                false => ("plain", "counts parts kept as whole files and failures confirmed"),
            };
            let name = format!("proxies/{}-{way}", kind.name());
            let case = Case::new(name, about, move |context| trial(context, kind, tls, broken));
            cases.push(case.alone().within(Duration::from_secs(300)));
        }
    }
    cases
}

/// What came of the transfers of a trial.
#[derive(Debug, Default)]
struct Tally {
    /// Clients that were killed before their end, and files that are too large.
    broken: AtomicUsize,
    /// Files that are too large whose client was told that they are kept.
    false_receipts: AtomicUsize,
    /// Contents whose client was told that they are kept.
    confirmed: Mutex<Vec<u64>>,
    next: AtomicU64,
}

fn trial(context: &Context, kind: Kind, tls: bool, broken: usize) -> Verdict<String> {
    require(kind.name())?;
    let state = context.fresh("state");
    let key = create_key(context, &state)?;
    let server = start_server(context, &state, tls)?;
    let pin = if tls { Some(pin(&server)?) } else { None };
    let (proxy, port) = start_proxy(context, kind, server.port, &key)?;
    let tally = Tally::default();
    let results: Vec<Verdict> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES as u64)
            .map(|lane| {
                let (tally, pin) = (&tally, pin.as_deref());
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(context.seed().wrapping_add(lane));
                    while tally.broken.load(Ordering::Relaxed) < broken {
                        transfer(context, port, pin, tally, &mut random)?;
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
    // What hangs ends by the idle timeout.
    thread::sleep(Duration::from_secs(4));
    let found = survey(&server.dir)?;
    let confirmed = tally.confirmed.lock().map(|tags| tags.clone()).unwrap_or_default();
    found.ensure_kept(&confirmed)?;
    let (parts, receipts) =
        (found.starts.len() + found.empty, tally.false_receipts.load(Ordering::Relaxed));
    if tls {
        ensure_eq("parts kept as whole files", 0, parts)?;
        ensure_eq("failures that were confirmed", 0, receipts)?;
        ensure(found.errors > 0, "some transfers to leave ERROR", || "none did".into())?;
    }
    drop(proxy);
    server.stop()?;
    Ok(format!(
        "{} broken: {parts} kept as whole, {receipts} confirmed; {} sent whole",
        tally.broken.load(Ordering::Relaxed),
        confirmed.len()
    ))
}

/// One transfer: its client is killed at some time, or its file is too large.
fn transfer(
    context: &Context,
    port: u16,
    pin: Option<&str>,
    tally: &Tally,
    random: &mut fastrand::Rng,
) -> Verdict {
    let tag = tally.next.fetch_add(1, Ordering::Relaxed) + 1;
    let is_large = tag.is_multiple_of(3);
    let size = if is_large { MAX_SIZE + 500_000 } else { 600_000 };
    let file = context.file(&content(tag, size))?;
    let mut flags = vec!["-q"];
    if !is_large {
        // A fifth of a second, so that a random time is most likely in mid-transfer.
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
            tally.false_receipts.fetch_add(1, Ordering::Relaxed);
            tally.broken.fetch_add(1, Ordering::Relaxed);
        }
        (Some(0), false) => {
            if let Ok(mut confirmed) = tally.confirmed.lock() {
                confirmed.push(tag);
            }
        }
        _ => {
            tally.broken.fetch_add(1, Ordering::Relaxed);
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

/// Has a server create its key and certificate, and returns the file.
fn create_key(context: &Context, state: &Path) -> Verdict<PathBuf> {
    start_server(context, state, true)?.stop()?;
    Ok(state.join("accio/server.pem"))
}

/// The pin that a server has printed.
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
fn start_proxy(context: &Context, kind: Kind, server: u16, key: &Path) -> Verdict<(Process, u16)> {
    let program = require(kind.name())?;
    let port = ports::free()?;
    let mut command = Command::new(program);
    let config = context.fresh("proxy.conf");
    match kind {
        Kind::Haproxy => {
            let text = format!(
                "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
                 listen accio\n bind 127.0.0.1:{port}\n server accio 127.0.0.1:{server}\n"
            );
            fs::write(&config, text)?;
            command.arg("-db").arg("-f").arg(config);
        }
        Kind::Stunnel => {
            // It only speaks TLS, so that one half wraps the connection and the other unwraps it.
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
        Kind::Socat => {
            command.arg(format!("TCP-LISTEN:{port},fork,reuseaddr,bind=127.0.0.1"));
            command.arg(format!("TCP:127.0.0.1:{server}"));
        }
    }
    let process = context.spawn(command, Input::Null)?;
    // A connection to find out would reach the server.
    let listens = || {
        TcpListener::bind(("127.0.0.1", port))
            .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    ensure(wait_until(Duration::from_secs(10), listens), "the proxy to listen", || {
        process.stderr().text()
    })?;
    Ok((process, port))
}
