//! TLS with third-party receivers and senders, and files that SIGHUP reloads.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::tls::{PATIENCE, printed_pin, server};
use crate::runner::{Scenario, works};
use accio_harness::context::{Context, Server, ensure_failure, wait_until};
use accio_harness::payload;
use accio_harness::peer::SOON;
use accio_harness::ports;
use accio_harness::process::{self, Input, Process};
use accio_harness::tools::require;
use accio_harness::verdict::{During, Stop, Verdict, ensure};

pub(super) static SCENARIOS: &[Scenario] = &[
    works("tls/openssl-receiver", "openssl s_server confirms a file unless it is killed", s_server),
    works("tls/ncat-receiver", "ncat --ssl confirms a file unless it is killed", ncat_receiver),
    works("tls/socat-receiver", "socat confirms a file unless it is killed", socat_receiver),
    works(
        "tls/python-receiver",
        "Python's ssl: unwrap confirms a file, a bare FIN does not",
        python_receiver,
    ),
    works("tls/ncat", "ncat --ssl sends no close_notify, so its file is not complete", ncat),
    works("tls/reload", "SIGHUP takes valid TLS files; invalid ones change nothing", reload),
];

/// File size in bytes: larger than the socket buffers.
const SIZE: u64 = 5_000_003;

/// A receiver that ends with close_notify, or only with FIN.
const RECEIVER: &str = r#"import socket, ssl, sys
port, pem, path, ending = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(pem)
listener = socket.create_server(("127.0.0.1", int(port)))
print("ready", flush=True)
s = context.wrap_socket(listener.accept()[0], server_side=True, suppress_ragged_eofs=False)
s.sendall(b"accio\r\n")
with open(path, "wb") as file:
    while part := s.recv(65536):
        file.write(part)
if ending == "confirm":
    s.unwrap()
s.close()
"#;

/// A key and its certificate in one file, as accio-server creates it.
struct Identity {
    pem: PathBuf,
    pin: String,
}

fn identity(context: &Context) -> Verdict<Identity> {
    let state = context.fresh("state");
    let server = server(context, &state, &[])?;
    let pin = printed_pin(|| server.process.stderr().text())?;
    server.stop()?;
    Ok(Identity { pem: state.join("accio/server.pem"), pin })
}

/// Returns the command of a receiver that listens on the port, with the certificate, and writes the
/// content to the last path or to its standard output.
type Receiver = fn(&Path, u16, &Path, &Path) -> Command;

fn s_server(context: &Context) -> Verdict {
    receive(context, &require("openssl")?, |program, port, pem, _| {
        let mut command = Command::new(program);
        command.args(["s_server", "-quiet", "-naccept", "1", "-accept"]);
        command.arg(format!("127.0.0.1:{port}")).arg("-cert").arg(pem).arg("-key").arg(pem);
        command
    })
}

fn ncat_receiver(context: &Context) -> Verdict {
    receive(context, &require("ncat")?, |program, port, pem, _| {
        let mut command = Command::new(program);
        command.args(["--ssl", "--recv-only", "-l", "127.0.0.1", &port.to_string()]);
        command.arg("--ssl-cert").arg(pem).arg("--ssl-key").arg(pem);
        command
    })
}

fn socat_receiver(context: &Context) -> Verdict {
    receive(context, &require("socat")?, |program, port, pem, file| {
        let mut command = Command::new(program);
        let pem = pem.display();
        command.arg("-u");
        command.arg(format!("OPENSSL-LISTEN:{port},bind=127.0.0.1,cert={pem},verify=0"));
        command.arg(format!("OPEN:{},creat", file.display()));
        command
    })
}

/// Sends a file to a receiver, and another one to a receiver that is killed during the transfer.
fn receive(context: &Context, program: &Path, receiver: Receiver) -> Verdict {
    let identity = identity(context)?;
    let pin = ["--handshake", "direct", "--tls-pin", &identity.pin, "--require-confirmation"];
    let file = context.large_file(1, SIZE)?;
    let start = |received: &Path| -> Verdict<(Process, u16)> {
        let port = ports::free()?;
        let mut command = receiver(program, port, &identity.pem, received);
        // socat writes the file itself, and prints nothing.
        command.stdout(fs::File::options().create(true).append(true).open(received)?);
        command.stderr(std::process::Stdio::null()).stdin(std::process::Stdio::piped());
        let process = Process::spawn_logged(command, None, process::AtDrop::Kill)?;
        let listens = wait_until(PATIENCE, || is_listening(port));
        ensure(listens, "the receiver to listen", || "it does not".to_owned())?;
        Ok((process, port))
    };

    let received = context.fresh("received");
    let (mut process, port) = start(&received)?;
    context.send(port, &file, &pin).during(|| "complete")?;
    process.wait(PATIENCE)?;
    payload::ensure_same(&file, &received)?;

    let received = context.fresh("received");
    let (process, port) = start(&received)?;
    let slow = [&pin[..], &["--limit-rate", "1M"]].concat();
    let mut client = context.client("127.0.0.1", port, &file, &slow)?;
    let has_begun = || fs::metadata(&received).is_ok_and(|metadata| metadata.len() > 0);
    ensure(wait_until(PATIENCE, has_begun), "content to arrive", || "none".to_owned())?;
    drop(process);
    ensure_failure(&mut client, PATIENCE, &["close", "reset", "cut"]).during(|| "killed")
}

/// Returns whether a process listens on the port, without connecting to it.
fn is_listening(port: u16) -> bool {
    let place = format!(":{port:04X} 00000000:0000 0A ");
    fs::read_to_string("/proc/net/tcp").is_ok_and(|table| table.contains(&place))
}

fn python_receiver(context: &Context) -> Verdict {
    let program = require("python3")?;
    let identity = identity(context)?;
    let file = context.large_file(1, SIZE)?;
    let script = context.fresh("receiver.py");
    fs::write(&script, RECEIVER)?;
    for ending in ["confirm", "cut"] {
        let (received, port) = (context.fresh("received"), ports::free()?);
        let mut command = Command::new(&program);
        command.arg(&script).arg(port.to_string()).arg(&identity.pem).arg(&received).arg(ending);
        let mut receiver = context.spawn(command, Input::Null)?;
        let line = receiver.stdout().line(0, SOON);
        ensure(line.is_some(), "the script to listen", || receiver.stderr().text())?;
        let flags = ["--tls-pin", &identity.pin, "--require-confirmation"];
        if ending == "confirm" {
            context.send(port, &file, &flags)?;
        } else {
            let mut client = context.client("127.0.0.1", port, &file, &flags)?;
            ensure_failure(&mut client, PATIENCE, &["without close_notify"])?;
            let code = client.wait(PATIENCE)?.status.code();
            ensure(code == Some(56), "exit code 56", || format!("{code:?}"))?;
        }
        receiver.wait(PATIENCE)?;
        payload::ensure_same(&file, &received)?;
    }
    Ok(())
}

fn ncat(context: &Context) -> Verdict {
    let program = require("ncat")?;
    let server = server(context, &context.fresh("state"), &[])?;
    let mut command = Command::new(program);
    command.args(["--ssl", "127.0.0.1", &server.port.to_string()]);
    // It ends the connection with FIN alone, like an attacker could.
    process::output(command, &context.content(1, 700_001), PATIENCE)?;
    server.expect_error(1)?;
    server.stop()
}

/// The TLS files of a server.
struct Files {
    cert: PathBuf,
    key: PathBuf,
    clients: PathBuf,
}

impl Files {
    fn write(&self, cert: &[u8], key: &[u8], mode: u32, clients: &[u8]) -> Verdict {
        fs::write(&self.cert, cert)?;
        fs::write(&self.key, key)?;
        fs::set_permissions(&self.key, fs::Permissions::from_mode(mode))?;
        Ok(fs::write(&self.clients, clients)?)
    }
}

fn reload(context: &Context) -> Verdict {
    let (old, new) = (identity(context)?, identity(context)?);
    let (old_pem, new_pem) = (fs::read(&old.pem)?, fs::read(&new.pem)?);
    let files = Files {
        cert: context.fresh("cert.pem"),
        key: context.fresh("key.pem"),
        clients: context.fresh("clients"),
    };
    let own = format!("--tls-identity={}", context.fresh("client.pem").display());
    let listed = {
        // The first use creates the client's key and prints its pin.
        let file = context.file(b"content")?;
        let mut client = context.client("127.0.0.1", ports::free()?, &file, &["--tls", &own])?;
        client.wait(PATIENCE)?;
        format!("{} alice\n", printed_pin(|| client.stderr().text())?)
    };
    let listed = listed.as_bytes();
    files.write(&old_pem, &old_pem, 0o600, listed)?;
    let [cert, key, clients] =
        [&files.cert, &files.key, &files.clients].map(|path| path.to_string_lossy());
    let flags = ["--tls-cert", &cert, "--tls-key", &key, "--tls-clients", &clients, "-v"];
    let server = context.server(&flags)?;
    let file = context.file(b"content")?;
    let send = |pin: &str| context.send(server.port, &file, &["--tls-pin", pin, &own]);
    send(&old.pin)?;

    let garbage = b"-----BEGIN NOTHING\x00\xff";
    let (mode, list) = (0o600, listed);
    let mut sent = 1;
    let [in_cert, in_key, in_clients] = [
        format!("--tls-cert {:?}", files.cert),
        format!("--tls-key {:?}", files.key),
        format!("--tls-clients {:?}", files.clients),
    ];
    for (name, cert, key, mode, list, place, why) in [
        ("certificate", &garbage[..], &old_pem[..], mode, list, &in_cert, "not in PEM format"),
        ("key", &old_pem, garbage, mode, list, &in_key, "no private key"),
        ("key of another certificate", &old_pem, &new_pem, mode, list, &in_cert, "ey"),
        ("key for others", &old_pem, &old_pem, 0o644, list, &in_key, "others may read it"),
        ("clients", &old_pem, &old_pem, mode, garbage, &in_clients, "UTF-8"),
        ("pin", &old_pem, &old_pem, mode, b"sha256//x alice", &in_clients, "line 1: "),
    ] {
        files.write(cert, key, mode, list)?;
        let error = format!(
            "cannot reload the TLS files, continuing with the old ones: cannot use {place}: "
        );
        hang_up(&server, &error, why).during(|| name)?;
        send(&old.pin).during(|| format!("after an invalid {name}"))?;
        sent += 1;
    }

    files.write(&new_pem, &new_pem, 0o600, listed)?;
    hang_up(&server, "TLS files reloaded", "")?;
    send(&new.pin)?;
    let mut client = context.client("127.0.0.1", server.port, &file, &["--tls-pin", &old.pin])?;
    ensure_failure(&mut client, PATIENCE, &["another key"])?;
    files.write(&new_pem, &new_pem, 0o600, b"")?;
    hang_up(&server, "TLS files reloaded", "")?;
    let mut client =
        context.client("127.0.0.1", server.port, &file, &["--tls-pin", &new.pin, &own])?;
    let exit = client.wait(PATIENCE)?;
    ensure(exit.status.code() == Some(35), "a removed client to be refused", || exit.describe())?;
    server.expect_only(1..=sent + 1)?;
    server.stop()
}

/// Sends SIGHUP and waits until the server prints one more line with both texts.
fn hang_up(server: &Server, text: &str, why: &str) -> Verdict {
    let count = || {
        let log = server.process.stderr().text();
        log.lines()
            .filter(|line| line.find(text).is_some_and(|at| line[at + text.len()..].contains(why)))
            .count()
    };
    let before = count();
    server.process.signal(Signal::HUP)?;
    let is_printed = wait_until(PATIENCE.min(Duration::from_secs(10)), || count() > before);
    match is_printed {
        true => Ok(()),
        false => Err(Stop::fault(
            format!("a line with {text:?} and {why:?}"),
            server.process.stderr().text(),
        )),
    }
}
