//! The status page of `--metrics`, and `/status.json`.
#![cfg(feature = "metrics")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use accio_harness::peer::read;
use serde_json::Value;

use super::harness::{BOUND, BUSY, Place, Server, connect, finish, until, upload};
use super::metrics::{address, ask, get};

/// Returns the JSON of a path, whose answer must be OK.
fn json(address: SocketAddr, path: &str) -> Value {
    let answer = get(address, path);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
    serde_json::from_str(body).unwrap()
}

fn status(address: SocketAddr) -> Value {
    json(address, "/status.json")
}

#[test]
fn lists_an_upload_and_then_its_outcome() {
    let place = Place::new();
    let server = Server::start(&place, &["--metrics", "0", "--max-size", "1M"]);
    let metrics = address(&server);
    let line = server.line("status page on http://");
    assert!(line.ends_with(&format!("{metrics}/")), "{line}");

    let mut stream = connect(server.address()).unwrap();
    let peer = stream.local_addr().unwrap().to_string();
    let first = status(metrics);
    let upload = &first["uploads"][0];
    assert_eq!((&upload["id"], &upload["peer"]), (&1.into(), &peer.clone().into()));
    assert_eq!((&upload["phase"], &upload["dialect"]), (&"handshake".into(), &Value::Null));
    assert_eq!(first["limits"]["max_size"], 1 << 20);
    assert_eq!((&first["limits"]["timeout"], &first["more_uploads"]), (&10.0.into(), &0.into()));

    stream.write_all(&[b'x'; 5001]).unwrap();
    until("the bytes are counted", || status(metrics)["uploads"][0]["bytes"] == 5001);
    std::thread::sleep(Duration::from_millis(30));
    let second = status(metrics);
    let upload = &second["uploads"][0];
    assert_eq!((&upload["phase"], &upload["dialect"]), (&"receiving".into(), &"accio".into()));
    let number = |name: &str| upload[name].as_f64().unwrap();
    assert!(number("age") >= number("idle") && number("idle") >= 0.03, "{upload}");
    assert!(number("rate") > 0.0 && number("rate") <= 5001.0 / 0.03, "{upload}");
    assert!(get(metrics, "/").contains("4.9 KiB</td>"));

    finish(stream).unwrap();
    let ended = status(metrics);
    assert_eq!(
        (&ended["uploads"], &ended["totals"]["complete"]),
        (&Value::Array(vec![]), &1.into())
    );
    let outcome = &ended["outcomes"][0];
    assert_eq!((&outcome["id"], &outcome["bytes"]), (&1.into(), &5001.into()));
    assert_eq!((&outcome["outcome"], &outcome["reason"]), (&"complete".into(), &Value::Null));
    assert_eq!(outcome["peer"], peer);
    assert_eq!(ended["totals"]["bytes"], 5001);
    server.stop(Duration::from_secs(1));
}

/// Sends `lines`, each after a greeting, then FIN; waits for the end.
fn confirm(server: SocketAddr, lines: &[&[u8]]) {
    let mut stream = connect(server).unwrap();
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            stream.read_exact(&mut [0; 7]).unwrap();
        }
        stream.write_all(line).unwrap();
    }
    let _ = stream.shutdown(Shutdown::Write);
    let _ = read(stream, &mut [0]);
}

#[test]
fn shows_expected_and_received_handshake_bytes() {
    let place = Place::new();
    let server = Server::start(&place, &["--metrics", "0", "--handshake", "confirm"]);
    let metrics = address(&server);
    confirm(server.address(), &[b"confirm-accio\n"]);
    confirm(server.address(), &[b"confirm-accio\r\n", b"<b>\x1b[2J"]);
    until("both have ended", || status(metrics)["totals"]["error"] == 2);
    let outcomes = status(metrics)["outcomes"].clone();
    let [second, first] = &outcomes.as_array().unwrap()[..] else { panic!("{outcomes}") };
    assert_eq!((&first["id"], &first["reason"]), (&1.into(), &"handshake".into()));
    assert_eq!((&first["outcome"], &first["bytes"]), (&"error".into(), &0.into()));
    assert_eq!(first["expected"], r"confirm-accio\r\n");
    assert_eq!(first["received"], r"confirm-accio\n");
    let explanation = first["explanation"].as_str().unwrap();
    assert!(
        explanation.starts_with("The first confirmation was wrong at byte 14"),
        "{explanation}"
    );
    assert_eq!(second["expected"], r"confirm-accio-again\r\n\r\n");
    assert_eq!(second["received"], "<");
    let html = get(metrics, "/");
    assert!(html.contains("<dd><code>&lt;</code></dd>"), "{html}");
    assert!(html.contains("The second confirmation was wrong at byte 1"), "{html}");
    server.stop(Duration::from_secs(1));
}

#[test]
fn sends_security_headers_and_refuses_foreign_hosts() {
    let place = Place::new();
    let server = Server::start(&place, &["--metrics", "0", "--metrics-name", "drop.example.org"]);
    let metrics = address(&server);
    for path in ["/", "/status.json", "/metrics", "/health", "/nothing"] {
        let answer = get(metrics, path);
        let head = answer.split_once("\r\n\r\n").unwrap().0.to_ascii_lowercase();
        for header in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "content-security-policy: default-src 'none';",
            "frame-ancestors 'none'",
        ] {
            assert!(head.contains(header), "{path}: no {header} in {head}");
        }
        assert!(!head.contains("access-control-"), "{path}: {head}");
        assert!(!head.contains("unsafe"), "{path}: {head}");
    }
    for (host, status) in [
        (metrics.to_string().as_str(), "200"),
        ("localhost:1", "200"),
        ("drop.example.org", "200"),
        ("evil.example.net", "421"),
    ] {
        for path in ["/", "/status.json", "/?q=1"] {
            let answer = ask(metrics, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}{path}: {answer}");
        }
        let answer = ask(metrics, &format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
    server.stop(Duration::from_secs(1));

    let server = Server::start(&place, &["--metrics", "0", "--metrics-only"]);
    let metrics = address(&server);
    for path in ["/", "/status.json"] {
        assert!(get(metrics, path).starts_with("HTTP/1.1 404 "), "{path}");
    }
    assert!(get(metrics, "/metrics").starts_with("HTTP/1.1 200 "));
    assert_eq!(server.count("status page"), 0);
    server.stop(Duration::from_secs(1));
}

#[test]
fn lists_a_hundred_of_a_thousand_uploads() {
    let place = Place::new();
    // On a busy machine, a thousand connections take longer than the default limit.
    let server = Server::start(&place, &["--metrics", "0", "--timeout", "120"]);
    let metrics = address(&server);
    let streams: Vec<_> = (0..1000).map(|_| connect(server.address()).unwrap()).collect();
    let started = Instant::now();
    let answer = status(metrics);
    assert_eq!(answer["totals"]["in_service"], 1000);
    assert_eq!(answer["more_uploads"], 900);
    let ids: Vec<_> =
        answer["uploads"].as_array().unwrap().iter().map(|u| u["id"].as_u64()).collect();
    assert!(ids.into_iter().eq((1..=100).map(Some)), "the first by number");
    let html = get(metrics, "/");
    assert!(html.contains("and 900 more"), "{html}");
    assert!(html.len() < 100 << 10, "{}", html.len());
    assert_eq!(json(metrics, "/status.json?q=777")["uploads"][0]["id"], 777);
    let peer = streams[899].local_addr().unwrap().to_string();
    let found = json(metrics, &format!("/status.json?q={peer}"));
    assert_eq!((&found["uploads"][0]["id"], &found["more_uploads"]), (&900.into(), &0.into()));
    assert!(started.elapsed() < BUSY, "{:?}", started.elapsed());

    // The last two hundred that end are kept.
    drop(streams);
    until("all have ended", || status(metrics)["totals"]["in_service"] == 0);
    assert_eq!(status(metrics)["outcomes"].as_array().unwrap().len(), 200);
    server.stop(Duration::from_secs(1));
}

#[test]
fn answers_while_saturated() {
    let place = Place::new();
    let flags = ["--metrics", "0", "--max-connections", "4", "--workers", "1"];
    let server = Server::start(&place, &flags);
    let metrics = address(&server);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let bound = Instant::now() + 2 * BOUND;
    std::thread::scope(|scope| {
        let _stop = super::harness::StopOnDrop(&stop);
        // Four send as fast as they can, twenty wait in the backlog.
        for _ in 0..4 {
            let mut stream = connect(server.address()).unwrap();
            let stop = &stop;
            scope.spawn(move || {
                let block = vec![0; 1 << 16];
                while !stop.load(std::sync::atomic::Ordering::SeqCst) && Instant::now() < bound {
                    stream.write_all(&block).unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let waiting: Vec<_> =
            (0..20).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
        let mut slowest = Duration::ZERO;
        for path in ["/", "/status.json"].repeat(10) {
            let started = Instant::now();
            assert!(get(metrics, path).starts_with("HTTP/1.1 200 "));
            slowest = slowest.max(started.elapsed());
        }
        assert!(slowest < BUSY, "{slowest:?}");
        let uploads = status(metrics)["uploads"].as_array().unwrap().clone();
        assert_eq!(uploads.len(), 4);
        drop(waiting);
    });
    let mut last = TcpStream::connect(metrics).unwrap();
    last.set_read_timeout(Some(BOUND)).unwrap();
    last.write_all(b"HEAD / HTTP/1.1\r\n\r\n").unwrap();
    let mut head = String::new();
    last.read_to_string(&mut head).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn lists_an_empty_upload_as_complete() {
    let place = Place::new();
    let server = Server::start(&place, &["--metrics", "0"]);
    let metrics = address(&server);
    upload(server.address(), b"").unwrap();
    let outcome = status(metrics)["outcomes"][0].clone();
    assert_eq!((&outcome["bytes"], &outcome["outcome"]), (&0.into(), &"complete".into()));
    server.stop(Duration::from_secs(1));
}
