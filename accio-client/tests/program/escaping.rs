//! Control characters in file names, arguments and text from peers, which a terminal would
//! interpret.

use std::io::Write;
use std::process::Output;

use super::common::{Client, accept, code, events, listen, serve, text};

/// An escape sequence, its C1 form, a bidirectional override and isolate, a line separator.
const HOSTILE: &str = "a\x1b[2J\u{9b}2J\u{202e}gpj.exe\u{2066}\u{2028}b";

const ESCAPED: &str = r"a\u{1b}[2J\u{9b}2J\u{202e}gpj.exe\u{2066}\u{2028}b";

/// Fails if a terminal would interpret any part of the output.
fn assert_printable(output: &Output) {
    for line in
        [&output.stdout, &output.stderr].iter().flat_map(|bytes| bytes.split(|b| *b == b'\n'))
    {
        let line = text(line);
        let obeyed = |c: char| c.is_control() || "\u{202e}\u{2066}\u{2028}".contains(c);
        assert!(!line.contains(obeyed), "{line:?}");
    }
}

#[test]
fn escapes_file_names_in_output_events_and_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(HOSTILE);
    std::fs::write(&path, "x").unwrap();
    let path = path.to_str().unwrap();
    let (port, serving) = serve(1);
    let flags = ["127.0.0.1", &port, path, "--json", "--progress=plain", "-vvv"];
    let output = Client::start(&flags).finish();
    serving.join().unwrap();
    assert_printable(&output);
    assert_eq!(events(&output)[0]["file"], path, "the same name once it is parsed");
    assert!(text(&output.stderr).contains(ESCAPED), "{output:?}");

    let missing = format!("{path}-missing");
    let output = Client::start(&["127.0.0.1", &port, &missing, "--json"]).finish();
    assert_printable(&output);
    assert!(text(&output.stderr).contains(r"\u{202e}gpj.exe"), "{output:?}");
}

#[test]
fn escapes_arguments_in_errors() {
    for arguments in [
        &[HOSTILE, "80", "f", "--timeout=.5"][..],
        &["127.0.0.1", HOSTILE, "f"],
        &["127.0.0.1", "80", "f", "--timeout", HOSTILE],
        &["127.0.0.1", "80", "f", "--color", HOSTILE],
        &["127.0.0.1", "80", "f", &format!("--{HOSTILE}")],
        &["--probe", HOSTILE, "80", "--timeout=.5"],
    ] {
        let output = Client::start(arguments).finish();
        assert_ne!(code(&output), 0);
        assert_printable(&output);
    }
}

#[test]
fn escapes_text_from_peers() {
    for flags in
        [&["--probe"][..], &["--probe", "--json"], &["/dev/null"], &["/dev/null", "--json"]]
    {
        let (listener, port) = listen();
        let arguments = [&["127.0.0.1", &port, "--timeout=1.5", "-vvv"], flags].concat();
        let client = Client::start(&arguments);
        let mut stream = accept(&listener);
        stream.write_all(format!("accio\r{HOSTILE}").as_bytes()).unwrap();
        let output = client.finish();
        assert_eq!(code(&output), 56);
        assert_printable(&output);
    }
}
