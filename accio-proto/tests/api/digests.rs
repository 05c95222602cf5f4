//! The digest of a session is that of the stored content, in whatever pieces it arrives.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use accio_proto::{
    Connection, Copier, CountSink, Digest, DigestAlgorithm, Ended, FastPaths, FileSink, Hasher,
    MemorySink, ServerDialect, Session, SessionLimits, Socket, Stored, Turn,
};
use proptest::prelude::*;

/// A socket that returns its bytes in pieces of the given sizes, with a pause after each, and then
/// ends or fails.
#[derive(Debug)]
struct Pieces {
    bytes: Vec<u8>,
    at: usize,
    sizes: Vec<usize>,
    pauses: bool,
    fails: bool,
}

impl Socket for Pieces {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.bytes.len() {
            return if self.fails { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(0) };
        }
        self.pauses = !self.pauses;
        if self.pauses {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let size = self.sizes.pop().unwrap_or(usize::MAX);
        let count = size.min(buffer.len()).min(self.bytes.len() - self.at);
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn close(self) {}
}

fn digest(algorithm: DigestAlgorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

fn serve<K: FileSink>(
    sink: &K,
    dialect: ServerDialect,
    algorithm: Option<DigestAlgorithm>,
    socket: Pieces,
) -> Ended<Pieces, K::File> {
    let (limits, now) = (SessionLimits::default(), Instant::now());
    let mut copier = Copier::new(Arc::new(FastPaths::default()));
    let mut session = Session::begin(Connection::new(1), socket, dialect, now);
    if let Some(algorithm) = algorithm {
        session = session.digest(algorithm);
    }
    assert!(matches!(session.greet(), Turn::Waiting));
    loop {
        if let Turn::Ended(result) = session.handle_ready(sink, &mut copier, &limits, now) {
            return session.close(result).finish(sink);
        }
    }
}

/// Bytes that a server may take for a handshake, and content of every size that a path treats
/// differently.
fn wire() -> impl Strategy<Value = Vec<u8>> {
    let begin = prop_oneof![
        Just(&b""[..]),
        Just(&b"confirm-acc"[..]),
        Just(&b"confirm-accio\r\n"[..]),
        Just(&b"confirm-accio\r\nconfirm-accio-ag"[..]),
        Just(&b"confirm-accio\r\nconfirm-accio-again\r\n\r\n"[..]),
    ];
    let rest = prop_oneof![Just(0), 1..100_usize, 65_500..65_600_usize, 0..400_000_usize];
    (begin, rest, any::<u8>()).prop_map(|(begin, rest, seed)| {
        // Calculating each byte of hundreds of files takes seconds without optimization.
        let mut wire = begin.to_vec();
        let block: Vec<u8> = (0..1000).map(|index| (index % 251) as u8 ^ seed).collect();
        for (index, length) in (0_u32..).zip((0..rest).step_by(block.len())) {
            wire.extend_from_slice(&block[..block.len().min(rest - length)]);
            let last = wire.len() - 1;
            wire[last] ^= index as u8;
        }
        wire
    })
}

fn dialect() -> impl Strategy<Value = ServerDialect> {
    let names = ["auto", "accio", "confirm", "direct"];
    (0..names.len()).prop_map(move |index| names[index].parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_digest_is_that_of_the_stored_content(
        bytes in wire(),
        sizes in prop::collection::vec(1..200_000_usize, 0..12),
        dialect in dialect(),
        fails in any::<bool>(),
        index in 0..DigestAlgorithm::ALL.len(),
    ) {
        let algorithm = DigestAlgorithm::ALL[index];
        let socket = |fails| {
            Pieces { bytes: bytes.clone(), at: 0, sizes: sizes.clone(), pauses: false, fails }
        };
        let sink = MemorySink::new();
        let ended = serve(&sink, dialect, Some(algorithm), socket(fails));
        match sink.get(1).unwrap() {
            Stored::Complete(content) => {
                prop_assert!(!fails && ended.bytes == content.len() as u64);
                prop_assert_eq!(ended.digest, Some(digest(algorithm, &content)));
                // Content that is only counted passes through the buffer, too.
                let counted = serve(&CountSink, dialect, Some(algorithm), socket(false));
                prop_assert_eq!((counted.bytes, counted.digest), (ended.bytes, ended.digest));
            }
            Stored::Error => prop_assert_eq!(ended.digest, None),
        }
        let without = serve(&MemorySink::new(), dialect, None, socket(fails));
        prop_assert_eq!((without.bytes, without.digest), (ended.bytes, None));
    }
}
