//! TLS, with our programs and with third-party clients.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::runner::{Scenario, works};
use accio_harness::context::{Context, Server, ensure_failure, ensure_success, wait_until};
use accio_harness::payload;
use accio_harness::process::{self, Input};
use accio_harness::tools::require;
use accio_harness::verdict::{Stop, Verdict, ensure};

pub(super) static SCENARIOS: &[Scenario] = &[
    works("tls/pin", "a client with the printed pin succeeds; others get no number", pin),
    works(
        "tls/identity",
        "after SIGHUP a listed client is accepted and named in the journal",
        identity,
    ),
    works("tls/key-mode", "a key file that other users may read is rejected", key_mode),
    works("tls/python", "Python's ssl: unwrap completes a file, a bare FIN does not", python),
    works("tls/openssl", "openssl s_client sends a file", openssl),
    works("tls/socat", "socat sends a file", socat),
];

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A client that ends with close_notify, or only with FIN.
const CLIENT: &str = r#"import socket, ssl, sys
port, path, ending = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
s = context.wrap_socket(socket.create_connection(("127.0.0.1", int(port))))
assert s.recv(7) == b"accio\r\n"
s.sendall(open(path, "rb").read())
if ending == "whole":
    s.unwrap()
else:
    s.shutdown(socket.SHUT_WR)
    try:
        s.recv(1)
    except OSError:
        pass
"#;

/// Starts a server with `state` as its state directory.
pub(super) fn server(context: &Context, state: &Path, flags: &[&str]) -> Verdict<Server> {
    let state = format!("XDG_STATE_HOME={}", state.display());
    context.server_wrapped(&["env", &state], &[&["--tls"], flags].concat())
}

/// Waits until a program has printed its pin, and returns it.
pub(super) fn printed_pin(text: impl Fn() -> String) -> Verdict<String> {
    let find = || {
        let text = text();
        let word = text.split_whitespace().find(|word| word.starts_with("sha256//"));
        word.map(str::to_owned)
    };
    wait_until(PATIENCE, || find().is_some());
    find().ok_or_else(|| Stop::fault("the program to print a pin", text()))
}

fn pin(context: &Context) -> Verdict {
    let server = server(context, &context.fresh("state"), &[])?;
    let pin = printed_pin(|| server.process.stderr().text())?;
    let file = context.large_file(1, 5_000_003)?;
    let other = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    for (flags, names) in [
        (&["--tls-pin", other][..], "another key"),
        (&["--tls"], "trusted authority"),
        (&["--handshake", "direct"], "the server requires TLS"),
    ] {
        let mut client = context.client("127.0.0.1", server.port, &file, flags)?;
        ensure_failure(&mut client, PATIENCE, &[names])?;
    }
    context.send(server.port, &file, &["--tls-pin", &pin])?;
    payload::ensure_same(&file, &server.path(1))?;
    server.expect_only([1])?;
    server.stop()
}

fn identity(context: &Context) -> Verdict {
    let clients = context.file(b"# empty\n")?;
    let journal = context.fresh("journal");
    let (list, lines) = (clients.to_string_lossy(), journal.to_string_lossy());
    let flags = ["--tls-clients", &list, "--journal", &lines];
    let server = server(context, &context.fresh("state"), &flags)?;
    let pin = printed_pin(|| server.process.stderr().text())?;
    let file = context.file(b"content")?;
    let own = format!("--tls-identity={}", context.fresh("client.pem").display());
    let mut client = context.client("127.0.0.1", server.port, &file, &["--tls-pin", &pin, &own])?;
    let exit = client.wait(PATIENCE)?;
    ensure(exit.status.code() == Some(35), "an unlisted client to be refused", || exit.describe())?;
    let key = printed_pin(|| client.stderr().text())?;
    fs::write(&clients, format!("{key} alice\n"))?;
    server.process.signal(Signal::HUP)?;
    let accepted = wait_until(PATIENCE, || {
        context.send(server.port, &file, &["--tls-pin", &pin, &own]).is_ok()
    });
    ensure(accepted, "the listed client to be accepted", || server.process.stderr().text())?;
    server.expect_file(1, b"content")?;
    let text = fs::read_to_string(&journal)?;
    for part in [r#""identity":"alice""#, r#""outcome":"refused","reason":"tls-unknown-client""#] {
        ensure(text.contains(part), format!("{part} in the journal"), || text.clone())?;
    }
    server.stop()
}

fn key_mode(context: &Context) -> Verdict {
    let state = context.fresh("state");
    server(context, &state, &[])?.stop()?;
    let key = state.join("accio/server.pem");
    let mut command = Command::new(require("chmod")?);
    command.arg("644").arg(&key);
    process::checked_output(command, b"", PATIENCE)?;
    match server(context, &state, &[]) {
        Ok(_) => Err(Stop::fault("a key that others may read to be refused", "it was used")),
        Err(Stop::Fault(_)) => Ok(()),
        Err(other) => Err(other),
    }
}

fn python(context: &Context) -> Verdict {
    let program = require("python3")?;
    let server = server(context, &context.fresh("state"), &[])?;
    let file = context.large_file(1, 700_001)?;
    let script = context.fresh("client.py");
    fs::write(&script, CLIENT)?;
    for ending in ["whole", "cut"] {
        let mut command = Command::new(&program);
        command.arg(&script).arg(server.port.to_string()).arg(&file).arg(ending);
        let mut client = context.spawn(command, Input::Null)?;
        let exit = client.wait(PATIENCE)?;
        ensure_success(&client, exit)?;
    }
    payload::ensure_same(&file, &server.path(1))?;
    server.expect_error(2)?;
    server.stop()
}

fn openssl(context: &Context) -> Verdict {
    let program = require("openssl")?;
    let server = server(context, &context.fresh("state"), &[])?;
    // s_client takes some letters at the start of a line for commands, so send digits.
    let content = b"0123456789\n".repeat(30_000);
    let mut command = Command::new(program);
    command.args(["s_client", "-quiet", "-no_ign_eof", "-alpn", "accio", "-connect"]);
    command.arg(format!("127.0.0.1:{}", server.port));
    process::output(command, &content, PATIENCE)?;
    server.expect_file(1, &content)?;
    server.stop()
}

fn socat(context: &Context) -> Verdict {
    let program = require("socat")?;
    let server = server(context, &context.fresh("state"), &[])?;
    let file = context.large_file(1, 700_001)?;
    let mut command = Command::new(program);
    command.arg("-u").arg(format!("FILE:{}", file.display()));
    command.arg(format!("OPENSSL:127.0.0.1:{},verify=0", server.port));
    process::checked_output(command, b"", PATIENCE)?;
    server.expect_written(1)?;
    payload::ensure_same(&file, &server.path(1))?;
    server.stop()
}
