//! `accio-grade demo`: what it prints and what its status page shows.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{ChildStdout, Stdio};
use std::time::Duration;

use accio_harness::peer::read;
use accio_harness::ports;
use accio_harness::process::{AtDrop, Process};
use serde_json::Value;

use super::kit;

const LIMIT: Duration = Duration::from_secs(20);

/// A demo server, killed with the test.
struct Demo {
    _process: Process,
    port: u16,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Demo {
    fn start(flags: &[&str]) -> Demo {
        Demo::start_on(ports::free().unwrap(), flags)
    }

    fn start_on(port: u16, flags: &[&str]) -> Demo {
        let mut command = kit();
        command.args(["demo", &port.to_string()]).args(flags).stdout(Stdio::piped());
        let mut process = Process::spawn_logged(command, None, AtDrop::Kill).unwrap();
        let lines = BufReader::new(process.take_output().unwrap()).lines();
        Demo { _process: process, port, lines }
    }

    /// Returns the next line that contains `text`. The server prints every second while content
    /// arrives, and ends its output with its process.
    fn line(&mut self, text: &str) -> String {
        let found = self.lines.by_ref().map_while(Result::ok).find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("no line with {text:?}"))
    }

    /// Sends bytes after the greeting, then closes both directions.
    fn send(&self, bytes: &[u8]) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = read(stream, &mut [0]);
    }
}

fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn shows_what_went_wrong_in_a_handshake() {
    let mut demo = Demo::start(&["--handshake", "confirm"]);
    let line = demo.line("status page on http://127.0.0.1:");
    let (_, address) = line.split_once("http://").unwrap();
    let address: SocketAddr = address.trim_end_matches('/').parse().unwrap();
    demo.send(b"confirm-accio\n");
    let line = demo.line("ERROR");
    let expected = r#"expected "confirm-accio\r\n", got "confirm-accio\n""#;
    assert!(line.contains(expected), "{line}");
    demo.line("The first confirmation was wrong at byte 14");

    let answer = get(address, "/status.json");
    let json: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let outcome = &json["outcomes"][0];
    assert_eq!(outcome["expected"], r"confirm-accio\r\n");
    assert_eq!(outcome["received"], r"confirm-accio\n");
    let page = get(address, "/");
    assert!(page.contains(r"<code>confirm-accio\n</code>"), "{page}");
}

#[test]
fn explains_a_confirmation_that_became_content() {
    let mut demo = Demo::start(&[]);
    let line = demo.line("status page on http://127.0.0.1:");
    let (_, address) = line.split_once("http://").unwrap();
    let address: SocketAddr = address.trim_end_matches('/').parse().unwrap();
    demo.send(b"confirm-accio\n<b>");
    demo.line("complete");
    demo.line("If this was meant as a confirmation: The first confirmation was wrong at byte 14");
    let page = get(address, "/");
    let note = r"starts with &quot;confirm-accio\n&lt;b&gt;&quot;. If this was meant";
    assert!(page.contains(note), "{page}");
}

#[test]
fn serves_no_page_without_one() {
    let mut demo = Demo::start(&["--no-status"]);
    demo.line("demo server");
    demo.send(b"content");
    let line = demo.line("connection 1");
    assert!(line.contains("complete"), "{line}");
}

#[test]
fn port_zero_chooses_free_ports_and_prints_them() {
    let port = |line: &str| -> u16 {
        line.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap()
    };
    let mut demo = Demo::start_on(0, &[]);
    let line = demo.line("demo server");
    TcpStream::connect(("127.0.0.1", port(&line))).unwrap();
    let line = demo.line("status page on http://127.0.0.1:");
    // As root, port 1 could be used.
    assert!(port(&line) > 1024, "{line}");
    assert!(get(([127, 0, 0, 1], port(&line)).into(), "/").starts_with("HTTP/1.1 200 "));
}
