//! The TLS session of the README between two machines: two network namespaces that a cable connects.
//! A third process captures all frames.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::tls::PATIENCE;
use crate::runner::{Scenario, works};
use accio_harness::context::{Context, Server, ensure_success, wait_until};
use accio_harness::namespace::Namespace;
use accio_harness::payload;
use accio_harness::process::{Input, Process};
use accio_harness::subject::Program;
use accio_harness::tools::require;
use accio_harness::verdict::{During, Stop, Verdict, ensure};

pub(super) static SCENARIOS: &[Scenario] = &[works(
    "tls/two-machines",
    "two machines: pin, identity, unlisted clients refused, no content in a packet capture",
    session,
)];

/// Writes all frames of an interface to a file until its input ends, and then their number of bytes.
const CAPTURE: &str = r#"import select, socket, sys
device, path = sys.argv[1:]
ALL = 0x0003
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
s.bind((device, ALL))
s.setblocking(False)
print("ready", flush=True)
with open(path, "wb") as file:
    ended = False
    while True:
        ready, _, _ = select.select([s] if ended else [s, sys.stdin], [], [], 0 if ended else None)
        if s in ready:
            file.write(s.recv(1 << 17))
        elif ended:
            break
        ended = ended or sys.stdin in ready
packets, dropped = __import__("struct").unpack("II", s.getsockopt(263, 6, 8))  # PACKET_STATISTICS
print(packets, "frames,", dropped, "dropped", flush=True)
"#;

/// The content of the files: this line, over and over, so that almost every frame would contain it.
const LINE: &[u8] = b"for the receiver only\n";

/// Two machines.
struct Machines<'c> {
    context: &'c Context,
    sender: Namespace,
    receiver: Namespace,
}

impl<'c> Machines<'c> {
    fn start(context: &'c Context) -> Verdict<Machines<'c>> {
        let sender = Namespace::create()?;
        let receiver = sender.create_neighbor()?;
        Ok(Machines { context, sender, receiver })
    }

    /// Returns the address of the receiver.
    fn host(&self) -> Ipv4Addr {
        self.receiver.inner()
    }

    /// Starts the server on the receiver.
    fn server(&self, flags: &[&str]) -> Verdict<Server> {
        let state = format!("XDG_STATE_HOME={}", self.context.fresh("state").display());
        self.context.server_wrapped(&[&self.receiver.enter()[..], &["env", &state]].concat(), flags)
    }

    /// Runs accio-client on the sender to its end, as a user with this state directory.
    fn client(&self, state: &Path, arguments: &[&OsStr]) -> Verdict<(Process, Option<i32>)> {
        let mut command = self.context.command(Program::Client)?;
        command.args(arguments).env("XDG_STATE_HOME", state).env("USER", "alice");
        let mut client = self.context.spawn(self.sender.wrap(&command), Input::Null)?;
        let code = client.wait(PATIENCE)?.status.code();
        Ok((client, code))
    }

    /// Captures the frames between the machines during `work`.
    fn capture(&self, work: impl FnOnce() -> Verdict) -> Verdict<Vec<u8>> {
        let (script, path) = (self.context.fresh("capture.py"), self.context.fresh("frames"));
        fs::write(&script, CAPTURE)?;
        let mut command = Command::new(require("python3")?);
        command.arg(&script).arg(self.receiver.outer_device()).arg(&path);
        let mut capture = self.context.spawn(self.sender.wrap(&command), Input::Piped)?;
        let input = capture.take_input();
        let ready = capture.stdout().line(0, PATIENCE);
        ensure(ready.as_deref() == Some("ready"), "the capture to begin", || {
            capture.stderr().text()
        })?;
        work()?;
        drop(input);
        let exit = capture.wait(PATIENCE)?;
        ensure_success(&capture, exit)?;
        let text = capture.stdout().text();
        ensure(text.ends_with(" frames, 0 dropped\n"), "all frames", || text.clone())?;
        Ok(fs::read(path)?)
    }
}

/// Returns the number of places where the content of a file is in these frames.
fn plain(frames: &[u8]) -> usize {
    frames.windows(LINE.len()).filter(|window| *window == LINE).count()
}

/// Returns the command for clients that the server prints, without the name of the program, with
/// this host and file.
fn printed_command(server: &Server, host: &str, file: &str) -> Verdict<Vec<String>> {
    let find = || {
        let text = server.process.stderr().text();
        let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let line = lines.find(|line| line.contains("send files with "))?;
        let (_, command) = line.split_once(": accio-client ")?;
        let mut words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        words[0] = host.to_owned();
        for word in &mut words {
            if word == "FILE" {
                *word = file.to_owned();
            }
        }
        Some(words)
    };
    wait_until(PATIENCE, || find().is_some());
    find().ok_or_else(|| Stop::fault("the command for clients", server.process.stderr().text()))
}

fn words(words: &[String]) -> Vec<&OsStr> {
    words.iter().map(OsStr::new).collect()
}

fn session(context: &Context) -> Verdict {
    let machines = Machines::start(context)?;
    let [clients, journal] = ["clients", "journal"].map(|name| context.fresh(name));
    fs::write(&clients, "")?;
    let file = context.file(&LINE.repeat(50_000))?;
    let (alice, stranger) = (context.fresh("alice"), context.fresh("stranger"));
    let flags = [
        "--tls",
        "--tls-clients",
        &clients.to_string_lossy(),
        "--journal",
        &journal.to_string_lossy(),
        "-v",
    ];
    let server = machines.server(&flags)?;
    let host = machines.host().to_string();
    let command = printed_command(&server, &host, &file.to_string_lossy())?;

    let frames = machines.capture(|| {
        let line = refused(&machines, &alice, &command).during(|| "an unlisted client")?;
        fs::write(&clients, line)?;
        server.process.signal(Signal::HUP)?;
        let reloaded = || server.process.stderr().text().contains("TLS files reloaded");
        ensure(wait_until(PATIENCE, reloaded), "the list to be reloaded", || {
            server.process.stderr().text()
        })?;
        let (client, code) = machines.client(&alice, &words(&command))?;
        ensure(code == Some(0), "the listed client to succeed", || client.stderr().text())?;
        refused(&machines, &stranger, &command).during(|| "another unlisted client")?;
        impostor(&machines, &alice, &command)
    })?;
    server.expect_written(1)?;
    payload::ensure_same(&file, &server.path(1))?;
    server.expect_only([1])?;
    let text = fs::read_to_string(&journal)?;
    let (mine, refusals) =
        (r#""identity":"alice@"#, r#""outcome":"refused","reason":"tls-unknown-client""#);
    let counts = [mine, refusals].map(|part| text.matches(part).count());
    ensure(counts == [1, 2], "one file and two refusals in the journal", || text.clone())?;
    ensure(
        frames.len() as u64 > fs::metadata(&file)?.len(),
        "a capture of the whole file",
        || format!("{} bytes", frames.len()),
    )?;
    ensure(plain(&frames) == 0, "no content in the capture", || {
        format!("it is in {} places", plain(&frames))
    })?;
    server.stop()?;

    // Without TLS, the same capture contains the file.
    control(&machines, &file).during(|| "without TLS")
}

/// Runs the printed command as a client that the server does not know, and returns the line for the
/// server's operator that it prints.
fn refused(machines: &Machines<'_>, state: &Path, command: &[String]) -> Verdict<String> {
    let (client, code) = machines.client(state, &words(command))?;
    let text = client.stderr().text();
    ensure(code == Some(35), "the client to be refused with exit code 35", || text.clone())?;
    let line =
        text.lines().find(|line| line.starts_with("sha256//")).map(|line| format!("{line}\n"));
    line.ok_or_else(|| Stop::fault("a line for the server's operator", text))
}

/// Starts another server in place of the known one: the client must refuse its key.
fn impostor(machines: &Machines<'_>, state: &Path, command: &[String]) -> Verdict {
    let other = machines.server(&["--tls"])?;
    let mut command = command.to_vec();
    command[1] = other.port.to_string();
    let (client, code) = machines.client(state, &words(&command))?;
    let text = client.stderr().text();
    let is_refused = code == Some(60) && text.contains("another key");
    ensure(is_refused, "a server with another key to be refused with exit code 60", || text)?;
    other.expect_only([])?;
    other.stop()
}

fn control(machines: &Machines<'_>, file: &Path) -> Verdict {
    let server = machines.server(&[])?;
    let (host, port) = (machines.host().to_string(), server.port.to_string());
    let arguments = [OsStr::new(&host), OsStr::new(&port), file.as_os_str()];
    let frames = machines.capture(|| {
        let (client, code) = machines.client(&machines.context.fresh("state"), &arguments)?;
        ensure(code == Some(0), "the client to succeed", || client.stderr().text())
    })?;
    payload::ensure_same(file, &server.path(1))?;
    let found = plain(&frames);
    ensure(found > 40_000, "the capture to contain the content", || format!("{found} lines"))?;
    server.stop()
}
