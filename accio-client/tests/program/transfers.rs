//! Several files, standard input, exit codes, retries.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::common::{
    Client, accept, code, events, file, listen, named, refusing, reset, serve, text,
};

#[test]
fn sends_several_files_in_order_and_reports_every_failure() {
    let (port, serving) = serve(2);
    let ((_a, a), (_b, b)) = (file(10), file(20));
    let output =
        Client::start(&["127.0.0.1", &port, &a, "/no/such", &b, "/no/such/other"]).finish();
    let received: Vec<_> = serving.join().unwrap().iter().map(Vec::len).collect();
    assert_eq!(received, [10, 20], "a connection each, in order");
    assert_eq!(code(&output), 26);
    let stderr = text(&output.stderr);
    let lines: Vec<_> = stderr.lines().collect();
    let begins = [
        &format!("sent {a} "),
        "ERROR: file \"/no/such\"",
        &format!("sent {b} "),
        "ERROR: file \"/no/such/other\"",
    ];
    assert_eq!(lines.len(), begins.len(), "{stderr}");
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}");
    }
}

#[test]
fn the_exit_code_is_that_of_the_first_failed_file_in_argument_order() {
    // The second file fails immediately, the first one later.
    let (listener, port) = listen();
    let (_file, path) = file(10);
    let arguments =
        ["127.0.0.1", &port, &path, "/no/such", "--jobs", "2", "--timeout", "0.5", "-q"];
    let client = Client::start(&arguments);
    let _silent = accept(&listener);
    let output = client.finish();
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("ERROR: file \"/no/such\""), "{stderr}");
    assert_eq!((code(&output), stderr.lines().count()), (28, 2), "{stderr}");
}

#[test]
fn jobs_limits_concurrent_uploads() {
    let (listener, port) = listen();
    let (_file, path) = file(1000);
    let arguments = ["127.0.0.1", &port, &path, &path, &path, &path, &path, "--jobs=3"];
    let client = Client::start(&arguments);
    let mut open: Vec<_> = (0..3).map(|_| accept(&listener)).collect();
    thread::sleep(Duration::from_millis(200));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "three, not four");
    for served in 0..5 {
        let mut stream = open.remove(0);
        stream.write_all(b"accio\r\n").unwrap();
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 1000);
        drop(stream);
        if served < 2 {
            open.push(accept(&listener));
        }
    }
    let output = client.finish();
    assert_eq!((code(&output), text(&output.stderr).lines().count()), (0, 5));
}

#[test]
fn sends_standard_input_from_a_pipe_or_from_a_files_position() {
    for without in [&[][..], &["--without", "splice,sendfile"]] {
        let (port, serving) = serve(2);
        let arguments = [&["127.0.0.1", &port, "-"], without].concat();
        let mut client = Client::with(&arguments, |command| {
            command.stdin(Stdio::piped());
        });
        let mut pipe = client.0.take_input().unwrap();
        pipe.write_all(&[b'p'; 200_000]).unwrap();
        drop(pipe);
        let output = client.finish();
        assert!(text(&output.stderr).starts_with("sent standard input to "), "{output:?}");

        let mut content = tempfile::tempfile().unwrap();
        content.write_all(b"skipped, sent").unwrap();
        content.seek(SeekFrom::Start(9)).unwrap();
        let client = Client::with(&arguments, |command| {
            command.stdin(content);
        });
        assert_eq!(code(&client.finish()), 0);
        assert_eq!(serving.join().unwrap(), [vec![b'p'; 200_000], b"sent".to_vec()]);
    }
}

#[test]
fn notices_a_closed_connection_while_the_pipe_is_silent() {
    let (listener, port) = listen();
    let mut client = Client::with(&["127.0.0.1", &port, "-"], |command| {
        command.stdin(Stdio::piped());
    });
    // The pipe stays open without any data.
    let pipe = client.0.take_input();
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    thread::sleep(Duration::from_millis(100));
    reset(stream);
    let start = Instant::now();
    let output = client.finish();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let stderr = text(&output.stderr);
    assert_eq!(code(&output), 55, "{stderr}");
    assert!(stderr.contains("the cause is its idle timeout, a limit, or a shutdown"), "{stderr}");
    drop(pipe);
}

/// The server's behaviour in [`each_failure_has_an_exit_code_and_a_code_in_json`].
type Script = fn(TcpStream);

#[test]
fn each_failure_has_an_exit_code_and_a_code_in_json() {
    let cases: [(&str, Script, i32, &str); 8] = [
        ("silent", |stream| drain(stream), 28, "handshake-timeout"),
        ("wrong greeting", |mut s| drop(s.write_all(b"HTTP/1.1 400\r\n")), 56, "handshake"),
        ("closed in the handshake", |mut s| drop(s.write_all(b"acc")), 56, "handshake"),
        // The client may not have noticed yet that it is connected.
        ("reset at once", |s| reset(s), 56, "handshake-broken"),
        (
            "reset mid-file",
            |mut s| {
                s.write_all(b"accio\r\n").unwrap();
                s.read_exact(&mut [0; 1000]).unwrap();
                reset(s);
            },
            55,
            "reset",
        ),
        (
            "FIN mid-file",
            |mut s| {
                s.write_all(b"accio\r\n").unwrap();
                s.read_exact(&mut [0; 1000]).unwrap();
                s.shutdown(Shutdown::Write).unwrap();
                drain(s);
            },
            55,
            "closed-early",
        ),
        (
            "reads no more",
            |mut s| {
                s.write_all(b"accio\r\n").unwrap();
                thread::sleep(Duration::from_secs(4));
            },
            28,
            "stalled",
        ),
        (
            "reset instead of FIN",
            |mut s| {
                s.write_all(b"accio\r\n").unwrap();
                s.read_to_end(&mut Vec::new()).unwrap();
                reset(s);
            },
            56,
            "not-kept",
        ),
    ];
    let directory = tempfile::tempdir().unwrap();
    let large = directory.path().join("large");
    File::create(&large).unwrap().set_len(64 << 20).unwrap();
    let large = large.to_str().unwrap();
    let run = |flags: &[&str], port: &str, path: &str| {
        let start = ["127.0.0.1", port, path, "--timeout=1.5", "--json"];
        Client::start(&[&start, flags].concat())
    };
    let check = |what: &str, output: Output, exit: i32, name: &str| {
        let failed = events(&output).pop().unwrap();
        assert_eq!((code(&output), failed["event"].as_str()), (exit, Some("failed")), "{what}");
        assert_eq!((&failed["code"], &failed["exit"]), (&name.into(), &exit.into()), "{what}");
        let message = failed["message"].as_str().unwrap();
        assert_eq!(text(&output.stderr), format!("ERROR: {message}\n"), "{what}");
    };
    for (what, script, exit, name) in cases {
        let (listener, port) = listen();
        let client = run(&[], &port, large);
        let serving = thread::spawn(move || script(accept(&listener)));
        check(what, client.finish(), exit, name);
        serving.join().unwrap();
    }
    let (listener, port) = listen();
    check("family", run(&["-6"], &port, large).finish(), 6, "resolve");
    let source = run(&["--source=203.0.113.7"], &port, large);
    check("source", source.finish(), 45, "source-address");
    check("no file", run(&[], &port, "/no/such").finish(), 26, "read");
    drop(listener);
    let (_sockets, port) = refusing();
    check("refused", run(&[], &port, large).finish(), 7, "connect");
}

fn drain(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn an_unresponsive_address_takes_only_the_connect_timeout() {
    // A full backlog drops further SYN packets.
    let (listener, port) = listen();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let short = Duration::from_millis(50);
    let _waiting: Vec<_> = (0..3).map(|_| TcpStream::connect_timeout(&address, short)).collect();
    let start = Instant::now();
    let output = Client::start(&["127.0.0.1", &port, "/dev/null", "--connect-timeout=.4"]).finish();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    let stderr = text(&output.stderr);
    assert_eq!(code(&output), 28, "{stderr}");
    assert!(stderr.contains("no answer within 400ms; check the address"), "{stderr}");
}

#[test]
fn a_retry_sends_the_whole_file_and_warns_about_a_second_file() {
    let (listener, port) = listen();
    let (_file, path) = file(50_000);
    let client = Client::start(&["127.0.0.1", &port, &path, "--retry", "3", "--json"]);
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    reset(stream);
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 50_000, "from its start");
    drop(stream);
    let output = client.finish();
    let stderr = text(&output.stderr);
    assert_eq!(code(&output), 0, "{stderr}");
    let (retry, sent) = stderr.split_once('\n').unwrap();
    assert!(retry.starts_with(&format!("retry: {path}: ")), "{retry}");
    assert!(retry.contains("attempt 2 of 4 in "), "{retry}");
    assert!(retry.ends_with("the server has counted this attempt, and will store a second file"));
    assert!(sent.starts_with("sent ") && sent.ends_with("confirmed\n"), "{sent}");
    let events = events(&output);
    let retrying = named(&events, "retrying");
    assert_eq!((retrying.len(), retrying[0]["attempt"].as_u64()), (1, Some(1)));
    assert!((0.5..=1.0).contains(&retrying[0]["seconds"].as_f64().unwrap()));
    assert_eq!(named(&events, "confirmed")[0]["attempt"], 2);
}

#[test]
fn does_not_retry_permanent_failures() {
    let (listener, port) = listen();
    for (wire, exit) in [(&b"220 smtp\r\n"[..], 56), (b"", 26)] {
        let path = if exit == 26 { "/no/such" } else { "/dev/null" };
        let client = Client::start(&["127.0.0.1", &port, path, "--retry=5"]);
        if exit == 56 {
            accept(&listener).write_all(wire).unwrap();
        }
        let output = client.finish();
        assert_eq!((code(&output), text(&output.stderr).lines().count()), (exit, 1));
    }
    // Bytes from a pipe cannot be read again.
    let mut client = Client::with(&["127.0.0.1", &port, "-", "--retry=5"], |command| {
        command.stdin(Stdio::piped());
    });
    let mut pipe = client.0.take_input().unwrap();
    pipe.write_all(b"some").unwrap();
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    reset(stream);
    let output = client.finish();
    assert_eq!((code(&output), text(&output.stderr).lines().count()), (55, 1));
    drop(pipe);
}
