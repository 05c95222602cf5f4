//! Tests of hashing from memory and from the file.
#![cfg(feature = "digest")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use crate::content_hasher::ContentHasher;
use crate::digest::{Digest, DigestAlgorithm};
use crate::hasher::Hasher;
use crate::sys::file as calls;
use crate::tuning::{READ_BACK_MIN, READ_BACK_PIECE};

const BEGIN: usize = READ_BACK_MIN as usize;

fn hasher() -> ContentHasher {
    ContentHasher::new(Hasher::new(DigestAlgorithm::Blake3))
}

fn digest_of(content: &[u8]) -> Digest {
    let mut hasher = Hasher::new(DigestAlgorithm::Blake3);
    hasher.update(content);
    hasher.finish()
}

/// Returns content whose blocks all differ.
fn content(length: usize) -> Vec<u8> {
    let mut content = vec![7; length];
    for (index, block) in (0_u64..).zip(content.chunks_exact_mut(4096)) {
        block[..8].copy_from_slice(&index.to_le_bytes());
    }
    content
}

/// Returns a hasher that has begun to read back from this file.
fn reading_back(content: &[u8], file: impl Into<OwnedFd>) -> ContentHasher {
    let mut hasher = hasher();
    hasher.update(&content[..BEGIN]);
    assert!(hasher.begin_reading_back(READ_BACK_MIN, || Some(file.into())));
    hasher
}

#[test]
fn reads_back_only_large_content_and_asks_for_the_file_once() {
    let mut hasher = hasher();
    assert!(!hasher.begin_reading_back(READ_BACK_MIN - 1, || panic!("asked")));
    assert!(!hasher.begin_reading_back(READ_BACK_MIN, || None));
    assert!(!hasher.begin_reading_back(2 * READ_BACK_MIN, || panic!("asked again")));
    hasher.read_back(0, 1, &mut Vec::new()).unwrap_err();
    let content = content(3 << 20);
    hasher.update(&content);
    assert_eq!(hasher.finish(), digest_of(&content));
}

#[test]
fn parts_from_memory_and_from_the_file_follow_each_other() {
    let content = content(8 << 20);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&content).unwrap();
    let mut hasher = reading_back(&content, file);
    let mut buffer = vec![1; 100];
    let mut offset = BEGIN;
    let counts = [1, READ_BACK_PIECE - 1, READ_BACK_PIECE, READ_BACK_PIECE + 1, 1 << 20, 777];
    for (index, count) in counts.into_iter().enumerate() {
        match index % 2 {
            0 => hasher.read_back(offset as u64, count, &mut buffer).unwrap(),
            _ => hasher.update(&content[offset..offset + count]),
        }
        offset += count;
    }
    hasher.read_back(offset as u64, content.len() - offset, &mut buffer).unwrap();
    assert_eq!(hasher.finish(), digest_of(&content));
}

/// Another descriptor of the file can be locked once the hasher has closed its own.
#[test]
fn the_file_is_closed_when_the_digest_is_complete_or_no_longer_needed() {
    let content = content(BEGIN);
    let complete = |hasher: ContentHasher| assert_ne!(hasher.finish(), digest_of(&[]));
    for end in [&complete as &dyn Fn(_), &drop] {
        let named = tempfile::NamedTempFile::new().unwrap();
        let again = File::open(named.path()).unwrap();
        calls::lock_alone(&again).unwrap();
        let hasher = reading_back(&content, again);
        calls::lock_alone(named.as_file()).unwrap_err();
        end(hasher);
        calls::lock_alone(named.as_file()).unwrap();
    }
}

#[test]
fn a_short_file_and_a_failed_read_are_errors() {
    let content = content(BEGIN);
    let mut short = tempfile::tempfile().unwrap();
    short.write_all(&content).unwrap();
    let mut hasher = reading_back(&content, short);
    let error = hasher.read_back(READ_BACK_MIN - 1, 2, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);

    let write_only = File::options().write(true).open("/dev/null").unwrap();
    let mut hasher = reading_back(&content, write_only);
    let error = hasher.read_back(READ_BACK_MIN, 1, &mut Vec::new()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(9), "{error}");
}
