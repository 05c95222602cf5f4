//! Tests of stalls, which fail an upload, and of slow transfers, which do not.

use super::*;

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux reports acknowledged bytes")]
fn a_closed_window_is_a_stall_during_and_after_sending() {
    for paths in [FastPaths::default(), FastPaths::without([FastPath::Sendfile])] {
        // The larger file exceeds the buffers, so the client is stuck before its FIN; the smaller
        // one fits into the client's buffer but not into the peer's.
        for (size, queued) in [(64 << 20, false), (1 << 20, true)] {
            let (done, over) = mpsc::channel::<()>();
            let peer = Peer::new(move |mut stream| {
                // Large enough that window probes alone do not fill it bit by bit.
                socket2::SockRef::from(&stream).set_recv_buffer_size(128 << 10).unwrap();
                greet(&mut stream, Dialect::Accio);
                let _ = over.recv_timeout(BOUND);
                saw_reset(stream)
            });
            let client = builder()
                .stall_timeout(SHORT)
                .confirm_timeout(SHORT)
                .fast_paths(paths.clone())
                .build()
                .unwrap();
            let start = Instant::now();
            let error = client.send("127.0.0.1", peer.port, sparse(size)).unwrap_err();
            let took = start.elapsed();
            let ClientError::Stalled { sent, .. } = error else { panic!("{error:?}") };
            assert_eq!(sent == size, queued, "{sent} of {size} bytes");
            assert!((SHORT..SHORT + SLACK).contains(&took), "{took:?}");
            assert_eq!(error.code(), "stalled");
            drop(done);
            assert!(peer.end(), "the server sees a reset, not the end of a file");
        }
    }
}

#[test]
fn detects_a_stall_without_the_kernels_own_limit() {
    let (done, over) = mpsc::channel::<()>();
    let peer = Peer::new(move |mut stream| {
        greet(&mut stream, Dialect::Accio);
        let _ = over.recv_timeout(BOUND);
    });
    let client = builder().stall_timeout(SHORT).build().unwrap();
    let mut connection = connect(&client, peer.port);
    rustix::net::sockopt::set_tcp_user_timeout(&connection.stream, 0).unwrap();
    block(connection.greet()).unwrap();
    let start = Instant::now();
    let error = block(connection.send(&mut sparse(64 << 20).into())).unwrap_err();
    assert!(matches!(error, ClientError::Stalled { .. }), "{error:?}");
    assert!((SHORT..SHORT + SLACK).contains(&start.elapsed()), "{:?}", start.elapsed());
    drop(done);
    peer.end();
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux reports acknowledged bytes")]
fn a_slow_reader_is_not_a_stall() {
    // The peer reads for longer than the limits in total, but never pauses that long.
    let content = pattern(6 << 20);
    let peer = Peer::new(move |mut stream| {
        socket2::SockRef::from(&stream).set_recv_buffer_size(256 << 10).unwrap();
        greet(&mut stream, Dialect::Accio);
        let mut bytes = Vec::new();
        let mut buffer = [0; 64 << 10];
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => return bytes,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
            thread::sleep(Duration::from_millis(30));
        }
    });
    let limit = Duration::from_millis(500);
    let client = builder().stall_timeout(limit).confirm_timeout(limit).build().unwrap();
    let sent = client.send("127.0.0.1", peer.port, file(&content)).unwrap();
    assert!(sent.confirmed && sent.duration > limit, "{sent:?}");
    assert!(peer.end() == content);
}

#[test]
fn a_slow_source_is_not_a_stall() {
    struct Slow(u8);
    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            thread::sleep(SHORT * 2);
            self.0 -= 1;
            buffer[0] = self.0;
            Ok(usize::from(self.0 > 0))
        }
    }
    let peer = good(Dialect::Accio);
    let client = builder().stall_timeout(SHORT).build().unwrap();
    client.send("127.0.0.1", peer.port, Source::reader(Slow(3))).unwrap();
    assert_eq!(peer.end(), [2, 1]);
}

#[test]
fn applies_the_rate_limit_on_every_path() {
    let content = pattern(300_000);
    let rate = NonZeroU64::new(500_000).unwrap();
    let sources: [fn(&[u8]) -> Source<'static>; 3] = [
        |content| file(content).into(),
        |content| {
            let content = content.to_vec();
            pipe(move |mut end| end.write_all(&content).unwrap()).0.into()
        },
        |content| Source::reader(io::Cursor::new(content.to_vec())),
    ];
    for source in sources {
        for paths in
            [FastPaths::default(), FastPaths::without([FastPath::Sendfile, FastPath::Splice])]
        {
            let peer = good(Dialect::Accio);
            let client = builder().rate_limit(rate).fast_paths(paths).build().unwrap();
            let sent = client.send("127.0.0.1", peer.port, source(&content)).unwrap();
            assert!(peer.end() == content);
            let took = sent.duration;
            assert!((SHORT * 2..SHORT * 2 + SLACK).contains(&took), "{took:?}");
        }
    }
}

#[test]
fn a_very_low_rate_limit_is_not_a_stall() {
    let peer = good(Dialect::Accio);
    let rate = NonZeroU64::new(2).unwrap();
    let client = builder().rate_limit(rate).stall_timeout(SHORT).build().unwrap();
    let sent = client.send("127.0.0.1", peer.port, file(b"abc")).unwrap();
    assert!(sent.duration >= Duration::from_millis(1500), "{sent:?}");
    assert_eq!(peer.end(), b"abc");
}
