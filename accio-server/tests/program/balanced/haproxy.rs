//! HAProxy in TCP mode. After the client's FIN, HAProxy turns the receiver's reset into a FIN; see
//! its configuration.

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
fn uploads_arrive_intact_and_journals_name_the_real_peers() {
    shared::uploads_arrive_intact_and_journals_name_the_real_peers(&HAPROXY);
}

#[test]
fn confirms_no_file_before_it_is_committed() {
    shared::confirms_no_file_before_it_is_committed(&HAPROXY);
}

#[test]
fn a_client_reset_at_any_point_becomes_an_error() {
    shared::a_client_reset_at_any_point_becomes_an_error(&HAPROXY);
}

#[test]
fn a_receivers_abort_ends_the_clients_connection() {
    shared::a_receivers_abort_ends_the_clients_connection(&HAPROXY);
}

#[test]
fn a_draining_receiver_finishes_its_transfers_and_gets_no_more() {
    let Some(mut cluster) = Cluster::start(&HAPROXY, &["--drain", "15"], |config| config) else {
        return;
    };
    let front = cluster.front;
    // At least one transfer is in progress at each receiver.
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
                upload(front, b"content").expect("clients do not notice");
                confirmed.fetch_add(1, Ordering::SeqCst);
            }
        });
        thread::sleep(Duration::from_millis(300));
        // The order in the operator's guide: first take the receiver out of HAProxy, then end it.
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

/// The alternative health check described in the configuration, without `--metrics`.
#[test]
fn plain_connection_checks_use_no_number() {
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
    // A receiver that is gone gets no more connections.
    let gone = cluster.receivers[1].server.take().unwrap();
    let address = cluster.receivers[1].address;
    drop(gone);
    until("it is gone", || TcpStream::connect(address).is_err());
    for _ in 0..30 {
        upload(cluster.front, b"two").unwrap();
    }
}
