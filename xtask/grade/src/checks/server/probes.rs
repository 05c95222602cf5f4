//! The implementations of the server's checks.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::checks::receiver::{LARGE, SMALL};
use crate::reference;
use crate::running_server::{ExpectedResult, RunningServer, holds};
use crate::trial::Trial;
use accio_harness::payload;
use accio_harness::peer::{Peer, side_by_side};
use accio_harness::verdict::{During, Stop, Verdict, ensure};

/// Number of transfers, 1.file to 10.file.
const COUNT: usize = 10;

pub(super) fn by_reference(trial: &Trial<'_>, address: SocketAddr, content: &[u8]) -> Verdict {
    reference::send(address, trial.dialect, content).map(drop)
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
    for index in 0..COUNT {
        let place = || format!("file {} of {COUNT}", index + 1);
        let content = content(trial, index);
        send(&content).during(place)?;
        server.expect_file(index + 1, &content).during(place)?;
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
            let length = std::fs::metadata(&path).ok()?.len();
            let index = usize::try_from(length).ok()?.checked_sub(LARGE)?;
            left.contains(&index).then_some(index)
        };
        let is_whole = |index| holds(&path, &content(trial, index));
        if !server.comes_to(|| sent().is_some_and(is_whole)) {
            if let Some(index) = sent() {
                payload::ensure_holds(&path, &content(trial, index))?;
            }
            let length = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
            return Err(Stop::fault(
                format!("{id}.file to be one of the {COUNT} sent"),
                format!("{length} bytes, or a duplicate"),
            ));
        }
        if let Some(index) = sent() {
            left.remove(&index);
        }
    }
    Ok(())
}

pub(super) fn at_once(trial: &Trial<'_>) -> Verdict {
    let mut server = trial.server()?;
    let contents: Vec<Vec<u8>> =
        (0..COUNT).map(|tag| trial.context.content(tag as u64, SMALL + tag)).collect();
    let mut peers = Vec::new();
    for number in 1..=COUNT {
        peers.push(server.greeted().during(|| format!("connection {number} of {COUNT}"))?);
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
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(&server.dir)? {
        names.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    let expected = BTreeSet::from(["1.file".to_owned(), "2.file".to_owned()]);
    ensure(names == expected, format!("only {expected:?} in FILE-DIR"), || format!("{names:?}"))
}
