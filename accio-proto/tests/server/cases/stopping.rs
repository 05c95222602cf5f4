//! Stopping, draining and panics leave nothing unsaid.

use super::sinks::Odd;
use super::*;

#[test]
fn stopping_aborts_what_is_unfinished_and_tells_of_it() {
    let sink = MemorySink::new();
    let server = start(Server::builder(sink.clone()));
    upload(&server, b"done");
    let mut streams: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for stream in &mut streams {
        greeted(stream);
        stream.write_all(b"not done").unwrap();
    }
    let (address, outcomes) = (server.address, Arc::clone(&server.outcomes));
    let started = Instant::now();
    server.stop().unwrap();
    assert!(started.elapsed() < Duration::from_secs(1));
    let told = outcomes.wait(51);
    assert_eq!(sink.get(1), Some(Stored::Complete(b"done".to_vec())));
    for id in 2..=51 {
        assert_eq!(sink.get(id), Some(Stored::Error));
        assert_eq!(told[&id].error.as_deref(), Some("the server was stopped"));
    }
    assert!(streams.iter_mut().all(is_reset));
    assert!(TcpStream::connect(address).is_err());
}

/// Sessions that are in a worker's hands when the server stops end as the parked ones do.
#[test]
fn stopping_in_the_middle_of_busy_transfers_forgets_none() {
    for round in 0..60 {
        let sink = MemorySink::new();
        let server = start(Server::builder(sink.clone()).workers(workers(4)));
        let mut streams: Vec<_> = (0..6).map(|_| server.connect()).collect();
        streams.iter_mut().for_each(greeted);
        std::thread::scope(|scope| {
            for mut stream in streams {
                scope.spawn(move || while stream.write_all(&[7; 20_000]).is_ok() {});
            }
            std::thread::sleep(Duration::from_micros(500 + 37 * round));
            let outcomes = Arc::clone(&server.outcomes);
            server.stop().unwrap();
            let told = outcomes.told.lock().unwrap();
            assert!(told.keys().copied().eq(1..=6), "round {round}: {told:?}");
        });
        assert_eq!(sink.all().len(), 6);
    }
}

/// The same when it is a panic that stops it: only the session that panicked is lost.
#[test]
fn a_panic_in_the_middle_of_busy_transfers_forgets_no_other() {
    for round in 0..60 {
        let memory = MemorySink::new();
        let writes = std::sync::atomic::AtomicU32::new(0);
        let sink = Odd::new(&memory, move |id| {
            let write = writes.fetch_add(u32::from(id == 6), std::sync::atomic::Ordering::SeqCst);
            assert!(id != 6 || write < 5 + round, "the sink panics");
        });
        let mut server = start(Server::builder(sink).workers(workers(4)));
        let mut streams: Vec<_> = (0..6).map(|_| server.connect()).collect();
        streams.iter_mut().for_each(greeted);
        std::thread::scope(|scope| {
            for mut stream in streams {
                scope.spawn(move || while stream.write_all(&[7; 20_000]).is_ok() {});
            }
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.join()));
            panic.expect_err("run() panics");
        });
        for id in 1..6 {
            assert_eq!(memory.get(id), Some(Stored::Error), "round {round}, connection {id}");
        }
        assert_eq!(memory.get(6), None);
    }
}

#[test]
fn a_panic_in_the_sink_or_the_observer_ends_the_server_with_it() {
    let memory = MemorySink::new();
    let sink = Odd::new(&memory, |id| assert!(id != 2, "the sink panics"));
    let mut server = start(Server::builder(sink).workers(workers(3)));
    let mut idle = server.connect();
    greeted(&mut idle);
    let mut stream = server.connect();
    greeted(&mut stream);
    stream.write_all(b"x").unwrap();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.join()));
    let panic = panic.expect_err("run() panics");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the sink panics"));
    assert!(is_reset(&mut idle) && is_reset(&mut stream));
    assert_eq!(memory.get(1), Some(Stored::Error));
    assert_eq!(memory.get(2), None);

    let builder = Server::builder(CountSink).threading(THREADING);
    let builder = builder.on_outcome(|_| panic!("the observer panics"));
    let mut server = run(builder.bind("127.0.0.1:0").unwrap(), Arc::default());
    drop(server.connect());
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.join()));
    let panic = panic.expect_err("run() panics");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"the observer panics"));
}

#[test]
fn a_server_that_is_never_run_refuses_whoever_comes_after_it() {
    let server = Server::builder(CountSink).threading(THREADING).bind("127.0.0.1:0").unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let mut stream = TcpStream::connect(address).unwrap();
    drop(server);
    assert!(is_reset(&mut stream));
    assert!(TcpStream::connect(address).is_err());
    handle.stop();
}

#[test]
fn draining_lets_those_in_service_finish_and_nobody_else_in() {
    let sink = MemorySink::new();
    let mut server = start(Server::builder(sink.clone()).max_connections(workers(8)));
    let mut streams: Vec<_> = (0..8).map(|_| server.connect()).collect();
    for stream in &mut streams {
        greeted(stream);
        stream.write_all(b"first half, ").unwrap();
    }
    server.handle.drain();
    let started = Instant::now();
    while TcpStream::connect(server.address).is_ok() {
        assert!(started.elapsed() < PATIENCE, "it still listens");
        std::thread::sleep(Duration::from_millis(5));
    }
    for mut stream in streams {
        stream.write_all(b"second half").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN for a kept file");
    }
    server.join().unwrap().unwrap();
    let stats = server.handle.stats();
    assert_eq!((stats.accepted, stats.completed, stats.in_service), (8, 8, 0));
    assert!(
        sink.all()
            .values()
            .all(|stored| { *stored == Stored::Complete(b"first half, second half".to_vec()) })
    );
}
