//! Behind a real haproxy, with the configuration that comes with the server. Where haproxy is not
//! installed, these are skipped and say so.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::harness::{
    Place, Server, connect, finish, free_port, json_lines, program, until, upload,
};

/// The configuration that is tried.
const CONFIG: &str = include_str!("../../dist/haproxy.cfg");

/// haproxy, its receivers, and where clients go. All end with it.
struct Cluster {
    haproxy: Child,
    receivers: Vec<Receiver>,
    front: SocketAddr,
    /// Who saw that haproxy listens; a peer like any other.
    first: String,
    place: Place,
}

struct Receiver {
    server: Option<Server>,
    place: Place,
    address: SocketAddr,
}

/// A port that is free on all the addresses that the receivers have here.
fn port() -> u16 {
    loop {
        let port = free_port();
        if (11..=13)
            .all(|last| TcpListener::bind(SocketAddr::from(([127, 0, 0, last], port))).is_ok())
        {
            return port;
        }
    }
}

impl Cluster {
    /// Starts three receivers with these flags beside the usual ones, and haproxy with `change`
    /// made to its configuration; `None` without haproxy.
    fn start(flags: &[&str], change: impl Fn(String) -> String) -> Option<Self> {
        if Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().is_err() {
            let _ = writeln!(io::stderr(), "skipped: haproxy is not installed");
            return None;
        }
        let (port, metrics, front) = (port(), port(), free_port());
        let start = |last: u8| {
            let place = Place::new();
            let ip = format!("127.0.0.{last}");
            let mut command = program();
            command.arg(port.to_string()).arg(place.dir()).args([
                "--bind",
                &ip,
                "--proxy-protocol",
            ]);
            command.args(["--metrics", &format!("{ip}:{metrics}"), "-v"]);
            command.args(["--journal", &place.text("log/journal")]).args(flags);
            let server = Server::spawn(command);
            let address = server.address();
            Receiver { server: Some(server), place, address }
        };
        let receivers: Vec<_> = (11..=13).map(start).collect();

        let place = Place::new();
        let config = change(CONFIG.to_owned())
            .replace("maxconn 20000", "maxconn 500")
            .replace("maxpipes 20000", "maxpipes 500")
            .replace("192.0.2.", "127.0.0.")
            .replace(":5000 maxconn", &format!(":{port} maxconn"))
            .replace("bind :5000", &format!("bind 127.0.0.1:{front}"))
            .replace("port 9090", &format!("port {metrics}"))
            .replace("inter 2s", "inter 100ms")
            .replace("/run/haproxy/admin.sock", &place.text("admin.sock"));
        std::fs::write(place.path("haproxy.cfg"), config).unwrap();
        let haproxy = Command::new("haproxy")
            .args(["-db", "-q", "-f", &place.text("haproxy.cfg")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let front = SocketAddr::from(([127, 0, 0, 1], front));
        let mut cluster = Cluster { haproxy, receivers, front, first: String::new(), place };
        until("haproxy serves", || {
            let Ok(stream) = connect(front) else { return false };
            cluster.first = stream.local_addr().unwrap().to_string();
            finish(stream).is_ok()
        });
        Some(cluster)
    }

    /// Gives haproxy an order.
    fn ask(&self, order: &str) {
        let mut socket = UnixStream::connect(self.place.path("admin.sock")).unwrap();
        writeln!(socket, "{order}").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.trim(), "", "{order}");
    }

    /// What the journals say of each peer: the receiver, the number and the line.
    fn journals(&self) -> BTreeMap<String, (usize, u64, serde_json::Value)> {
        let mut all = BTreeMap::new();
        for (index, receiver) in self.receivers.iter().enumerate() {
            for line in json_lines(&receiver.place.path("log/journal")) {
                let peer = line["peer"].as_str().unwrap().to_owned();
                if peer == self.first {
                    continue;
                }
                let earlier = all.insert(peer, (index, line["id"].as_u64().unwrap(), line));
                assert!(earlier.is_none(), "{earlier:?}");
            }
        }
        all
    }

    /// Waits for the line about a peer; the file and the line.
    fn told_of(&self, peer: SocketAddr) -> (Vec<u8>, serde_json::Value) {
        let peer = peer.to_string();
        until(&format!("a line about {peer}"), || self.journals().contains_key(&peer));
        let (index, id, line) = self.journals().remove(&peer).unwrap();
        (self.receivers[index].place.read(id).unwrap(), line)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.haproxy.kill();
        let _ = self.haproxy.wait();
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(40_503) >> 7) as u8).collect()
}

#[test]
fn uploads_arrive_exactly_and_the_journals_name_the_real_peers() {
    let Some(cluster) = Cluster::start(&[], |config| config) else { return };
    let sizes = [0, 1, 7, 1000, 16_384, 65_537, 1 << 20, 5_000_000];
    let sent: Vec<_> = thread::scope(|scope| {
        let front = cluster.front;
        let threads: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(move || {
                    sizes.map(|size| {
                        let mut stream = connect(front).unwrap();
                        let peer = stream.local_addr().unwrap();
                        stream.write_all(&bytes(size)).unwrap();
                        // Half a connection: haproxy passes the FIN on, and brings ours back.
                        finish(stream).unwrap();
                        (peer, size)
                    })
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let journals = cluster.journals();
    assert_eq!(journals.len(), sent.len(), "who is confirmed is in a journal already");
    let mut used = [0; 3];
    for (peer, size) in sent {
        let (index, id, line) = &journals[&peer.to_string()];
        assert_eq!((&line["outcome"], &line["bytes"]), (&"complete".into(), &size.into()));
        assert!(cluster.receivers[*index].place.read(*id).unwrap() == bytes(size), "{size} bytes");
        used[*index] += 1;
    }
    assert!(used.iter().all(|count| *count > 0), "all receivers have their share: {used:?}");
}

#[test]
fn nothing_is_confirmed_before_it_is_kept() {
    let Some(cluster) = Cluster::start(&[], |config| config) else { return };
    for _ in 0..20 {
        let stream = connect(cluster.front).unwrap();
        let peer = stream.local_addr().unwrap();
        finish(stream).unwrap();
        assert!(cluster.journals().contains_key(&peer.to_string()));
    }
}

/// A client that breaks off is no client that has ended, through haproxy too.
#[test]
fn a_reset_becomes_an_error_wherever_it_hits() {
    let Some(cluster) = Cluster::start(&[], |config| config) else { return };
    for round in 0..40 {
        let mut stream = connect(cluster.front).unwrap();
        let peer = stream.local_addr().unwrap();
        let size = [0, 1, 1000, 20_000, 300_000, 3_000_000][round % 6];
        stream.write_all(&bytes(size)).unwrap();
        if round % 2 == 0 {
            thread::sleep(Duration::from_millis(20));
        }
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        let (file, line) = cluster.told_of(peer);
        assert_eq!(file, b"ERROR", "{size} bytes and a reset: {line}");
        assert_eq!(line["reason"], "reset", "{line}");
    }
}

/// A receiver that gives up ends the client's connection before the client has, which confirms
/// nothing. (After the client's end, haproxy 2.6 makes a FIN of the receiver's reset: see its
/// configuration.)
#[test]
fn what_the_receiver_gives_up_ends_for_the_client_too() {
    let flags = ["--timeout", "0.4", "--max-size", "100K"];
    let Some(cluster) = Cluster::start(&flags, |config| config) else { return };
    for size in [0, 1, 1000, 50_000] {
        let mut stream = connect(cluster.front).unwrap();
        let peer = stream.local_addr().unwrap();
        stream.write_all(&bytes(size)).unwrap();
        match stream.read(&mut [0]) {
            Ok(count) => assert_eq!(count, 0, "nothing after the greeting"),
            Err(error) => assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "no end at all"),
        }
        let (file, line) = cluster.told_of(peer);
        assert_eq!((&file[..], &line["reason"]), (&b"ERROR"[..], &"idle".into()));
    }
    // More than fits anywhere on the way.
    let much = vec![7; 64 << 20];
    for _ in 0..5 {
        let mut stream = connect(cluster.front).unwrap();
        let peer = stream.local_addr().unwrap();
        stream.write_all(&much).unwrap_err();
        let (file, line) = cluster.told_of(peer);
        assert_eq!((&file[..], &line["reason"]), (&b"ERROR"[..], &"large".into()));
    }
}

#[test]
fn a_receiver_that_drains_finishes_its_own_and_gets_no_more() {
    let Some(mut cluster) = Cluster::start(&["--drain", "15"], |config| config) else { return };
    let front = cluster.front;
    // One transfer in service at each, or more.
    let mut streams: Vec<_> = (0..6).map(|_| connect(front).unwrap()).collect();
    for stream in &mut streams {
        stream.write_all(b"first half, ").unwrap();
    }
    let first = cluster.receivers[0].server.take().unwrap();
    let confirmed = AtomicUsize::new(0);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let end = Instant::now() + Duration::from_millis(1500);
            while Instant::now() < end {
                upload(front, b"meanwhile").expect("nobody hears of it");
                confirmed.fetch_add(1, Ordering::SeqCst);
            }
        });
        thread::sleep(Duration::from_millis(300));
        // As the operators' guide says: first no more from haproxy, then the end.
        cluster.ask("set server receivers/one state drain");
        thread::sleep(Duration::from_millis(200));
        first.signal(Signal::TERM);
        first.line("draining on signal");
        load.join().unwrap();
    });
    for mut stream in streams {
        stream.write_all(b"second half").unwrap();
        finish(stream).unwrap();
    }
    let mut first = first;
    assert_eq!(first.wait().code(), Some(0));
    let mut whole = 0;
    for receiver in &cluster.receivers {
        for entry in std::fs::read_dir(receiver.place.path("received")).unwrap() {
            let file = std::fs::read(entry.unwrap().path()).unwrap();
            whole += usize::from(file == b"first half, second half");
            assert_ne!(file, b"ERROR");
        }
    }
    assert_eq!(whole, 6);
    assert!(confirmed.into_inner() > 10);
}

/// The other way to check that the configuration tells of: without `--metrics`.
#[test]
fn checks_by_a_plain_connection_cost_no_number() {
    let without_metrics = |config: String| {
        let config = config.replace("    option httpchk GET /health\n", "");
        let config = config.replace("    http-check expect status 200\n", "");
        let config = config.replace(" check port 9090", " check");
        assert!(!config.contains("health") || !config.contains("\n    http-check"));
        config
    };
    let Some(mut cluster) = Cluster::start(&[], without_metrics) else { return };
    upload(cluster.front, b"one").unwrap();
    thread::sleep(Duration::from_millis(800));
    let files =
        |receiver: &Receiver| std::fs::read_dir(receiver.place.path("received")).unwrap().count();
    assert_eq!(cluster.receivers.iter().map(files).sum::<usize>(), 2, "checks leave no file");
    // One that is gone gets no more.
    let gone = cluster.receivers[1].server.take().unwrap();
    let address = cluster.receivers[1].address;
    drop(gone);
    until("it is gone", || TcpStream::connect(address).is_err());
    for _ in 0..30 {
        upload(cluster.front, b"two").unwrap();
    }
}
