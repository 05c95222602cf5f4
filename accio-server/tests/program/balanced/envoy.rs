//! Envoy, which forwards resets.

use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use accio_harness::peer::read;
use rustix::process::Signal;

use super::super::harness::{Server, connect, finish, until, upload};
use super::cluster::{Balancer, Cluster, Settings};
use super::shared;

const ENVOY: Balancer = Balancer {
    name: "envoy",
    arguments: &["--disable-hot-restart", "--concurrency", "2", "--config-path"],
    file: "envoy.yaml",
    config: include_str!("../../../dist/envoy.yaml"),
    settle,
};

fn settle(config: String, settings: &Settings) -> String {
    let Settings { front, port, metrics, admin } = settings;
    config
        .replace("0.0.0.0, port_value: 5000", &format!("127.0.0.1, port_value: {front}"))
        .replace("port_value: 5000", &format!("port_value: {port}"))
        .replace("port_value: 9090", &format!("port_value: {metrics}"))
        .replace("interval: 2s", "interval: 0.1s")
        .replace("/run/envoy/admin.sock", admin)
}

#[test]
fn uploads_arrive_intact_and_journals_name_the_real_peers() {
    shared::uploads_arrive_intact_and_journals_name_the_real_peers(&ENVOY);
}

#[test]
fn confirms_no_file_before_it_is_committed() {
    shared::confirms_no_file_before_it_is_committed(&ENVOY);
}

#[test]
fn a_client_reset_at_any_point_becomes_an_error() {
    shared::a_client_reset_at_any_point_becomes_an_error(&ENVOY);
}

#[test]
fn a_receivers_abort_ends_the_clients_connection() {
    shared::a_receivers_abort_ends_the_clients_connection(&ENVOY);
}

/// HAProxy would turn this into a confirmation.
#[test]
fn a_refusal_after_the_clients_fin_is_a_reset() {
    let limit = ["--max-size", "100K"];
    let Some(cluster) = Cluster::start(&ENVOY, &limit, |config| config) else { return };
    for size in [102_401, 120_000, 150_000, 300_000] {
        let mut stream = connect(cluster.front).unwrap();
        let peer = stream.local_addr().unwrap();
        // The error may be reported by either call.
        assert!(send_all(&mut stream, size).is_err(), "{size} bytes");
        assert_eq!(cluster.wait_for_line(peer).0, b"ERROR");
    }
}

#[test]
fn a_receivers_death_after_the_clients_fin_is_a_reset() {
    let Some(cluster) = Cluster::start(&ENVOY, &[], |config| config) else { return };
    let mut streams: Vec<_> = (0..6).map(|_| connect(cluster.front).unwrap()).collect();
    let servers = || cluster.receivers.iter().filter_map(|receiver| receiver.server.as_ref());
    // Stopped receivers do not read what is sent now.
    servers().for_each(Server::pause);
    for stream in &mut streams {
        stream.write_all(&[7; 100_000]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
    // Leaves time for the content to reach the receiver's side.
    thread::sleep(Duration::from_millis(200));
    servers().for_each(|server| server.signal(Signal::KILL));
    for stream in streams {
        let end = read(&stream, &mut [0]).unwrap_err();
        assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    }
}

/// Covers receivers that fail the health check, and receivers whose end Envoy has not noticed yet:
/// it tries another one.
#[test]
fn draining_and_dead_receivers_get_no_connections() {
    let flags = ["--drain", "15"];
    let Some(mut cluster) = Cluster::start(&ENVOY, &flags, |config| config) else { return };
    let uploads = |cluster: &Cluster| {
        (0..30).for_each(|_| upload(cluster.front, b"content").unwrap());
    };
    until("all are known to be well", || {
        upload(cluster.front, b"early").unwrap();
        cluster.receivers.iter().all(|receiver| receiver.place.read(1).is_some())
    });
    let gone = cluster.receivers[1].server.take().unwrap();
    let address = cluster.receivers[1].address;
    drop(gone);
    until("it is gone", || TcpStream::connect(address).is_err());
    uploads(&cluster);

    // At least one transfer is in progress at each of the other two.
    let mut streams: Vec<_> = (0..6).map(|_| connect(cluster.front).unwrap()).collect();
    for stream in &mut streams {
        stream.write_all(b"first half, ").unwrap();
    }
    let mut draining = cluster.receivers[0].server.take().unwrap();
    draining.signal(Signal::TERM);
    draining.line("draining on signal");
    // A client in the backlog at this moment would be lost.
    let address = cluster.receivers[0].address;
    until("it accepts no connections", || TcpStream::connect(address).is_err());
    uploads(&cluster);
    for mut stream in streams {
        stream.write_all(b"second half").unwrap();
        finish(stream).unwrap();
    }
    assert_eq!(draining.wait().code(), Some(0));
    uploads(&cluster);
}

/// Sends `size` bytes and ends the upload; returns the number of bytes received.
fn send_all(stream: &mut TcpStream, size: usize) -> io::Result<usize> {
    stream.write_all(&vec![7; size])?;
    stream.shutdown(Shutdown::Write)?;
    read(stream, &mut [0])
}
