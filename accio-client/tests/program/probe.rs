//! `--probe`.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use super::common::{Client, accept, code, events, full_pipe, listen, refusing, text};

#[test]
fn shows_the_greeting_and_sends_nothing() {
    let look = |wire: &'static [u8], flags: &[&str]| {
        let (listener, port) = listen();
        let flags = [flags, &["--timeout=1.2", "--connect-timeout=10"]].concat();
        let start = ["--probe", "-4", "localhost", &port];
        let client = Client::start(&[&start, &flags[..]].concat());
        let mut stream = accept(&listener);
        stream.write_all(wire).unwrap();
        let mut sent = Vec::new();
        let end = stream.read_to_end(&mut sent).unwrap_err();
        assert_eq!((sent.len(), end.kind()), (0, std::io::ErrorKind::ConnectionReset));
        (client.finish(), port)
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
        assert_eq!(text(&output.stderr), "", "only a greeting shows that it counts");
    }

    let (output, _) = look(b"accio\r\n", &["--json", "-q"]);
    let events = events(&output);
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!((&events[1]["event"], &events[1]["finding"]), (&"heard".into(), &"greets".into()));
    assert_eq!(events[1]["heard"], r"accio\r\n");
    assert!(output.stderr.is_empty());
}

#[test]
fn fails_like_an_upload_if_no_server_listens() {
    let (_sockets, port) = refusing();
    let output = Client::start(&["--probe", "127.0.0.1", &port]).finish();
    assert_eq!(code(&output), 7);
    assert!(text(&output.stdout).contains("no connection: connection refused"));
    let expected = format!("ERROR: connect to 127.0.0.1 port {port}: connection refused; ");
    assert!(text(&output.stderr).starts_with(&expected));
}

#[test]
fn a_failed_probe_waits_for_the_reader_of_its_events() {
    let (_sockets, port) = refusing();
    let (mut reader, stdout, fill) = full_pipe();
    let mut client = Client::with(&["--probe", "127.0.0.1", &port, "--json"], |command| {
        command.stdout(stdout);
    });
    // Long enough for a client that does not wait to end.
    thread::sleep(Duration::from_millis(500));
    let mut output = Vec::new();
    reader.read_to_end(&mut output).unwrap();
    assert_eq!(client.wait().code(), Some(7));
    let output = text(&output[fill..]);
    assert!(output.lines().last().is_some_and(|line| line.contains("\"failed\"")), "{output:?}");
}
