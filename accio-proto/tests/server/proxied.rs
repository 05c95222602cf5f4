//! Tests behind a proxy that sends a PROXY header, for the threading mode of the parent module.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use accio_proto::{Dialect, MemorySink, ServerBuilder, Stored};

use super::cases::{PATIENCE, RunningServer, greeted, is_reset, reset, start, workers};
use super::{Sink, builder};

fn proxied(sink: &MemorySink) -> ServerBuilder<Sink> {
    builder(sink.clone()).proxy_protocol(true)
}

fn text(peer: &str) -> Vec<u8> {
    let peer: SocketAddr = peer.parse().unwrap();
    format!("PROXY TCP4 {} 127.0.0.1 {} 80\r\n", peer.ip(), peer.port()).into_bytes()
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Returns a header of version 2, with additional fields.
fn binary(peer: &str) -> Vec<u8> {
    let SocketAddr::V4(peer) = peer.parse().unwrap() else { panic!("an IPv4 address") };
    let more = [0xee, 0, 5, b'a', b'c', b'c', b'i', b'o'];
    let length = 12 + more.len() as u8;
    let addresses =
        [&peer.ip().octets()[..], &[127, 0, 0, 1], &peer.port().to_be_bytes(), &[0, 80]];
    [SIGNATURE, &[0x21, 0x11, 0, length], &addresses.concat(), &more].concat()
}

fn local() -> Vec<u8> {
    [SIGNATURE, &[0x20, 0, 0, 0]].concat()
}

/// Sends a header and, once greeted, content and FIN.
fn upload_for(server: &RunningServer, header: &[u8], content: &[u8]) {
    let mut stream = server.connect();
    stream.write_all(header).unwrap();
    greeted(&mut stream);
    stream.write_all(content).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN for a stored file");
}

fn refused(server: &RunningServer, header: &[u8], content: &[u8]) {
    let mut stream = server.connect();
    // A single write: a second one might fail because of the reset, and the read would not be
    // reached.
    stream.write_all(&[header, content].concat()).unwrap();
    assert!(is_reset(&mut stream), "{:?}", header.escape_ascii().to_string());
}

#[test]
fn the_peer_is_that_of_the_header_which_is_not_content() {
    let sink = MemorySink::new();
    let server = start(proxied(&sink));
    upload_for(&server, &text("192.0.2.7:12345"), b"one");
    upload_for(&server, &binary("192.0.2.8:12346"), b"PROXY two");
    upload_for(&server, &text("192.0.2.9:12347"), b"");
    let ended = server.outcomes.wait(3);
    for (id, peer, content) in [
        (1, "192.0.2.7:12345", &b"one"[..]),
        (2, "192.0.2.8:12346", b"PROXY two"),
        (3, "192.0.2.9:12347", b""),
    ] {
        assert_eq!(ended[&id].peer, Some(peer.parse().unwrap()));
        assert_eq!(ended[&id].bytes, content.len() as u64);
        assert_eq!(sink.get(id), Some(Stored::Complete(content.to_vec())));
    }
}

#[test]
fn accepts_header_and_content_in_any_pieces() {
    let content = b"without a greeting";
    for header in [text("192.0.2.7:12345"), binary("192.0.2.7:12345")] {
        let sink = MemorySink::new();
        let server = start(proxied(&sink).dialect(Dialect::Direct));
        let wire = [&header[..], content].concat();
        let streams: Vec<_> = (1..wire.len())
            .map(|cut| {
                let mut stream = server.connect();
                stream.set_nodelay(true).unwrap();
                stream.write_all(&wire[..cut]).unwrap();
                (cut, stream)
            })
            .collect();
        std::thread::sleep(Duration::from_millis(50));
        for (cut, stream) in &streams {
            let mut stream: &TcpStream = stream;
            stream.write_all(&wire[*cut..]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        }
        for (_, mut stream) in streams {
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
        }
        let ended = server.outcomes.wait(wire.len() - 1);
        assert!(ended.values().all(|ended| ended.peer == Some("192.0.2.7:12345".parse().unwrap())));
        assert!(sink.all().values().all(|file| *file == Stored::Complete(content.to_vec())));
    }
}

#[test]
fn sends_no_greeting_before_the_header_is_complete() {
    let server = start(proxied(&MemorySink::new()));
    for header in [text("192.0.2.7:12345"), binary("192.0.2.7:12345"), local()] {
        let mut stream = server.connect();
        let (most, last) = header.split_at(header.len() - 1);
        stream.write_all(most).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
        stream.read(&mut [0]).unwrap_err();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(last).unwrap();
        greeted(&mut stream);
    }
}

#[test]
fn without_a_complete_header_there_is_no_number_and_no_file() {
    let sink = MemorySink::new();
    let server = start(proxied(&sink).max_connections(workers(2)));
    let long = [SIGNATURE, &[0x21, 0x11, 0x20, 0]].concat();
    let headers: &[&[u8]] = &[
        b"confirm-accio\r\n",
        b"some content without a header",
        b"PROXY TCP4 192.0.2.7 127.0.0.1 x 80\r\n",
        b"PROXY TCP4 192.0.2.7\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x01\0",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x01\0",
        &long,
        &[b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
    ];
    for header in headers {
        refused(&server, header, b"content");
    }
    // The end instead of a header, or within it.
    for part in [&b""[..], b"PROXY TC"] {
        let mut stream = server.connect();
        stream.write_all(part).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(is_reset(&mut stream));
    }
    // A client that gives up in the backlog takes no place.
    for _ in 0..5 {
        let mut stream = server.connect();
        stream.write_all(b"PROXY ").unwrap();
        reset(stream);
    }
    upload_for(&server, &text("192.0.2.7:1"), b"the first file");
    assert_eq!(sink.all().len(), 1);
    assert_eq!(sink.get(1), Some(Stored::Complete(b"the first file".to_vec())));
    let started = Instant::now();
    while server.handle.stats().refused < headers.len() as u64 + 7 {
        assert!(started.elapsed() < PATIENCE, "{:?}", server.handle.stats());
    }
    assert_eq!(server.handle.stats().accepted, 1);
}

#[test]
fn refuses_a_slow_header_even_if_bytes_keep_arriving() {
    let idle = Duration::from_secs(2);
    let sink = MemorySink::new();
    let server = start(proxied(&sink).idle_timeout(idle));
    let header = text("192.0.2.7:12345");
    let (since, mut stream) = (Instant::now(), server.connect());
    let mut bytes = header.iter();
    let ended = loop {
        let byte = bytes.next().expect("it is refused before it is complete");
        if stream.write_all(&[*byte]).is_err() {
            break since.elapsed();
        }
        std::thread::sleep(Duration::from_millis(100));
        assert!(since.elapsed() < PATIENCE);
    };
    assert!(ended >= idle, "{ended:?}");
    assert!(sink.all().is_empty());
    assert_eq!(server.handle.stats().refused, 1);
    // Idle time after the header counts from the header.
    let mut stream = server.connect();
    std::thread::sleep(idle / 2);
    let since = Instant::now();
    stream.write_all(&header).unwrap();
    greeted(&mut stream);
    assert!(is_reset(&mut stream));
    assert!(since.elapsed() >= idle, "{:?}", since.elapsed());
    assert_eq!(sink.get(1), Some(Stored::Error));
}

#[test]
fn limits_apply_to_the_peer_in_the_header() {
    let one = std::num::NonZeroU32::MIN;
    let sink = MemorySink::new();
    let builder = proxied(&sink)
        .allow(["192.0.2.0/24".parse().unwrap()])
        .deny(["192.0.2.66".parse().unwrap()])
        .max_per_ip(one);
    let server = start(builder);
    for (header, allowed) in [
        (binary("192.0.2.7:1"), true),
        (binary("192.0.2.66:1"), false),
        (text("198.51.100.1:1"), false),
        // The proxy itself is not in an allowed network.
        (b"PROXY UNKNOWN\r\n".to_vec(), false),
    ] {
        if allowed {
            upload_for(&server, &header, b"allowed");
        } else {
            refused(&server, &header, b"");
        }
    }
    // Wait until the place of the first connection is free.
    let started = Instant::now();
    let mut first = loop {
        let mut stream = server.connect();
        stream.write_all(&text("192.0.2.7:1")).unwrap();
        let mut greeting = [0; 7];
        if stream.read_exact(&mut greeting).is_ok() {
            break stream;
        }
        assert!(started.elapsed() < PATIENCE);
    };
    refused(&server, &text("192.0.2.7:2"), b"");
    upload_for(&server, &text("192.0.2.8:1"), b"another's");
    first.write_all(b"first").unwrap();
    first.shutdown(Shutdown::Write).unwrap();
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_health_check_by_the_proxy_is_greeted_without_a_number() {
    let sink = MemorySink::new();
    let server = start(proxied(&sink).max_connections(workers(2)));
    for _ in 0..10 {
        let mut stream = server.connect();
        stream.write_all(&local()).unwrap();
        greeted(&mut stream);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN: the server is alive");
    }
    for _ in 0..10 {
        let mut stream = server.connect();
        stream.write_all(&local()).unwrap();
        reset(stream);
    }
    // A connection whose client has no address is served with the proxy's address.
    let mut stream = server.connect();
    let proxy = stream.local_addr().unwrap();
    stream.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    greeted(&mut stream);
    stream.write_all(b"unknown").unwrap();
    drop(stream);
    assert_eq!(server.outcomes.wait(1)[&1].peer, Some(proxy));
    assert_eq!(sink.get(1), Some(Stored::Complete(b"unknown".to_vec())));
    let stats = server.handle.stats();
    assert_eq!((stats.accepted, stats.refused), (1, 0));
}

#[test]
fn stopping_ends_connections_without_a_header_too() {
    let sink = MemorySink::new();
    let server = start(proxied(&sink));
    let mut streams: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for stream in &mut streams[..10] {
        stream.write_all(b"PROXY ").unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
    server.stop().unwrap();
    assert!(streams.iter_mut().all(is_reset));
    assert!(sink.all().is_empty());
}
