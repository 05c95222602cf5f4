//! Waits for listening sockets and their accept queues.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use accio_harness::process::Process;

/// Waits until a process listens on `port`. It does not connect, because some servers serve a
/// single connection only.
pub(super) fn await_listener(port: u16, server: &mut Process) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_listening(port) {
        if server.has_ended()? {
            // This returns an error with the exit status, unless the status is 0.
            server.finish(Duration::ZERO)?;
            bail!("a server ended before it listened on port {port}");
        }
        if Instant::now() > end {
            bail!("no process listens on port {port} after 10 s");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Waits until `count` connections are in the accept queue of `port`, or for one second, because
/// some servers have shorter queues.
pub(super) fn await_queue(port: u16, count: usize) {
    let end = Instant::now() + Duration::from_secs(1);
    while queue_length(port).is_some_and(|queued| queued < count) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_listening(port: u16) -> bool {
    queue_length(port).is_some()
}

/// Returns the length of the accept queue of `port`, or `None` if no process listens there.
/// Listening sockets come first in the table, so the rest, which may be long, is not read.
fn queue_length(port: u16) -> Option<usize> {
    let wanted = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().find_map(|table| {
        let lines = BufReader::new(File::open(table).ok()?).lines().skip(1);
        let listening = lines.map_while(Result::ok).map_while(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, state, queues) = (fields.next()?, fields.nth(1)?, fields.next()?);
            let queued = usize::from_str_radix(queues.split(':').nth(1)?, 16).ok()?;
            (state == "0A").then(|| (local.to_owned(), queued))
        });
        listening.into_iter().find_map(|(local, queued)| local.ends_with(&wanted).then_some(queued))
    })
}
