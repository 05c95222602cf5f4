//! A network that drops packets: some, or all from a certain moment on.
//!
//! The server runs in a network namespace joined to the machine's own network; nftables drops
//! packets that come in at the server's end.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::directory_oracle::{content, survey};
use super::privileges::ensure_root;
use super::runner::{Case, RunOptions};
use accio_harness::context::{Context, Server, wait_until};
use accio_harness::namespace::{Loss, Namespace};
use accio_harness::process::Process;
use accio_harness::verdict::{Verdict, ensure, ensure_eq};

pub(super) fn cases(options: &RunOptions) -> Vec<Case> {
    let unprivileged = options.unprivileged;
    let mut cases = Vec::new();
    for (percent, uploads) in [(3, options.scale(6, 20)), (10, options.scale(2, 8))] {
        let about = "every upload arrives whole";
        let case = Case::new(format!("network/loss-{percent}-percent"), about, move |context| {
            loss(context, unprivileged, percent, uploads)
        });
        cases.push(case.within(Duration::from_secs(240)));
    }
    for dialect in ["accio", "confirm"] {
        let about =
            "all packets lost mid-transfer: the client gives up in 10 to 13 s, the file is ERROR";
        cases.push(Case::new(format!("network/black-hole-{dialect}"), about, move |context| {
            black_hole(context, unprivileged, dialect)
        }));
    }
    let about = "all packets lost from the start: the client gives up in 10 to 13 s";
    cases.push(Case::new("network/black-hole-connect", about, move |context| {
        no_connection(context, unprivileged)
    }));
    cases
}

/// A server in its own network namespace.
struct RemoteServer {
    server: Server,
    namespace: Namespace,
}

impl RemoteServer {
    fn start(context: &Context, unprivileged: bool) -> Verdict<RemoteServer> {
        ensure_root(unprivileged)?;
        let namespace = Namespace::create()?;
        let server = context.server_wrapped(&namespace.enter(), &[])?;
        Ok(RemoteServer { server, namespace })
    }

    /// Starts a client outside the namespace.
    fn client(&self, context: &Context, file: &Path, flags: &[&str]) -> Verdict<Process> {
        let host = self.namespace.inner().to_string();
        context.client(&host, self.server.port, file, flags)
    }
}

fn loss(context: &Context, unprivileged: bool, percent: u32, uploads: usize) -> Verdict<String> {
    let remote = RemoteServer::start(context, unprivileged)?;
    remote.namespace.lose(Loss { incoming: percent * 10, outgoing: 0 })?;
    let mut tags = Vec::new();
    let began = Instant::now();
    for number in 0..uploads {
        // Segments are large, so a transfer has few packets: send enough bytes that some are lost.
        let tag = number as u64 + 1;
        let size = if number % 2 == 0 { 500 } else { 4 << 20 };
        let file = context.file(&content(tag, size))?;
        let dialect = if number % 4 < 2 { "accio" } else { "confirm" };
        let mut client = remote.client(context, &file, &["-v", "--handshake", dialect])?;
        let exit = client.wait(Duration::from_secs(60))?;
        ensure(exit.status.code() == Some(0), "the client to succeed", || {
            format!("{}: {}", exit.describe(), client.stderr().text())
        })?;
        fs::remove_file(file)?;
        tags.push(tag);
    }
    let dropped = remote.namespace.lost()?;
    ensure(dropped > 0, "packets to be lost", || "none".into())?;
    let found = survey(&remote.server.dir)?;
    found.ensure_clean()?;
    found.ensure_kept(&tags)?;
    ensure_eq("error markers", 0, found.errors)?;
    remote.server.stop()?;
    let took = began.elapsed().as_secs_f64();
    Ok(format!("{uploads} uploads in {took:.1} s, {dropped} packets lost"))
}

fn black_hole(context: &Context, unprivileged: bool, dialect: &str) -> Verdict<String> {
    let remote = RemoteServer::start(context, unprivileged)?;
    // Large enough to last until the packets are dropped.
    let file = context.large_file(1, 1 << 30)?;
    let mut client = remote.client(context, &file, &["--handshake", dialect])?;
    let began = wait_until(Duration::from_secs(5), || {
        remote.server.process.cpu_ticks().is_ok_and(|ticks| ticks > 2)
    });
    ensure(began, "a transfer to be under way", || "none is".into())?;
    remote.namespace.lose(Loss::ALL_INCOMING)?;
    let cut = Instant::now();
    let exit = client.wait(Duration::from_secs(20))?;
    let took = exit.at.saturating_duration_since(cut);
    let text = client.stderr().text();
    ensure(exit.status.code().is_some_and(|code| code != 0), "the client to fail", || {
        exit.describe()
    })?;
    ensure(text.starts_with("ERROR: "), "one line on stderr: ERROR: …", || text.clone())?;
    let (low, high) = (Duration::from_millis(9_900), Duration::from_secs(13));
    ensure(took >= low && took <= high, "the client to give up in 10 to 13 s", || {
        format!("{took:?}")
    })?;
    remote.server.expect_error(1)?;
    let found = survey(&remote.server.dir)?;
    found.ensure_clean()?;
    remote.server.stop()?;
    Ok(format!("gave up after {:.1} s: {}", took.as_secs_f64(), text.trim()))
}

fn no_connection(context: &Context, unprivileged: bool) -> Verdict<String> {
    let remote = RemoteServer::start(context, unprivileged)?;
    remote.namespace.lose(Loss::ALL_INCOMING)?;
    let file = context.file(&content(1, 500))?;
    let mut client = remote.client(context, &file, &[])?;
    let exit = client.wait(Duration::from_secs(20))?;
    let took = exit.at.saturating_duration_since(client.started());
    ensure(exit.status.code().is_some_and(|code| code != 0), "the client to fail", || {
        exit.describe()
    })?;
    let (low, high) = (Duration::from_millis(9_900), Duration::from_secs(13));
    ensure(took >= low && took <= high, "the client to give up in 10 to 13 s", || {
        format!("{took:?}")
    })?;
    // Once packets arrive again, the next upload succeeds.
    remote.namespace.lose(Loss::NONE)?;
    thread::sleep(Duration::from_millis(50));
    let mut client = remote.client(context, &file, &[])?;
    let exit = client.wait(Duration::from_secs(20))?;
    ensure_eq("the exit code with the network back", Some(0), exit.status.code())?;
    survey(&remote.server.dir)?.ensure_kept(&[1])?;
    remote.server.stop()?;
    Ok(format!("gave up after {:.1} s", took.as_secs_f64()))
}
