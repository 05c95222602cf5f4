//! How a program must behave, whatever else a check is about.

use std::time::{Duration, Instant};

use rustix::process::Pid;

use accio_harness::peer::{Peer, SOON};
use accio_harness::process::{Exit, Process};
use accio_harness::verdict::{Stop, Verdict, ensure};
use accio_harness::{resource_limits, scheduling_delay};

/// The most that a reaction within ten seconds may take, starting a process included.
pub(crate) const GIVE_UP: Duration = Duration::from_millis(11_500);
/// When a server may find ten seconds of silence over, at the earliest and at the latest.
pub(crate) const SILENCE: (Duration, Duration) =
    (Duration::from_millis(9_500), Duration::from_secs(13));
/// How long a program is given to do what it is about to do, on a busy machine.
pub(crate) const RESTING: Duration = Duration::from_secs(3);

/// A fault if anything comes to `peer` within `time`, or as long as `group` wants to run: on a busy
/// machine what is sent too early still comes late.
pub(crate) fn expect_silence(group: Pid, peer: &mut Peer, time: Duration) -> Verdict {
    peer.expect_silence(time)?;
    // One that is busy for ever has ten seconds for its handshake all the same.
    resource_limits::settles(group, Duration::from_secs(1));
    peer.expect_silence(Duration::from_millis(1))
}

/// A fault unless the client ends within `limit`, with exit code 0.
pub(crate) fn succeeds(client: &mut Process, limit: Duration) -> Verdict {
    let exit = client.wait(limit)?;
    ensure(exit.status.code() == Some(0), format!("{} to exit with 0", client.command()), || {
        format!("{}, stderr {:?}", exit.describe(), client.stderr().text())
    })
}

/// A fault unless the program fails, as every program must, within `limit` of `since`.
pub(crate) fn fails(process: &mut Process, since: Instant, limit: Duration) -> Verdict<Exit> {
    let expected = format!("{} to give up within {limit:?}", process.command());
    let exit = ends(process, since, limit, expected)?;
    let said = process.stderr().text();
    let good = exit.status.code().is_some_and(|code| code != 0)
        && said.lines().any(|line| line.starts_with("ERROR:"));
    ensure(
        good,
        format!(
            "{} to exit with a code that is not 0 and a line on stderr that begins with ERROR:",
            process.command()
        ),
        || format!("{}, stderr {said:?}", exit.describe()),
    )?;
    Ok(exit)
}

/// Waits until the program ends; a fault when it runs on after `limit` from `since`, where nothing
/// but itself keeps it: the time in which this process was kept from looking, and the program from
/// running, is not its own.
pub(crate) fn ends(
    process: &mut Process,
    since: Instant,
    limit: Duration,
    expected: String,
) -> Verdict<Exit> {
    loop {
        let left = (limit + scheduling_delay::worst_since(since)).saturating_sub(since.elapsed());
        if left.is_zero() {
            break;
        }
        match process.wait(left) {
            Err(Stop::Fault(_)) => {}
            other => return other,
        }
    }
    let rests = resource_limits::settles(process.pid(), RESTING);
    if process.has_ended()? {
        return process.wait(SOON);
    }
    let how = if rests { "and waits" } else { "and is busy" };
    let after = since.elapsed().as_secs_f64();
    Err(Stop::fault(expected, format!("it still runs after {after:.1} s, {how}")))
}
