//! Clients whose system calls fail.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::directory_oracle::{content, survey};
use crate::strace::{self, Counts, InjectedFault, RUNTIME_READY};
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::SOON;
use accio_harness::process::{Input, Process};
use accio_harness::subject::Program;
use accio_harness::verdict::{During, Verdict, ensure};

/// Returns the calls of a healthy client: those of the runtime's start-up, and all.
pub(super) fn record_client(
    context: &Context,
    flags: &[&str],
    size: usize,
) -> Verdict<(Counts, Counts)> {
    let record = context.fresh("client.trace");
    let server = context.server(&[])?;
    let file = context.file(&source(size))?;
    let (mut client, _) = run_client(context, server.port, &file, flags, &[], &record)?;
    let exit = client.wait(SOON)?;
    ensure(exit.status.code() == Some(0), "a healthy transfer", || client.stderr().text())?;
    Ok((strace::calls_up_to(&record, RUNTIME_READY)?, strace::most_per_thread(&record)?))
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

pub(super) fn fail_client(
    context: &Context,
    flags: &[&str],
    size: usize,
    fault: &InjectedFault,
) -> Verdict<String> {
    let server = context.server(&["--timeout", "2"])?;
    let file = context.file(&source(size))?;
    let record = context.fresh("trace");
    let (mut client, _) =
        run_client(context, server.port, &file, flags, &fault.options(), &record)?;
    // The client may reach four time limits of a second each, and the tracer slows it down.
    let exit = client.wait(Duration::from_secs(8))?;
    let text = client.stderr().text();
    let succeeded = exit.status.code() == Some(0);
    let out_of_memory = fault.call == "mmap" || fault.call == "clone3";
    if !succeeded && !out_of_memory {
        let died = exit.status.code().is_none_or(|code| code == 101);
        ensure(!died, "an exit code of the client's own", || {
            format!("{}: {text}", exit.describe())
        })?;
        let errors = text.lines().filter(|line| line.starts_with("ERROR: ")).count();
        let reported = errors == 1 || fault.call == "write";
        ensure(reported, "one line on stderr: ERROR: …", || format!("{text:?}"))?;
    }
    // The next upload must succeed. After it, the server has seen the end of this one.
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
