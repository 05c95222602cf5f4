//! Standard input and output that are closed or `/dev/null` when the program starts.

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
        "ERROR: standard input: bad file descriptor; it is closed, or /dev/null opened for reading \
         and writing: redirect a file or a pipe to it\n"
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

/// A closed output, and one that Python and Node.js open for `DEVNULL` or `ignore`, look the same.
const UNWANTED: [&str; 2] = [">&-", "1<>/dev/null"];

#[test]
fn an_unwanted_standard_output_fails_no_transfer() {
    for redirection in UNWANTED {
        let (port, serving) = serve(1);
        let (_file, path) = file(100);
        let output = redirected(redirection, &["127.0.0.1", &port, &path, "--json", "-q"]);
        assert_eq!((code(&output), text(&output.stderr).as_str()), (0, ""), "{redirection}");
        assert_eq!(serving.join().unwrap()[0].len(), 100);
    }
}

#[test]
fn an_unwanted_standard_output_changes_no_exit_code() {
    for redirection in UNWANTED {
        for arguments in [&["--help"][..], &["--version"], &["--generate", "man"]] {
            let output = redirected(redirection, arguments);
            assert_eq!((code(&output), text(&output.stderr).as_str()), (0, ""), "{redirection}");
        }
        let (_sockets, port) = refusing();
        for arguments in [&["/dev/null", "--json", "-q"][..], &["--probe"]] {
            let output = redirected(redirection, &[&["127.0.0.1", &port], arguments].concat());
            assert_eq!(code(&output), 7, "{redirection} {output:?}");
        }
    }
}
