//! Tests of hashing in several threads.
#![cfg(feature = "digest")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::content_hasher::{ContentHasher, Pending};
use crate::digest::{Digest, DigestAlgorithm};
use crate::hasher::Hasher;
use crate::sys::file as calls;
use crate::tuning::{HASH_AFTER, HASH_SHARE, MAX_UNHASHED, READ_BACK_MIN};

const PATIENCE: Duration = Duration::from_secs(20);
/// How long a thread that should wait is watched.
const WAITS: Duration = Duration::from_millis(50);

fn hasher() -> ContentHasher {
    ContentHasher::new(Hasher::new(DigestAlgorithm::Blake3))
}

fn digest_of(content: &[u8]) -> Digest {
    let mut hasher = Hasher::new(DigestAlgorithm::Blake3);
    hasher.update(content);
    hasher.finish()
}

/// Returns content whose blocks all differ.
fn content(length: usize, seed: u64) -> Vec<u8> {
    let mut content = vec![seed as u8; length];
    for (index, block) in (0_u64..).zip(content.chunks_exact_mut(4096)) {
        block[..8].copy_from_slice(&(index ^ seed << 40).to_le_bytes());
    }
    content
}

/// Returns a file with this content, and a hasher that has begun to read it back.
fn reading_back(content: &[u8], received: u64) -> (File, ContentHasher) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    let mut hasher = hasher();
    let begin = content.len().min(READ_BACK_MIN as usize);
    hasher.update(0, &content[..begin]);
    let again = file.try_clone().unwrap();
    assert!(hasher.begin_reading_back(READ_BACK_MIN, || Some(OwnedFd::from(again))));
    hasher.received(received);
    (file, hasher)
}

/// Runs `call` in a thread; the result can be received once it returns.
fn spawned<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> std::sync::mpsc::Receiver<T> {
    let (send, receive) = channel();
    thread::spawn(move || send.send(call()));
    receive
}

#[test]
fn hashes_in_the_order_of_the_content_whichever_thread_is_faster() {
    let content: Vec<u8> = (0..100_000_u32).map(|index| (index % 251) as u8).collect();
    let hasher = hasher();
    let mut offset = 0;
    let mut pieces: Vec<Pending> = Vec::new();
    for piece in content.chunks(777) {
        pieces.push(hasher.later(offset, piece.to_vec(), piece.len()));
        offset += piece.len() as u64;
    }
    thread::scope(|scope| {
        let first = pieces.drain(..1).next();
        for piece in pieces.into_iter().rev() {
            scope.spawn(|| piece.hash());
        }
        // Dropping bytes hashes them, too.
        drop(first);
        assert_eq!(hasher.complete(100_000).unwrap().finish(), digest_of(&content));
    });
}

#[test]
fn returns_the_buffer_after_its_bytes_are_hashed() {
    let hasher = hasher();
    let buffer = hasher.later(0, b"content and other bytes".to_vec(), 7).hash();
    assert_eq!(buffer.len(), 23);
    assert_eq!(hasher.complete(7).unwrap().finish(), digest_of(b"content"));
}

#[test]
fn reads_back_only_large_content_and_asks_for_the_file_once() {
    let mut hasher = hasher();
    assert!(!hasher.begin_reading_back(READ_BACK_MIN - 1, || panic!("asked")));
    assert!(!hasher.begin_reading_back(READ_BACK_MIN, || None));
    assert!(!hasher.begin_reading_back(2 * READ_BACK_MIN, || panic!("asked again")));
    let content = content(3 << 20, 1);
    hasher.update(0, &content);
    assert_eq!(hasher.complete(3 << 20).unwrap().finish(), digest_of(&content));
}

/// Bytes that another thread holds come before those of the file.
#[test]
fn waits_for_bytes_in_memory_before_it_reads_back() {
    let content = content(4 << 20, 2);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let mut hasher = hasher();
    let (first, second) = content[..2 << 20].split_at(1 << 20);
    let pieces = [
        hasher.later(1 << 20, second.to_vec(), second.len()),
        hasher.later(0, first.to_vec(), first.len()),
    ];
    let begun = spawned(move || {
        assert!(hasher.begin_reading_back(2 << 20, || Some(OwnedFd::from(file))));
        hasher
    });
    assert!(matches!(begun.recv_timeout(WAITS), Err(RecvTimeoutError::Timeout)));
    for piece in pieces.into_iter().rev() {
        piece.hash();
    }
    let hasher = begun.recv_timeout(PATIENCE).unwrap();
    assert_eq!(hasher.complete(4 << 20).unwrap().finish(), digest_of(&content));
}

/// The connection of the stress test, which one thread has at a time.
struct Transfer {
    hasher: Option<ContentHasher>,
    file: File,
    length: usize,
}

/// Pseudo-random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Four threads take turns as workers do; some transfers are aborted.
#[test]
fn every_interleaving_of_turns_and_hashing_ends_with_the_digest_of_the_content() {
    for round in 1..=60 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ round << 32);
        let content = content(2_000_000 + random.below(12_000_000) as usize, round);
        let abort_at =
            if random.below(4) == 0 { random.below(10_000_000) as usize } else { usize::MAX };
        let (file, hasher) = reading_back(&content[..READ_BACK_MIN as usize], READ_BACK_MIN);
        let length = READ_BACK_MIN as usize;
        let transfer = Mutex::new(Transfer { hasher: Some(hasher), file, length });
        let result = Mutex::new(None);
        thread::scope(|scope| {
            for worker in 0..4 {
                let (content, transfer, result) = (&content, &transfer, &result);
                let mut random = Random(round << 8 | (worker + 1));
                scope.spawn(move || {
                    let mut buffer = Vec::new();
                    loop {
                        let mut turn = transfer.lock().unwrap();
                        let Some(hasher) = &turn.hasher else { return };
                        if turn.length > abort_at {
                            drop(turn.hasher.take());
                            return;
                        }
                        if turn.length == content.len() {
                            let hasher = turn.hasher.take().unwrap();
                            let length = content.len() as u64;
                            *result.lock().unwrap() = Some(hasher.complete(length).unwrap());
                            return;
                        }
                        hasher.limit_lag(&mut buffer).unwrap();
                        let count = 1 + random.below(1_500_000) as usize;
                        let end = content.len().min(turn.length + count);
                        (&turn.file).write_all(&content[turn.length..end]).unwrap();
                        hasher.received(end as u64);
                        let lag = hasher.lag();
                        turn.length = end;
                        drop(turn);
                        lag.reduce(&mut buffer);
                    }
                });
            }
        });
        let digest = result.into_inner().unwrap().map(Hasher::finish);
        match digest {
            Some(digest) => assert_eq!(digest, digest_of(&content), "round {round}"),
            None => assert!(abort_at < content.len(), "round {round}"),
        }
    }
}

#[test]
fn hashes_only_what_is_worth_it_and_a_bounded_share() {
    let content = content(20 << 20, 3);
    let (_file, hasher) = reading_back(&content, READ_BACK_MIN + HASH_AFTER - 1);
    let mut buffer = Vec::new();
    hasher.lag().reduce(&mut buffer);
    assert_eq!(hasher.hashed(), READ_BACK_MIN);
    hasher.received(READ_BACK_MIN + HASH_AFTER);
    hasher.lag().reduce(&mut buffer);
    assert_eq!(hasher.hashed(), READ_BACK_MIN + HASH_AFTER);
    hasher.received(20 << 20);
    hasher.lag().reduce(&mut buffer);
    assert_eq!(hasher.hashed(), READ_BACK_MIN + HASH_AFTER + HASH_SHARE);
    assert_eq!(hasher.complete(20 << 20).unwrap().finish(), digest_of(&content));
}

#[test]
fn a_thread_does_not_wait_for_another_one_that_hashes() {
    let content = content(8 << 20, 4);
    let (_file, hasher) = reading_back(&content, 8 << 20);
    let hashing = hasher.hold();
    let lag = hasher.lag();
    spawned(move || lag.reduce(&mut Vec::new())).recv_timeout(PATIENCE).unwrap();
    assert_eq!(hasher.hashed(), READ_BACK_MIN);
    drop(hashing);
    assert_eq!(hasher.complete(8 << 20).unwrap().finish(), digest_of(&content));
}

#[test]
fn the_lag_is_bounded_by_hashing_or_by_waiting_for_the_thread_that_does() {
    let content = content(40 << 20, 5);
    let (_file, hasher) = reading_back(&content, READ_BACK_MIN + MAX_UNHASHED - 1);
    let mut buffer = Vec::new();
    hasher.limit_lag(&mut buffer).unwrap();
    assert_eq!(hasher.hashed(), READ_BACK_MIN, "below the limit, nothing is hashed");
    hasher.received(READ_BACK_MIN + MAX_UNHASHED);
    hasher.limit_lag(&mut buffer).unwrap();
    let left = READ_BACK_MIN + MAX_UNHASHED - hasher.hashed();
    assert!(left < MAX_UNHASHED && left > MAX_UNHASHED / 2, "{left}");

    hasher.received(40 << 20);
    let hashing = hasher.hold();
    let hasher = Arc::new(hasher);
    let waiting = Arc::clone(&hasher);
    let limited = spawned(move || waiting.limit_lag(&mut Vec::new()));
    assert!(matches!(limited.recv_timeout(WAITS), Err(RecvTimeoutError::Timeout)));
    // The thread that hashed ends without having done much.
    drop(hashing);
    limited.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!((40 << 20) - hasher.hashed() < MAX_UNHASHED);
    let hasher = Arc::into_inner(hasher).unwrap();
    assert_eq!(hasher.complete(40 << 20).unwrap().finish(), digest_of(&content));
}

#[test]
fn the_end_of_the_content_waits_for_a_thread_that_hashes() {
    let content = content(8 << 20, 6);
    let (_file, hasher) = reading_back(&content, 8 << 20);
    let hashing = hasher.hold();
    let complete = spawned(move || hasher.complete(8 << 20).map(Hasher::finish));
    assert!(matches!(complete.recv_timeout(WAITS), Err(RecvTimeoutError::Timeout)));
    drop(hashing);
    let digest = complete.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(digest, digest_of(&content));
}

/// Returns a hasher that reads content back, and another descriptor of the file, which can be locked
/// once the hasher has closed its own.
fn locking(content: &[u8]) -> (tempfile::NamedTempFile, ContentHasher) {
    let named = tempfile::NamedTempFile::new().unwrap();
    named.as_file().write_all(content).unwrap();
    let again = File::open(named.path()).unwrap();
    calls::lock_alone(&again).unwrap();
    let mut hasher = hasher();
    hasher.update(0, &content[..READ_BACK_MIN as usize]);
    assert!(hasher.begin_reading_back(READ_BACK_MIN, || Some(OwnedFd::from(again))));
    hasher.received(content.len() as u64);
    (named, hasher)
}

#[test]
fn an_abort_does_not_wait_and_ends_the_hashing_of_others() {
    let (file, hasher) = locking(&content(8 << 20, 7));
    let hashing = hasher.hold();
    let lag = hasher.lag();
    spawned(move || drop(hasher)).recv_timeout(PATIENCE).unwrap();
    calls::lock_alone(file.as_file()).unwrap_err();
    drop(hashing);
    calls::lock_alone(file.as_file()).unwrap();
    lag.reduce(&mut Vec::new());

    let (file, hasher) = locking(&content(8 << 20, 7));
    drop(hasher);
    calls::lock_alone(file.as_file()).unwrap();
}

#[test]
fn the_file_is_closed_when_the_digest_is_complete() {
    let (file, hasher) = locking(&content(3 << 20, 8));
    calls::lock_alone(file.as_file()).unwrap_err();
    hasher.complete(3 << 20).unwrap();
    calls::lock_alone(file.as_file()).unwrap();
}

#[test]
fn a_short_file_and_a_failed_read_are_errors_for_every_thread() {
    let content = content(8 << 20, 9);
    let write_only = || File::options().write(true).open("/dev/null").unwrap();
    let short = || tempfile::tempfile().unwrap();
    for (open, expected) in
        [(&write_only as &dyn Fn() -> File, None), (&short, Some(io::ErrorKind::UnexpectedEof))]
    {
        let failing = || {
            let mut hasher = hasher();
            hasher.update(0, &content[..READ_BACK_MIN as usize]);
            let file = OwnedFd::from(open());
            assert!(hasher.begin_reading_back(READ_BACK_MIN, || Some(file)));
            hasher.received(8 << 20);
            hasher
        };
        let check = |error: io::Error| match expected {
            Some(kind) => assert_eq!(error.kind(), kind),
            None => assert_eq!(error.raw_os_error(), Some(9), "{error}"),
        };
        check(failing().complete(8 << 20).unwrap_err());
        let hasher = failing();
        hasher.lag().reduce(&mut Vec::new());
        check(hasher.limit_lag(&mut Vec::new()).unwrap_err());
        hasher.complete(8 << 20).unwrap_err();
        let hasher = failing();
        hasher.received(READ_BACK_MIN + MAX_UNHASHED);
        check(hasher.limit_lag(&mut Vec::new()).unwrap_err());
    }
}
