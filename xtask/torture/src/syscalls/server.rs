//! Servers whose system calls fail, during the start or later.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::checks::{check, check_directory, check_journal};
use super::threads::ServerThread::{
    self, Committer, Discarder, Front, Journal, Log, Marker, Worker,
};
use super::threads::start_threads;
use super::work::{PATIENCE, UPLOADS, UploadResults, WARM_UP, length, work};
use crate::directory_oracle::content;
use crate::load::{UploadOutcome, send};
use crate::strace::{self, Counts, InjectedFault, Occurrence, RUNTIME_READY, Tracer};
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::SOON;
use accio_harness::ports;
use accio_harness::process::{Input, Process};
use accio_harness::subject::Program;
use accio_harness::verdict::{Stop, Verdict, ensure};

/// Idle timeout of the servers, in seconds; one upload of the workload reaches it.
const TIMEOUT: &str = "0.25";
/// The tag of the file that is in the directory before the server starts.
const OLD: u64 = 1_000;

/// A server program and its flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServerMode {
    pub(super) name: &'static str,
    /// Whether it prints the number of received bytes instead of keeping files.
    pub(super) counts: bool,
    pub(super) flags: &'static [&'static str],
    /// Whether it keeps a journal.
    pub(super) journal: bool,
    /// The threads whose calls fail while it serves.
    pub(super) threads: &'static [ServerThread],
    /// Tested in the full run only.
    pub(super) more: bool,
}

pub(super) const SERVERS: [ServerMode; 6] = [
    ServerMode {
        name: "accio-server",
        counts: false,
        flags: &[],
        journal: false,
        threads: &[Front, Worker, Marker, Discarder, Log],
        more: false,
    },
    ServerMode {
        name: "accio-server-durable",
        counts: false,
        flags: &["--durable", "--min-free", "1"],
        journal: false,
        threads: &[Front, Worker, Marker, Committer, Discarder],
        more: false,
    },
    ServerMode {
        name: "accio-server-named",
        counts: false,
        flags: &["--without", "tmpfile", "--without", "splice", "--durable"],
        journal: false,
        threads: &[Worker, Marker, Committer, Discarder],
        more: true,
    },
    ServerMode {
        name: "accio-server-journal",
        counts: false,
        flags: &["--durable"],
        journal: true,
        threads: &[Journal],
        more: false,
    },
    ServerMode {
        name: "server-s",
        counts: true,
        flags: &[],
        journal: false,
        threads: &[Front, Worker, Marker],
        more: false,
    },
    ServerMode {
        name: "server-s-portable",
        counts: true,
        flags: &["--without", "truncate"],
        journal: false,
        threads: &[Front, Worker, Marker],
        more: true,
    },
];

/// A server that was started, but may have failed.
pub(super) struct FailingServer {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
    pub(super) dir: PathBuf,
    /// The journal, if it keeps one.
    pub(super) journal: PathBuf,
    /// Whether it listens, according to its log.
    listens: bool,
}

impl FailingServer {
    fn check(&self, mode: ServerMode, results: &UploadResults) -> Verdict {
        let lines = mode.counts.then(|| self.process.stdout().text());
        check(lines.as_deref(), &self.dir, results)?;
        if mode.journal {
            check_journal(&self.journal, &self.process.stderr().text(), results)?;
        }
        Ok(())
    }

    fn check_directory(&self, mode: ServerMode, results: &UploadResults) -> Verdict {
        if mode.counts { Ok(()) } else { check_directory(&self.dir, results) }
    }
}

pub(super) fn start(
    context: &Context,
    mode: ServerMode,
    wrapper: &[String],
) -> Verdict<FailingServer> {
    let own = wrapper.iter().any(|word| word.starts_with("trace=bind") || word == "trace=listen");
    for _ in 0..5 {
        let started = start_once(context, mode, wrapper)?;
        // Another process took the port first.
        if started.listens || own || !started.process.stderr().text().contains("in use") {
            return Ok(started);
        }
    }
    Err(Stop::Trouble("no port stays free".into()))
}

fn start_once(context: &Context, mode: ServerMode, wrapper: &[String]) -> Verdict<FailingServer> {
    let (dir, journal) = (context.fresh("received"), context.fresh("journal"));
    fs::create_dir(&dir)?;
    if !mode.counts {
        fs::write(dir.join("3.file"), content(OLD, 4_000))?;
    }
    let port = ports::free()?;
    let mut words: Vec<String> = wrapper.to_vec();
    let program = if mode.counts { Program::ServerS } else { Program::Server };
    words.push(context.command(program)?.get_program().to_string_lossy().into_owned());
    words.push(port.to_string());
    if !mode.counts {
        words.push(dir.to_string_lossy().into_owned());
        // Failures are counted per thread, so only one thread may do the work.
        words.extend(["--workers", "1"].map(String::from));
    }
    words.extend(["--timeout", TIMEOUT].map(String::from));
    words.extend(mode.flags.iter().map(|flag| (*flag).to_owned()));
    if mode.journal {
        words.extend(["--journal".to_owned(), journal.to_string_lossy().into_owned()]);
    }
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
    // The log line itself may fail to be written; the server listens nevertheless.
    let mut started =
        FailingServer { process, address, dir, journal, listens: listens == Some(true) };
    if !started.listens && !started.process.has_ended()? {
        started.listens = true;
    }
    Ok(started)
}

/// Returns the calls during the start: those of the runtime, and all.
pub(super) fn record_start(context: &Context, mode: ServerMode) -> Verdict<(Counts, Counts)> {
    let record = context.fresh("start.trace");
    let server = start(context, mode, &strace::wrapper(&[], &record))?;
    ensure(server.listens, "a healthy start", || server.process.stderr().text())?;
    // The server starts its threads after it has logged that it listens.
    thread::sleep(Duration::from_millis(100));
    strace::release(server.process.pid())?;
    drop(server);
    Ok((strace::calls_up_to(&record, RUNTIME_READY)?, strace::calls_up_to(&record, "clone3(")?))
}

/// Returns the calls of a thread while it serves.
pub(super) fn record_service(
    context: &Context,
    mode: ServerMode,
    server_thread: ServerThread,
) -> Verdict<Counts> {
    let server = start(context, mode, &[])?;
    start_threads(server.address)?;
    let record = context.fresh("service.trace");
    let tracer = Tracer::attach(context, server_thread.of(&server.process)?, &[], &record)?;
    let results = work(server.address, PATIENCE);
    tracer.detach()?;
    ensure(results.confirmed.len() == UPLOADS, "the recorded uploads to be confirmed", || {
        format!("{:?} are", results.confirmed)
    })?;
    strace::most_per_thread(&record)
}

pub(super) fn fail_start(
    context: &Context,
    mode: ServerMode,
    fault: &InjectedFault,
) -> Verdict<String> {
    let record = context.fresh("trace");
    let wrapper = strace::wrapper(&fault.options(), &record);
    let mut server = start(context, mode, &wrapper)?;
    // The server listens before it starts the worker, and starting the worker may fail.
    let pid = server.process.pid();
    wait_until(SOON, || {
        server.process.has_ended().unwrap_or(true)
            || strace::thread_named(pid, "accio-worker-1").is_some()
    });
    if !server.listens || server.process.has_ended()? {
        let exit = server.process.wait(SOON)?;
        let text = server.process.stderr().text();
        if fault.call == "mmap" || fault.call == "clone3" {
            // Without memory the runtime aborts; it must only leave no file.
            ensure(exit.status.code() != Some(0), "the server to fail", || exit.describe())?;
        } else {
            let valid = exit.status.code() == Some(1) || exit.status.code() == Some(2);
            ensure(valid, "exit code 1 or 2", || format!("{}: {text:?}", exit.describe()))?;
            let errors = text.lines().filter(|line| line.starts_with("ERROR: ")).count();
            let reported = errors == 1 || fault.call == "write";
            ensure(reported, "one line on stderr: ERROR: …", || format!("{text:?}"))?;
        }
        start_again(context, &server.dir, mode, fault)?;
        server.check_directory(mode, &UploadResults::default())?;
        return Ok("does not start".into());
    }
    strace::release(server.process.pid())?;
    let results = work(server.address, PATIENCE);
    ensure(results.confirmed.len() == UPLOADS, "the server to work once it listens", || {
        format!("confirmed {:?}", results.confirmed)
    })?;
    stop(&mut server)?;
    start_again(context, &server.dir, mode, fault)?;
    server.check(mode, &results)?;
    Ok("serves".into())
}

pub(super) fn fail_service(
    context: &Context,
    mode: ServerMode,
    server_thread: ServerThread,
    fault: &InjectedFault,
) -> Verdict<String> {
    let mut server = start(context, mode, &[])?;
    ensure(server.listens, "a healthy start", || server.process.stderr().text())?;
    start_threads(server.address)?;
    let descriptors = server.process.descriptors()?;
    let record = context.fresh("trace");
    let target = server_thread.of(&server.process)?;
    let tracer = Tracer::attach(context, target, &fault.options(), &record)?;
    let mut results = work(server.address, PATIENCE);
    results.confirmed.push(WARM_UP);
    if matches!(fault.when, Occurrence::From(_)) && !server.process.has_ended()? {
        // A server that is about to end cannot be measured.
        if let Err(stop @ Stop::Fault(_)) = expect_idle(&server.process) {
            return Err(stop);
        }
    }
    tracer.detach()?;
    let injected = fs::read_to_string(&record)?.matches("(INJECTED)").count();

    // Wait for longer than the listener pauses after a failed accept.
    thread::sleep(Duration::from_millis(120));
    let next = 20;
    let outcome = send(server.address, &content(next, length(next)), SOON);
    if outcome != UploadOutcome::Confirmed || server.process.has_ended()? {
        ensure_own_end(&mut server, mode, fault)?;
        server.check_directory(mode, &results)?;
        return Ok(format!("{injected} faults; the server ends and reports the reason"));
    }
    results.confirmed.push(next);
    results.outcomes.push(outcome);
    // The worker keeps its pipe, which has two descriptors.
    let back = wait_until(Duration::from_secs(2), || {
        server.process.descriptors().is_ok_and(|now| now <= descriptors + 2)
    });
    ensure(back, format!("{descriptors} descriptors and a pipe"), || {
        format!("{:?}", server.process.descriptors())
    })?;
    stop(&mut server)?;
    start_again(context, &server.dir, mode, fault)?;
    server.check(mode, &results)?;
    Ok(format!("{injected} faults"))
}

/// Returns a fault unless the server has ended because of a failure that does not concern a single
/// connection.
fn ensure_own_end(server: &mut FailingServer, mode: ServerMode, fault: &InjectedFault) -> Verdict {
    wait_until(Duration::from_secs(1), || server.process.has_ended().unwrap_or(true));
    let ended = server.process.has_ended()?;
    ensure(ended, "the next upload to be confirmed", || {
        "it is not, although the server is running".into()
    })?;
    let exit = server.process.wait(SOON)?;
    let text = server.process.stderr().text();
    let own = ["epoll_ctl", "epoll_wait", "epoll_pwait"].contains(&fault.call.as_str())
        // The server that prints its results to stdout.
        || (mode.counts && fault.call == "write");
    let reported = text.contains("ERROR: cannot ") || fault.call == "write";
    let good = own && exit.status.code() == Some(1) && reported;
    ensure(good, "the server to survive", || format!("{}: {text:?}", exit.describe()))
}

/// Returns a fault if the process uses the CPU while it has nothing to do.
fn expect_idle(process: &Process) -> Verdict {
    let before = process.cpu_ticks()?;
    thread::sleep(Duration::from_millis(600));
    let used = process.cpu_ticks()?.saturating_sub(before);
    // Under a tracer every system call takes ten times as long.
    ensure(used <= 9, "at most 9 clock ticks in 0.6 idle seconds", || format!("{used}"))
}

/// Starts another server on the directory, which removes files that this one could not.
fn start_again(context: &Context, dir: &Path, mode: ServerMode, fault: &InjectedFault) -> Verdict {
    if fault.call == "unlinkat" && !mode.counts {
        context.server_into(dir, mode.flags)?.stop()?;
    }
    Ok(())
}

/// Sends SIGTERM and returns a fault unless the server exits with 0 within a second.
pub(super) fn stop(server: &mut FailingServer) -> Verdict {
    server.process.signal(Signal::TERM)?;
    let sent = Instant::now();
    let exit = server.process.wait(SOON)?;
    let took = exit.at.saturating_duration_since(sent);
    let good = exit.status.code() == Some(0) && took < Duration::from_millis(1_200);
    ensure(good, "exit code 0 within a second of SIGTERM", || {
        format!("{} after {took:?}: {}", exit.describe(), server.process.stderr().text())
    })
}
