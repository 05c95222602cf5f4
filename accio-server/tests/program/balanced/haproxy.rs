//! haproxy in TCP mode. After the client's end it makes a FIN of the receiver's reset: see its
//! configuration.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::super::harness::{connect, finish, until, upload};
use super::cluster::{Balancer, Cluster, Receiver, Settings};
use super::shared;

const HAPROXY: Balancer = Balancer {
    name: "haproxy",
    version: "-v",
    arguments: &["-db", "-q", "-f"],
    file: "haproxy.cfg",
    config: include_str!("../../../dist/haproxy.cfg"),
    settle,
};

fn settle(config: String, settings: &Settings) -> String {
    let Settings { front, port, metrics, admin } = settings;
    config
        .replace("maxconn 20000", "maxconn 500")
        .replace("maxpipes 20000", "maxpipes 500")
        .replace(":5000 maxconn", &format!(":{port} maxconn"))
        .replace("bind :5000", &format!("bind 127.0.0.1:{front}"))
        .replace("port 9090", &format!("port {metrics}"))
        .replace("inter 2s", "inter 100ms")
        .replace("/run/haproxy/admin.sock", admin)
}

#[test]
fn uploads_arrive_exactly_and_the_journals_name_the_real_peers() {
    shared::uploads_arrive_exactly_and_the_journals_name_the_real_peers(&HAPROXY);
}

#[test]
fn nothing_is_confirmed_before_it_is_kept() {
    shared::nothing_is_confirmed_before_it_is_kept(&HAPROXY);
}

#[test]
fn a_reset_becomes_an_error_wherever_it_hits() {
    shared::a_reset_becomes_an_error_wherever_it_hits(&HAPROXY);
}

#[test]
fn what_the_receiver_gives_up_ends_for_the_client_too() {
    shared::what_the_receiver_gives_up_ends_for_the_client_too(&HAPROXY);
}

#[test]
fn a_receiver_that_drains_finishes_its_own_and_gets_no_more() {
    let Some(mut cluster) = Cluster::start(&HAPROXY, &["--drain", "15"], |config| config) else {
        return;
    };
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
    let Some(mut cluster) = Cluster::start(&HAPROXY, &[], without_metrics) else { return };
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
