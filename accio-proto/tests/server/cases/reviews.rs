//! Reviews: a complete file has no name and no confirmation before it is accepted.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};

use accio_proto::Review;

use super::*;

/// Returns a server that passes each review on to the test.
fn reviewing(builder: ServerBuilder<Sink>) -> (RunningServer, Receiver<Review>) {
    let (sender, receiver) = mpsc::channel();
    let server = start(builder.reviewer(move |review| drop(sender.send(review))));
    (server, receiver)
}

fn next(reviews: &Receiver<Review>) -> Review {
    reviews.recv_timeout(PATIENCE).unwrap()
}

/// Sends content and FIN.
fn send(server: &RunningServer, content: &[u8]) -> TcpStream {
    let mut stream = server.connect();
    greeted(&mut stream);
    stream.write_all(content).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream
}

fn is_confirmed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0]), Ok(0))
}

/// Reads the file under review from its beginning.
fn content(review: &Review) -> Vec<u8> {
    let descriptor = review.descriptor().unwrap().unwrap();
    std::fs::read(format!("/proc/self/fd/{}", descriptor.as_raw_fd())).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "opens the file through /proc")]
fn a_file_is_read_before_it_is_named_and_then_kept_or_not() {
    if IS_ASYNCHRONOUS {
        // A reviewer sees no descriptor.
        return;
    }
    for (durable, without) in
        [(false, &[][..]), (false, &[FastPath::Tmpfile]), (true, &[]), (true, &FastPath::ALL)]
    {
        let dir = tempfile::tempdir().unwrap();
        let paths = FastPaths::without(without.iter().copied());
        let options = DirSink::options().fast_paths(paths.clone()).durable(durable);
        let sink = options.create(dir.path()).unwrap();
        let (server, reviews) = reviewing(builder(sink).fast_paths(paths));
        let contents = [Vec::new(), b"small".to_vec(), pattern(5 << 20)];
        for (id, sent) in (1..).zip(&contents) {
            let mut stream = send(&server, sent);
            let review = next(&reviews);
            assert_eq!((review.connection.id, review.bytes), (id, sent.len() as u64));
            assert_eq!(review.connection.peer, Some(stream.local_addr().unwrap()));
            assert_eq!(review.connection.dialect, Some(Dialect::Accio));
            assert!(content(&review) == *sent, "{} bytes", sent.len());
            assert!(!names(dir.path()).contains(&format!("{id}.file")));
            review.accept();
            assert!(is_confirmed(&mut stream));
            assert!(std::fs::read(dir.path().join(format!("{id}.file"))).unwrap() == *sent);
        }
        let mut stream = send(&server, b"refused");
        next(&reviews).reject("too plain");
        assert!(is_reset(&mut stream));
        let outcomes = server.outcomes.wait(4);
        assert_eq!(outcomes[&4].error.as_deref(), Some("rejected: too plain"));
        assert_eq!((outcomes[&4].bytes, outcomes[&4].digest), (7, None));
        assert_eq!(std::fs::read(dir.path().join("4.file")).unwrap(), b"ERROR");
        assert_eq!(names(dir.path()).len(), 4);
        server.stop().unwrap();
    }
}

#[test]
fn a_failed_transfer_is_not_reviewed_and_a_file_without_a_descriptor_is() {
    let sink = MemorySink::new();
    let (server, reviews) = reviewing(builder(sink.clone()));
    upload_and_reset(&server, b"part");
    server.outcomes.wait(1);
    let mut stream = send(&server, b"content");
    let review = next(&reviews);
    assert_eq!(review.connection.id, 2);
    assert!(review.descriptor().unwrap().is_none());
    assert_eq!(sink.get(2), None);
    review.accept();
    assert!(is_confirmed(&mut stream));
    assert_eq!(sink.get(2), Some(Stored::Complete(b"content".to_vec())));
}

#[test]
fn a_review_that_is_dropped_or_panics_rejects_the_file() {
    let server = start(builder(MemorySink::new()).reviewer(|review| match review.connection.id {
        1 => drop(review),
        _ => panic!("a reviewer that panics"),
    }));
    for _ in 0..2 {
        assert!(is_reset(&mut send(&server, b"content")));
    }
    let outcomes = server.outcomes.wait(2);
    for id in [1, 2] {
        assert_eq!(outcomes[&id].error.as_deref(), Some("rejected: not reviewed"));
    }
}

#[test]
fn no_time_limit_applies_to_a_review_and_it_delays_no_other_connection() {
    let limit = Duration::from_secs(1);
    let builder = builder(MemorySink::new())
        .workers(workers(1))
        .max_connections(workers(40))
        .idle_timeout(limit)
        .max_duration(limit);
    let (server, reviews) = reviewing(builder);
    let mut waiting: Vec<_> = (0..20).map(|_| send(&server, b"content")).collect();
    let held: Vec<_> = (0..20).map(|_| next(&reviews)).collect();
    std::thread::sleep(2 * limit);
    // During the review, another one is served, and its time limit fires.
    let started = Instant::now();
    let mut silent = server.connect();
    greeted(&mut silent);
    assert!(is_reset(&mut silent));
    assert!(started.elapsed() < limit + PATIENCE / 2, "{:?}", started.elapsed());
    assert_eq!(server.outcomes.ended().len(), 1);
    held.into_iter().for_each(Review::accept);
    for stream in &mut waiting {
        assert!(is_confirmed(stream));
    }
    // The time limits of the next connections in the same slots fire, too.
    let mut silent: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for stream in &mut silent {
        greeted(stream);
        assert!(is_reset(stream));
    }
    server.outcomes.wait(41);
}

#[test]
fn a_stop_ends_a_review_and_a_later_decision_has_no_effect() {
    for drain in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (server, reviews) = reviewing(builder(DirSink::create(dir.path()).unwrap()));
        let mut stream = send(&server, b"content");
        let review = next(&reviews);
        if drain {
            server.handle.drain();
            std::thread::sleep(Duration::from_millis(100));
            // It is waited for.
            assert!(server.outcomes.ended().is_empty());
        }
        let outcomes = Arc::clone(&server.outcomes);
        let started = Instant::now();
        server.stop().unwrap();
        assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
        assert_eq!(outcomes.wait(1)[&1].error.as_deref(), Some("the server was stopped"));
        assert!(review.descriptor().is_err());
        review.accept();
        assert!(is_reset(&mut stream));
        assert_eq!(std::fs::read(dir.path().join("1.file")).unwrap(), b"ERROR");
    }
}

#[test]
fn a_drained_server_ends_once_its_last_review_has() {
    let dir = tempfile::tempdir().unwrap();
    let (mut server, reviews) = reviewing(builder(DirSink::create(dir.path()).unwrap()));
    let mut stream = send(&server, b"content");
    let review = next(&reviews);
    server.handle.drain();
    review.accept();
    assert!(is_confirmed(&mut stream));
    server.join().unwrap().unwrap();
    assert_eq!(std::fs::read(dir.path().join("1.file")).unwrap(), b"content");
}

#[test]
fn a_file_that_cannot_be_prepared_is_not_reviewed() {
    #[derive(Clone)]
    struct Broken(MemorySink);
    struct BrokenFile(<MemorySink as FileSink>::File);
    impl FileSink for Broken {
        type File = BrokenFile;

        fn open(&self, connection: &Connection) -> Result<BrokenFile, OpenError> {
            self.0.open(connection).map(BrokenFile)
        }
    }
    impl SinkFile for BrokenFile {
        fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.write(bytes)
        }

        fn prepare_review(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn commit(&mut self) -> io::Result<()> {
            self.0.commit()
        }

        fn abort(&mut self) -> io::Result<()> {
            self.0.abort()
        }
    }
    if IS_ASYNCHRONOUS {
        // Such a file is not prepared.
        return;
    }
    let sink = MemorySink::new();
    let (server, reviews) = reviewing(builder(Broken(sink.clone())));
    assert!(is_reset(&mut send(&server, b"content")));
    server.outcomes.wait(1);
    assert_eq!(sink.get(1), Some(Stored::Error));
    assert!(reviews.try_recv().is_err());
}
