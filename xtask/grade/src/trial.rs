//! The environment of a check: starts the subject's programs, and emulates the network.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use super::expectations::{RESTING, succeeds};
use super::network_emulator::{NetworkEmulator, Pauses, Profile};
use super::own_time::OwnTime;
use super::reference::ReferenceServer;
use super::running_server::{RunningServer, UNSEEN};
use super::sockets::{self, ListeningProcess};
use super::startup_failures::{STARTING, StartupFailures};
use accio_proto::os_error_text;
use rustix::process::Pid;

use accio_harness::context::{self, Context, wait_until};
use accio_harness::namespace::{Loss, Namespace};
use accio_harness::peer::{Dialect, FIRST, Listener, Peer, SECOND, SOON};
use accio_harness::process::Process;
use accio_harness::subject::Program;
use accio_harness::verdict::{Certain, During, Stop, Verdict};
use accio_harness::{ports, process_table, scheduling_delay};

/// Number of attempts to start a server; another process may take the chosen port first.
const STARTS: usize = 8;
/// Time limit for a program to start: a slow interpreter on a busy machine.
pub(crate) const STARTED: Duration = Duration::from_secs(30);
/// Time limit for a client to transfer a file.
const TRANSFER: Duration = Duration::from_secs(40);
/// How many of a thousand packets a namespace loses, in each direction.
const LOST: u32 = 15;

/// How delay and loss are emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    /// A proxy with fixed delays and stalls; in the checks without points, real loss in a network
    /// namespace if possible
    Auto,
    /// Only the proxy
    Proxy,
}

/// The environment of a check.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    /// The directories, contents and processes.
    pub(crate) context: &'a Context,
    /// The dialect to check.
    pub(crate) dialect: Dialect,
    /// The program to check.
    pub(crate) program: Program,
    /// The working directory of programs; `None` for a new directory each.
    pub(crate) workdir: Option<&'a Path>,
    /// How delay and loss are emulated.
    pub(crate) network: Network,
    /// Notes for the report.
    pub(crate) notes: &'a Mutex<Vec<String>>,
    /// The processes that were started.
    pub(crate) started: &'a Mutex<Vec<(Pid, Program)>>,
    /// Findings of other checks about the programs.
    pub(crate) startup_failures: &'a Arc<StartupFailures>,
    /// Whether server-s may print lines at its start.
    pub(crate) may_announce: bool,
}

impl Trial<'_> {
    /// Adds a note to the report.
    pub(crate) fn note(&self, text: impl Into<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = text.into();
        if !notes.contains(&text) {
            notes.push(text);
        }
    }

    /// Starts the checked server and waits until it listens.
    pub(crate) fn server(&self) -> Verdict<RunningServer> {
        self.start(None)
    }

    /// Starts the server behind a poor network; clients connect to the emulator.
    pub(crate) fn server_far_away(&self) -> Verdict<(RunningServer, NetworkEmulator)> {
        let server = self.server()?;
        let emulator = self.emulator_for(&server, Profile::POOR)?;
        self.note_proxy();
        Ok((server, emulator))
    }

    /// Starts a proxy in front of the server, so that the client's content never arrives together
    /// with its confirmations.
    pub(crate) fn relay_to(&self, server: &RunningServer) -> Verdict<NetworkEmulator> {
        self.emulator_for(server, Profile::DIRECT)
    }

    fn emulator_for(&self, server: &RunningServer, profile: Profile) -> Verdict<NetworkEmulator> {
        server.note_start_up_lines();
        let (listener, address) = (server.listener, server.address);
        let is_read = move |client| {
            if !sockets::are_visible() {
                thread::sleep(UNSEEN);
            }
            sockets::connection(listener, address, client).is_none_or(|entry| entry.unread == 0)
        };
        let confirmations = match self.dialect {
            Dialect::Confirm => vec![FIRST.len() as u64, (FIRST.len() + SECOND.len()) as u64],
            _ => Vec::new(),
        };
        let pauses = Pauses { positions: confirmations, is_read: Arc::new(is_read) };
        NetworkEmulator::start(Ipv4Addr::LOCALHOST.into(), address, profile, pauses)
    }

    /// Starts the client with `content` as its file.
    pub(crate) fn client(&self, host: &str, port: u16, content: &[u8]) -> Verdict<Process> {
        let file = self.context.file(content)?;
        self.client_with(host, port, &file, None)
    }

    /// Starts the client with a sparse file that is larger than any buffers.
    pub(crate) fn client_with_sparse(&self, port: u16) -> Verdict<Process> {
        let path = self.context.fresh("sparse");
        context::create(&path)?.set_len(256 << 20)?;
        self.client_with("127.0.0.1", port, &path, None)
    }

    /// Starts the client with this file.
    pub(crate) fn client_of_file(&self, port: u16, file: &Path) -> Verdict<Process> {
        self.client_with("127.0.0.1", port, file, None)
    }

    /// Starts the client and accepts its connection.
    pub(crate) fn connected(&self, content: &[u8]) -> Verdict<(Process, Peer)> {
        let listener = Listener::bind()?;
        let client = self.client("127.0.0.1", listener.port(), content)?;
        let peer = self.accept(&listener, &client)?;
        Ok((client, peer))
    }

    /// Accepts the client's connection.
    pub(crate) fn accept(&self, listener: &Listener, client: &Process) -> Verdict<Peer> {
        // A client that does not connect here connects nowhere, so record it as a startup failure.
        let peer = self.wait_for_client(listener, client).during(|| client.command().to_owned());
        self.startup_failures.record(Program::Client, peer)
    }

    fn wait_for_client(&self, listener: &Listener, client: &Process) -> Verdict<Peer> {
        const STEP: Duration = Duration::from_millis(100);
        loop {
            let (ended, since) = (client.is_over()?, client.started());
            if let Some(peer) = listener.accept_within(STEP)? {
                return Ok(peer);
            }
            let expected = "the client to connect";
            if ended {
                return Err(Stop::fault(expected, "it ended without connecting"));
            }
            if since.elapsed() > SOON + scheduling_delay::worst_since(since) {
                return Err(Stop::fault(expected, "it did not"));
            }
            self.startup_failures.check(Program::Client)?;
        }
    }

    /// Sends `content` with the client to `server` through `relay`; the client must succeed.
    pub(crate) fn send_by_client(
        &self,
        server: &RunningServer,
        relay: &NetworkEmulator,
        content: &[u8],
    ) -> Verdict {
        self.startup_failures.check(Program::Client)?;
        let mut client = self.client("127.0.0.1", relay.address().port(), content)?;
        succeeds(&mut client, TRANSFER, &[server.process.pid()])
    }

    /// Sends `content` with the client to the reference server.
    pub(crate) fn send_to_reference(&self, host: &str, content: &[u8]) -> Verdict {
        self.startup_failures.check(Program::Client)?;
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        let server = ReferenceServer::start(local, self.dialect, content.len())?;
        let client = self.client(host, server.address().port(), content)?;
        self.expect_transfer(client, &server, content)
    }

    /// Sends `content` with the client to the reference server over a poor network.
    pub(crate) fn send_far_away(&self, content: &[u8]) -> Verdict {
        self.startup_failures.check(Program::Client)?;
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        let server = ReferenceServer::start(local, self.dialect, content.len())?;
        let none = Pauses::none();
        let emulator = NetworkEmulator::start(local, server.address(), Profile::POOR, none)?;
        self.note_proxy();
        let client = self.client("127.0.0.1", emulator.address().port(), content)?;
        self.expect_transfer(client, &server, content)
    }

    /// Sends over a network that loses packets, or returns a skip if this machine cannot lose any.
    pub(crate) fn send_with_loss(&self, content: &[u8]) -> Verdict {
        let namespace = self.real_namespace()?;
        self.startup_failures.check(Program::Client)?;
        let host = IpAddr::from(namespace.outer());
        let server = ReferenceServer::start(host, self.dialect, content.len())?;
        let file = self.context.file(content)?;
        let port = server.address().port();
        let client = self.client_with(&host.to_string(), port, &file, Some(&namespace))?;
        self.expect_transfer(client, &server, content)
    }

    /// Returns a fault unless the client succeeds and the server receives the content.
    fn expect_transfer(
        &self,
        mut client: Process,
        server: &ReferenceServer,
        content: &[u8],
    ) -> Verdict {
        let time = OwnTime::of(&[client.pid()]);
        while !client.has_ended()? && !time.exceeds(TRANSFER) {
            if server.has_failed(1) {
                // The client should notice that soon, but the result is certain already.
                wait_until(RESTING, || client.is_over().unwrap_or(true));
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        if server.has_failed(1) {
            server.expect(1, content)?;
        }
        succeeds(&mut client, Duration::ZERO, &[])?;
        server.expect(1, content)
    }

    /// Starts the server behind a network that loses packets, or returns a skip.
    pub(crate) fn server_with_loss(&self) -> Verdict<RunningServer> {
        let namespace = self.real_namespace()?;
        self.start(Some(namespace))
    }

    /// Starts the checked program with these arguments instead of those of its template.
    pub(crate) fn run_with(&self, arguments: &[&str]) -> Verdict<Process> {
        let mut command = self.context.subject().template(self.program)?.bare();
        command.args(arguments);
        self.spawn(self.program, command, None)
    }

    fn client_with(
        &self,
        host: &str,
        port: u16,
        file: &Path,
        namespace: Option<&Namespace>,
    ) -> Verdict<Process> {
        let port = port.to_string();
        let values: [(&str, &OsStr); 3] =
            [("host", host.as_ref()), ("port", port.as_ref()), ("file", file.as_os_str())];
        let command = self.context.subject().template(Program::Client)?.command(&values);
        self.spawn(Program::Client, command, namespace)
    }

    fn start(&self, namespace: Option<Namespace>) -> Verdict<RunningServer> {
        self.startup_failures.check(self.program)?;
        let running = self.start_listening(namespace);
        self.startup_failures.record(self.program, running)
    }

    fn start_listening(&self, namespace: Option<Namespace>) -> Verdict<RunningServer> {
        let program = self.program;
        let template = self.context.subject().template(program)?;
        for _ in 0..STARTS {
            let port = ports::free()?;
            let dir = self.context.fresh_directory("received")?;
            let text = port.to_string();
            let values: [(&str, &OsStr); 2] = [("port", text.as_ref()), ("dir", dir.as_os_str())];
            let mut process = self.spawn(program, template.command(&values), namespace.as_ref())?;
            let expected = format!("{} to listen on port {port}", process.command());
            let started = process.started();
            loop {
                let found = sockets::listener(process.pid(), port);
                // If sockets are not visible, another program may have taken the port.
                if let Some(ListeningProcess { pid: listener, bound }) = found
                    && (bound.is_some() || !process.has_ended()?)
                {
                    let host = namespace.as_ref().map_or(Ipv4Addr::LOCALHOST, Namespace::inner);
                    let dialect = self.dialect;
                    return Ok(RunningServer {
                        process,
                        listener,
                        bound,
                        address: (host, port).into(),
                        dir,
                        dialect,
                        program,
                        known: Arc::clone(self.startup_failures),
                        handshakes: AtomicUsize::new(0),
                        taken: Arc::new(AtomicU64::new(0)),
                        start_up_lines: OnceLock::new(),
                        may_announce: self.may_announce,
                        _namespace: namespace,
                    });
                }
                if process.has_ended()? {
                    let exit = process.wait(SOON)?;
                    let stderr = process.stderr().text();
                    if stderr.to_lowercase().contains("in use") {
                        break;
                    }
                    let actual = format!("it ended: {}, stderr {stderr:?}", exit.describe());
                    return Err(Stop::fault(expected, actual)).certain();
                }
                let late = started.elapsed() >= SOON + scheduling_delay::worst_since(started);
                // If it is busy, it may be late because of other programs.
                let pid = process.pid();
                if late && (started.elapsed() > STARTED || process_table::settles(pid, RESTING)) {
                    let actual = match sockets::listens_at(pid, port) {
                        Some(host) => format!("it listens on {host} only, not on all interfaces"),
                        None => format!("it is running, but does not listen after {SOON:?}"),
                    };
                    return Err(Stop::fault(expected, actual));
                }
                self.startup_failures.check(program)?;
                thread::sleep(Duration::from_millis(10));
            }
        }
        // The ports were free a moment before, and other processes do not take them so often.
        let expected = format!("the {} to listen on a free port", program.name());
        Err(Stop::fault(expected, format!("it reported {STARTS} free ports as in use")))
    }

    fn spawn(
        &self,
        program: Program,
        mut command: Command,
        namespace: Option<&Namespace>,
    ) -> Verdict<Process> {
        let dir = match self.workdir {
            Some(dir) => dir.to_owned(),
            None => self.context.fresh_directory("cwd")?,
        };
        // Python buffers its output to a pipe until it ends.
        command.current_dir(dir).env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        let exists = Path::new(command.get_program()).is_file();
        let process = self.context.try_spawn_confined(command, namespace).map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::ResourceBusy => return Stop::from(error),
                ErrorKind::NotFound if exists => {
                    "; the file exists, but not the interpreter in its first line: does that line end with \\r\\n?"
                }
                _ => "",
            };
            Stop::fault("a command that can be run", format!("{}{hint}", os_error_text(&error)))
        });
        let process = process.during(|| format!("{STARTING}{}", program.name()))?;
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.push((process.pid(), program));
        Ok(process)
    }

    fn real_namespace(&self) -> Verdict<Namespace> {
        if self.network == Network::Proxy {
            return Err(Stop::skip("--network proxy"));
        }
        namespaces().clone()?;
        let percent = f64::from(LOST) / 10.0;
        self.note(format!("network: namespace, {percent} % of packets lost each way"));
        lossy_namespace().map_err(Stop::into_trouble)
    }

    fn note_proxy(&self) {
        self.note("network: proxy with a delay of 15 to 25 ms and stalls of up to 1.6 s");
    }
}

/// Returns a skip with the reason if this machine cannot create namespaces that lose packets.
pub(crate) fn namespaces() -> &'static Verdict {
    static ABLE: OnceLock<Verdict> = OnceLock::new();
    ABLE.get_or_init(|| lossy_namespace().map(drop))
}

fn lossy_namespace() -> Verdict<Namespace> {
    let namespace = Namespace::create()?;
    namespace.lose(Loss { incoming: LOST, outgoing: LOST })?;
    Ok(namespace)
}
