//! Interface to the supervisor: readiness, passed sockets, and a restart that refuses no client.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::harness::{
    BOUND, Place, Server, StopOnDrop, command, connect, finish, json_lines, program, upload,
};

/// Returns the server, with `socket` as its first passed descriptor.
fn with_socket(socket: &TcpListener) -> Command {
    let mut command = command("sh");
    // Does what systemd does between fork and exec.
    let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    command.args(["-c", script]).arg(program().get_program());
    command.stdin(Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    command
}

fn receive(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    // A signal to the test process may interrupt a call with a time limit.
    let count = loop {
        match socket.recv(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            received => break received.unwrap(),
        }
    };
    String::from_utf8(buffer[..count].to_vec()).unwrap()
}

#[test]
fn notifies_the_supervisor_of_readiness_and_shutdown() {
    let place = Place::new();
    let supervisor = UnixDatagram::bind(place.path("notify")).unwrap();
    supervisor.set_read_timeout(Some(BOUND)).unwrap();
    let mut command = program();
    command.env("NOTIFY_SOCKET", place.path("notify"));
    let flags = ["--drain", "15", "--bind", "127.0.0.1"];
    let mut server = Server::start_as(command, &place, &flags);
    let ready = receive(&supervisor);
    let address = server.address();
    assert_eq!(ready.trim_end(), format!("READY=1\nSTATUS=listening on {address}"));
    let stream = connect(address).unwrap();
    server.signal(Signal::TERM);
    assert_eq!(receive(&supervisor).trim_end(), "STOPPING=1\nSTATUS=draining: 1 in service");
    assert_eq!(receive(&supervisor).trim_end(), "STATUS=draining: 1 in service");
    finish(stream).unwrap();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn serves_a_passed_socket() {
    let place = Place::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::start_as(with_socket(&socket), &place, &[]);
    assert_eq!(server.address(), socket.local_addr().unwrap());
    upload(server.address(), b"content").unwrap();
    server.stop(Duration::from_secs(2));
    assert_eq!(place.read(1).unwrap(), b"content");
    // A client that connects now waits for the next server.
    let address = socket.local_addr().unwrap();
    let waiting = thread::spawn(move || upload(address, b"waited"));
    let server = Server::start_as(with_socket(&socket), &place, &["--existing", "keep"]);
    waiting.join().unwrap().unwrap();
    server.stop(Duration::from_secs(2));
    assert_eq!(place.read(2).unwrap(), b"waited");
}

/// Uploads distinct contents until `over` is set; returns those that were confirmed. Any refusal or
/// reset fails the test.
fn load(address: SocketAddr, number: usize, over: &AtomicBool) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let mut content = format!("upload {} of {number};", sent.len()).into_bytes();
        // Some uploads are finished immediately, some take a while.
        let pieces = if sent.len() % 3 == 0 { 20 } else { 0 };
        let mut stream = connect(address).unwrap();
        std::io::Write::write_all(&mut stream, &content).unwrap();
        for piece in 0..pieces {
            thread::sleep(Duration::from_millis(2));
            let more = vec![piece; 10_000];
            std::io::Write::write_all(&mut stream, &more).unwrap();
            content.extend(more);
        }
        finish(stream).unwrap();
        sent.push(content);
    }
    sent
}

#[test]
fn a_restart_under_load_refuses_no_client_and_loses_no_file() {
    let place = Place::new();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let journal = place.text("log/journal");
    // While two servers run, each assigns numbers from a range of its own.
    let generations = ["1", "1000000", "2000000", "3000000"];
    let start = |ids_from: &str| {
        let flags = ["--existing", "keep", "--ids-from", ids_from, "--drain", "15", "--journal"];
        Server::start_as(with_socket(&socket), &place, &[&flags[..], &[&journal]].concat())
    };
    let over = AtomicBool::new(false);
    let mut sent: Vec<Vec<u8>> = thread::scope(|scope| {
        let mut server = start(generations[0]);
        let end = StopOnDrop(&over);
        let over = &over;
        let threads: Vec<_> =
            (0..8).map(|number| scope.spawn(move || load(address, number, over))).collect();
        for generation in &generations[1..] {
            thread::sleep(Duration::from_millis(150));
            let next = start(generation);
            thread::sleep(Duration::from_millis(50));
            server.signal(Signal::TERM);
            assert_eq!(server.wait().code(), Some(0));
            server = next;
        }
        thread::sleep(Duration::from_millis(150));
        drop(end);
        let sent = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        server.stop(Duration::from_secs(2));
        sent
    });
    let files = std::fs::read_dir(place.path("received")).unwrap();
    let mut kept: Vec<_> =
        files.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    sent.sort();
    kept.sort();
    assert!(sent == kept, "{} sent, {} kept", sent.len(), kept.len());
    let lines = json_lines(&place.path("log/journal"));
    assert_eq!(lines.len(), sent.len());
    for pair in generations.windows(2) {
        let range = pair[0].parse::<u64>().unwrap()..pair[1].parse().unwrap();
        let served = lines.iter().filter(|line| range.contains(&line["id"].as_u64().unwrap()));
        assert!(served.count() > 0, "the server from {} on served no client", pair[0]);
    }
}
