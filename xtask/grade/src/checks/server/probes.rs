//! The implementations of the server's checks.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use accio_proto::os_error_text;

use crate::checks::receiver::{LARGE, SMALL};
use crate::own_time::OwnTime;
use crate::received;
use crate::reference;
use crate::running_server::{ExpectedResult, RunningServer};
use crate::trial::Trial;
use accio_harness::peer::{Peer, side_by_side};
use accio_harness::verdict::{During, Stop, Verdict, ensure};

/// Number of transfers, 1.file to 10.file.
const COUNT: usize = 10;

/// Time limit for ten transfers, far above what a slow server needs. The time for which the server
/// waits for a CPU is not counted.
const TRANSFERS: Duration = Duration::from_secs(240);

pub(super) fn by_reference(server: &RunningServer, address: SocketAddr, content: &[u8]) -> Verdict {
    reference::send(server, address, content).map(drop)
}

/// Returns one of the contents. It is generated on demand, because a class would need gigabytes of
/// memory for all of them.
fn content(trial: &Trial<'_>, index: usize) -> Vec<u8> {
    trial.context.content(index as u64, LARGE + index)
}

/// Sends ten large files one after the other; each must have its number.
pub(super) fn in_turn(
    trial: &Trial<'_>,
    server: &RunningServer,
    send: &(dyn Fn(&[u8]) -> Verdict + Sync),
) -> Verdict {
    let time = OwnTime::of(&[server.process.pid()]);
    for index in 0..COUNT {
        let place = || format!("file {} of {COUNT}", index + 1);
        let content = content(trial, index);
        send(&content).during(place)?;
        server.expect_file(index + 1, &content).during(place)?;
        ensure(
            !time.exceeds(TRANSFERS),
            format!("{COUNT} transfers within {TRANSFERS:?}"),
            || format!("{} of them took {:.0} s", index + 1, time.elapsed().as_secs_f64()),
        )?;
    }
    Ok(())
}

/// Sends ten large files at once. Only the server knows their order, so each must be stored once,
/// under any number.
pub(super) fn together(
    trial: &Trial<'_>,
    server: &RunningServer,
    send: &(dyn Fn(&[u8]) -> Verdict + Sync),
) -> Verdict {
    side_by_side(0..COUNT, |index| send(&content(trial, index)))?;
    let mut left: BTreeSet<usize> = (0..COUNT).collect();
    for id in 1..=COUNT {
        let path = server.path(id);
        // Their lengths identify them.
        let sent = || -> Option<usize> {
            let length = received::length(&path).ok()?;
            let index = usize::try_from(length).ok()?.checked_sub(LARGE)?;
            left.contains(&index).then_some(index)
        };
        let is_whole = |index| received::holds(&path, &content(trial, index));
        if !server.comes_to(|| sent().is_some_and(is_whole)) {
            if let Some(index) = sent() {
                server.expect_file(id, &content(trial, index))?;
            }
            let expected = format!("{id}.file to be one of the {COUNT} that were sent");
            return Err(Stop::fault(expected, describe(trial, server, id)));
        }
        if let Some(index) = sent() {
            left.remove(&index);
        }
    }
    Ok(())
}

/// Describes the file of connection `id`, whose content is not one of the expected ones.
fn describe(trial: &Trial<'_>, server: &RunningServer, id: usize) -> String {
    let actual = match received::read(&server.path(id), 2 * LARGE) {
        Ok(actual) => actual,
        Err(error) if error.kind() == ErrorKind::NotFound => return server.describe_missing(id),
        Err(error) => return os_error_text(&error),
    };
    let of = |index: usize| format!(" (compared with the {} bytes sent)", LARGE + index);
    for index in 0..COUNT {
        let expected = content(trial, index);
        if actual == expected {
            return "a file that another connection's file is equal to".into();
        }
        // Equal bytes at an end tell which content it is a part of.
        let part = actual.len().min(expected.len()).min(4096);
        if part > 0
            && (actual[..part] == expected[..part]
                || actual[actual.len() - part..] == expected[expected.len() - part..])
        {
            return crate::content::received(&expected, &actual) + &of(index);
        }
    }
    format!("{} bytes, unlike each of the contents", actual.len())
}

pub(super) fn at_once(trial: &Trial<'_>) -> Verdict {
    let mut server = trial.server()?;
    let contents: Vec<Vec<u8>> =
        (0..COUNT).map(|tag| trial.context.content(tag as u64, SMALL + tag)).collect();
    let mut peers = Vec::new();
    for number in 1..=COUNT {
        // One after another, so that each number is known.
        let place = || format!("connection {number} of {COUNT}");
        let peer = server.connect().during(place)?;
        server.accepted(&peer).during(place)?;
        peers.push(peer);
    }
    // Greet them together: the first ones must not wait in silence for a server that greets late.
    for (index, peer) in peers.iter_mut().enumerate() {
        let place = || format!("connection {} of {COUNT}", index + 1);
        server.handshake(peer).during(place)?;
    }
    // Complete them in reverse order: numbers must follow the order of connecting.
    let mut done: Vec<Peer> = Vec::new();
    for (mut peer, content) in peers.into_iter().zip(&contents).rev() {
        peer.send(content)?;
        peer.fin()?;
        server.has_read_all(&peer)?;
        done.push(peer);
    }
    let results: Vec<ExpectedResult<'_>> =
        contents.iter().map(|content| ExpectedResult::Content(content)).collect();
    server.expect(&results)
}

pub(super) fn only_files(trial: &Trial<'_>) -> Verdict {
    let server = trial.server()?;
    let _first = server.transfer(b"one")?;
    server.expect_file(1, b"one")?;
    let _second = server.transfer(b"two")?;
    server.expect_file(2, b"two")?;
    let names = server.names();
    let expected = BTreeSet::from(["1.file".to_owned(), "2.file".to_owned()]);
    ensure(names == expected, format!("only {expected:?} in FILE-DIR"), || format!("{names:?}"))
}
