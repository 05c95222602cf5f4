//! The turns of a session over TLS: how much one moves, and what counts as heard.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accio_proto::{
    Connection, Copier, Dialect, DirFile, DirSink, FastPaths, Interest, Session, SessionLimits,
    Turn, limits,
};
use tempfile::TempDir;

use crate::content;
use crate::pair::{Peer, Secured, pair};

/// A directory, because content for a file with a descriptor passes through the largest buffer.
struct World {
    sink: DirSink,
    _dir: TempDir,
    copier: Copier,
    limits: SessionLimits,
}

impl World {
    fn new() -> Self {
        let copier = Copier::new(Arc::new(FastPaths::default()));
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::options().create(dir.path()).unwrap();
        World { sink, _dir: dir, copier, limits: SessionLimits::default() }
    }

    fn ready(&mut self, session: &mut Session<Secured, DirFile>, now: Instant) -> Turn {
        session.handle_ready(&self.sink, &mut self.copier, &self.limits, now)
    }
}

/// Encrypts content in records of `size` bytes.
fn records(peer: &mut Peer, content: &[u8], size: usize) -> Vec<u8> {
    let mut records = Vec::new();
    for chunk in content.chunks(size) {
        peer.tls.writer().write_all(chunk).unwrap();
        while peer.tls.wants_write() {
            peer.tls.write_tls(&mut records).unwrap();
        }
    }
    records
}

#[test]
fn a_turn_is_bounded_whatever_the_size_of_the_records() {
    for size in [1 << 14, 10_000, 777] {
        let (server, mut peer, network) = pair();
        let content = content(6 * limits::TURN);
        network.borrow_mut().to_server.extend(records(&mut peer, &content, size));
        let (mut world, now) = (World::new(), Instant::now());
        let mut session = Session::begin(Connection::new(1), server, Dialect::Direct.into(), now);
        let mut turns = 0;
        while session.bytes() < content.len() as u64 {
            let before = session.bytes();
            assert!(matches!(world.ready(&mut session, now), Turn::Waiting));
            let moved = session.bytes() - before;
            // The last step of a turn may begin one byte below its end.
            assert!((1..2 * limits::TURN as u64).contains(&moved), "{moved}, records of {size}");
            let is_known = !network.borrow().to_server.is_empty()
                || session.bytes() == content.len() as u64
                || session.interest() == Interest::ReadWrite;
            assert!(is_known, "nothing would bring the next turn");
            turns += 1;
        }
        assert!(turns >= 3, "{turns} turns, records of {size}");
    }
}

#[test]
fn a_part_of_a_record_counts_as_heard() {
    let (server, mut peer, network) = pair();
    let (mut world, start) = (World::new(), Instant::now());
    let mut session = Session::begin(Connection::new(1), server, Dialect::Direct.into(), start);
    let mut now = start;
    // A read fills the buffer with records of this size, so the session tries twice to receive more.
    network.borrow_mut().to_server.extend(records(&mut peer, &content(300_000), 1 << 14));
    assert!(matches!(world.ready(&mut session, now), Turn::Waiting));
    assert_eq!(session.bytes(), 300_000);
    let record = records(&mut peer, &content(16_000), 16_000);
    for part in record.chunks(4_000) {
        now += limits::IDLE_TIMEOUT - Duration::from_secs(1);
        network.borrow_mut().to_server.extend(part);
        let turn = session.handle_timeout(&world.sink, &mut world.copier, &world.limits, now);
        assert!(matches!(turn, Turn::Waiting), "{turn:?}");
        assert_eq!(session.heard(), now);
    }
    assert_eq!(session.bytes(), 316_000);
    // A turn without bytes does not.
    let later = now + limits::IDLE_TIMEOUT;
    let turn = session.handle_timeout(&world.sink, &mut world.copier, &world.limits, later);
    assert!(matches!(turn, Turn::Ended(Err(_))), "{turn:?}");
    assert_eq!(session.heard(), now);
}
