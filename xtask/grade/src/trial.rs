//! The environment of a check: the subject's programs and the network between them.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use super::expectations::{RESTING, succeeds};
use super::network_emulator::{Profile, Proxy};
use super::reference::ReferenceServer;
use super::running_server::RunningServer;
use super::sockets;
use super::startup_failures::{STARTING, StartupFailures};
use accio_harness::context::Context;
use accio_harness::namespace::{Loss, Namespace};
use accio_harness::peer::{Dialect, Listener, Peer, SOON};
use accio_harness::process::{Input, Process};
use accio_harness::subject::Program;
use accio_harness::verdict::{During, Stop, Verdict};
use accio_harness::{ports, resource_limits, scheduling_delay};

/// How often a start is repeated when another process took the port first.
const STARTS: usize = 8;
/// How long a program may take to start: the slowest interpreter on the busiest machine.
pub(crate) const STARTED: Duration = Duration::from_secs(30);
/// Packets of a thousand that a namespace loses, in each direction.
const LOST: u32 = 15;
/// The networks that a run may emulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    /// A namespace that loses packets where this machine can have one, else the proxy
    Auto,
    /// The proxy, seeded, everywhere
    Proxy,
}

/// The environment of a check.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    /// Folders, contents, processes.
    pub(crate) context: &'a Context,
    /// The dialect in which the subject is tested.
    pub(crate) dialect: Dialect,
    /// The program the check is about.
    pub(crate) program: Program,
    /// Where programs run; a fresh folder for each unless given.
    pub(crate) workdir: Option<&'a Path>,
    /// How delay and loss are made.
    pub(crate) network: Network,
    /// Notes for the report.
    pub(crate) notes: &'a Mutex<Vec<String>>,
    /// Programs that are known not to start.
    pub(crate) startup_failures: &'a StartupFailures,
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

    /// Starts the server that the check is about, and waits until it listens.
    pub(crate) fn server(&self) -> Verdict<RunningServer> {
        self.start(None)
    }

    /// Starts the server behind a poor network: clients connect to the proxy.
    pub(crate) fn server_far_away(&self) -> Verdict<(RunningServer, Proxy)> {
        let namespace = self.namespace()?;
        let profile = self.profile(namespace.is_some());
        let server = self.start(namespace)?;
        let proxy =
            Proxy::start(Ipv4Addr::LOCALHOST.into(), server.address, profile, self.context.seed())?;
        Ok((server, proxy))
    }

    /// Starts the client with `content` as its file.
    pub(crate) fn client(&self, host: &str, port: u16, content: &[u8]) -> Verdict<Process> {
        let file = self.context.file(content)?;
        self.client_with(host, port, &file, None)
    }

    /// Starts the client with a file that takes no room, larger than any buffers.
    pub(crate) fn client_with_sparse(&self, port: u16) -> Verdict<Process> {
        let path = self.context.fresh("sparse");
        fs::File::create(&path)?.set_len(256 << 20)?;
        self.client_with("127.0.0.1", port, &path, None)
    }

    /// Starts the client with this file.
    pub(crate) fn client_of_file(&self, port: u16, file: &Path) -> Verdict<Process> {
        self.client_with("127.0.0.1", port, file, None)
    }

    /// Starts the client and takes its connection.
    pub(crate) fn connected(&self, content: &[u8]) -> Verdict<(Process, Peer)> {
        let listener = Listener::bind()?;
        let client = self.client("127.0.0.1", listener.port(), content)?;
        let peer = self.accept(&listener, &client)?;
        Ok((client, peer))
    }

    /// The client's connection.
    pub(crate) fn accept(&self, listener: &Listener, client: &Process) -> Verdict<Peer> {
        // One that does not come here comes nowhere: a reason to try no check of it twice.
        let peer = self.comes(listener, client).during(|| client.command().to_owned());
        self.startup_failures.keep(Program::Client, peer)
    }

    fn comes(&self, listener: &Listener, client: &Process) -> Verdict<Peer> {
        const LOOK: Duration = Duration::from_millis(100);
        loop {
            let (ended, since) = (client.is_over()?, client.started());
            if let Some(peer) = listener.accept_within(LOOK)? {
                return Ok(peer);
            }
            let expected = "the client to connect";
            if ended {
                return Err(Stop::fault(expected, "it ended and did not"));
            }
            if since.elapsed() > SOON + scheduling_delay::worst_since(since) {
                return Err(Stop::fault(expected, "it did not"));
            }
            self.startup_failures.stand(Program::Client)?;
        }
    }

    /// Sends `content` by the client to `port` of this machine; the client must be content.
    pub(crate) fn send_by_client(&self, port: u16, content: &[u8]) -> Verdict {
        self.startup_failures.stand(Program::Client)?;
        let mut client = self.client("127.0.0.1", port, content)?;
        succeeds(&mut client, Duration::from_secs(40))
    }

    /// Sends `content` by the client to the reference server over a poor network.
    pub(crate) fn send_far_away(&self, content: &[u8]) -> Verdict {
        let namespace = self.namespace()?;
        self.send_through(namespace, content)
    }

    /// Sends over a network that really loses packets; a skip if there is none.
    pub(crate) fn send_with_loss(&self, content: &[u8]) -> Verdict {
        let namespace = self.real_namespace()?;
        self.send_through(Some(namespace), content)
    }

    fn send_through(&self, namespace: Option<Namespace>, content: &[u8]) -> Verdict {
        self.startup_failures.stand(Program::Client)?;
        let local = IpAddr::from(Ipv4Addr::LOCALHOST);
        let server = ReferenceServer::start(local, self.dialect)?;
        let host = namespace.as_ref().map_or(local, |namespace| namespace.outer().into());
        let profile = self.profile(namespace.is_some());
        let proxy = Proxy::start(host, server.address(), profile, self.context.seed())?;
        let file = self.context.file(content)?;
        let port = proxy.address().port();
        let mut client = self.client_with(&host.to_string(), port, &file, namespace.as_ref())?;
        succeeds(&mut client, Duration::from_secs(40))?;
        server.expect(1, content)
    }

    /// The server behind a network that really loses packets, or a skip.
    pub(crate) fn server_with_loss(&self) -> Verdict<RunningServer> {
        let namespace = self.real_namespace()?;
        self.start(Some(namespace))
    }

    /// A command of the subject with arguments of any number and kind.
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
        self.startup_failures.stand(self.program)?;
        let running = self.listens(namespace);
        self.startup_failures.keep(self.program, running)
    }

    fn listens(&self, namespace: Option<Namespace>) -> Verdict<RunningServer> {
        let program = self.program;
        let template = self.context.subject().template(program)?;
        for _ in 0..STARTS {
            let port = ports::free()?;
            let dir = self.context.fresh("received");
            fs::create_dir(&dir)?;
            let text = port.to_string();
            let values: [(&str, &OsStr); 2] = [("port", text.as_ref()), ("dir", dir.as_os_str())];
            let mut process = self.spawn(program, template.command(&values), namespace.as_ref())?;
            let expected = format!("{} to listen at port {port}", process.command());
            let started = process.started();
            loop {
                if let Some((entry, listener)) = sockets::listener(process.pid(), port) {
                    let host = namespace.as_ref().map_or(Ipv4Addr::LOCALHOST, Namespace::inner);
                    let (bound, dialect) = (entry.local.ip(), self.dialect);
                    return Ok(RunningServer {
                        process,
                        listener,
                        bound,
                        address: (host, port).into(),
                        dir,
                        dialect,
                        program,
                        _namespace: namespace,
                    });
                }
                if process.has_ended()? {
                    let exit = process.wait(SOON)?;
                    let said = process.stderr().text();
                    if said.to_lowercase().contains("in use") {
                        break;
                    }
                    let actual = format!("it ended: {}, stderr {said:?}", exit.describe());
                    return Err(Stop::fault(expected, actual));
                }
                let late = started.elapsed() >= SOON + scheduling_delay::worst_since(started);
                // One that would run is late because of others.
                let pid = process.pid();
                if late && (started.elapsed() > STARTED || resource_limits::settles(pid, RESTING)) {
                    let actual = match sockets::listens_at(pid, port) {
                        Some(host) => format!("it listens at {host} alone: not on all interfaces"),
                        None => format!("it runs, but does not listen after {SOON:?}"),
                    };
                    return Err(Stop::fault(expected, actual));
                }
                self.startup_failures.stand(program)?;
                thread::sleep(Duration::from_millis(10));
            }
        }
        // Each was free a moment before: other processes do not take the port so often.
        let expected = format!("the {} to listen at a port that is free", program.name());
        Err(Stop::fault(expected, format!("it said of {STARTS} such ports that they are in use")))
    }

    fn spawn(
        &self,
        program: Program,
        mut command: Command,
        namespace: Option<&Namespace>,
    ) -> Verdict<Process> {
        let dir = match self.workdir {
            Some(dir) => dir.to_owned(),
            None => {
                let dir = self.context.fresh("cwd");
                fs::create_dir(&dir)?;
                dir
            }
        };
        // What Python prints would reach a pipe only at its end.
        command.current_dir(dir).env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        if let Some(namespace) = namespace {
            command = namespace.wrap(&command);
        }
        let is_there = Path::new(command.get_program()).is_file();
        let starts = self.context.try_spawn(command, Input::Null).map_err(|error| {
            let hint = match error.kind() {
                ErrorKind::ResourceBusy => return Stop::from(error),
                ErrorKind::NotFound if is_there => {
                    "; it is there, but not the interpreter its first line names: are lines ended by \\r\\n?"
                }
                _ => "",
            };
            Stop::fault("a command that can be run", format!("{error}{hint}"))
        });
        starts.during(|| format!("{STARTING}{}", program.name()))
    }

    /// A namespace where there can be one and it is wanted.
    fn namespace(&self) -> Verdict<Option<Namespace>> {
        if self.network == Network::Proxy {
            return Ok(None);
        }
        match namespaces() {
            Ok(()) => lossy_namespace().map(Some).map_err(Stop::into_trouble),
            Err(_) => Ok(None),
        }
    }

    fn real_namespace(&self) -> Verdict<Namespace> {
        if self.network == Network::Proxy {
            return Err(Stop::skip("--network proxy"));
        }
        namespaces().clone()?;
        lossy_namespace().map_err(Stop::into_trouble)
    }

    /// How the proxy behaves, with packets lost behind it or not.
    fn profile(&self, loses: bool) -> Profile {
        if loses {
            let percent = f64::from(LOST) / 10.0;
            self.note(format!(
                "network: namespace, {percent} % of packets lost each way; proxy, 15 to 25 ms late"
            ));
            Profile::FAR
        } else {
            self.note("network: proxy, 15 to 25 ms late, tiny pieces, stalls up to 1.6 s");
            Profile::POOR
        }
    }
}

/// Whether this machine can have namespaces that lose packets, and if not, why.
pub(crate) fn namespaces() -> &'static Verdict {
    static ABLE: OnceLock<Verdict> = OnceLock::new();
    ABLE.get_or_init(|| lossy_namespace().map(drop))
}

fn lossy_namespace() -> Verdict<Namespace> {
    let namespace = Namespace::create()?;
    namespace.lose(Loss { incoming: LOST, outgoing: LOST })?;
    Ok(namespace)
}
