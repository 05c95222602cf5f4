//! Standard input and output that are closed when the program starts.

use std::io::ErrorKind;
use std::process::Output;

use super::common::{code, file, listen, refusing, serve, text};
use accio_harness::program::{command, run};

/// Runs the client in a shell that first applies `redirection`.
fn redirected(redirection: &str, arguments: &[&str]) -> Output {
    let mut shell = command("sh");
    shell.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}")]);
    shell.arg(env!("CARGO_BIN_EXE_accio-client")).args(arguments);
    run(shell).unwrap()
}

#[test]
fn rejects_a_closed_standard_input() {
    let (listener, port) = listen();
    let output = redirected("<&-", &["127.0.0.1", &port, "-"]);
    assert_eq!(
        text(&output.stderr),
        "ERROR: standard input: bad file descriptor; it is closed: redirect a file or a pipe to it\n"
    );
    assert_eq!(code(&output), 26);
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nothing is sent");
}

#[test]
fn sends_an_empty_standard_input_as_an_empty_file() {
    for redirection in ["</dev/null", "<>/dev/null 1>&0 2>&0"] {
        let (port, serving) = serve(1);
        let output = redirected(redirection, &["127.0.0.1", &port, "-"]);
        assert_eq!(code(&output), 0, "{output:?}");
        assert_eq!(serving.join().unwrap(), [Vec::<u8>::new()]);
    }
}

#[test]
fn json_to_a_closed_standard_output_exits_with_23() {
    let (port, serving) = serve(1);
    let (_file, path) = file(100);
    let output = redirected(">&-", &["127.0.0.1", &port, &path, "--json", "-q"]);
    assert_eq!(text(&output.stderr), "ERROR: standard output: bad file descriptor\n");
    assert_eq!(code(&output), 23);
    assert_eq!(serving.join().unwrap()[0].len(), 100, "the transfer goes on");
    let (_sockets, port) = refusing();
    let output = redirected(">/dev/null", &["127.0.0.1", &port, "/dev/null", "--json", "-q"]);
    assert_eq!(code(&output), 7, "{output:?}");
}

#[test]
fn help_fails_on_a_closed_standard_output() {
    for arguments in [&["--help"][..], &["--version"], &["--generate", "man"]] {
        let output = redirected(">&-", arguments);
        assert_eq!(text(&output.stderr), "ERROR: cannot print to stdout: bad file descriptor\n");
        assert_eq!(code(&output), 1);
    }
    let (listener, port) = listen();
    let output = redirected(">&-", &["--probe", "127.0.0.1", &port, "--timeout=.3"]);
    assert_eq!(code(&output), 23, "{output:?}");
    drop(listener);
}
