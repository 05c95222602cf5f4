//! `--proxy-protocol`: journal, log and limits use the peer that the proxy names.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use accio_harness::peer::read;

use super::harness::{BOUND, Place, Server, finish, json_lines, until};

fn begin(server: &Server, header: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.write_all(header).unwrap();
    stream
}

fn greeted(mut stream: TcpStream) -> TcpStream {
    let mut greeting = [0; 7];
    stream.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"accio\r\n");
    stream
}

fn is_reset(stream: TcpStream) -> bool {
    read(stream, &mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn journal_log_and_limits_use_the_real_peer() {
    let place = Place::new();
    let journal = place.text("log/journal");
    let flags = ["--proxy-protocol", "--journal", &journal, "-v", "--deny", "198.51.100.0/24"];
    let server = Server::start(&place, &[&flags[..], &["--max-per-ip", "1"]].concat());

    let v1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 5000\r\n";
    let mut first = greeted(begin(&server, v1));
    first.write_all(b"first").unwrap();
    assert!(is_reset(begin(&server, v1)), "it has one already");
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24\
        \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\
        \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x30\x39\x13\x88";
    let mut second = greeted(begin(&server, v2));
    second.write_all(b"second").unwrap();
    assert!(is_reset(begin(&server, b"PROXY TCP4 198.51.100.7 10.0.0.1 1 5000\r\n")));
    assert!(is_reset(begin(&server, b"no header, but \x1b[31mcolour\r\n")));
    finish(first).unwrap();
    finish(second).unwrap();

    assert_eq!(place.read(1).unwrap(), b"first");
    assert_eq!(place.read(2).unwrap(), b"second");
    let path = place.path("log/journal");
    until("two lines", || json_lines(&path).len() == 2);
    let lines = json_lines(&path);
    assert_eq!((&lines[0]["id"], &lines[0]["peer"]), (&1.into(), &"192.0.2.7:12345".into()));
    assert_eq!((&lines[1]["id"], &lines[1]["peer"]), (&2.into(), &"[2001:db8::7]:12345".into()));
    server.line("5 bytes from 192.0.2.7:12345");
    server.line("refused a connection from 198.51.100.7:1: it is in the denied network");
    let refused = server.line("no PROXY header, but");
    assert!(refused.contains("127.0.0.1:") && !refused.contains('\x1b'), "{refused:?}");
    server.stop(Duration::from_secs(2));
    assert_eq!(std::fs::read_dir(place.path("received")).unwrap().count(), 2);
}

#[test]
fn a_client_without_a_proxy_header_gets_no_greeting_and_no_number() {
    let place = Place::new();
    let server = Server::start(&place, &["--proxy-protocol", "--timeout", "0.4", "-v"]);
    assert!(is_reset(begin(&server, b"")));
    server.line("no complete PROXY header in time");
    server.stop(Duration::from_secs(2));
    assert_eq!(std::fs::read_dir(place.path("received")).unwrap().count(), 0);
}
