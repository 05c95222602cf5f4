//! Tests of content: every kind of source and path, files that change during the upload, and
//! progress reports.

use super::*;
use crate::tuning::client::PROGRESS_INTERVAL;

#[test]
fn sends_every_size_in_every_dialect_on_every_path() {
    for dialect in Dialect::ALL {
        for size in [0, 1, 7, 4096, 5 << 20] {
            for paths in [FastPaths::default(), FastPaths::without([FastPath::Sendfile])] {
                let content = pattern(size);
                let peer = good(dialect);
                let client = builder().dialect(dialect).fast_paths(paths).build().unwrap();
                let sent = client.send("127.0.0.1", peer.port, file(&content)).unwrap();
                assert_eq!((sent.bytes, sent.confirmed), (size as u64, true));
                assert_eq!((sent.dialect, sent.peer.port()), (dialect, peer.port));
                assert!(peer.end() == content, "{dialect}, {size} bytes");
            }
        }
    }
}

#[test]
fn sends_any_reader() {
    let content = pattern(3 << 20);
    for cut in [0, 1, 5000, content.len()] {
        let peer = good(Dialect::Accio);
        let (head, tail) = content.split_at(cut);
        let source = Source::reader(head.chain(tail));
        client().send("127.0.0.1", peer.port, source).unwrap();
        assert!(peer.end() == content);
    }
    let peer = good(Dialect::Accio);
    client().send("127.0.0.1", peer.port, &content[..10]).unwrap();
    assert_eq!(peer.end(), content[..10]);
}

#[test]
fn sends_a_file_from_its_position() {
    let content = pattern(100_000);
    for paths in [FastPaths::default(), FastPaths::without([FastPath::Sendfile])] {
        let peer = good(Dialect::Accio);
        let mut file = file(&content);
        file.seek(SeekFrom::Start(70_000)).unwrap();
        let client = builder().fast_paths(paths).build().unwrap();
        assert_eq!(client.send("127.0.0.1", peer.port, file).unwrap().bytes, 30_000);
        assert!(peer.end() == content[70_000..]);
    }
}

#[test]
fn falls_back_to_reads_if_sendfile_is_refused() {
    // A regular file of size 0 that has content, and that sendfile does not support.
    let content = fs::read("/proc/self/auxv").unwrap();
    let client = client();
    let peer = good(Dialect::Accio);
    let source = File::open("/proc/self/auxv").unwrap();
    client.send("127.0.0.1", peer.port, source).unwrap();
    assert_eq!(peer.end(), content);
    assert!(
        !client.settings.fast_paths.has(FastPath::Sendfile),
        "disabled after the first refusal"
    );

    let peer = good(Dialect::Accio);
    client.send("127.0.0.1", peer.port, file(b"next")).unwrap();
    assert_eq!(peer.end(), b"next");
}

#[test]
fn a_failing_source_resets_the_connection() {
    struct Bad;
    impl Read for Bad {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(rustix::io::Errno::IO.into())
        }
    }
    let directory = || Source::from(File::open("/").unwrap());
    let write_only = || {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), b"content").unwrap();
        Source::from(File::options().write(true).open(file.path()).unwrap())
    };
    let broken = || Source::reader((&b"some"[..]).chain(Bad));
    for (source, why) in [
        (directory(), "is a directory"),
        (write_only(), "bad file descriptor"),
        (broken(), "input/output error"),
    ] {
        let peer = Peer::new(|mut stream| {
            greet(&mut stream, Dialect::Accio);
            saw_reset(stream)
        });
        let error = client().send("127.0.0.1", peer.port, source).unwrap_err();
        assert_eq!(error.to_string(), format!("read the source: {why}"));
        assert_eq!((error.code(), error.is_local()), ("read", true));
        assert!(peer.end(), "{why}");
    }
}

#[test]
fn reports_events_in_order() {
    for dialect in Dialect::ALL {
        let events = Arc::new(Mutex::new(Vec::new()));
        let kept = events.clone();
        let peer = good(dialect);
        let client = builder()
            .dialect(dialect)
            .on_event(move |event| kept.lock().unwrap().push(event.clone()))
            .build()
            .unwrap();
        let sent = client.send("127.0.0.1", peer.port, file(b"content")).unwrap();
        peer.end();
        let events = events.lock().unwrap();
        let [
            ClientEvent::Resolved { addresses, .. },
            ClientEvent::Connected { peer: connected, local: Some(_), .. },
            ClientEvent::Greeted { peer: greeted, dialect: spoken, .. },
            ClientEvent::Sent { bytes: 7, .. },
        ] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!((&addresses[..], *spoken), (&[sent.peer][..], dialect));
        assert_eq!([connected, greeted], [&sent.peer; 2]);
    }
}

/// Sends a file whose size changes after its first part has been sent.
fn resized(to: u64) -> (Result<Sent, ClientError>, io::Result<Vec<u8>>) {
    let source = sparse(64 << 20);
    let resize = source.try_clone().unwrap();
    let peer = Peer::new(move |mut stream| {
        greet(&mut stream, Dialect::Accio);
        stream.read_exact(&mut [0; 1]).unwrap();
        resize.set_len(to).unwrap();
        rest(&mut stream)
    });
    let result = client().send("127.0.0.1", peer.port, source);
    (result, peer.end())
}

#[test]
fn a_shrinking_file_fails_and_a_growing_one_is_sent_to_its_end() {
    let (result, seen) = resized(60 << 20);
    let error = result.unwrap_err();
    let ClientError::Shrank { expected, found } = error else { panic!("{error:?}") };
    assert_eq!((expected, found), (64 << 20, 60 << 20));
    assert_eq!(error.code(), "shrank");
    assert_eq!(seen.unwrap_err().kind(), ErrorKind::ConnectionReset);

    let (result, seen) = resized(70 << 20);
    assert_eq!(result.unwrap().bytes, 70 << 20);
    assert_eq!(seen.unwrap().len(), (70 << 20) - 1);
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux reports acknowledged bytes")]
fn progress_increases_to_the_full_size() {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let kept = reports.clone();
    let content = pattern(16 << 20);
    let peer = Peer::new(|mut stream| {
        greet(&mut stream, Dialect::Accio);
        thread::sleep(PROGRESS_INTERVAL * 5);
        rest(&mut stream).unwrap().len()
    });
    let client = builder().on_progress(move |at| kept.lock().unwrap().push(at)).build().unwrap();
    client.send("127.0.0.1", peer.port, file(&content)).unwrap();
    assert_eq!(peer.end(), content.len());

    let reports = reports.lock().unwrap();
    assert!(reports.len() >= 4, "{reports:?}");
    let whole = Some(content.len() as u64);
    assert!(reports.is_sorted_by_key(|at| (at.sent, at.acknowledged)), "{reports:?}");
    for at in reports.iter() {
        assert!(at.acknowledged.unwrap() <= at.sent && at.total == whole, "{at:?}");
    }
    let stuck = reports[2];
    assert!(stuck.acknowledged.unwrap() < stuck.sent, "buffered, not arrived: {stuck:?}");
    assert_eq!(reports.last().unwrap().acknowledged, whole);
}
