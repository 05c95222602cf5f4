//! Tests of silent connections, and of connections that only appear to be silent.

use super::*;

#[test]
fn five_hundred_idle_connections_end_on_time() {
    // This test must not run at the same time as the one for the other threading mode: it measures
    // the server, not the machine.
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Ending early is always wrong; a single late end may be caused by other load on the machine.
    let on_time = (0..4).any(|_| lateness_of_silence(500) <= Duration::from_millis(500));
    assert!(on_time, "late each time");
}

/// Opens this many silent connections; returns how late the last one was ended.
fn lateness_of_silence(count: u64) -> Duration {
    let idle = Duration::from_millis(1500);
    let sink = MemorySink::new();
    let server = start(builder(sink.clone()).idle_timeout(idle));
    let waiting: Vec<_> = (0..count)
        .map(|_| {
            // The idle time counts from the accept or the greeting, both of which are later than
            // this.
            let since = Instant::now();
            let mut stream = server.connect();
            greeted(&mut stream);
            (since, stream)
        })
        .collect();
    for (since, mut stream) in waiting {
        assert!(is_reset(&mut stream));
        assert!(since.elapsed() >= idle, "{:?}", since.elapsed());
    }
    let ended = server.outcomes.wait(count as usize);
    for (id, ended) in &ended {
        assert_eq!(ended.error.as_deref(), Some("no data for 1.5 s"));
        assert!(ended.duration >= idle, "{id}: {:?}", ended.duration);
        assert_eq!(sink.get(*id), Some(Stored::Error));
    }
    let longest = ended.values().map(|ended| ended.duration).max();
    longest.unwrap_or_default().saturating_sub(idle)
}

#[test]
fn idle_time_counts_from_the_last_byte() {
    let idle = Duration::from_secs(2);
    let server = start(builder(MemorySink::new()).idle_timeout(idle));
    let mut stream = server.connect();
    greeted(&mut stream);
    std::thread::sleep(idle / 2);
    let since = Instant::now();
    stream.write_all(b"a byte").unwrap();
    assert!(is_reset(&mut stream));
    assert!(since.elapsed() >= idle, "{:?}", since.elapsed());
    assert_eq!(server.outcomes.wait(1)[&1].error.as_deref(), Some("no data for 2 s"));
}

#[test]
fn each_byte_restarts_the_idle_timeout() {
    let idle = Duration::from_millis(1500);
    let sink = MemorySink::new();
    let server = start(builder(sink.clone()).idle_timeout(idle));
    let mut stream = server.connect();
    for byte in b"accio" {
        std::thread::sleep(idle / 3);
        stream.write_all(&[*byte]).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    server.outcomes.wait(1);
    assert_eq!(sink.get(1), Some(Stored::Complete(b"accio".to_vec())));
}
