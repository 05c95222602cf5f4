//! Behind a proxy that says whom it speaks for, for the threading that the module above names.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use accio_proto::{Dialect, MemorySink, Server, ServerBuilder, Stored};

use super::cases::{PATIENCE, Running, greeted, is_reset, reset, start, workers};

fn proxied(sink: &MemorySink) -> ServerBuilder<MemorySink> {
    Server::builder(sink.clone()).proxy_protocol(true)
}

fn text(peer: &str) -> Vec<u8> {
    let peer: SocketAddr = peer.parse().unwrap();
    format!("PROXY TCP4 {} 127.0.0.1 {} 80\r\n", peer.ip(), peer.port()).into_bytes()
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, with some more that a proxy may tell.
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

/// Sends a header, then, once greeted, content and FIN.
fn upload_for(server: &Running, header: &[u8], content: &[u8]) {
    let mut stream = server.connect();
    stream.write_all(header).unwrap();
    greeted(&mut stream);
    stream.write_all(content).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN for a kept file");
}

fn refused(server: &Running, header: &[u8], content: &[u8]) {
    let mut stream = server.connect();
    // In one go: a write that finds the connection reset would keep that from the read.
    stream.write_all(&[header, content].concat()).unwrap();
    assert!(is_reset(&mut stream), "{:?}", header.escape_ascii().to_string());
}

#[test]
fn the_peer_is_the_one_in_the_header_and_the_file_has_none_of_it() {
    let sink = MemorySink::new();
    let server = start(proxied(&sink));
    upload_for(&server, &text("192.0.2.7:12345"), b"one");
    upload_for(&server, &binary("192.0.2.8:12346"), b"PROXY two");
    upload_for(&server, &text("192.0.2.9:12347"), b"");
    let told = server.outcomes.wait(3);
    for (id, peer, content) in [
        (1, "192.0.2.7:12345", &b"one"[..]),
        (2, "192.0.2.8:12346", b"PROXY two"),
        (3, "192.0.2.9:12347", b""),
    ] {
        assert_eq!(told[&id].peer, Some(peer.parse().unwrap()));
        assert_eq!(told[&id].bytes, content.len() as u64);
        assert_eq!(sink.get(id), Some(Stored::Complete(content.to_vec())));
    }
}

#[test]
fn content_may_come_with_the_header_in_one_go_or_in_any_pieces() {
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
        let told = server.outcomes.wait(wire.len() - 1);
        assert!(told.values().all(|told| told.peer == Some("192.0.2.7:12345".parse().unwrap())));
        assert!(sink.all().values().all(|file| *file == Stored::Complete(content.to_vec())));
    }
}

#[test]
fn no_greeting_comes_before_the_header_is_complete() {
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
fn without_a_whole_header_there_is_no_number_and_no_file() {
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
    // The end where a header should be, or in the middle of it.
    for part in [&b""[..], b"PROXY TC"] {
        let mut stream = server.connect();
        stream.write_all(part).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(is_reset(&mut stream));
    }
    // A client that gives up in the backlog occupies no place.
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
fn a_header_that_takes_its_time_is_refused_however_busy_it_is() {
    let idle = Duration::from_millis(600);
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
    // Silence after the header counts from the header.
    let mut stream = server.connect();
    std::thread::sleep(idle / 2);
    stream.write_all(&header).unwrap();
    let since = Instant::now();
    greeted(&mut stream);
    assert!(is_reset(&mut stream));
    assert!(since.elapsed() >= idle, "{:?}", since.elapsed());
    assert_eq!(sink.get(1), Some(Stored::Error));
}

#[test]
fn rules_are_for_the_peer_in_the_header() {
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
        // The proxy itself is in no allowed network.
        (b"PROXY UNKNOWN\r\n".to_vec(), false),
    ] {
        if allowed {
            upload_for(&server, &header, b"allowed");
        } else {
            refused(&server, &header, b"");
        }
    }
    // Give the place of the first one back before it is needed.
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
fn a_proxy_that_speaks_for_itself_is_answered_and_costs_no_number() {
    let sink = MemorySink::new();
    let server = start(proxied(&sink).max_connections(workers(2)));
    for _ in 0..10 {
        let mut stream = server.connect();
        stream.write_all(&local()).unwrap();
        greeted(&mut stream);
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "a FIN: all is well");
    }
    for _ in 0..10 {
        let mut stream = server.connect();
        stream.write_all(&local()).unwrap();
        reset(stream);
    }
    // One whose client has no address is served as the proxy's own.
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
fn stopping_ends_those_without_a_header_too() {
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
