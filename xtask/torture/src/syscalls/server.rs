//! A server whose calls fail, at its start or while it serves.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::checks::{check, check_folder};
use super::work::{PATIENCE, UPLOADS, UploadResults, length, work};
use crate::folder_oracle::{content, survey};
use crate::load::{Fate, send};
use crate::strace::{self, Counts, Fault, RUNTIME_READY, Tracer, When};
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::SOON;
use accio_harness::ports;
use accio_harness::process::{Input, Process};
use accio_harness::subject::Program;
use accio_harness::verdict::{Stop, Verdict, ensure};

/// The idle timeout of the servers, so that one upload of the workload can see it.
const TIMEOUT: &str = "0.25";
/// The one thread that serves.
const WORKER: &str = "accio-worker-1";
/// The content that is in the folder before the server starts.
const OLD: u64 = 1_000;

/// A program in a certain mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) counts: bool,
    pub(super) flags: &'static [&'static str],
    /// Only looked at in the full run.
    pub(super) more: bool,
}

pub(super) const SERVERS: [Subject; 5] = [
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
/// A server that is started in order to fail.
pub(super) struct Started {
    pub(super) process: Process,
    address: SocketAddr,
    pub(super) dir: std::path::PathBuf,
    /// Whether it said that it listens.
    listens: bool,
}

impl Started {
    fn check(&self, subject: Subject, outcome: &UploadResults) -> Verdict {
        let lines = subject.counts.then(|| self.process.stdout().text());
        check(lines.as_deref(), &self.dir, outcome)
    }

    fn check_folder(&self, subject: Subject, outcome: &UploadResults) -> Verdict {
        if subject.counts { Ok(()) } else { check_folder(&self.dir, outcome) }
    }
}

fn start(context: &Context, subject: Subject, wrapper: &[String]) -> Verdict<Started> {
    let own = wrapper.iter().any(|word| word.starts_with("trace=bind") || word == "trace=listen");
    for _ in 0..5 {
        let started = start_once(context, subject, wrapper)?;
        // Another process took the port first.
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
        worker = strace::thread_named(pid, WORKER);
        worker.is_some()
    });
    worker.ok_or_else(|| Stop::fault(format!("a thread {WORKER}"), "none"))
}
/// The calls of the start (those of the runtime before it, and all), and those of the service.
pub(super) fn record_server(
    context: &Context,
    subject: Subject,
) -> Verdict<((Counts, Counts), Counts)> {
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
pub(super) fn fail_start(context: &Context, subject: Subject, fault: &Fault) -> Verdict<String> {
    let record = context.fresh("trace");
    let wrapper = strace::wrapper(&fault.options(), &record);
    let mut server = start(context, subject, &wrapper)?;
    // It listens before it starts the thread that serves, which may be what fails.
    let pid = server.process.pid();
    wait_until(SOON, || {
        server.process.has_ended().unwrap_or(true) || strace::thread_named(pid, WORKER).is_some()
    });
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
        server.check_folder(subject, &UploadResults::default())?;
        return Ok("does not start".into());
    }
    strace::release(server.process.pid())?;
    let outcome = work(server.address, PATIENCE);
    ensure(outcome.confirmed.len() == UPLOADS, "it to serve well once it listens", || {
        format!("confirmed {:?}", outcome.confirmed)
    })?;
    stop(&mut server)?;
    start_again(context, &server.dir, subject, fault)?;
    server.check(subject, &outcome)?;
    Ok("serves".into())
}

pub(super) fn fail_service(context: &Context, subject: Subject, fault: &Fault) -> Verdict<String> {
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
        server.check_folder(subject, &outcome)?;
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
    server.check(subject, &outcome)?;
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

/// The next start on the same folder removes what could not be removed.
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
/// The first fdatasync fails: the bytes it was for are gone, whatever a second one says.
pub(super) fn sync_fails(context: &Context) -> Verdict<String> {
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
    let found = survey(&server.dir)?;
    ensure(found.errors == 1 && !found.whole.contains_key(&1), "1.file to be ERROR", || {
        format!("{found:?}")
    })?;
    stop(&mut server)?;
    Ok("1 fault".into())
}
