//! Several files, standard input, retries, progress, events and the probe, at the real program.
#![allow(clippy::unwrap_used, reason = "a test file's helpers are tests too")]

mod common;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Running, accept, file, listen, serve, text};
use serde_json::Value;

fn code(output: &Output) -> i32 {
    output.status.code().expect("it is not killed by a signal")
}

/// The events of a run, each of which must be an object on a line of its own.
fn events(output: &Output) -> Vec<Value> {
    let lines = text(&output.stdout);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn named<'e>(events: &'e [Value], name: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

/// How a peer ends a connection.
fn reset(stream: TcpStream) {
    let linger = rustix::net::sockopt::set_socket_linger;
    linger(&stream, Some(Duration::ZERO)).unwrap();
}

#[test]
fn several_files_in_order_and_every_failure_told() {
    let (port, serving) = serve(2);
    let ((_a, a), (_b, b)) = (file(10), file(20));
    let output = Running::start(&["127.0.0.1", &port, &a, "/no/such", &b, "/"]).output();
    let received: Vec<_> = serving.join().unwrap().iter().map(Vec::len).collect();
    assert_eq!(received, [10, 20], "a connection each, in order");
    assert_eq!(code(&output), 26);
    let stderr = text(&output.stderr);
    let lines: Vec<_> = stderr.lines().collect();
    let begins = [
        &format!("sent {a} "),
        "ERROR: file \"/no/such\"",
        &format!("sent {b} "),
        "ERROR: file \"/\"",
    ];
    assert_eq!(lines.len(), begins.len(), "{stderr}");
    for (line, begin) in lines.iter().zip(begins) {
        assert!(line.starts_with(begin), "{line}");
    }
}

#[test]
fn the_exit_code_is_that_of_the_first_file_that_failed_however_they_end() {
    // The second file fails at once, the first one later.
    let (listener, port) = listen();
    let (_file, path) = file(10);
    let arguments =
        ["127.0.0.1", &port, &path, "/no/such", "--jobs", "2", "--timeout", "0.5", "-q"];
    let client = Running::start(&arguments);
    let _silent = accept(&listener);
    let output = client.output();
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("ERROR: file \"/no/such\""), "{stderr}");
    assert_eq!((code(&output), stderr.lines().count()), (28, 2), "{stderr}");
}

#[test]
fn jobs_are_sent_at_once_and_no_more_than_asked_for() {
    let (listener, port) = listen();
    let (_file, path) = file(1000);
    let arguments = ["127.0.0.1", &port, &path, &path, &path, &path, &path, "--jobs=3"];
    let client = Running::start(&arguments);
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
    let output = client.output();
    assert_eq!((code(&output), text(&output.stderr).lines().count()), (0, 5));
}

#[test]
fn standard_input_from_a_pipe_and_from_a_file_at_its_position() {
    for without in [&[][..], &["--without", "splice,sendfile"]] {
        let (port, serving) = serve(2);
        let arguments = [&["127.0.0.1", &port, "-"], without].concat();
        let mut client = Running::with(&arguments, |command| {
            command.stdin(Stdio::piped());
        });
        let mut pipe = client.0.stdin.take().unwrap();
        pipe.write_all(&[b'p'; 200_000]).unwrap();
        drop(pipe);
        let output = client.output();
        assert!(text(&output.stderr).starts_with("sent standard input to "), "{output:?}");

        let mut content = tempfile::tempfile().unwrap();
        content.write_all(b"skipped, sent").unwrap();
        content.seek(SeekFrom::Start(9)).unwrap();
        let client = Running::with(&arguments, |command| {
            command.stdin(content);
        });
        assert_eq!(code(&client.output()), 0);
        assert_eq!(serving.join().unwrap(), [vec![b'p'; 200_000], b"sent".to_vec()]);
    }
}

#[test]
fn a_server_that_goes_away_ends_it_while_the_pipe_is_silent() {
    let (listener, port) = listen();
    let mut client = Running::with(&["127.0.0.1", &port, "-"], |command| {
        command.stdin(Stdio::piped());
    });
    // Held open, and silent.
    let pipe = client.0.stdin.take();
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    thread::sleep(Duration::from_millis(100));
    reset(stream);
    let start = Instant::now();
    let output = client.output();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let stderr = text(&output.stderr);
    assert_eq!(code(&output), 55, "{stderr}");
    assert!(stderr.contains("a server gives up when no byte comes for 10 seconds"), "{stderr}");
    drop(pipe);
}

/// A server's part in [`each_failure_has_its_code`].
type Script = fn(TcpStream);

#[test]
fn each_failure_has_its_code() {
    let cases: [(&str, Script, i32, &str); 8] = [
        ("silent", |stream| drain(stream), 28, "handshake-timeout"),
        ("wrong greeting", |mut s| drop(s.write_all(b"HTTP/1.1 400\r\n")), 56, "handshake"),
        ("closed in the handshake", |mut s| drop(s.write_all(b"acc")), 56, "handshake"),
        ("reset in the handshake", reset, 56, "handshake-broken"),
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
                thread::sleep(Duration::from_secs(3));
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
    let folder = tempfile::tempdir().unwrap();
    let large = folder.path().join("large");
    File::create(&large).unwrap().set_len(64 << 20).unwrap();
    let large = large.to_str().unwrap();
    let run = |flags: &[&str], port: &str, path: &str| {
        let start = ["127.0.0.1", port, path, "--timeout=1", "--json"];
        Running::start(&[&start, flags].concat())
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
        check(what, client.output(), exit, name);
        serving.join().unwrap();
    }
    let (listener, port) = listen();
    check("family", run(&["-6"], &port, large).output(), 6, "resolve");
    let source = run(&["--source=203.0.113.7"], &port, large);
    check("source", source.output(), 45, "source-address");
    check("no file", run(&[], &port, "/no/such").output(), 26, "read");
    drop(listener);
    check("refused", run(&[], &port, large).output(), 7, "connect");
}

fn drain(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn an_address_that_does_not_answer_takes_the_connect_timeout_alone() {
    // A full backlog drops further SYNs.
    let (listener, port) = listen();
    rustix::net::listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let short = Duration::from_millis(50);
    let _waiting: Vec<_> = (0..3).map(|_| TcpStream::connect_timeout(&address, short)).collect();
    let start = Instant::now();
    let output =
        Running::start(&["127.0.0.1", &port, "/dev/null", "--connect-timeout=.4"]).output();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    let stderr = text(&output.stderr);
    assert_eq!(code(&output), 28, "{stderr}");
    assert!(stderr.contains("no answer within 400ms; check the address, or allow"), "{stderr}");
}

#[test]
fn a_retry_is_a_whole_new_upload_and_says_what_it_costs() {
    let (listener, port) = listen();
    let (_file, path) = file(50_000);
    let client = Running::start(&["127.0.0.1", &port, &path, "--retry", "3", "--json"]);
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    reset(stream);
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 50_000, "from its start");
    drop(stream);
    let output = client.output();
    let stderr = text(&output.stderr);
    assert_eq!(code(&output), 0, "{stderr}");
    let (retry, sent) = stderr.split_once('\n').unwrap();
    assert!(retry.starts_with(&format!("retry: {path}: ")), "{retry}");
    assert!(retry.contains("attempt 2 of 4 in "), "{retry}");
    assert!(retry.ends_with("the server has counted this attempt, and will hold a second file"));
    assert!(sent.starts_with("sent ") && sent.ends_with("confirmed\n"), "{sent}");
    let events = events(&output);
    let retrying = named(&events, "retrying");
    assert_eq!((retrying.len(), retrying[0]["attempt"].as_u64()), (1, Some(1)));
    assert!((0.5..=1.0).contains(&retrying[0]["seconds"].as_f64().unwrap()));
    assert_eq!(named(&events, "confirmed")[0]["attempt"], 2);
}

#[test]
fn what_no_retry_can_mend_is_not_tried_again() {
    let (listener, port) = listen();
    for (wire, exit) in [(&b"220 smtp\r\n"[..], 56), (b"", 26)] {
        let path = if exit == 26 { "/no/such" } else { "/dev/null" };
        let client = Running::start(&["127.0.0.1", &port, path, "--retry=5"]);
        if exit == 56 {
            accept(&listener).write_all(wire).unwrap();
        }
        let output = client.output();
        assert_eq!((code(&output), text(&output.stderr).lines().count()), (exit, 1));
    }
    // A pipe's bytes are gone once they are sent.
    let mut client = Running::with(&["127.0.0.1", &port, "-", "--retry=5"], |command| {
        command.stdin(Stdio::piped());
    });
    client.0.stdin.as_ref().unwrap().write_all(b"some").unwrap();
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    stream.read_exact(&mut [0; 4]).unwrap();
    reset(stream);
    let pipe = client.0.stdin.take();
    let output = client.output();
    assert_eq!((code(&output), text(&output.stderr).lines().count()), (55, 1));
    drop(pipe);
}

#[test]
fn events_tell_it_all_in_order() {
    let (port, serving) = serve(1);
    let (_file, path) = file(300_000);
    let flags = ["127.0.0.1", &port, &path, "--json", "-q", "--limit-rate", "1M"];
    let output = Running::start(&flags).output();
    serving.join().unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let events = events(&output);
    let mut steps: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    steps.dedup();
    let without_progress: Vec<_> = steps.iter().filter(|step| **step != "progress").collect();
    assert_eq!(without_progress, [&"resolved", &"connected", &"greeted", &"sent", &"confirmed"]);
    for event in &events {
        assert_eq!((event["file"].as_str(), &event["number"]), (Some(&*path), &1.into()));
    }
    let progress = named(&events, "progress");
    assert!(progress.len() >= 2, "{progress:?}");
    assert_eq!(progress.last().unwrap()["acknowledged"], 300_000);
    assert_eq!(progress[0]["total"], 300_000);
    let confirmed = named(&events, "confirmed")[0];
    assert_eq!((&confirmed["bytes"], &confirmed["dialect"]), (&300_000.into(), &"accio".into()));
    assert!(confirmed["seconds"].as_f64().unwrap() > 0.2);
}

#[test]
fn a_reader_of_events_that_goes_away_does_not_stop_the_transfer() {
    let (port, serving) = serve(1);
    let (_file, path) = file(100);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let client = Running::with(&["127.0.0.1", &port, &path, "--json", "-q"], |command| {
        command.stdout(writer);
    });
    let mut client = client;
    let status = client.wait();
    let mut stderr = String::new();
    client.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(status.code(), Some(23));
    assert_eq!(stderr, "ERROR: standard output: broken pipe\n");
    assert_eq!(serving.join().unwrap()[0].len(), 100);
}

#[test]
fn plain_progress_is_lines_and_quiet_is_nothing() {
    let run = |flags: &[&str]| {
        let (port, serving) = serve(1);
        let (_file, path) = file(1_500_000);
        let start = ["127.0.0.1", &port, &path, "--limit-rate", "1M"];
        let output = Running::start(&[&start, flags].concat()).output();
        serving.join().unwrap();
        assert!(code(&output) == 0 && output.stdout.is_empty(), "{output:?}");
        text(&output.stderr)
    };
    let plain = run(&["--progress", "plain"]);
    let lines: Vec<_> = plain.lines().collect();
    assert!(lines.len() >= 2, "{plain}");
    assert!(lines[0].contains("%, ") && lines[0].contains(" of 1.5 MB, "), "{plain}");
    assert_eq!(run(&["--progress=plain", "-q"]), "");
    let auto = run(&[]);
    assert!(auto.lines().count() == 1 && auto.starts_with("sent "), "{auto}");
}

/// Both ends of a new terminal of 100 columns.
fn terminal() -> (File, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let name = ptsname(&near, Vec::new()).unwrap();
    let far = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let size = rustix::termios::Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&far, size).unwrap();
    (near.into(), far.into())
}

/// Runs it on a terminal: what that shows, and stdout.
fn on_terminal(arguments: &[&str]) -> (String, Vec<u8>) {
    let (mut near, far) = terminal();
    let client = Running::with(arguments, |command| {
        command.stderr(far).env("TERM", "xterm");
    });
    let reading = thread::spawn(move || {
        let mut shown = Vec::new();
        // The last to hold the far end closes it; reading then fails with EIO.
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = near.read(&mut buffer) {
            shown.extend_from_slice(&buffer[..count]);
        }
        shown
    });
    let mut client = client;
    client.wait();
    let mut stdout = Vec::new();
    client.0.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
    (text(&reading.join().unwrap()), stdout)
}

#[test]
fn a_terminal_shows_a_bar_for_each_file_of_what_is_acknowledged() {
    let (listener, port) = listen();
    // More than arrives, and less than all buffers take: handed to the kernel at once.
    let serving = thread::spawn(move || {
        let mut streams: Vec<_> = (0..2).map(|_| accept(&listener)).collect();
        for stream in &mut streams {
            stream.write_all(b"accio\r\n").unwrap();
        }
        thread::sleep(Duration::from_millis(1200));
        for stream in &mut streams {
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let names = ["first", "second"].map(|name| folder.path().join(name));
    for name in &names {
        File::create(name).unwrap().set_len(20 << 20).unwrap();
    }
    let [first, second] = names.each_ref().map(|name| name.to_str().unwrap());
    let (shown, stdout) = on_terminal(&["127.0.0.1", &port, first, second, "--jobs=2", "--json"]);
    serving.join().unwrap();
    let events: Vec<Value> =
        text(&stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let size = |event: &Value, which: &str| match event[which].as_f64().unwrap() {
        bytes if bytes < 1e6 => format!("% {:.2} kB of ", bytes / 1e3),
        bytes => format!("% {:.2} MB of ", bytes / 1e6),
    };
    // What stays the same for several reports, while the server does not read, is on the screen.
    let progress = named(&events, "progress");
    let stuck: Vec<_> = progress
        .iter()
        .filter(|event| {
            let same = |other: &&&Value| {
                ["file", "acknowledged", "sent"].iter().all(|key| other[key] == event[key])
            };
            event["sent"] != event["total"] && progress.iter().filter(same).count() >= 4
        })
        .collect();
    assert!(!stuck.is_empty(), "{progress:?}");
    for event in stuck {
        assert!(event["acknowledged"].as_u64() < event["sent"].as_u64(), "{event}");
        assert!(shown.contains(&size(event, "acknowledged")), "{event}: {shown:?}");
        assert!(!shown.contains(&size(event, "sent")), "{event}: {shown:?}");
    }
    for name in [first, second] {
        assert!(shown.contains(&format!("{name} [")), "{shown:?}");
        assert!(shown.contains(&format!("sent {name} to ")), "{shown:?}");
    }
    assert!(shown.contains(" of 20.97 MB, ") && shown.contains(" left"), "{shown:?}");
}

#[test]
fn a_terminal_shows_nothing_on_request_and_colours_errors() {
    let (port, serving) = serve(2);
    let (_file, path) = file(1000);
    let (shown, _) = on_terminal(&["127.0.0.1", &port, &path, "--progress=none"]);
    assert!(shown.starts_with("sent ") && !shown.contains('\x1b'), "{shown:?}");
    let (shown, _) = on_terminal(&["127.0.0.1", &port, &path, "-q"]);
    assert_eq!(shown, "");
    serving.join().unwrap();

    let (shown, _) = on_terminal(&["h", "80", "/no/such"]);
    assert!(shown.starts_with("\x1b[1;31mERROR:\x1b[0m file "), "{shown:?}");
    for never in
        [&["h", "80", "/no/such", "--color=never"][..], &["h", "0", "f", "--color", "never"]]
    {
        let (shown, _) = on_terminal(never);
        assert!(shown.starts_with("ERROR: "), "{shown:?}");
    }
}

#[test]
fn colour_follows_the_flag_then_the_variables() {
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = Running::with(arguments, |command| {
            command.envs(variables.iter().copied());
        })
        .output();
        (text(&output.stdout), text(&output.stderr))
    };
    let coloured = |text: &str| text.contains('\x1b');
    let error = ["h", "0", "f"];
    assert!(!coloured(&run(&error, &[]).1));
    assert!(coloured(&run(&["h", "0", "f", "--color=always"], &[("NO_COLOR", "1")]).1));
    assert!(coloured(&run(&error, &[("ACCIO_COLOR", "always")]).1));
    assert!(!coloured(&run(&["h", "0", "f", "--color=never"], &[("ACCIO_COLOR", "always")]).1));
    assert!(coloured(&run(&["--help", "--color=always"], &[]).0));
    assert!(!coloured(&run(&["--help"], &[]).0));
}

#[test]
fn variables_stand_for_flags_and_flags_have_precedence() {
    let variable = |name: &str, value: &str, arguments: &[&str]| {
        let output = Running::with(arguments, |command| {
            command.env(name, value);
        })
        .output();
        (code(&output), text(&output.stderr))
    };
    let (listener, port) = listen();
    let file = ["127.0.0.1", &port, "/dev/null"];
    let start = Instant::now();
    let (exit, _) = variable("ACCIO_TIMEOUT", "0.3", &file);
    assert!(exit == 28 && start.elapsed() < Duration::from_secs(5));
    let (exit, stderr) = variable("ACCIO_SOURCE", "203.0.113.7", &file);
    assert_eq!(exit, 45, "{stderr}");
    let (exit, stderr) = variable("ACCIO_TIMEOUT", "never", &file);
    assert!(exit == 2 && stderr.contains("'never'"), "{stderr}");
    let start = Instant::now();
    let (exit, _) =
        variable("ACCIO_TIMEOUT", "9", &["127.0.0.1", &port, "/dev/null", "--timeout=.3"]);
    assert!(exit == 28 && start.elapsed() < Duration::from_secs(5));
    drop(listener);
}

#[test]
fn a_probe_shows_the_greeting_and_sends_nothing() {
    let look = |wire: &'static [u8], flags: &[&str]| {
        let (listener, port) = listen();
        let flags = [flags, &["--timeout=.4", "--connect-timeout=10"]].concat();
        let start = ["--probe", "-4", "localhost", &port];
        let client = Running::start(&[&start, &flags[..]].concat());
        let mut stream = accept(&listener);
        stream.write_all(wire).unwrap();
        let mut sent = Vec::new();
        let end = stream.read_to_end(&mut sent).unwrap_err();
        assert_eq!((sent.len(), end.kind()), (0, std::io::ErrorKind::ConnectionReset));
        (client.output(), port)
    };
    let (output, port) = look(b"accio\r\n", &[]);
    let stdout = text(&output.stdout);
    assert_eq!(code(&output), 0, "{stdout}");
    let lines: Vec<_> = stdout.lines().collect();
    assert!(lines[0].starts_with("localhost is 127.0.0.1 (resolved in "), "{stdout}");
    assert!(lines[1].starts_with(&format!("127.0.0.1:{port}: connected in ")), "{stdout}");
    assert!(lines[1].ends_with(r#"these 7 bytes: "accio\r\n""#), "{stdout}");
    assert!(lines[2].starts_with("An Accio server: it greets"), "{stdout}");
    assert!(text(&output.stderr).starts_with("note: an Accio server has counted this connection"));

    for (wire, flags, exit, sentence) in [
        (&b""[..], &[][..], 28, "It waits for the client to begin"),
        (b"", &["--handshake=direct"], 0, "It waits for the client to begin"),
        (b"SSH-2.0-x\x1b[2J\r\n", &[], 56, "Not an Accio server: one for SSH"),
        (b"accio\n", &[], 56, "Almost an Accio server"),
        (b"acc", &[], 28, "It began like an Accio server"),
    ] {
        let (output, _) = look(wire, flags);
        let stdout = text(&output.stdout);
        assert_eq!(code(&output), exit, "{stdout}");
        assert!(stdout.contains(sentence) && !stdout.contains('\x1b'), "{stdout}");
    }

    let (output, _) = look(b"accio\r\n", &["--json", "-q"]);
    let events = events(&output);
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!((&events[1]["event"], &events[1]["finding"]), (&"heard".into(), &"greets".into()));
    assert_eq!(events[1]["heard"], r"accio\r\n");
    assert!(output.stderr.is_empty());
}

#[test]
fn a_probe_of_nobody_fails_like_an_upload() {
    let (listener, port) = listen();
    drop(listener);
    let output = Running::start(&["--probe", "127.0.0.1", &port]).output();
    assert_eq!(code(&output), 7);
    assert!(text(&output.stdout).contains("no connection: connection refused"));
    let expected = format!("ERROR: connect to 127.0.0.1 port {port}: connection refused; ");
    assert!(text(&output.stderr).starts_with(&expected));
}
