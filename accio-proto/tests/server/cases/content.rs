//! Tests that the stored file equals the sent bytes, regardless of how they arrive and end.

use super::*;

#[test]
fn a_reset_leaves_no_partial_file_and_is_harmless_after_fin() {
    for without in [&[][..], &FastPath::ALL] {
        for length in [0, 1, 1000, 300_000] {
            let sink = MemorySink::new();
            let paths = FastPaths::without(without.iter().copied());
            let server = start(builder(sink.clone()).fast_paths(paths));
            let content = vec![b'x'; length];
            upload_and_reset(&server, &content);
            server.outcomes.wait(1);
            assert_eq!(sink.get(1), Some(Stored::Error), "{length} bytes and RST");
            if length > 1000 {
                // Closing with the greeting unread drops unsent data, including the FIN.
                continue;
            }
            // Send data and FIN, then reset because the greeting was not read.
            let mut stream = server.connect();
            while stream.peek(&mut [0; 7]).unwrap() < 7 {}
            stream.write_all(&content).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            drop(stream);
            server.outcomes.wait(2);
            let kept = sink.get(2) == Some(Stored::Complete(content));
            assert!(kept, "{length} bytes, FIN and RST");
            // Send data, then close, which resets for the same reason.
            let mut stream = server.connect();
            while stream.peek(&mut [0; 7]).unwrap() < 7 {}
            stream.write_all(b"data").unwrap();
            drop(stream);
            server.outcomes.wait(3);
            assert_eq!(sink.get(3), Some(Stored::Error), "closed with the greeting unread");
        }
    }
}

#[test]
fn the_portable_paths_store_the_same_files() {
    for without in [&[][..], &FastPath::ALL] {
        let dir = tempfile::tempdir().unwrap();
        let paths = FastPaths::without(without.iter().copied());
        let sink = DirSink::options().fast_paths(paths.clone()).create(dir.path()).unwrap();
        let server = start(builder(sink).fast_paths(paths));
        let contents: Vec<Vec<u8>> =
            [0, 1, 65_536, 65_537, 6 << 20].into_iter().map(pattern).collect();
        for content in &contents {
            upload(&server, content);
        }
        upload_and_reset(&server, &contents[4]);
        server.outcomes.wait(6);
        server.stop().unwrap();
        for (index, content) in contents.iter().enumerate() {
            let kept = std::fs::read(dir.path().join(format!("{}.file", index + 1))).unwrap();
            assert!(kept == *content, "{} bytes", content.len());
        }
        assert_eq!(std::fs::read(dir.path().join("6.file")).unwrap(), b"ERROR");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 6);
    }
}

/// An urgent byte is content like any other, even though splicing stops before it.
#[test]
fn urgent_bytes_are_content() {
    for without in [&[][..], &FastPath::ALL] {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::create(dir.path()).unwrap();
        let paths = FastPaths::without(without.iter().copied());
        let server = start(builder(sink).fast_paths(paths));
        let mut stream = server.connect();
        greeted(&mut stream);
        let mut content = Vec::new();
        for round in 0..4 {
            let piece = vec![b'a' + round; 300_000];
            stream.write_all(&piece).unwrap();
            content.extend_from_slice(&piece);
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(socket2::SockRef::from(&stream).send_out_of_band(b"!").unwrap(), 1);
            content.push(b'!');
        }
        stream.shutdown(Shutdown::Write).unwrap();
        let ended = &server.outcomes.wait(1)[&1];
        assert_eq!((ended.bytes, &ended.error), (content.len() as u64, &None), "{without:?}");
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        assert!(std::fs::read(dir.path().join("1.file")).unwrap() == content);
    }
}

/// Splicing stops before an urgent byte; the bytes after it must be counted when they arrive, not
/// only at the end.
#[test]
fn bytes_after_an_urgent_byte_reset_the_idle_timeout() {
    let idle = Duration::from_millis(1500);
    let dir = tempfile::tempdir().unwrap();
    let server = start(builder(DirSink::create(dir.path()).unwrap()).idle_timeout(idle));
    let mut stream = server.connect();
    greeted(&mut stream);
    // Enough bytes for the server to splice.
    stream.write_all(&[b'a'; 1 << 20]).unwrap();
    // A single urgent byte: a second one would turn the first into a normal byte.
    assert_eq!(socket2::SockRef::from(&stream).send_out_of_band(b"!").unwrap(), 1);
    for _ in 0..4 {
        std::thread::sleep(idle / 3);
        stream.write_all(b"b").unwrap();
    }
    stream.shutdown(Shutdown::Write).unwrap();
    let ended = &server.outcomes.wait(1)[&1];
    assert_eq!((ended.bytes, &ended.error), ((1 << 20) + 5, &None));
}
