//! Silent connections, and connections that only look silent.

use super::*;

#[test]
fn five_hundred_silent_connections_end_on_time() {
    // Not at the same time as the same test for the other serving mode: it measures the server, not
    // the machine.
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Too early is never right; too late may be the fault of whatever else runs here, once.
    let on_time = (0..4).any(|_| lateness_of_silence(500) <= Duration::from_millis(500));
    assert!(on_time, "late each time");
}

/// Lets so many connections be silent; how late the last one was ended.
fn lateness_of_silence(count: u64) -> Duration {
    let idle = Duration::from_millis(1500);
    let sink = MemorySink::new();
    let server = start(Server::builder(sink.clone()).idle_timeout(idle));
    let waiting: Vec<_> = (0..count)
        .map(|_| {
            // Silence counts from the accept or the greeting, which both come later.
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
    let told = server.outcomes.wait(count as usize);
    for (id, told) in &told {
        assert_eq!(told.error.as_deref(), Some("no data for 1.5 s"));
        assert!(told.duration >= idle, "{id}: {:?}", told.duration);
        assert_eq!(sink.get(*id), Some(Stored::Error));
    }
    let longest = told.values().map(|told| told.duration).max();
    longest.unwrap_or_default().saturating_sub(idle)
}

/// A byte is as good as any: silence counts from it.
#[test]
fn silence_counts_from_the_last_byte() {
    let idle = Duration::from_millis(800);
    let server = start(Server::builder(MemorySink::new()).idle_timeout(idle));
    let mut stream = server.connect();
    greeted(&mut stream);
    std::thread::sleep(idle / 2);
    let since = Instant::now();
    stream.write_all(b"a byte").unwrap();
    assert!(is_reset(&mut stream));
    assert!(since.elapsed() >= idle, "{:?}", since.elapsed());
    assert_eq!(server.outcomes.wait(1)[&1].error.as_deref(), Some("no data for 0.8 s"));
}

#[test]
fn a_busy_connection_is_not_idle_and_each_byte_counts() {
    let idle = Duration::from_millis(600);
    let sink = MemorySink::new();
    let server = start(Server::builder(sink.clone()).idle_timeout(idle));
    let mut stream = server.connect();
    for byte in b"accio" {
        std::thread::sleep(Duration::from_millis(250));
        stream.write_all(&[*byte]).unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    server.outcomes.wait(1);
    assert_eq!(sink.get(1), Some(Stored::Complete(b"accio".to_vec())));
}
