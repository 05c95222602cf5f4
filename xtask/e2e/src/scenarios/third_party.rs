//! Third-party programs, if they are installed.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::runner::{Scenario, works};
use accio_harness::context::{Context, ensure_success};
use accio_harness::payload;
use accio_harness::peer::{Dialect, SOON};
use accio_harness::process::{self, Input, Process};
use accio_harness::tools::require;
use accio_harness::verdict::{During, Stop, Verdict, ensure};

pub(super) static SCENARIOS: &[Scenario] = &[
    works("foreign/python-client", "a plain Python client works in each dialect", python_client),
    works("foreign/python-server", "the client works with a plain Python server", python_server),
    works("foreign/nc", "nc sends a file", nc),
    works("foreign/socat", "socat sends a file", socat),
    works("foreign/telnet", "telnet sends a line", telnet),
];

/// Time limit for programs that are slow to start and to send.
const PATIENCE: Duration = Duration::from_secs(30);
/// File size in bytes: larger than any socket buffer, small enough for a slow script.
const SIZE: u64 = 5_000_003;

/// A minimal client, as a student might write it: it sends 1 KB at a time.
const CLIENT: &str = r#"import socket, sys
host, port, path, dialect = sys.argv[1:]
s = socket.create_connection((host, int(port)))
s.settimeout(10)
def greeting():
    seen = b""
    while not seen.endswith(b"accio\r\n"):
        part = s.recv(1)
        if not part:
            sys.exit("ERROR: closed")
        seen += part
if dialect != "direct":
    greeting()
if dialect == "confirm":
    s.sendall(b"confirm-accio\r\n")
    greeting()
    s.sendall(b"confirm-accio-again\r\n\r\n")
with open(path, "rb") as f:
    while part := f.read(1000):
        s.sendall(part)
s.shutdown(socket.SHUT_WR)
while s.recv(1000):
    pass
"#;

/// A minimal server, as a student might write it: it stores one connection as 1.file.
const SERVER: &str = r#"import socket, sys
dialect, path = sys.argv[1:]
s = socket.socket()
s.bind(("127.0.0.1", 0))
s.listen(10)
print(s.getsockname()[1], flush=True)
c, _ = s.accept()
if dialect != "direct":
    c.sendall(b"accio\r\n")
def expect(line):
    seen = b""
    while len(seen) < len(line):
        part = c.recv(len(line) - len(seen))
        if not part:
            sys.exit("ERROR: closed")
        seen += part
    if seen != line:
        sys.exit("ERROR: %r" % seen)
if dialect == "confirm":
    expect(b"confirm-accio\r\n")
    c.sendall(b"accio\r\n")
    expect(b"confirm-accio-again\r\n\r\n")
with open(path, "wb") as f:
    while part := c.recv(1000):
        f.write(part)
c.close()
"#;

fn python(context: &Context, script: &str, arguments: &[&str]) -> Verdict<Process> {
    let program = require("python3")?;
    let path = context.fresh("script.py");
    fs::write(&path, script)?;
    let mut command = Command::new(program);
    command.arg(path).args(arguments);
    context.spawn(command, Input::Null)
}

fn python_client(context: &Context) -> Verdict {
    require("python3")?;
    let file = context.large_file(1, SIZE)?;
    let server = context.server(&[])?;
    let server_s = context.server_s(&[])?;
    let path = file.to_string_lossy();
    for (index, dialect) in Dialect::ALL.into_iter().enumerate() {
        for port in [server.port, server_s.port] {
            let port = port.to_string();
            let arguments = ["127.0.0.1", &port, &path, dialect.name()];
            let mut client = python(context, CLIENT, &arguments)?;
            let exit = client.wait(PATIENCE)?;
            ensure_success(&client, exit).during(|| dialect.name())?;
        }
        payload::ensure_same(&file, &server.path(index + 1)).during(|| dialect.name())?;
    }
    server.stop()?;
    server_s.stop_after(&[&SIZE.to_string(); 3].map(String::as_str))
}

fn python_server(context: &Context) -> Verdict {
    require("python3")?;
    let file = context.large_file(1, SIZE)?;
    for dialect in Dialect::ALL {
        let received = context.fresh("received");
        let arguments = [dialect.name(), &received.to_string_lossy()];
        let mut server = python(context, SERVER, &arguments)?;
        let port = server.stdout().line(0, PATIENCE).and_then(|line| line.parse().ok());
        let port: u16 = port.ok_or_else(|| Stop::Trouble("the script prints no port".into()))?;
        context.send(port, &file, &["--handshake", dialect.name()]).during(|| dialect.name())?;
        let exit = server.wait(PATIENCE)?;
        ensure_success(&server, exit).during(|| dialect.name())?;
        payload::ensure_same(&file, &received).during(|| dialect.name())?;
    }
    Ok(())
}

/// Runs a shell command line in which `$1` is the program, `$2` the port and `$3` the file.
fn shell(context: &Context, line: &str, program: &Path, port: u16, file: &Path) -> Verdict {
    let mut command = Command::new("sh");
    command.args(["-c", line, "sh"]).arg(program).arg(port.to_string()).arg(file);
    let mut process = context.spawn(command, Input::Null)?;
    process.wait(PATIENCE)?;
    Ok(())
}

/// Sends a file to both servers with the shell command `line`.
fn send_with(context: &Context, line: &str, program: &Path, flags: &[&str]) -> Verdict {
    let file = context.large_file(1, SIZE)?;
    let server = context.server(flags)?;
    let server_s = context.server_s(flags)?;
    shell(context, line, program, server.port, &file)?;
    server.expect_written(1)?;
    payload::ensure_same(&file, &server.path(1))?;
    shell(context, line, program, server_s.port, &file)?;
    server_s.expect_line(0, &SIZE.to_string())?;
    server.stop()?;
    server_s.stop_after(&[&SIZE.to_string()])
}

fn nc(context: &Context) -> Verdict {
    let program = require("nc").or_else(|_| require("ncat"))?;
    let mut command = Command::new(&program);
    command.arg("-h");
    let help = process::output(command, b"", PATIENCE)?;
    let help = [help.stdout, help.stderr].concat();
    let help = String::from_utf8_lossy(&help);
    // The option that makes nc close its side at the end of the file depends on the variant.
    let closing = if help.contains("-N") && !help.contains("Ncat") {
        "-N"
    } else if help.contains("-q") && !help.contains("Ncat") {
        "-q 1"
    } else {
        ""
    };
    send_with(context, &format!("\"$1\" {closing} 127.0.0.1 \"$2\" < \"$3\""), &program, &[])
}

fn socat(context: &Context) -> Verdict {
    let program = require("socat")?;
    // With `-u` socat reads nothing, so a greeting would be unread and cause a reset at the end.
    let one_way = "\"$1\" -u \"OPEN:$3\" \"TCP:127.0.0.1:$2\"";
    send_with(context, one_way, &program, &["--handshake", "direct"]).during(|| "one way")?;
    send_with(context, "\"$1\" - \"TCP:127.0.0.1:$2\" < \"$3\"", &program, &[])
        .during(|| "both ways")
}

fn telnet(context: &Context) -> Verdict {
    let program = require("telnet")?;
    let server = context.server(&[])?;
    let mut command = Command::new(program);
    command.arg("127.0.0.1").arg(server.port.to_string());
    let mut telnet = context.spawn(command, Input::Piped)?;
    let mut input = telnet.take_input();
    let greeted = telnet
        .stdout()
        .wait(SOON, |bytes, _| bytes.windows(5).any(|window| window == b"accio").then_some(()));
    ensure(greeted.is_some(), "the greeting", || telnet.stdout().text())?;
    if let Some(input) = &mut input {
        input.write_all(b"hello from telnet\n")?;
        input.flush()?;
    }
    // When its input ends, telnet drops the bytes that it has not sent.
    std::thread::sleep(Duration::from_millis(500));
    drop(input);
    telnet.wait(PATIENCE)?;
    server.expect_written(1)?;
    let content = fs::read(server.path(1))?;
    // telnet may convert the line ending.
    ensure(
        content == b"hello from telnet\n" || content == b"hello from telnet\r\n",
        "the line typed",
        || payload::describe(&content),
    )?;
    server.stop()
}
