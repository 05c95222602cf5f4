//! The implementations of the checks in which a client stops sending.

use std::thread;
use std::time::{Duration, Instant};

use crate::expectations::SILENCE;
use crate::received;
use crate::running_server::{BUSY, ExpectedResult, RunningServer};
use crate::trial::Trial;
use accio_harness::peer::{End, Peer};
use accio_harness::process_table;
use accio_harness::subject::Program;
use accio_harness::verdict::{During, Stop, Verdict, ensure_took};

use super::receiver::{SMALL, has_read_to_the_end};

pub(super) fn next_after_silence(trial: &Trial<'_>) -> Verdict {
    let server = trial.server()?;
    let mut silent = server.greeted()?;
    silent.send(b"partial")?;
    let (until, content) = (Instant::now() + SILENCE.1, trial.context.content(1, SMALL));
    silent.end(until - Instant::now())?;
    // Other checks look at what becomes of the content.
    let peer = server.transfer(&content).during(|| "the connection after the timeout")?;
    has_read_to_the_end(&server, &peer)
}

/// Sends `wire` and then nothing: after ten seconds the server must end the connection, and the
/// result must be only ERROR.
fn silence(trial: &Trial<'_>, open: fn(&RunningServer) -> Verdict<Peer>, wire: &[u8]) -> Verdict {
    let mut server = trial.server()?;
    let mut before = Instant::now();
    let mut peer = open(&server)?;
    if !wire.is_empty() {
        before = Instant::now();
        peer.send(wire)?;
    }
    // From the first to the last moment at which the server may have started its clock: it may
    // count from the connection, or from its own last byte.
    let mut since = (before, Instant::now());
    let path = server.path(1);
    let (mut ended, mut marked) = (None, None);
    // On a busy machine the server may be runnable, but not running.
    let (mut held, mut looked) = (Duration::ZERO, Instant::now());
    let grace = Duration::from_millis(500);
    while since.1.elapsed() < SILENCE.1 + held + grace && (ended.is_none() || marked.is_none()) {
        if ended.is_none() {
            let (end, received) = peer.end(Duration::from_millis(20))?;
            ended = (end != End::Open).then(Instant::now);
            if received > 0 && ended.is_none() {
                since.1 = Instant::now();
            }
        } else {
            thread::sleep(Duration::from_millis(20));
        }
        if marked.is_none() {
            let found = match trial.program {
                Program::Server => received::holds(&path, b"ERROR"),
                _ => server.process.stdout().text().contains("ERROR"),
            };
            marked = found.then(Instant::now);
        }
        let late = since.1.elapsed() > SILENCE.0 && held < BUSY;
        if late && process_table::wants_to_run(server.process.pid()) {
            held += looked.elapsed();
        }
        looked = Instant::now();
    }
    let latest = SILENCE.1 + held;
    // Check the result first, then the times.
    match trial.program {
        Program::Server => server.expect(&[ExpectedResult::Error])?,
        _ => server.expect_line("ERROR")?,
    }
    if let Some(marked) = marked {
        ensure_took("the silence until ERROR", since, marked, SILENCE.0, latest)?;
    }
    let ended = ended.ok_or_else(|| {
        Stop::fault("the connection to be aborted", "it is open after the timeout")
    })?;
    ensure_took("the silence until the connection's end", since, ended, SILENCE.0, latest)
}

pub(super) fn after_data(trial: &Trial<'_>) -> Verdict {
    silence(trial, RunningServer::greeted, &trial.context.content(1, 3_000))
}

pub(super) fn from_start(trial: &Trial<'_>) -> Verdict {
    silence(trial, RunningServer::connect, b"")
}
