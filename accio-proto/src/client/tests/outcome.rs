//! Tests of sources that report whether they were complete, and of files that report a wrong size.

use super::*;

#[test]
fn a_source_that_fails_at_its_end_resets_the_connection() {
    for fails in [false, true] {
        let peer = Peer::new(|mut stream| {
            greet(&mut stream, Dialect::Accio);
            rest(&mut stream).map_err(|error| error.kind())
        });
        let (output, feeding) = pipe(|mut input| input.write_all(b"content").unwrap());
        let mut calls = 0;
        let source = Source::with_outcome(output, move || {
            calls += 1;
            let outcome = if fails { Err(io::Error::other("exit status: 3")) } else { Ok(()) };
            (calls > 3).then_some(outcome)
        });
        let sent = client().send("127.0.0.1", peer.port, source);
        feeding.join().unwrap();
        if fails {
            assert_eq!(sent.unwrap_err().to_string(), "read the source: exit status: 3");
            assert_eq!(peer.end(), Err(ErrorKind::ConnectionReset));
        } else {
            assert!(sent.unwrap().confirmed);
            assert_eq!(peer.end().unwrap(), b"content");
        }
    }
}

#[test]
fn notices_a_closed_connection_while_waiting_for_the_outcome() {
    let peer = Peer::new(|mut stream| {
        greet(&mut stream, Dialect::Accio);
        expect(&mut stream, b"content");
        reset(stream);
    });
    let (output, feeding) = pipe(|mut input| input.write_all(b"content").unwrap());
    let start = Instant::now();
    let source = Source::with_outcome(output, || None);
    let error = client().send("127.0.0.1", peer.port, source).unwrap_err();
    assert!(matches!(error, ClientError::Reset { .. }), "{error}");
    assert!(start.elapsed() < SLACK);
    feeding.join().unwrap();
    peer.end();
}

#[test]
fn sends_files_that_report_a_wrong_size() {
    // sysfs reports a page for each file, procfs a size of 0.
    for path in ["/sys/class/net/lo/mtu", "/proc/version"] {
        let content = fs::read(path).unwrap();
        assert_ne!(fs::metadata(path).unwrap().len(), content.len() as u64, "{path}");
        for paths in [FastPaths::default(), FastPaths::without([FastPath::Sendfile])] {
            let peer = good(Dialect::Accio);
            let client = builder().fast_paths(paths).build().unwrap();
            let sent = client.send("127.0.0.1", peer.port, File::open(path).unwrap()).unwrap();
            assert_eq!((sent.confirmed, peer.end()), (true, content.clone()), "{path}");
        }
    }
}

#[test]
fn detects_a_shrinking_file_without_blocks() {
    let file = sparse(64 << 20);
    let shrinking = file.try_clone().unwrap();
    let peer = Peer::new(move |mut stream| {
        greet(&mut stream, Dialect::Accio);
        expect(&mut stream, &[0; 1000]);
        shrinking.set_len(0).unwrap();
        thread::sleep(SHORT);
        saw_reset(stream)
    });
    let error = client().send("127.0.0.1", peer.port, file).unwrap_err();
    assert!(matches!(error, ClientError::Shrank { .. }), "{error}");
    assert!(peer.end());
}
