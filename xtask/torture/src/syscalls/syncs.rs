//! Commits whose data or names cannot be written to the disk.

use std::fs;

use super::server::{SERVERS, start, stop};
use super::threads::ServerThread;
use crate::directory_oracle::{content, survey};
use crate::load::{UploadOutcome, send};
use crate::strace::{InjectedFault, Occurrence, Tracer};
use accio_harness::context::Context;
use accio_harness::peer::SOON;
use accio_harness::verdict::{Verdict, ensure};

/// The size of a file that a worker does not commit itself.
const SIZE: usize = 2 << 20;

/// Makes the fdatasync of an upload fail. The kernel then drops the bytes, and a second call would
/// succeed, so the server must not repeat it.
pub(super) fn sync_fails(context: &Context) -> Verdict<String> {
    let mode = SERVERS[1];
    let mut server = start(context, mode, &[])?;
    // The first upload starts the thread that commits.
    let outcome = send(server.address, &content(2, SIZE), SOON);
    ensure(outcome == UploadOutcome::Confirmed, "a healthy upload", || format!("{outcome:?}"))?;
    let fault = InjectedFault { call: "fdatasync".into(), errno: "EIO", when: Occurrence::Once(1) };
    let record = context.fresh("trace");
    let committer = ServerThread::Committer.of(&server.process)?;
    let tracer = Tracer::attach(context, committer, &fault.options(), &record)?;
    let outcome = send(server.address, &content(1, SIZE), SOON);
    tracer.detach()?;
    ensure(outcome == UploadOutcome::Refused, "a reset", || format!("{outcome:?}"))?;
    let trace = fs::read_to_string(&record)?;
    let calls = trace.matches("fdatasync(").count();
    ensure(calls == 1 && trace.contains("INJECTED"), "one fdatasync, which fails", || {
        trace.clone()
    })?;
    let found = survey(&server.dir)?;
    found.ensure_kept(&[2])?;
    ensure(found.errors == 1 && !found.whole.contains_key(&1), "2.file to be ERROR", || {
        format!("{found:?}")
    })?;
    stop(&mut server)?;
    Ok("1 fault".into())
}

/// Makes the directory sync of a commit fail, and the removal of the name that was given before it.
/// The client must get no confirmation, and the log must name the file.
pub(super) fn name_remains(context: &Context) -> Verdict<String> {
    let mut server = start(context, SERVERS[1], &[])?;
    let outcome = send(server.address, &content(2, SIZE), SOON);
    ensure(outcome == UploadOutcome::Confirmed, "a healthy upload", || format!("{outcome:?}"))?;
    let fault =
        |call: &str| InjectedFault { call: call.into(), errno: "EIO", when: Occurrence::From(1) };
    let options = ["-e", "trace=fsync,unlinkat"].map(str::to_owned).into_iter();
    let inject = |call| fault(call).options().into_iter().skip(2);
    let options: Vec<_> = options.chain(inject("fsync")).chain(inject("unlinkat")).collect();
    let record = context.fresh("trace");
    let tracer =
        Tracer::attach(context, ServerThread::Committer.of(&server.process)?, &options, &record)?;
    let outcome = send(server.address, &content(1, SIZE), SOON);
    tracer.detach()?;
    let trace = fs::read_to_string(&record)?;
    let injected = ["fsync(", "unlinkat("]
        .iter()
        .all(|call| trace.lines().any(|line| line.contains(call) && line.contains("INJECTED")));
    ensure(injected, "both calls to fail", || trace.clone())?;
    ensure(outcome == UploadOutcome::Refused, "a reset", || format!("{outcome:?}"))?;
    // Another thread writes the log.
    let line = "connection 2: cannot remove the file, which was not confirmed";
    let logged = server.process.stderr().wait(SOON, |bytes, closed| {
        let found = String::from_utf8_lossy(bytes).contains(line);
        (found || closed).then_some(found)
    });
    ensure(logged == Some(true), "a line in the log about the file that remains", || {
        server.process.stderr().text()
    })?;
    let found = survey(&server.dir)?;
    found.ensure_clean()?;
    found.ensure_kept(&[2])?;
    stop(&mut server)?;
    Ok("2 faults".into())
}
