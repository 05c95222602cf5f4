//! Every system call that a recorded run makes fails, in every way it may: once at each place, a
//! few times in a row, and from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::cases::{Case, Plan};
use super::folder::{self, content, survey};
use super::load::{Ending, Fate, send, upload};
use super::strace::{self, Fault, Tracer, When};
use super::table::{Failures, PASSING, failures};
use crate::e2e::context::{Context, wait_until};
use crate::e2e::peer::{Dialect, SOON};
use crate::e2e::ports;
use crate::e2e::process::{Input, Process};
use crate::e2e::subject::Program;
use crate::e2e::verdict::{During, Stop, Verdict, ensure};

/// How long an upload of the workload waits for the next sign of the server.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// The idle timeout of the servers, so that one upload of the workload can see it.
const TIMEOUT: &str = "0.25";
/// Places at which one call is made to fail, at the most.
const PLACES: usize = 12;
/// The content that is in the folder before the server starts.
const OLD: u64 = 1_000;
/// Lines that only appear after the runtime's own start: what is before `main` is not ours.
const RUNTIME_READY: &str = "SIGBUS, {";

/// A program in a certain mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Subject {
    name: &'static str,
    counts: bool,
    flags: &'static [&'static str],
    /// Only looked at in the full run.
    more: bool,
}

const SERVERS: [Subject; 5] = [
    Subject { name: "accio-server", counts: false, flags: &[], more: false },
    Subject {
        name: "accio-server-durable",
        counts: false,
        flags: &["--durable", "--min-free", "1"],
        more: false,
    },
    Subject {
        name: "accio-server-named",
        counts: false,
        flags: &["--without", "tmpfile", "--without", "splice", "--durable"],
        more: true,
    },
    Subject { name: "server-s", counts: true, flags: &[], more: false },
    Subject {
        name: "server-s-portable",
        counts: true,
        flags: &["--without", "truncate"],
        more: true,
    },
];

/// A client in a certain mode: flags, bytes to send.
const CLIENTS: [(&str, &[&str], usize, bool); 4] = [
    ("accio-client", &[], 700_000, false),
    ("accio-client-portable", &["--without", "sendfile"], 700_000, true),
    ("accio-client-confirm", &["--handshake", "confirm"], 500, true),
    ("accio-client-empty", &[], 0, true),
];

/// Records healthy runs and makes a case of every way in which one of their calls may fail.
pub(crate) fn cases(context: &Context, plan: &Plan) -> Verdict<Vec<Case>> {
    strace::ensure_available()?;
    let mut cases = Vec::new();
    let mut others = Others::default();
    for subject in SERVERS.into_iter().filter(|subject| !(plan.quick && subject.more)) {
        let (start, service) = record_server(context, subject).during(|| subject.name)?;
        for fault in faults(&start.0, &start.1, plan, &mut others) {
            let name = format!("syscalls/{}/start/{}", subject.name, fault.name());
            cases.push(Case::new(name, "it says why it does not start, or serves well", {
                move |context| fail_start(context, subject, &fault)
            }));
        }
        for fault in faults(&BTreeMap::new(), &service, plan, &mut others) {
            let name = format!("syscalls/{}/service/{}", subject.name, fault.name());
            cases.push(Case::new(name, "no lie, no leak, no busy loop, the next exact", {
                move |context| fail_service(context, subject, &fault)
            }));
        }
    }
    for (name, flags, size, more) in CLIENTS {
        if plan.quick && more {
            continue;
        }
        let (before, all) = record_client(context, flags, size).during(|| name)?;
        for fault in faults(&before, &all, plan, &mut others) {
            let name = format!("syscalls/{name}/{}", fault.name());
            cases.push(Case::new(name, "success only for a file that is kept", {
                move |context| fail_client(context, flags, size, &fault)
            }));
        }
    }
    let about = "what could not be synced is not kept, and not synced again";
    cases.push(Case::new("syscalls/fdatasync-is-not-retried", about, sync_fails));
    let calls = count_calls(&cases);
    let Others { left_alone, unknown } = others;
    let about = "every recorded call is in the table";
    cases.push(Case::new("syscalls/table-is-complete", about, move |_| {
        let names = || format!("{unknown:?} are not");
        ensure(unknown.is_empty(), "every recorded call to be in the table", names)?;
        Ok(calls)
    }));
    for (call, why) in left_alone {
        let name = format!("syscalls/left-alone/{call}");
        cases.push(Case::new(name, "not made to fail", move |_| Err(Stop::skip(why))));
    }
    Ok(cases)
}

/// How many calls fail, in how many ways, for people.
fn count_calls(cases: &[Case]) -> String {
    let faults = cases.iter().filter_map(|case| case.name.rsplit_once('/'));
    let mut sites = BTreeSet::new();
    let mut pairs = BTreeSet::new();
    for (place, fault) in faults {
        let Some((pair, when)) = fault.split_once('@') else { continue };
        let call = pair.split('=').next().unwrap_or_default();
        sites.insert(format!("{place}/{call}@{when}"));
        pairs.insert(pair.to_owned());
    }
    let ways = cases.len();
    format!("{} places, {} calls × errnos, {ways} faults in all", sites.len(), pairs.len())
}

/// Recorded calls that get no case.
#[derive(Debug, Default)]
struct Others {
    left_alone: BTreeMap<String, &'static str>,
    unknown: BTreeSet<String>,
}

/// The faults for calls that were made so often in `all`, the first `before` of them left alone.
fn faults(
    before: &BTreeMap<String, usize>,
    all: &BTreeMap<String, usize>,
    plan: &Plan,
    others: &mut Others,
) -> Vec<Fault> {
    let mut found = Vec::new();
    for (call, count) in all {
        let errors = match failures(call) {
            Some(Failures::Errors(errors)) => errors,
            Some(Failures::None(why)) => {
                others.left_alone.insert(call.clone(), why);
                continue;
            }
            None => {
                others.unknown.insert(call.clone());
                continue;
            }
        };
        let first = before.get(call).copied().unwrap_or(0) + 1;
        if first > *count {
            continue;
        }
        let places = *count - first + 1;
        let errors = if plan.quick { &errors[..1] } else { errors };
        for errno in errors.iter().copied() {
            let fault = |when| Fault { call: call.clone(), errno, when };
            let wanted = if plan.quick { 1 } else { PLACES.min(places) };
            // Spread over all places, the first and the last among them.
            let mut at: Vec<usize> = (0..wanted)
                .map(|n| first + if wanted > 1 { n * (places - 1) / (wanted - 1) } else { 0 })
                .collect();
            at.dedup();
            found.extend(at.into_iter().map(|k| fault(When::Once(k))));
            if PASSING.contains(&errno) {
                found.push(fault(When::Burst(first, first + 4)));
            } else {
                found.push(fault(When::From(first)));
                if !plan.quick && places > 1 {
                    found.push(fault(When::From(first + places / 2)));
                }
            }
        }
    }
    found
}

/// A server of ours, started by hand to see it fail.
struct Started {
    process: Process,
    address: SocketAddr,
    dir: std::path::PathBuf,
    /// Whether it said that it listens.
    listens: bool,
}

fn start(context: &Context, subject: Subject, wrapper: &[String]) -> Verdict<Started> {
    let own = wrapper.iter().any(|word| word.starts_with("trace=bind") || word == "trace=listen");
    for _ in 0..5 {
        let started = start_once(context, subject, wrapper)?;
        // Somebody else was faster to take the port.
        if started.listens || own || !started.process.stderr().text().contains("in use") {
            return Ok(started);
        }
    }
    Err(Stop::Trouble("no port stays free".into()))
}

fn start_once(context: &Context, subject: Subject, wrapper: &[String]) -> Verdict<Started> {
    let dir = context.fresh("received");
    fs::create_dir(&dir)?;
    if !subject.counts {
        fs::write(dir.join("3.file"), content(OLD, 4_000))?;
    }
    let port = ports::free()?;
    let mut words: Vec<String> = wrapper.to_vec();
    let program = if subject.counts { Program::ServerS } else { Program::Server };
    words.push(context.command(program)?.get_program().to_string_lossy().into_owned());
    words.push(port.to_string());
    if !subject.counts {
        words.push(dir.to_string_lossy().into_owned());
        // Calls are counted by thread, so there must not be two that do the same.
        words.extend(["--workers", "1"].map(String::from));
    }
    words.extend(["--timeout", TIMEOUT].map(String::from));
    words.extend(subject.flags.iter().map(|flag| (*flag).to_owned()));
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    let process = context.spawn(command, Input::Null)?;
    let silent = wrapper.iter().any(|word| word == "trace=write");
    let patience = if silent { Duration::from_millis(1_000) } else { SOON };
    let listens = process.stderr().wait(patience, |bytes, closed| {
        let text = String::from_utf8_lossy(bytes);
        if text.contains("listening on") {
            return Some(true);
        }
        closed.then_some(false)
    });
    let address = SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port));
    // Its word may be what fails: then it listens all the same.
    let mut started = Started { process, address, dir, listens: listens == Some(true) };
    if !started.listens && !started.process.has_ended()? {
        started.listens = true;
    }
    Ok(started)
}

/// The thread that serves. The others have only made-up troubles with their own pipes.
fn worker(server: &Started) -> Verdict<Pid> {
    let pid = server.process.pid();
    let mut worker = None;
    wait_until(SOON, || {
        worker = strace::thread_named(pid, "accio-worker-1");
        worker.is_some()
    });
    worker.ok_or_else(|| Stop::fault("a thread accio-worker-1", "none"))
}

type Counts = BTreeMap<String, usize>;

/// The calls of the start (those of the runtime before it, and all), and those of the service.
fn record_server(context: &Context, subject: Subject) -> Verdict<((Counts, Counts), Counts)> {
    let record = context.fresh("start.trace");
    let server = start(context, subject, &strace::wrapper(&[], &record))?;
    ensure(server.listens, "a healthy start", || server.process.stderr().text())?;
    // Its threads are started after it says that it listens.
    thread::sleep(Duration::from_millis(100));
    strace::release(server.process.pid())?;
    drop(server);
    let start_up = (strace::before(&record, RUNTIME_READY)?, strace::before(&record, "clone3(")?);

    let server = start(context, subject, &[])?;
    let record = context.fresh("service.trace");
    let tracer = Tracer::attach(context, worker(&server)?, &[], &record)?;
    let outcome = work(server.address, PATIENCE);
    tracer.detach()?;
    ensure(outcome.confirmed.len() == UPLOADS, "the recorded uploads to be confirmed", || {
        format!("{:?} are", outcome.confirmed)
    })?;
    Ok((start_up, strace::most_per_thread(&record)?))
}

/// Uploads of the workload that a healthy server confirms.
const UPLOADS: usize = 6;

/// What the clients of the workload were told.
#[derive(Debug, Default)]
struct Told {
    confirmed: Vec<u64>,
    empty: usize,
    fates: Vec<Fate>,
}

/// The length of each upload, by its tag; all differ, so that a count tells which it was.
fn length(tag: u64) -> usize {
    match tag {
        1 => 500,
        2 => 3 << 20,
        3 => 40_000,
        4 => 200_000,
        7 => 1_500_000,
        _ => 60 + tag as usize,
    }
}

/// Connections one after the other: small, large, confirmed, reset, silent, empty, and some more.
fn work(address: SocketAddr, patience: Duration) -> Told {
    let mut told = Told::default();
    let steps = [
        (1, Dialect::Accio, Ending::Fin),
        (2, Dialect::Accio, Ending::Fin),
        (3, Dialect::Confirm, Ending::Fin),
        (4, Dialect::Accio, Ending::Reset),
        (5, Dialect::Accio, Ending::Silence),
        (6, Dialect::Accio, Ending::Fin),
        (7, Dialect::Accio, Ending::Fin),
    ];
    let mut silent = 0;
    for (tag, dialect, ending) in steps {
        // Once nothing is served any more, more of the same shows nothing.
        if silent >= 2 {
            break;
        }
        let fate = upload(address, dialect, &content(tag, length(tag)), ending, patience);
        if fate == Fate::Confirmed {
            told.confirmed.push(tag);
        }
        silent = if fate == Fate::Silent { silent + 1 } else { 0 };
        told.fates.push(fate);
    }
    if silent < 2 {
        let fate = upload(address, Dialect::Accio, b"", Ending::Fin, patience);
        told.empty += 1;
        if fate == Fate::Confirmed {
            told.confirmed.push(EMPTY);
        }
        told.fates.push(fate);
    }
    told
}

/// Stands for the upload of nothing.
const EMPTY: u64 = 0;

fn fail_start(context: &Context, subject: Subject, fault: &Fault) -> Verdict<String> {
    let record = context.fresh("trace");
    let wrapper = strace::wrapper(&fault.options(), &record);
    let mut server = start(context, subject, &wrapper)?;
    // It listens before it starts the threads that serve: main, the signals', the worker.
    let pid = server.process.pid();
    wait_until(SOON, || server.process.has_ended().unwrap_or(true) || strace::threads(pid) >= 3);
    if !server.listens || server.process.has_ended()? {
        let exit = server.process.wait(SOON)?;
        let text = server.process.stderr().text();
        if fault.call == "mmap" || fault.call == "clone3" {
            // Without memory the runtime gives up by itself; what counts is that nothing is left.
            ensure(exit.status.code() != Some(0), "it to fail", || exit.describe())?;
        } else {
            let fine = exit.status.code() == Some(1) || exit.status.code() == Some(2);
            ensure(fine, "exit code 1", || format!("{}: {text:?}", exit.describe()))?;
            let errors = text.lines().filter(|line| line.starts_with("ERROR: ")).count();
            let spoken = errors == 1 || fault.call == "write";
            ensure(spoken, "one line on stderr: ERROR: …", || format!("{text:?}"))?;
        }
        start_again(context, &server.dir, subject, fault)?;
        check_folder(&server.dir, subject, &Told::default())?;
        return Ok("does not start".into());
    }
    strace::release(server.process.pid())?;
    let outcome = work(server.address, PATIENCE);
    ensure(outcome.confirmed.len() == UPLOADS, "it to serve well once it listens", || {
        format!("confirmed {:?}", outcome.confirmed)
    })?;
    stop(&mut server)?;
    start_again(context, &server.dir, subject, fault)?;
    check(&server, subject, &outcome)?;
    Ok("serves".into())
}

fn fail_service(context: &Context, subject: Subject, fault: &Fault) -> Verdict<String> {
    let mut server = start(context, subject, &[])?;
    ensure(server.listens, "a healthy start", || server.process.stderr().text())?;
    let descriptors = server.process.descriptors()?;
    let record = context.fresh("trace");
    let tracer = Tracer::attach(context, worker(&server)?, &fault.options(), &record)?;
    let mut outcome = work(server.address, PATIENCE);
    if matches!(fault.when, When::From(_)) && !server.process.has_ended()? {
        // Nothing to measure in one that is ending.
        if let Err(stop @ Stop::Fault(_)) = expect_idle(&server.process) {
            return Err(stop);
        }
    }
    tracer.detach()?;
    let injected = fs::read_to_string(&record)?.matches("(INJECTED)").count();

    // Half of the listener's rest, then some.
    thread::sleep(Duration::from_millis(120));
    let next = 20;
    let fate = send(server.address, &content(next, length(next)), SOON);
    if fate != Fate::Confirmed || server.process.has_ended()? {
        ensure_own_end(&mut server, subject, fault)?;
        check_folder(&server.dir, subject, &outcome)?;
        return Ok(format!("{injected} faults; it ends, and says why"));
    }
    outcome.confirmed.push(next);
    outcome.fates.push(fate);
    // The pipe of its one worker stays.
    let back = wait_until(Duration::from_secs(2), || {
        server.process.descriptors().is_ok_and(|now| now <= descriptors + 2)
    });
    ensure(back, format!("{descriptors} descriptors, and a pipe"), || {
        format!("{:?}", server.process.descriptors())
    })?;
    stop(&mut server)?;
    start_again(context, &server.dir, subject, fault)?;
    check(&server, subject, &outcome)?;
    Ok(format!("{injected} faults"))
}

/// A fault unless the server has ended, for a reason that is its own and not a connection's.
fn ensure_own_end(server: &mut Started, subject: Subject, fault: &Fault) -> Verdict {
    wait_until(Duration::from_secs(1), || server.process.has_ended().unwrap_or(true));
    let ended = server.process.has_ended()?;
    ensure(ended, "the next upload to be confirmed", || "it is not, yet the server lives".into())?;
    let exit = server.process.wait(SOON)?;
    let text = server.process.stderr().text();
    let own = ["epoll_ctl", "epoll_wait", "epoll_pwait"].contains(&fault.call.as_str())
        // The one that prints its results.
        || (subject.counts && fault.call == "write");
    let spoken = text.contains("ERROR: cannot ") || fault.call == "write";
    let good = own && exit.status.code() == Some(1) && spoken;
    ensure(good, "the server to live", || format!("{}: {text:?}", exit.describe()))
}

/// A fault if the process is busy while nothing can go on.
fn expect_idle(process: &Process) -> Verdict {
    let before = process.cpu_ticks()?;
    thread::sleep(Duration::from_millis(600));
    let used = process.cpu_ticks()?.saturating_sub(before);
    // A tracer makes every call cost ten times as much.
    ensure(used <= 9, "at most 9 clock ticks in 0.6 idle seconds", || format!("{used}"))
}

/// What could not be removed goes with the next start on the same folder.
fn start_again(context: &Context, dir: &Path, subject: Subject, fault: &Fault) -> Verdict {
    if fault.call == "unlinkat" && !subject.counts {
        context.server_into(dir, subject.flags)?.stop()?;
    }
    Ok(())
}

/// A fault unless it ends well when told to.
fn stop(server: &mut Started) -> Verdict {
    server.process.signal(Signal::TERM)?;
    let told = Instant::now();
    let exit = server.process.wait(SOON)?;
    let took = exit.at.saturating_duration_since(told);
    let good = exit.status.code() == Some(0) && took < Duration::from_millis(1_200);
    ensure(good, "exit code 0 within a second of SIGTERM", || {
        format!("{} after {took:?}: {}", exit.describe(), server.process.stderr().text())
    })
}

/// A fault unless it left nothing but what it may.
fn check(server: &Started, subject: Subject, outcome: &Told) -> Verdict {
    if subject.counts {
        check_lines(&server.process.stdout().text(), outcome)
    } else {
        check_folder(&server.dir, subject, outcome)
    }
}

fn check_folder(dir: &Path, subject: Subject, outcome: &Told) -> Verdict {
    if subject.counts {
        return Ok(());
    }
    let found = survey(dir)?;
    let kept: Vec<u64> = outcome.confirmed.iter().copied().filter(|tag| *tag != EMPTY).collect();
    found.ensure_clean()?;
    found.ensure_kept(&kept)?;
    ensure(found.empty <= outcome.empty, "only the empty upload to be empty", || {
        format!("{} empty files", found.empty)
    })?;
    ensure(
        found.empty >= usize::from(outcome.confirmed.contains(&EMPTY)),
        "the confirmed empty file",
        || "none".into(),
    )?;
    // What was reset or fell silent by design is never kept.
    for tag in [4, 5] {
        let kept = found.whole.contains_key(&tag);
        ensure(!kept, format!("upload {tag}, never ended, not to be kept"), || "it is".into())?;
    }
    Ok(())
}

fn check_lines(text: &str, outcome: &Told) -> Verdict {
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines {
        let number = line.parse::<usize>().ok();
        let known = *line == "ERROR"
            || number
                .is_some_and(|number| number == 0 || (1..=20).any(|tag| length(tag) == number));
        ensure(known, "only counts of what was sent, or ERROR", || format!("{line:?}"))?;
    }
    for tag in &outcome.confirmed {
        let line = if *tag == EMPTY { 0 } else { length(*tag) }.to_string();
        let counted = lines.iter().filter(|other| **other == line).count() == 1;
        ensure(counted, format!("one line {line} for a confirmed upload"), || text.to_owned())?;
    }
    for tag in [4, 5] {
        let line = length(tag).to_string();
        let counted = lines.contains(&line.as_str());
        ensure(!counted, format!("no line {line}: it never ended"), || text.to_owned())?;
    }
    Ok(())
}

/// The calls of a healthy client: those of the runtime before it, and all.
fn record_client(context: &Context, flags: &[&str], size: usize) -> Verdict<(Counts, Counts)> {
    let record = context.fresh("client.trace");
    let server = context.server(&[])?;
    let file = context.file(&source(size))?;
    let (mut client, _) = run_client(context, server.port, &file, flags, &[], &record)?;
    let exit = client.wait(SOON)?;
    ensure(exit.status.code() == Some(0), "a healthy transfer", || client.stderr().text())?;
    Ok((strace::before(&record, RUNTIME_READY)?, strace::most_per_thread(&record)?))
}

fn source(size: usize) -> Vec<u8> {
    if size == 0 { Vec::new() } else { content(1, size) }
}

fn run_client(
    context: &Context,
    port: u16,
    file: &Path,
    flags: &[&str],
    options: &[String],
    record: &Path,
) -> Verdict<(Process, Instant)> {
    let words = strace::wrapper(options, record);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(context.command(Program::Client)?.get_program());
    command.args(["127.0.0.1", &port.to_string()]).arg(file);
    command.args(["--timeout", "1", "-v"]).args(flags);
    Ok((context.spawn(command, Input::Null)?, Instant::now()))
}

fn fail_client(context: &Context, flags: &[&str], size: usize, fault: &Fault) -> Verdict<String> {
    let server = context.server(&["--timeout", "2"])?;
    let file = context.file(&source(size))?;
    let record = context.fresh("trace");
    let (mut client, _) =
        run_client(context, server.port, &file, flags, &fault.options(), &record)?;
    // Four limits of a second each, and a tracer.
    let exit = client.wait(Duration::from_secs(8))?;
    let text = client.stderr().text();
    let succeeded = exit.status.code() == Some(0);
    let out_of_memory = fault.call == "mmap" || fault.call == "clone3";
    if !succeeded && !out_of_memory {
        let died = exit.status.code().is_none_or(|code| code == 101);
        ensure(!died, "an exit code of its own", || format!("{}: {text}", exit.describe()))?;
        let errors = text.lines().filter(|line| line.starts_with("ERROR: ")).count();
        let spoken = errors == 1 || fault.call == "write";
        ensure(spoken, "one line on stderr: ERROR: …", || format!("{text:?}"))?;
    }
    // The next one is well, and after it the server has dealt with this one.
    let other = context.file(&content(2, 3_000))?;
    context.send(server.port, &other, &[]).during(|| "the next upload")?;
    wait_until(Duration::from_millis(300), || {
        survey(&server.dir).is_ok_and(|found| found.whole.len() + found.errors >= 2)
    });
    let found = survey(&server.dir)?;
    found.ensure_clean()?;
    found.ensure_kept(&[2])?;
    if size > 0 {
        if succeeded {
            found.ensure_kept(&[1]).during(|| text.clone())?;
        }
        ensure(found.empty == 0, "no empty file", || format!("{} of them", found.empty))?;
    } else if succeeded {
        ensure(found.empty == 1, "one empty file", || format!("{} of them", found.empty))?;
    }
    let injected = fs::read_to_string(&record)?.matches("(INJECTED)").count();
    server.stop()?;
    Ok(format!("{injected} faults, {}", exit.describe()))
}

/// The first fdatasync fails: the bytes it was for are gone, whatever a second one says.
fn sync_fails(context: &Context) -> Verdict<String> {
    let subject = SERVERS[1];
    let mut server = start(context, subject, &[])?;
    let fault = Fault { call: "fdatasync".into(), errno: "EIO", when: When::Once(1) };
    let mut options = fault.options();
    options[1] = "trace=fdatasync,ftruncate,write,linkat".into();
    let record = context.fresh("trace");
    let tracer = Tracer::attach(context, worker(&server)?, &options, &record)?;
    let fate = send(server.address, &content(1, 100_000), SOON);
    tracer.detach()?;
    ensure(fate == Fate::Refused, "a reset", || format!("{fate:?}"))?;
    let trace = fs::read_to_string(&record)?;
    let call = |line: &str, name: &str| line.starts_with(&format!("{name}("));
    let after: Vec<&str> = trace.lines().skip_while(|line| !line.contains("INJECTED")).collect();
    let calls = ["fdatasync", "ftruncate"];
    let next = after.iter().skip(1).find(|line| calls.iter().any(|name| call(line, name)));
    ensure(
        next.is_some_and(|line| call(line, "ftruncate")),
        "the bytes to be dropped next",
        || trace.clone(),
    )?;
    let found = folder::survey(&server.dir)?;
    ensure(found.errors == 1 && !found.whole.contains_key(&1), "1.file to be ERROR", || {
        format!("{found:?}")
    })?;
    stop(&mut server)?;
    Ok("1 fault".into())
}
