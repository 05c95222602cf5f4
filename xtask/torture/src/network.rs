//! A network that loses packets: some of them, and then all.
//!
//! The programs run in two network namespaces of their own with a cable between them; nftables
//! drops what comes in at the server's end.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::folder_oracle::{content, survey};
use super::runner::{Case, Plan};
use super::volume::command;
use super::{ensure_root, ensure_tool};
use accio_harness::context::{Context, Server, wait_until};
use accio_harness::process::{Input, Process};
use accio_harness::subject::Program;
use accio_harness::verdict::{Stop, Verdict, ensure, ensure_eq};

/// Both ends have the same addresses in each pair; nobody else sees them.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);

pub(super) fn cases(plan: &Plan) -> Vec<Case> {
    let unprivileged = plan.unprivileged;
    let mut cases = Vec::new();
    for (percent, uploads) in [(3, plan.scale(6, 20)), (10, plan.scale(2, 8))] {
        let about = "every upload arrives whole";
        let case = Case::new(format!("network/loss-{percent}-percent"), about, move |context| {
            loss(context, unprivileged, percent, uploads)
        });
        cases.push(case.within(Duration::from_secs(240)));
    }
    for dialect in ["accio", "confirm"] {
        let about =
            "all is lost mid-transfer: the client gives up in 10 to 13 s, the file is ERROR";
        cases.push(Case::new(format!("network/black-hole-{dialect}"), about, move |context| {
            black_hole(context, unprivileged, dialect)
        }));
    }
    let about = "all is lost from the start: the client gives up in 10 to 13 s";
    cases.push(Case::new("network/black-hole-connect", about, move |context| {
        no_connection(context, unprivileged)
    }));
    cases
}

/// The namespaces there are now.
static NAMES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn names() -> MutexGuard<'static, Vec<String>> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes whatever there is.
pub(super) fn remove_all() {
    for name in names().iter() {
        let _ = command("ip", &["netns", "del", name], &[]);
    }
}

/// Two namespaces with a cable between them; they go with their handle.
#[derive(Debug)]
struct Pair {
    server: String,
    client: String,
}

impl Pair {
    fn new(unprivileged: bool) -> Verdict<Pair> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        ensure_root(unprivileged)?;
        ensure_tool("ip")?;
        ensure_tool("nft")?;
        let unique = format!("{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let pair =
            Pair { server: format!("accio-s-{unique}"), client: format!("accio-c-{unique}") };
        let missing = |why| Stop::skip(format!("no network namespaces: {why}"));
        let ip = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            command("ip", &words, &[])
        };
        let Pair { server, client } = &pair;
        for name in [server, client] {
            names().push(name.clone());
            ip(&format!("netns add {name}")).map_err(missing)?;
        }
        ip(&format!("link add a0 netns {server} type veth peer name b0 netns {client}"))
            .map_err(missing)?;
        for (name, device, address) in [(server, "a0", SERVER), (client, "b0", CLIENT)] {
            ip(&format!("-n {name} address add {address}/24 dev {device}")).map_err(missing)?;
            ip(&format!("-n {name} link set {device} up")).map_err(missing)?;
        }
        Ok(pair)
    }

    /// Words that run the rest in the server's or the client's namespace.
    fn inside(name: &str) -> [&str; 4] {
        ["ip", "netns", "exec", name]
    }

    /// Replaces the rules for what comes in at the server's end.
    fn rule(&self, rule: &str) -> Verdict {
        let rules = format!(
            "add table inet accio; flush table inet accio; add chain inet accio in {{ type filter \
             hook input priority 0; }}; {rule}"
        );
        let words = ["netns", "exec", &self.server, "nft", &rules];
        command("ip", &words, &[])
            .map_err(|why| Stop::skip(format!("nftables cannot drop packets here: {why}")))
    }

    /// How many packets were dropped.
    fn dropped(&self) -> Verdict<u64> {
        let mut list = Command::new("ip");
        list.args(["netns", "exec", &self.server, "nft", "list", "table", "inet", "accio"]);
        let text = String::from_utf8_lossy(&list.output()?.stdout).into_owned();
        let word = text.split("counter packets ").nth(1).unwrap_or_default();
        let number = word.split_whitespace().next().unwrap_or_default();
        number.parse().map_err(|_| Stop::Trouble(format!("no counter in {text:?}")))
    }

    fn server(&self, context: &Context, flags: &[&str]) -> Verdict<Server> {
        context.server_wrapped(&Pair::inside(&self.server), flags)
    }

    fn client(
        &self,
        context: &Context,
        port: u16,
        file: &std::path::Path,
        flags: &[&str],
    ) -> Verdict<Process> {
        let [outer, words @ ..] = Pair::inside(&self.client);
        let mut command = Command::new(outer);
        command.args(words).arg(context.command(Program::Client)?.get_program());
        command.args([SERVER.to_string(), port.to_string()]).arg(file).args(flags);
        context.spawn(command, Input::Null)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in [&self.server, &self.client] {
            // It may never have been made.
            let _ = command("ip", &["netns", "del", name], &[]);
            names().retain(|other| other != name);
        }
    }
}

const DROP_ALL: &str = "add rule inet accio in ip protocol tcp counter drop";

fn loss(context: &Context, unprivileged: bool, percent: u32, uploads: usize) -> Verdict<String> {
    let pair = Pair::new(unprivileged)?;
    let server = pair.server(context, &[])?;
    pair.rule(&format!(
        "add rule inet accio in ip protocol tcp numgen random mod 100 < {percent} counter drop"
    ))?;
    let mut tags = Vec::new();
    let began = Instant::now();
    for number in 0..uploads {
        // Large segments make few packets: enough bytes that some are lost each time.
        let tag = number as u64 + 1;
        let size = if number % 2 == 0 { 500 } else { 4 << 20 };
        let file = context.file(&content(tag, size))?;
        let dialect = if number % 4 < 2 { "accio" } else { "confirm" };
        let mut client =
            pair.client(context, server.port, &file, &["-v", "--handshake", dialect])?;
        let exit = client.wait(Duration::from_secs(60))?;
        ensure(exit.status.code() == Some(0), "the client to succeed", || {
            format!("{}: {}", exit.describe(), client.stderr().text())
        })?;
        fs::remove_file(file)?;
        tags.push(tag);
    }
    let dropped = pair.dropped()?;
    ensure(dropped > 0, "packets to be lost", || "none".into())?;
    let found = survey(&server.dir)?;
    found.ensure_clean()?;
    found.ensure_kept(&tags)?;
    ensure_eq("error markers", 0, found.errors)?;
    server.stop()?;
    let took = began.elapsed().as_secs_f64();
    Ok(format!("{uploads} uploads in {took:.1} s, {dropped} packets lost"))
}

fn black_hole(context: &Context, unprivileged: bool, dialect: &str) -> Verdict<String> {
    let pair = Pair::new(unprivileged)?;
    let server = pair.server(context, &[])?;
    // Large enough to be under way for a while.
    let file = context.large_file(1, 1 << 30)?;
    let mut client = pair.client(context, server.port, &file, &["--handshake", dialect])?;
    let began = wait_until(Duration::from_secs(5), || {
        server.process.cpu_ticks().is_ok_and(|ticks| ticks > 2)
    });
    ensure(began, "a transfer under way", || "none".into())?;
    pair.rule(DROP_ALL)?;
    let cut = Instant::now();
    let exit = client.wait(Duration::from_secs(20))?;
    let took = exit.at.saturating_duration_since(cut);
    let text = client.stderr().text();
    ensure(exit.status.code().is_some_and(|code| code != 0), "the client to fail", || {
        exit.describe()
    })?;
    ensure(text.starts_with("ERROR: "), "one line on stderr: ERROR: …", || text.clone())?;
    let (low, high) = (Duration::from_millis(9_900), Duration::from_secs(13));
    ensure(took >= low && took <= high, "it to give up in 10 to 13 s", || format!("{took:?}"))?;
    server.expect_error(1)?;
    let gone = survey(&server.dir)?;
    gone.ensure_clean()?;
    server.stop()?;
    Ok(format!("gave up after {:.1} s: {}", took.as_secs_f64(), text.trim()))
}

fn no_connection(context: &Context, unprivileged: bool) -> Verdict<String> {
    let pair = Pair::new(unprivileged)?;
    let server = pair.server(context, &[])?;
    pair.rule(DROP_ALL)?;
    let file = context.file(&content(1, 500))?;
    let mut client = pair.client(context, server.port, &file, &[])?;
    let exit = client.wait(Duration::from_secs(20))?;
    let took = exit.at.saturating_duration_since(client.started());
    ensure(exit.status.code().is_some_and(|code| code != 0), "the client to fail", || {
        exit.describe()
    })?;
    let (low, high) = (Duration::from_millis(9_900), Duration::from_secs(13));
    ensure(took >= low && took <= high, "it to give up in 10 to 13 s", || format!("{took:?}"))?;
    // With the network back, the next is well.
    pair.rule("")?;
    thread::sleep(Duration::from_millis(50));
    let mut client = pair.client(context, server.port, &file, &[])?;
    let exit = client.wait(Duration::from_secs(20))?;
    ensure_eq("the exit code with the network back", Some(0), exit.status.code())?;
    survey(&server.dir)?.ensure_kept(&[1])?;
    server.stop()?;
    Ok(format!("gave up after {:.1} s", took.as_secs_f64()))
}
