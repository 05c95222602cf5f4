//! Tests of numbers, concurrent connections, limits, and reported outcomes.

use super::*;

#[test]
fn numbers_follow_the_order_of_acceptance() {
    let sink = MemorySink::new();
    let server = start(builder(sink.clone()).workers(workers(4)));
    // All clients are connected before the first upload ends, and end in reverse order.
    let streams: Vec<_> = (1..=100).map(|number| (number, server.connect())).collect();
    for (number, mut stream) in streams.into_iter().rev() {
        greeted(&mut stream);
        write!(stream, "I am number {number}").unwrap();
    }
    server.outcomes.wait(100);
    for number in 1..=100u64 {
        let content = format!("I am number {number}").into_bytes();
        assert_eq!(sink.get(number), Some(Stored::Complete(content)));
    }
    server.stop().unwrap();
}

#[test]
fn a_thousand_concurrent_connections_keep_their_own_content() {
    let sink = MemorySink::new();
    // All clients have the same address.
    let one_address = std::num::NonZeroU32::new(1000).unwrap();
    let server = start(builder(sink.clone()).max_per_ip(one_address));
    let barrier = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for part in 0..8u64 {
            let (server, barrier) = (&server, &barrier);
            scope.spawn(move || {
                let mut streams: Vec<_> = (0..125).map(|_| server.connect()).collect();
                for stream in &mut streams {
                    greeted(stream);
                }
                barrier.wait();
                for round in 0..3 {
                    for (index, stream) in streams.iter_mut().enumerate() {
                        write!(stream, "<{part}.{index}.{round}>").unwrap();
                    }
                }
            });
        }
    });
    let ended = server.outcomes.wait(1000);
    assert!(ended.keys().copied().eq(1..=1000));
    assert!(ended.values().all(|ended| ended.error.is_none() && ended.peer.is_some()));
    let mut kept: Vec<_> = sink.all().into_values().collect();
    let mut sent: Vec<_> = (0..8)
        .flat_map(|part| (0..125).map(move |index| (part, index)))
        .map(|(part, index)| {
            let rounds = (0..3).map(|round| format!("<{part}.{index}.{round}>"));
            Stored::Complete(rounds.collect::<String>().into_bytes())
        })
        .collect();
    let key = |stored: &Stored| match stored {
        Stored::Complete(content) => content.clone(),
        Stored::Error => Vec::new(),
    };
    kept.sort_by_key(key);
    sent.sort_by_key(key);
    assert!(kept == sent);
}

/// Uploads one file after another, so that no other event wakes a worker: each client must see its
/// end immediately, not at the next event. Otherwise `upload` runs into its time limit.
#[test]
fn each_of_many_sequential_uploads_ends_at_once() {
    let sink = CountSink;
    let server = start(builder(sink).workers(workers(4)));
    for _ in 0..2_500 {
        upload(&server, b"content");
    }
    server.outcomes.wait(2_500);
    server.stop().unwrap();
}

#[test]
fn at_the_connection_limit_further_clients_wait_without_a_greeting() {
    let sink = MemorySink::new();
    let server = start(builder(sink.clone()).max_connections(workers(1)));
    let mut streams: Vec<_> = (0..12).map(|_| server.connect()).collect();
    for index in 0..streams.len() {
        let (now, later) = streams[index..].split_first_mut().unwrap();
        greeted(now);
        std::thread::sleep(Duration::from_millis(20));
        for stream in later {
            stream.set_nonblocking(true).unwrap();
            let nothing = stream.read(&mut [0]).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock, "not its turn");
            stream.set_nonblocking(false).unwrap();
        }
        write!(now, "{index}").unwrap();
        now.shutdown(Shutdown::Write).unwrap();
    }
    server.outcomes.wait(12);
    for index in 0..12u64 {
        let content = index.to_string().into_bytes();
        assert_eq!(sink.get(index + 1), Some(Stored::Complete(content)));
    }
}

#[test]
fn the_outcome_has_every_property_of_the_connection() {
    let server = start(builder(CountSink));
    let mut stream = server.connect();
    let peer = stream.local_addr().unwrap();
    greeted(&mut stream);
    stream.write_all(b"confirm-accio\r\nconfirm-accio-again\r\n\r\n").unwrap();
    stream.write_all(&[b'x'; 1000]).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stream.shutdown(Shutdown::Write).unwrap();
    let ended = &server.outcomes.wait(1)[&1];
    assert_eq!((ended.dialect, ended.bytes, &ended.error), (Some(Dialect::Confirm), 1000, &None));
    assert_eq!(ended.peer, Some(peer));
    assert!(ended.duration >= Duration::from_millis(50) && ended.duration < PATIENCE);

    upload(&server, b"");
    let ended = &server.outcomes.wait(2)[&2];
    assert_eq!((ended.dialect, ended.bytes, &ended.error), (Some(Dialect::Accio), 0, &None));
}

#[test]
fn a_refused_client_gets_no_number_and_takes_no_place() {
    let sink = MemorySink::new();
    let one = std::num::NonZeroU32::MIN;
    let server = start(builder(sink.clone()).max_per_ip(one).max_connections(workers(2)));
    for round in 1..=3u64 {
        let mut kept = server.connect();
        greeted(&mut kept);
        for _ in 0..5 {
            assert!(is_reset(&mut server.connect()), "the address has its only connection");
        }
        kept.write_all(b"kept").unwrap();
        kept.shutdown(Shutdown::Write).unwrap();
        // Its place is free once the client sees the end.
        assert_eq!(kept.read(&mut [0]).unwrap(), 0, "a FIN for a stored file");
        assert_eq!(sink.get(round), Some(Stored::Complete(b"kept".to_vec())));
    }
    let stats = server.handle.stats();
    assert_eq!((stats.accepted, stats.refused), (3, 15));
}
