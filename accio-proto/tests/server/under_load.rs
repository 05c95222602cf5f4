//! Tests that the reactor's three kinds of threads do not delay each other: a slow sink, fast
//! clients and a slow recorder delay only their own connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use super::builder;
use super::cases::*;
use super::slow_sink::{Slow, SlowSink};
use accio_proto::{Acknowledgement, ConnectionStatus, MemorySink, Outcome, Phase, Stored};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn greeted_in(server: &RunningServer, limit: Duration) -> TcpStream {
    let started = Instant::now();
    let mut stream = server.connect();
    greeted(&mut stream);
    assert!(started.elapsed() < limit, "greeted after {:?}", started.elapsed());
    stream
}

/// Long for a greeting on a busy machine, but short for a sink that waits at its gate.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Table row 1: a limit is enforced in time, however busy the workers are.
#[test]
fn fast_senders_do_not_delay_time_limits() {
    let _alone = crate::ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // A single late end may be caused by other load on the machine; a limit that waits for busy
    // workers would be late each time.
    let on_time = (0..3).any(|_| lateness_among_fast_senders() <= Duration::from_millis(500));
    assert!(on_time, "late each time");
}

/// Stops the senders when the test ends, even if it fails.
struct StopSenders<'a>(&'a AtomicBool);

impl Drop for StopSenders<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Opens silent connections while other clients send as fast as they can; returns how late the last
/// silent one was ended.
fn lateness_among_fast_senders() -> Duration {
    let idle = Duration::from_secs(2);
    let server = start(builder(accio_proto::CountSink).idle_timeout(idle));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _done = StopSenders(&done);
        let mut silent: Vec<_> = (0..50).map(|_| server.connect()).collect();
        silent.iter_mut().for_each(greeted);
        for _ in 0..100 {
            let mut stream = server.connect();
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::SeqCst) && stream.write_all(&[7; 65_536]).is_ok() {}
            });
        }
        // No worker is free to accept this one.
        greeted_in(&server, AT_ONCE);
        // The first numbers belong to the silent connections.
        silent.iter_mut().for_each(|stream| assert!(is_reset(stream)));
        let ended = server.outcomes.ended();
        let longest = (1..=50).map(|id| ended[&id].duration).max();
        longest.unwrap_or_default().saturating_sub(idle)
    })
}

/// Table row 3: whichever calls of the sink are blocked, other clients are greeted and time limits
/// are enforced.
#[test]
fn a_blocked_sink_delays_neither_greetings_nor_time_limits_nor_open_files() {
    let idle = Duration::from_secs(2);
    for slow in [
        Slow { open: true, ..Slow::default() },
        Slow { write: true, ..Slow::default() },
        Slow { commit: true, ..Slow::default() },
        Slow { commit: true, groups: true, ..Slow::default() },
    ] {
        let memory = MemorySink::new();
        let (sink, held) = SlowSink::new(&memory, slow);
        let server = start(builder(sink).idle_timeout(idle).workers(workers(2)));
        let mut early = server.connect();
        greeted(&mut early);
        early.write_all(b"first, ").unwrap();
        if slow.open {
            // The file of this connection is opened by one of the slow calls.
            early.shutdown(Shutdown::Write).unwrap();
        }
        let slow_ones: Vec<_> = (0..20)
            .map(|_| {
                let mut stream = server.connect();
                greeted(&mut stream);
                stream.write_all(b"slow").unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                if !slow.open {
                    // On a busy machine this loop takes longer than the idle timeout.
                    early.write_all(b"more, ").unwrap();
                }
                stream
            })
            .collect();
        held.0.wait_for(if slow.groups { 1 } else { 2 });
        let mut silent = greeted_in(&server, AT_ONCE);
        let since = Instant::now();
        if !slow.open {
            // An upload into an open file continues.
            for _ in 0..5 {
                std::thread::sleep(idle / 5);
                early.write_all(b"more, ").unwrap();
            }
        }
        assert!(is_reset(&mut silent));
        assert!(since.elapsed() < idle + AT_ONCE, "ended after {:?}", since.elapsed());
        held.0.open();
        drop(slow_ones);
        if !slow.open {
            early.write_all(b"last").unwrap();
            early.shutdown(Shutdown::Write).unwrap();
        }
        assert_eq!(early.read(&mut [0]).unwrap(), 0, "a FIN for a stored file");
        server.stop().unwrap();
        let kept = memory.all();
        assert_eq!(kept.values().filter(|kept| **kept == Stored::Error).count(), 1);
        assert_eq!(kept.len(), 22);
    }
}

/// Table row 3: the space of a discarded file is freed when no client waits for it.
#[test]
fn freeing_a_discarded_file_delays_no_client() {
    let memory = MemorySink::new();
    let (sink, held) = SlowSink::new(&memory, Slow { drop: true, ..Slow::default() });
    let server = start(builder(sink).workers(workers(1)));
    for id in 1..=3 {
        let mut stream = server.connect();
        greeted(&mut stream);
        stream.write_all(b"half").unwrap();
        all_received(&server, 1);
        reset(stream);
        server.outcomes.wait(id);
    }
    held.0.wait_for(1);
    let started = Instant::now();
    for _ in 0..10 {
        upload(&server, b"quick");
    }
    assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
}

/// Each file that waits to be freed keeps its descriptor.
#[test]
fn files_being_freed_count_against_the_connection_limit() {
    const FREE: usize = 16;
    const LIMIT: usize = 24;
    let memory = MemorySink::new();
    let (sink, held) = SlowSink::new(&memory, Slow { drop: true, ..Slow::default() });
    let server = start(builder(sink).max_connections(workers(LIMIT)));
    let mut ended = 0;
    let mut refused = loop {
        let mut stream = server.connect();
        // Short only where the server is expected not to greet.
        let patience = if ended < FREE + LIMIT { PATIENCE } else { Duration::from_millis(500) };
        stream.set_read_timeout(Some(patience)).unwrap();
        if stream.read_exact(&mut [0; 7]).is_err() {
            break stream;
        }
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"half").unwrap();
        all_received(&server, 1);
        reset(stream);
        ended += 1;
        server.outcomes.wait(ended);
        assert!(ended <= FREE + LIMIT + 8, "each of these has an open file");
    };
    assert!(ended >= FREE + LIMIT, "only {ended} connections");
    held.0.open();
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    greeted(&mut refused);
    drop(refused);
    upload(&server, b"quick");
}

/// Table row 2: a stop waits for no blocked thread, and the connections of these threads get their
/// markers.
#[test]
#[cfg_attr(not(linux_sys), ignore = "only the reactor has lanes for commits and markers")]
fn a_stop_takes_less_than_a_second_whatever_is_blocked() {
    for slow in [
        Slow { open: true, ..Slow::default() },
        Slow { write: true, ..Slow::default() },
        Slow { commit: true, ..Slow::default() },
        Slow { commit: true, groups: true, ..Slow::default() },
        Slow { drop: true, ..Slow::default() },
        Slow { stopping: true, ..Slow::default() },
    ] {
        is_in_time(|| stop_while_blocked(slow, b"slow"));
    }
    // The file of an empty upload is opened right before its commit.
    is_in_time(|| stop_while_blocked(Slow { open: true, ..Slow::default() }, b""));
}

/// Fails unless one of three stops takes less than a second: a single late one may be caused by
/// other load on the machine.
fn is_in_time(stop: impl Fn() -> Duration) {
    let late = |_| Some(stop()).filter(|took| *took >= Duration::from_secs(1));
    let late: Vec<_> = (0..3).map_while(late).collect();
    assert!(late.len() < 3, "{late:?}");
}

/// Returns how long a stop takes.
fn stop_while_blocked(slow: Slow, content: &[u8]) -> Duration {
    let memory = MemorySink::new();
    let (sink, held) = SlowSink::new(&memory, slow);
    let server = start(builder(sink).workers(workers(2)));
    let mut streams: Vec<_> = (0..30).map(|_| server.connect()).collect();
    for stream in &mut streams {
        greeted(stream);
        stream.write_all(content).unwrap();
        if slow.commit || content.is_empty() {
            stream.shutdown(Shutdown::Write).unwrap();
        }
    }
    if slow.drop || slow.stopping {
        all_received(&server, 30);
    } else {
        held.0.wait_for(if slow.groups { 1 } else { 2 });
    }
    let outcomes = Arc::clone(&server.outcomes);
    let started = Instant::now();
    server.stop().unwrap();
    let took = started.elapsed();
    let ended = outcomes.wait(30);
    assert!(ended.values().all(|ended| ended.error.is_some()), "{ended:?}");
    assert!((1..=30).all(|id| memory.get(id) == Some(Stored::Error)));
    // The blocked calls return now and must not touch the markers.
    held.0.open();
    std::thread::sleep(Duration::from_millis(50));
    assert!((1..=30).all(|id| memory.get(id) == Some(Stored::Error)));
    took
}

/// Waits until each of `count` connections has received four bytes.
fn all_received(server: &RunningServer, count: usize) {
    let started = Instant::now();
    while server.handle.connections().filter(|connection| connection.bytes == 4).count() < count {
        assert!(started.elapsed() < PATIENCE, "not all bytes arrived");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Markers that take long are left to further threads at a stop; none of these then waits until a
/// discarded file is freed.
#[test]
#[cfg_attr(not(linux_sys), ignore = "only the reactor has lanes for commits and markers")]
fn a_stop_leaves_slow_markers_before_it_frees_files() {
    is_in_time(|| stop_with_slow_markers().0);
}

/// Many threads would only wait for each other, for example for the lock of the directory.
#[test]
#[cfg_attr(not(linux_sys), ignore = "only the reactor has lanes for commits and markers")]
fn a_stop_writes_many_markers_with_few_threads() {
    let (_, threads) = stop_with_slow_markers();
    assert!((5..=20).contains(&threads), "4 and at most 16 more, not {threads}");
}

/// Returns how long the stop takes, and the number of threads that write markers.
fn stop_with_slow_markers() -> (Duration, usize) {
    const COUNT: u64 = 200;
    let memory = MemorySink::new();
    let slow = Slow { abort: Duration::from_millis(25), drop: true, ..Slow::default() };
    let (sink, held) = SlowSink::new(&memory, slow);
    let markers = Arc::clone(&sink.markers);
    let server = start(builder(sink).workers(workers(2)));
    let mut streams: Vec<_> = (0..COUNT).map(|_| server.connect()).collect();
    for stream in &mut streams {
        greeted(stream);
        stream.write_all(b"part").unwrap();
    }
    all_received(&server, COUNT as usize);
    let started = Instant::now();
    server.stop().unwrap();
    let took = started.elapsed();
    let marked = (1..=COUNT).filter(|id| memory.get(*id) == Some(Stored::Error)).count();
    held.0.open();
    assert_eq!(marked as u64, COUNT);
    (took, markers.lock().unwrap().len())
}

/// A single upload does not wait for a group to fill up; waiting ones share a group.
#[test]
#[cfg_attr(not(linux_sys), ignore = "only the reactor has lanes for commits and markers")]
fn waiting_commits_share_a_group() {
    let memory = MemorySink::new();
    let slow = Slow { commit: true, groups: true, ..Slow::default() };
    let (sink, held) = SlowSink::new(&memory, slow);
    let groups = Arc::clone(&sink.groups);
    let server = start(builder(sink));
    let send = |server: &RunningServer| {
        let mut stream = server.connect();
        greeted(&mut stream);
        stream.write_all(b"content").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream
    };
    let mut streams = vec![send(&server)];
    held.0.wait_for(1);
    streams.extend((0..40).map(|_| send(&server)));
    held.0.wait_for(2);
    let finishing = |connection: &ConnectionStatus| connection.phase == Phase::Finishing;
    let started = Instant::now();
    while server.handle.connections().filter(finishing).count() < streams.len() {
        assert!(started.elapsed() < PATIENCE, "not all uploads are complete");
        std::thread::sleep(Duration::from_millis(1));
    }
    held.0.open();
    for stream in &mut streams {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN for a stored file");
    }
    let groups = groups.lock().unwrap();
    assert_eq!((groups[0], groups.iter().sum::<usize>()), (1, 41));
    // Four threads begin with a file each, and the others fit into three groups of 16.
    assert!(groups.len() <= 10, "{groups:?}");
}

/// Table row 7: a client that sees the end of one connection may open the next.
#[test]
fn sequential_uploads_never_exceed_the_limit_per_address() {
    let builder = builder(accio_proto::CountSink).max_per_ip(NonZeroU32::MIN);
    let server = start(builder.workers(workers(4)));
    for _ in 0..1000 {
        upload(&server, b"content");
    }
    assert_eq!(server.handle.stats().refused, 0);
}

/// Table row 8: numbers are never reused.
#[test]
fn accepts_nothing_after_the_last_number() {
    let memory = MemorySink::new();
    let server = start(builder(memory.clone()).first_id(u64::MAX - 1));
    upload(&server, b"last but one");
    upload(&server, b"last");
    let mut stream = server.connect();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let nothing = stream.read(&mut [0; 8]).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock, "neither greeted nor refused");
    let kept = memory.all();
    assert!(kept.keys().copied().eq([u64::MAX - 1, u64::MAX]), "{:?}", kept.keys());
    server.stop().unwrap();
}

/// A recorder that keeps an acknowledgement delays that client and no other.
#[test]
fn notifies_a_client_when_its_record_is_written() {
    let (sender, records) = mpsc::channel::<(Outcome, Acknowledgement)>();
    let sender = Mutex::new(sender);
    let memory = MemorySink::new();
    let recorder = move |outcome: Outcome, acknowledgement| match outcome.connection.id {
        1 => sender.lock().unwrap().send((outcome, acknowledgement)).unwrap(),
        _ => acknowledgement.send(),
    };
    let server = start(builder(memory.clone()).recorder(recorder).workers(workers(1)));
    let mut first = server.connect();
    greeted(&mut first);
    first.write_all(b"first").unwrap();
    first.shutdown(Shutdown::Write).unwrap();
    let (outcome, acknowledgement) = records.recv_timeout(PATIENCE).unwrap();
    assert_eq!((outcome.connection.id, outcome.bytes), (1, 5));
    for _ in 0..20 {
        upload(&server, b"others");
    }
    first.set_nonblocking(true).unwrap();
    assert_eq!(first.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    first.set_nonblocking(false).unwrap();
    drop(acknowledgement);
    assert_eq!(first.read(&mut [0]).unwrap(), 0, "a FIN for a stored file");
    assert_eq!(memory.all().len(), 21);
    server.stop().unwrap();
}

/// Table row 15: an error instead of a panic.
#[test]
fn rejects_too_many_workers() {
    let builder = builder(accio_proto::CountSink).workers(workers(100_000));
    let error = builder.bind("127.0.0.1:0").unwrap_err();
    assert!(error.to_string().starts_with("100000 workers: must be at most 1024"), "{error}");
}
