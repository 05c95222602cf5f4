//! Limits of a session on a scripted socket: its share of a turn, and its time limits.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accio_proto::{
    Abort, Connection, Copier, CountSink, Dialect, Ended, Expiry, FastPaths, MemoryFile,
    MemorySink, Session, SessionLimits, Socket, Stored, Turn, limits,
};

/// A socket with a number of bytes, followed by silence or the end.
struct Source {
    left: usize,
    ends: bool,
    given: usize,
}

impl Socket for Source {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.left.min(buffer.len());
        // The beginning of a confirmation, then arbitrary bytes.
        for byte in &mut buffer[..count] {
            *byte = b"confirm-accio\r\n".get(self.given).copied().unwrap_or(0);
            self.given += 1;
        }
        self.left -= count;
        match (count, self.ends) {
            (0, false) => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(count),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn close(self) {}
}

struct World {
    sink: MemorySink,
    copier: Copier,
    limits: SessionLimits,
    start: Instant,
}

impl World {
    fn new(change: impl FnOnce(&mut SessionLimits)) -> Self {
        let mut limits = SessionLimits::default();
        change(&mut limits);
        let copier = Copier::new(Arc::new(FastPaths::default()));
        World { sink: MemorySink::new(), copier, limits, start: Instant::now() }
    }

    fn begin(&self, left: usize, ends: bool) -> Session<Source, MemoryFile> {
        Session::begin(
            Connection::new(1),
            Source { left, ends, given: 0 },
            Dialect::Direct.into(),
            self.start,
        )
    }

    fn ready(&mut self, session: &mut Session<Source, MemoryFile>) -> Turn {
        session.handle_ready(&self.sink, &mut self.copier, &self.limits, self.start)
    }

    /// Serves a session to its end, and finishes it.
    fn finish(&mut self, mut session: Session<Source, MemoryFile>) -> Ended<Source, MemoryFile> {
        match self.ready(&mut session) {
            Turn::Waiting => panic!("it waits"),
            Turn::Ended(result) => session.close(result).finish(&self.sink),
        }
    }
}

#[test]
fn a_turn_is_bounded_and_the_next_one_continues() {
    let mut world = World::new(|_| {});
    let mut session = world.begin(3 * limits::TURN, true);
    assert!(matches!(world.ready(&mut session), Turn::Waiting), "all in one turn");
    let left = session.socket().left;
    assert!((3 * limits::TURN - left) >= limits::TURN, "a turn is used up");
    assert!(left >= 2 * limits::TURN - limits::FIRST_READ, "and not exceeded by more than a step");
    assert!(matches!(world.ready(&mut session), Turn::Waiting), "two turns");
    let result = loop {
        if let Turn::Ended(result) = world.ready(&mut session) {
            break result;
        }
    };
    assert!(session.close(result).finish(&world.sink).result.is_ok());
    assert!(
        matches!(world.sink.get(1), Some(Stored::Complete(all)) if all.len() == 3 * limits::TURN)
    );
}

#[test]
fn accepts_a_file_of_the_maximum_size_but_no_larger() {
    for (size, fits) in [(0, true), (999, true), (1000, true), (1001, false), (900_000, false)] {
        for ends in [true, false] {
            let mut world = World::new(|limits| limits.max_size = Some(1000));
            let mut session = world.begin(size, ends);
            match (world.ready(&mut session), fits) {
                (Turn::Waiting, true) => assert!(!ends),
                (Turn::Ended(result), true) => assert!(ends && result.is_ok()),
                (Turn::Ended(result), false) => {
                    let ended = session.close(result).finish(&world.sink);
                    assert!(
                        matches!(ended.result, Err(Abort::TooLarge(1000))),
                        "{:?}",
                        ended.result
                    );
                    assert_eq!(world.sink.get(1), Some(Stored::Error));
                }
                (Turn::Waiting, false) => panic!("{size} bytes were taken"),
            }
        }
    }
}

/// A source that counts calls of `discard`.
struct Dropping(Source, usize);

impl Socket for Dropping {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }

    fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        self.0.recv(scratch)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn close(self) {}
}

/// Bulk transfer is worth its cost only after a read that filled the buffer.
#[test]
fn receives_small_content_and_moves_large_content_in_bulk() {
    for (size, in_bulk) in [(10, false), (limits::FIRST_READ, true), (3 * limits::FIRST_READ, true)]
    {
        for drops in [false, true] {
            let mut world = World::new(|_| {});
            let source = Source { left: size, ends: true, given: 0 };
            let (limits, start) = (world.limits, world.start);
            let dialect = Dialect::Direct.into();
            let (result, bytes, dropped) = if drops {
                let mut session =
                    Session::begin(Connection::new(1), Dropping(source, 0), dialect, start);
                let turn = session.handle_ready(&CountSink, &mut world.copier, &limits, start);
                let Turn::Ended(result) = turn else { panic!("it waits") };
                let ended = session.close(result).finish(&CountSink);
                (ended.result, ended.bytes, ended.socket.socket().1 > 0)
            } else {
                // By default, the trait drops bytes by receiving them.
                let mut session = Session::begin(Connection::new(1), source, dialect, start);
                let turn = session.handle_ready(&CountSink, &mut world.copier, &limits, start);
                let Turn::Ended(result) = turn else { panic!("it waits") };
                let ended = session.close(result).finish(&CountSink);
                (ended.result, ended.bytes, false)
            };
            assert!(result.is_ok(), "{result:?}");
            assert_eq!((bytes, dropped), (size as u64, drops && in_bulk));
        }
    }
}

/// Bytes that were held back as a possible handshake become content at the end.
#[test]
fn bytes_that_only_resemble_a_handshake_count_as_content() {
    for (max_size, fits) in [(15, true), (14, false)] {
        let mut world = World::new(|limits| limits.max_size = Some(max_size));
        let socket = Source { left: 15, ends: true, given: 0 };
        let session = Session::begin(
            Connection::new(1),
            socket,
            accio_proto::ServerDialect::Auto,
            world.start,
        );
        let ended = world.finish(session);
        assert_eq!(ended.result.is_ok(), fits, "{:?}", ended.result);
    }
}

#[test]
fn the_earliest_limit_sets_the_deadline_without_counting_server_delays() {
    let mut world = World::new(|limits| {
        limits.idle_timeout = Duration::from_secs(30);
        limits.max_duration = Some(Duration::from_secs(20));
        limits.min_rate = Some(1);
    });
    let mut session = world.begin(5, false);
    for (seconds, ends) in [(10, false), (20, true)] {
        let now = world.start + Duration::from_secs(seconds);
        assert!(session.deadline(&world.limits) <= now, "{seconds} s");
        let limits = world.limits;
        match session.handle_timeout(&world.sink, &mut world.copier, &limits, now) {
            // The five bytes were available the whole time, but are received only now.
            Turn::Waiting => assert!(!ends),
            Turn::Ended(result) => {
                assert!(ends, "{result:?} after {seconds} s");
                return assert!(matches!(result, Err(Abort::TooLong(_))));
            }
        }
    }
    panic!("it never ended");
}

/// A socket that reports whether it has input.
struct Asked(Source, bool);

impl Socket for Asked {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.recv(buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes)
    }

    fn has_input(&self) -> bool {
        self.1
    }

    fn close(self) {}
}

/// The thread that enforces limits moves no content; it only checks for input.
#[test]
fn a_deadline_ends_a_session_only_without_input() {
    let world = World::new(|_| {});
    let (limits, start) = (world.limits, world.start);
    for has_input in [false, true] {
        let socket = Asked(Source { left: 5, ends: false, given: 0 }, has_input);
        let mut session = Session::<_, MemoryFile>::begin(
            Connection::new(1),
            socket,
            Dialect::Direct.into(),
            start,
        );
        let deadline = start + limits.idle_timeout;
        let early = session.check_deadline(&limits, deadline - Duration::from_nanos(1));
        assert!(matches!(early, Expiry::Later(at) if at == deadline), "{early:?}");
        match session.check_deadline(&limits, deadline) {
            Expiry::Expired(why) => assert!(!has_input && matches!(why, Abort::Idle(_)), "{why}"),
            Expiry::Later(at) => assert!(has_input && at > deadline),
        }
    }
}
