//! A single upload: output, exit codes, and the effect of the program's death on the server.

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use accio_harness::peer::read;

use super::common::{Client, accept, fails, file, listen, refusing};

#[test]
fn usage_errors_are_one_line_with_exit_code_2() {
    for bad in ["0", "-1", "65536", "99999999999", "abc", "", "+5", "0x50", " 80"] {
        let (code, line) = fails(&["127.0.0.1", bad, "/dev/null"]);
        assert_eq!(code, 2);
        assert!(
            line.contains(&format!("port {bad:?} is ")) && line.contains("1 to 65535"),
            "{line}"
        );
    }
    for (arguments, word) in [
        (&[][..], "<HOST>"),
        (&["h"], "<PORT>"),
        (&["h", "80"], "<FILE>"),
        (&["h", "80", ""], "[FILE]"),
        (&["h", "80", "-", "f", "-"], "standard input can be sent only once"),
        (&["h", "80", "f", "--probe"], "--probe"),
        (&["h", "80", "f", "--jobs", "0"], "--jobs"),
        (&["h", "80", "f", "--retry", "-1"], "'-1'"),
        (&["h", "80", "f", "--limit-rate", "0"], "above 0"),
        (&["h", "80", "f", "--limit-rate", "1Q"], "64K, 1.5G or 10MB"),
        (&["h", "80", "f", "--source", "eth0"], "'eth0'"),
        (&["h", "80", "f", "--connect-timeout", "0"], "above 0"),
        (&["h", "80", "f", "-4", "-6"], "--ipv6"),
        (&["h", "80", "f", "-6", "--source", "127.0.0.1"], "not an IPv6 address"),
        (&["h", "80", "f", "--progress", "bars"], "'bars'"),
        (&["h", "80", "f", "--color", "mauve"], "'mauve'"),
        (&["h", "80", "f", "--handshake", "auto"], "auto is for servers"),
        (&["h", "80", "f", "--timeout", "-1"], "'-1'"),
        (&["h", "80", "f", "--timeout", "0"], "above 0"),
        (&["h", "80", "f", "--without", "mmap"], "\"mmap\""),
        (&["h", "80", "f", "-q", "-v"], "--quiet"),
    ] {
        let (code, line) = fails(arguments);
        assert_eq!(code, 2, "{line}");
        assert!(line.contains(word), "{line}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn the_probe_rejects_tls_flags() {
    let pin = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    for flags in [&["--tls"][..], &["--tls-pin", pin], &["--tls-ca=f"], &["--tls-identity=f"]] {
        let (code, line) = fails(&[&["--probe", "h", "80"], flags].concat());
        assert!(code == 2 && line.contains("--probe: it does not speak TLS"), "{line}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn unusable_tls_files_have_the_exit_codes_of_curl() {
    use super::common::{code, events, text};

    let directory = tempfile::tempdir().unwrap();
    let garbage = directory.path().join("garbage");
    std::fs::write(&garbage, "garbage").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&garbage, mode).unwrap();
    let garbage = garbage.to_str().unwrap();
    for (flag, path, exit, event) in [
        ("--tls-ca", "nofile", 77, "tls-ca"),
        ("--tls-ca", garbage, 77, "tls-ca"),
        ("--tls-identity", garbage, 58, "tls-identity"),
    ] {
        let flag = format!("{flag}={path}");
        let pin = "--tls-pin=sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let pin = if exit == 58 { pin } else { "--tls" };
        let output = Client::start(&["h", "80", "f", &flag, pin, "--json"]).finish();
        assert_eq!(code(&output), exit, "{output:?}");
        let failed = &events(&output)[0];
        assert_eq!((&failed["event"], &failed["code"]), (&"failed".into(), &event.into()));
        assert_eq!(failed["exit"], exit);
        let stderr = text(&output.stderr);
        assert_eq!(stderr, format!("ERROR: {}\n", failed["message"].as_str().unwrap()));
        assert!(stderr.contains("; "), "it has advice: {stderr}");
    }
}

#[test]
fn reports_an_unreadable_file_before_connecting() {
    let (listener, port) = listen();
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("a \"missing\" one");
    let (code, line) = fails(&["127.0.0.1", &port, missing.to_str().unwrap()]);
    let why = "no such file or directory; check the path";
    assert_eq!((code, line), (26, format!("ERROR: file {missing:?}: {why}\n")));
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn reports_a_refused_connection_and_an_unknown_host() {
    let (_sockets, port) = refusing();
    let (code, line) = fails(&["127.0.0.1", &port, "/dev/null"]);
    let expected = format!(
        "ERROR: connect to 127.0.0.1 port {port}: connection refused; check the port, and that a server is running there\n"
    );
    assert_eq!((code, line), (7, expected));
    let (code, line) = fails(&["does-not-exist.invalid", &port, "/dev/null"]);
    assert!(code == 6 || code == 28, "{code}");
    assert!(line.starts_with("ERROR: resolve \"does-not-exist.invalid\": "), "{line}");
}

#[test]
fn reports_a_wrong_and_a_silent_server() {
    let (listener, port) = listen();
    let client = thread::spawn({
        let port = port.clone();
        move || fails(&["127.0.0.1", &port, "/dev/null"])
    });
    accept(&listener).write_all(b"220 \x1b[2J\r\n").unwrap();
    let (code, line) = client.join().unwrap();
    let why = r#"expected "accio\r\n", got "2""#;
    let advice = "use --probe to see what listens there, --handshake to choose a dialect";
    let expected = format!("ERROR: accio handshake with 127.0.0.1:{port}: {why}; {advice}\n");
    assert_eq!((code, line), (56, expected));

    let client = thread::spawn(move || fails(&["127.0.0.1", &port, "/dev/null", "--timeout=.3"]));
    let _silent = accept(&listener);
    let (code, line) = client.join().unwrap();
    assert_eq!(code, 28);
    assert!(line.contains("not complete within 300ms; the server is busy or"), "{line}");
}

#[test]
fn prints_a_line_per_transfer_unless_quiet() {
    let (listener, port) = listen();
    let (_file, path) = file(100_000);
    let run = |flags: &[&str], confirm: bool| {
        let client = Client::start(&[&["127.0.0.1", &port, &path], flags].concat());
        let mut stream = accept(&listener);
        stream.write_all(b"accio\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, vec![b'x'; 100_000]);
        let held = (!confirm).then_some(stream);
        let output = client.finish();
        drop(held);
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(run(&["-q"], true), "");
    assert_eq!(run(&["-q", "--without", "sendfile"], true), "");
    let line = run(&[], true);
    assert!(
        line.starts_with(&format!("sent {path} to 127.0.0.1:{port}: 100000 bytes in ")),
        "{line}"
    );
    assert!(line.ends_with("/s), confirmed\n") && line.lines().count() == 1, "{line}");

    let note = run(&["--timeout", "1.5"], false);
    assert!(note.starts_with(&format!("note: sent {path} to 127.0.0.1:{port}: ")), "{note}");
    assert!(note.contains("not confirmed: the server has received all bytes"), "{note}");
    assert_eq!(note.lines().count(), 1);
    assert_eq!(run(&["--timeout", "1.5", "-q"], false), "");
}

#[test]
fn resets_when_killed_during_a_transfer() {
    for flags in [&[][..], &["--without", "sendfile"]] {
        let (listener, port) = listen();
        let (_file, path) = file(32 << 20);
        let mut client = Client::start(&[&["127.0.0.1", &port, &path], flags].concat());
        let mut stream = accept(&listener);
        stream.write_all(b"accio\r\n").unwrap();
        let mut buffer = [0; 10_000];
        for _ in 0..10 {
            stream.read_exact(&mut buffer).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        assert!(!client.0.has_ended().unwrap(), "it is still at it");
        client.0.kill().unwrap();
        client.wait();
        let mut received = 0;
        let end = loop {
            match read(&stream, &mut buffer) {
                Ok(0) => break Ok(()),
                Ok(count) => received += count,
                Err(error) => break Err(error.kind()),
            }
        };
        assert_eq!(end, Err(ErrorKind::ConnectionReset), "after {received} bytes more");
    }
}

#[test]
fn resets_when_killed_before_the_greeting() {
    let (listener, port) = listen();
    let mut client = Client::start(&["127.0.0.1", &port, "/dev/null"]);
    let stream = accept(&listener);
    client.0.kill().unwrap();
    client.wait();
    assert_eq!(read(stream, &mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}
