//! `--metrics`: metrics and the health check.
#![cfg(feature = "metrics")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use accio_harness::peer::read;
use rustix::process::Signal;

use super::harness::{BOUND, Place, Server, connect, finish, until, upload};
use super::usage::fails;

pub(super) fn address(server: &Server) -> SocketAddr {
    let line = server.line("metrics on http://");
    line["metrics on http://".len()..].strip_suffix("/metrics").unwrap().parse().unwrap()
}

pub(super) fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(super) fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

/// Returns the value of a metric.
fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[test]
fn counts_connections_bytes_and_errors() {
    let place = Place::new();
    let server =
        Server::start(&place, &["--metrics", "0", "--timeout", "3", "--deny", "127.0.0.9"]);
    let metrics = address(&server);
    assert!(metrics.ip().is_loopback());
    let text = get(metrics, "/metrics");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert_eq!(value(&text, "accio_connections_total{outcome=\"complete\"}"), 0.0);
    let free = value(&text, "accio_free_descriptors");

    upload(server.address(), &[7; 5000]).unwrap();
    upload(server.address(), b"").unwrap();
    let mut silent = connect(server.address()).unwrap();
    silent.write_all(b"x").unwrap();
    let text = get(metrics, "/metrics");
    assert_eq!(value(&text, "accio_in_service"), 1.0);
    assert!(value(&text, "accio_free_descriptors") <= free - 1.0);
    finish(silent).unwrap();
    let silent = connect(server.address()).unwrap();
    until("it is aborted", || {
        let text = get(metrics, "/metrics");
        value(&text, "accio_connections_total{outcome=\"error\"}") == 1.0
    });
    drop(silent);
    let text = get(metrics, "/metrics");
    assert_eq!(value(&text, "accio_errors_total{reason=\"idle\"}"), 1.0);
    assert_eq!(value(&text, "accio_connections_total{outcome=\"complete\"}"), 3.0);
    assert_eq!(value(&text, "accio_connections_total{outcome=\"refused\"}"), 0.0);
    assert_eq!(value(&text, "accio_accepted_total"), 4.0);
    assert_eq!(value(&text, "accio_accept_errors_total"), 0.0);
    assert_eq!(value(&text, "accio_received_bytes_total"), 5001.0);
    assert_eq!(value(&text, "accio_in_service"), 0.0);
    assert_eq!(value(&text, "accio_connection_duration_seconds_count"), 4.0);
    assert_eq!(value(&text, "accio_connection_duration_seconds_bucket{le=\"+Inf\"}"), 4.0);
    // The silent client took three seconds; on a busy machine others may take long, too.
    assert!(value(&text, "accio_connection_duration_seconds_bucket{le=\"0.3\"}") <= 3.0);
    assert!(text.ends_with("# EOF\n"), "{text}");
    let mut help = text.lines().filter(|line| line.starts_with("# HELP "));
    assert!(help.all(|line| line.ends_with('.') && !line.ends_with("..")), "{text}");
    server.stop(Duration::from_secs(1));
}

#[test]
fn health_fails_once_shutdown_has_begun() {
    let place = Place::new();
    let mut server = Server::start(&place, &["--metrics", "127.0.0.1:0", "--drain", "15"]);
    let metrics = address(&server);
    assert!(get(metrics, "/health").ends_with("\r\n\r\nready\n"));
    let stream = connect(server.address()).unwrap();
    server.signal(Signal::TERM);
    until("it is not well", || get(metrics, "/health").starts_with("HTTP/1.1 503 "));
    assert_eq!(value(&get(metrics, "/metrics"), "accio_in_service"), 1.0);
    finish(stream).unwrap();
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn answers_or_closes_any_other_request() {
    let place = Place::new();
    let server = Server::start(&place, &["--metrics", "0"]);
    let metrics = address(&server);
    for (request, status) in [
        ("GET /nothing HTTP/1.1\r\n\r\n", "404"),
        ("GET / HTTP/1.1\r\n\r\n", "200"),
        ("GET / HTTP/1.1\r\nHost: x\r\nhost: y\r\n\r\n", "400"),
        ("GET /metrics?x HTTP/1.0\r\n\r\n", "200"),
        ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
        ("accio\r\n\0\r\n\r\n", "400"),
    ] {
        let answer = ask(metrics, request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    let head = ask(metrics, "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    server.stop(Duration::from_secs(1));
}

#[test]
fn silent_connections_do_not_delay_requests() {
    let place = Place::new();
    let server = Server::start(&place, &["--metrics", "0"]);
    let metrics = address(&server);
    let silent: Vec<_> = (0..100).map(|_| TcpStream::connect(metrics).unwrap()).collect();
    let slow: Vec<_> = (0..10)
        .map(|_| {
            let mut stream = TcpStream::connect(metrics).unwrap();
            stream.write_all(b"GET /health HTTP/1.1\r\nX: ").unwrap();
            stream
        })
        .collect();
    for _ in 0..5 {
        let start = Instant::now();
        assert!(get(metrics, "/health").starts_with("HTTP/1.1 200 "));
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    }
    // Each connection is closed after at most two seconds.
    for stream in silent.into_iter().chain(slow) {
        stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        match read(stream, &mut [0; 64]) {
            Ok(0) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("{other:?}"),
        }
    }
    server.stop(Duration::from_secs(1));
}

#[test]
fn a_client_that_never_stops_sending_delays_no_request() {
    let place = Place::new();
    let server = Server::start(&place, &["--metrics", "0"]);
    let metrics = address(&server);
    let mut endless = TcpStream::connect(metrics).unwrap();
    endless.set_write_timeout(Some(BOUND)).unwrap();
    endless.write_all(b"GET /live HTTP/1.1\r\n\r\n").unwrap();
    let sender = std::thread::spawn(move || {
        let (start, chunk) = (Instant::now(), vec![b'x'; 1 << 20]);
        while start.elapsed() < BOUND && endless.write_all(&chunk).is_ok() {}
        start.elapsed()
    });
    for _ in 0..5 {
        let start = Instant::now();
        assert!(get(metrics, "/health").starts_with("HTTP/1.1 200 "));
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    }
    assert!(sender.join().unwrap() < BOUND, "the connection is closed after two seconds");
    server.stop(Duration::from_secs(1));
}

#[test]
fn health_reports_readiness_and_live_the_process() {
    let place = Place::new();
    let server = Server::start(&place, &["--metrics", "0"]);
    let metrics = address(&server);
    assert!(get(metrics, "/health").starts_with("HTTP/1.1 200 "));
    std::fs::rename(place.dir(), place.path("away")).unwrap();
    // A directory that was moved is still the same directory.
    until("it is ready", || get(metrics, "/health").starts_with("HTTP/1.1 200 "));
    std::fs::remove_dir_all(place.path("away")).unwrap();
    until("it is not ready", || {
        let text = get(metrics, "/health");
        text.starts_with("HTTP/1.1 503 ") && text.contains("cannot keep files")
    });
    assert!(get(metrics, "/live").starts_with("HTTP/1.1 200 "));
    server.stop(Duration::from_secs(1));

    // More space than any disk has.
    let server = Server::start(&place, &["--metrics", "0", "--min-free", "1000000T"]);
    let text = get(address(&server), "/health");
    assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("no room for files"), "{text}");
    server.stop(Duration::from_secs(1));
}

#[test]
fn health_fails_once_the_last_number_is_in_use() {
    let place = Place::new();
    let last = u64::MAX.to_string();
    let server = Server::start(&place, &["--metrics", "0", "--ids-from", &last]);
    let metrics = address(&server);
    assert!(get(metrics, "/health").starts_with("HTTP/1.1 200 "));
    let stream = connect(server.address()).unwrap();
    let expect = || {
        let text = get(metrics, "/health");
        assert!(text.starts_with("HTTP/1.1 503 ") && text.contains("all numbers"), "{text}");
    };
    expect();
    finish(stream).unwrap();
    expect();
    server.stop(Duration::from_secs(1));
}

#[test]
fn counts_lost_journal_lines() {
    let place = Place::new();
    let server = Server::start(&place, &["--metrics", "0", "--journal", "/dev/full"]);
    let metrics = address(&server);
    assert_eq!(value(&get(metrics, "/metrics"), "accio_journal_failed"), 0.0);
    upload(server.address(), b"content").unwrap();
    let text = get(metrics, "/metrics");
    assert_eq!(value(&text, "accio_journal_failed"), 1.0);
    assert_eq!(value(&text, "accio_journal_lost_total"), 0.0);
    server.stop(Duration::from_secs(1));
}

#[test]
fn reports_an_invalid_address_and_one_in_use() {
    let place = Place::new();
    let line = fails(2, &["5000", &place.dir(), "--metrics", "localhost"]);
    assert!(line.contains("localhost"), "{line}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = super::harness::free_port().to_string();
    let line = fails(1, &[&port, &place.dir(), "--metrics", &address]);
    assert!(line.contains(&format!("cannot serve metrics on {address}")), "{line}");
}
