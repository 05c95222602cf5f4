//! Exact texts of help and errors. `SNAPSHOTS=overwrite cargo test -p accio-client` replaces them.

use super::common::{Client, fails, text};
use snapbox::{assert_data_eq, file};

fn help(flag: &str) -> String {
    let output = Client::start(&[flag]).finish();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    text(&output.stdout)
}

#[test]
fn short_and_long_help() {
    assert_data_eq!(help("-h"), file!["snapshots/short-help.txt"].raw());
    assert_data_eq!(help("--help"), file!["snapshots/long-help.txt"].raw());
}

#[test]
fn errors() {
    let mut errors = String::new();
    for arguments in [
        &[][..],
        &["h"],
        &["h", "80"],
        &["h", "0", "f"],
        &["h", "-4", "80", "f"],
        &["h", "acccio", "f"],
        &["h", "80", "f", "--handshake", "auto"],
        &["h", "80", "f", "--timeout", "soon"],
        &["h", "80", "f", "--limit-rate", "fast"],
        &["h", "80", "f", "--retries", "3"],
        &["h", "80", "f", "--retry", "x"],
        &["h", "80", "f", "-6", "--source", "127.0.0.1"],
        &["h", "80", "-", "-"],
        &["127.0.0.1", "80", "/no/such/file"],
        &["127.0.0.1", "80", "--from-command", "sh 'open"],
        &["127.0.0.1", "80", "--from-command", "/no/such/program"],
        &["127.0.0.1", "80", "f", "--from-command", "true"],
        &["127.0.0.1", "80", "/dev/null", "-6"],
        &["127.0.0.1", "80", "/dev/null", "--source", "203.0.113.7"],
        &["--probe", "-6", "127.0.0.1", "80"],
    ] {
        let (code, line) = fails(arguments);
        errors += &format!("$ accio-client {}\n{line}exit code {code}\n\n", arguments.join(" "));
    }
    assert_data_eq!(errors, file!["snapshots/errors.txt"].raw());
}
