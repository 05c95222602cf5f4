//! Expectations that several checks share.

use std::time::{Duration, Instant};

use rustix::process::Pid;

use super::own_time::OwnTime;
use accio_harness::peer::{Peer, SOON};
use accio_harness::process::{Exit, Process};
use accio_harness::process_table;
use accio_harness::verdict::{Certain, Stop, Verdict, ensure};

/// Time limit for a reaction that must take at most ten seconds, including the start of the
/// process.
pub(crate) const GIVE_UP: Duration = Duration::from_millis(11_500);
/// Shortest and longest time after which a server may act on ten seconds of silence.
pub(crate) const SILENCE: (Duration, Duration) =
    (Duration::from_millis(9_500), Duration::from_secs(13));
/// How long to wait until a program is idle, on a busy machine.
pub(crate) const RESTING: Duration = Duration::from_secs(3);

/// Returns a fault if `peer` receives anything within `time` or while `group` is busy: on a busy
/// machine, bytes that are sent too early may arrive late.
pub(crate) fn expect_silence(group: Pid, peer: &mut Peer, time: Duration) -> Verdict {
    peer.expect_silence(time)?;
    // Wait for a short time only: the timeout of the handshake is running.
    process_table::settles(group, Duration::from_secs(1));
    peer.expect_silence(Duration::from_millis(1))
}

/// Returns a fault unless the client ends within `limit` with exit code 0. The time for which it,
/// or one of the `others` that it depends on, waits for a CPU is not counted.
pub(crate) fn succeeds(client: &mut Process, limit: Duration, others: &[Pid]) -> Verdict {
    const STEP: Duration = Duration::from_millis(100);
    let time = OwnTime::of(&[&[client.pid()], others].concat());
    let exit = loop {
        match client.wait(STEP) {
            Err(Stop::Fault(_)) if !time.exceeds(limit) => {}
            Err(Stop::Fault(_)) => {
                let expected = format!("{} to end within {limit:?}", client.command());
                return Err(Stop::fault(expected, "it is still running"));
            }
            other => break other?,
        }
    };
    let good = exit.status.code() == Some(0);
    let ended = ensure(good, format!("{} to exit with 0", client.command()), || {
        format!("{}, stderr {:?}", exit.describe(), client.stderr().text())
    });
    // A delay of another program may have caused a timeout.
    if others.is_empty() { ended.certain() } else { ended }
}

/// Returns a fault unless the program fails properly, within `limit` after `since`.
pub(crate) fn fails(process: &mut Process, since: Instant, limit: Duration) -> Verdict<Exit> {
    let expected = format!("{} to give up within {limit:?}", process.command());
    let exit = ends(process, since, limit, expected)?;
    let stderr = process.stderr().text();
    let good = exit.status.code().is_some_and(|code| code != 0)
        && stderr.lines().any(|line| line.starts_with("ERROR:"));
    ensure(
        good,
        format!(
            "{} to exit with a non-zero code and a line on stderr that starts with ERROR:",
            process.command()
        ),
        || format!("{}, stderr {stderr:?}", exit.describe()),
    )
    .certain()?;
    Ok(exit)
}

/// Waits until the program ends; returns a fault if it is still running after `limit` from `since`.
/// Delays of a busy machine, for this process and for the program, are not counted.
pub(crate) fn ends(
    process: &mut Process,
    since: Instant,
    limit: Duration,
    expected: String,
) -> Verdict<Exit> {
    const STEP: Duration = Duration::from_millis(20);
    // The start of the program may have been before `since`; its delays count from now on.
    let (before, time) = (since.elapsed(), OwnTime::of(&[process.pid()]));
    loop {
        let left = limit.saturating_sub(before);
        match process.wait(left.saturating_sub(time.elapsed()).max(STEP)) {
            Err(Stop::Fault(_)) if !time.exceeds(left) => {}
            Err(Stop::Fault(_)) => break,
            other => return other,
        }
    }
    let rests = process_table::settles(process.pid(), RESTING);
    if process.has_ended()? {
        return process.wait(SOON);
    }
    let how = if rests { "and waits" } else { "and is busy" };
    let after = since.elapsed().as_secs_f64();
    Err(Stop::fault(expected, format!("it is still running after {after:.1} s {how}")))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::{env, fs, thread};

    use rustix::time::{ClockId, clock_gettime};

    use super::*;
    use accio_harness::process::{Input, NO_OWNER};

    /// Names the file that the server creates when it has used its CPU time.
    const DONE: &str = "ACCIO_GRADE_TEST_DONE";

    fn start(mut command: Command) -> Process {
        command.env_remove("RUST_TEST_THREADS");
        Process::spawn(command, NO_OWNER, Input::Null).unwrap()
    }

    fn shell(script: &str, argument: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script, argument]);
        start(command)
    }

    /// The test runs itself as the server.
    #[test]
    fn a_client_may_wait_for_a_server_that_waits_for_a_cpu() {
        const USES: i64 = 300_000_000;
        const LIMIT: Duration = Duration::from_millis(900);
        if let Some(done) = env::var_os(DONE) {
            let used = || {
                let time = clock_gettime(ClockId::ThreadCPUTime);
                time.tv_sec * 1_000_000_000 + time.tv_nsec
            };
            while used() < USES {
                std::hint::spin_loop();
            }
            fs::write(done, "").unwrap();
            thread::sleep(Duration::from_secs(600));
        }
        let dir = tempfile::tempdir().unwrap();
        let done = dir.path().join("done");
        let cores = thread::available_parallelism().unwrap().get();
        let _others: Vec<Process> =
            (0..4 * cores).map(|_| shell("ulimit -t 20; while :; do :; done", "")).collect();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "--nocapture"]);
        command.arg("expectations::tests::a_client_may_wait_for_a_server_that_waits_for_a_cpu");
        command.env(DONE, &done);
        let server = start(command);
        let waits = "while [ ! -e \"$0\" ]; do sleep 0.05; done";
        let began = Instant::now();
        let mut client = shell(waits, &done.to_string_lossy());
        succeeds(&mut client, LIMIT, &[server.pid()]).unwrap();
        assert!(began.elapsed() > LIMIT, "the server got its CPU time within the limit");
    }
}
