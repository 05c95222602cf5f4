//! Tests of connections for which the system has no thread. They limit the memory of the whole process,
//! so run them alone: `cargo test -p accio-proto --test api threads_refused -- --ignored`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use accio_proto::{MemorySink, Server, Stored, Threading};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Limits the address space to what is mapped plus `more` bytes, or removes the limit.
fn limit_memory(more: Option<u64>) {
    let Rlimit { maximum, .. } = getrlimit(Resource::As);
    let current = more.map(|more| {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
        pages * rustix::param::page_size() as u64 + more
    });
    setrlimit(Resource::As, Rlimit { current: current.or(maximum), maximum }).unwrap();
}

#[test]
#[ignore = "the C library's own mappings may hit the limit first, which aborts the process"]
fn connections_wait_until_threads_can_be_started_again() {
    let sink = MemorySink::new();
    let builder = Server::builder(sink.clone()).threading(Threading::PerSession);
    let server = builder.bind("127.0.0.1:0").unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    let (started, starts) = std::sync::mpsc::channel();
    let serving = thread::spawn(move || {
        started.send(()).unwrap();
        server.run()
    });
    // A thread that is just starting needs memory, which it must get.
    starts.recv().unwrap();
    // Less than the stack of one thread.
    limit_memory(Some(1 << 20));
    let streams: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    thread::sleep(Duration::from_millis(350));
    for mut stream in &streams {
        stream.set_nonblocking(true).unwrap();
        let nothing = stream.read(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "neither greeted nor reset");
        stream.set_nonblocking(false).unwrap();
    }
    assert_eq!(handle.stats().accepted, 0);
    limit_memory(None);
    let started = Instant::now();
    for mut stream in streams {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
        stream.write_all(b"late but whole").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    assert!(started.elapsed() < Duration::from_secs(20));
    for id in 1..=3 {
        assert_eq!(sink.get(id), Some(Stored::Complete(b"late but whole".to_vec())));
    }
    handle.stop();
    serving.join().unwrap().unwrap();
}
