//! What a check is given: the subject's programs, started with care, and the network between.

use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::namespace::{LOST, Namespace};
use super::proof::Proofs;
use super::proxy::{Profile, Proxy};
use super::reference::ReferenceServer;
use super::sockets;
use crate::e2e::context::{Context, ERROR, wait_until};
use crate::e2e::peer::{Dialect, Listener, Peer, SOON};
use crate::e2e::process::{Exit, Input, Process};
use crate::e2e::subject::Program;
use crate::e2e::verdict::{During, Stop, Verdict, ensure};
use crate::e2e::{guard, lateness, payload, ports};

/// How often a start is repeated when somebody else was faster to take the port.
const STARTS: usize = 8;
/// What the place of a program that does not start begins with.
pub(crate) const STARTING: &str = "starting ";
/// The most that a reaction within ten seconds may take, starting a process included.
pub(crate) const GIVE_UP: Duration = Duration::from_millis(11_500);
/// When a server may find ten seconds of silence over, at the earliest and at the latest.
pub(crate) const SILENCE: (Duration, Duration) =
    (Duration::from_millis(9_500), Duration::from_secs(13));
/// How long a program is given to do what it is about to do, on a busy machine.
const RESTING: Duration = Duration::from_secs(3);
/// How long a program may take to start: the slowest interpreter on the busiest machine.
pub(crate) const STARTED: Duration = Duration::from_secs(30);
/// How long a server may take to end when told to.
pub(crate) const ENDING: Duration = Duration::from_secs(5);

/// Which networks a run may emulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Network {
    /// A namespace that loses packets where this machine can have one, else the proxy
    Auto,
    /// The proxy, seeded, everywhere
    Proxy,
}

/// What a check is given.
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
    /// What the report should say beside the outcome.
    pub(crate) notes: &'a Mutex<Vec<String>>,
    /// What is known of programs that do not start.
    pub(crate) proofs: &'a Proofs,
}

/// A running server of the subject.
#[derive(Debug)]
pub(crate) struct Running {
    /// The process started, leader of its group.
    pub(crate) process: Process,
    /// The process that listens.
    pub(crate) listener: Pid,
    /// The address it bound.
    pub(crate) bound: IpAddr,
    /// Where to connect.
    pub(crate) address: SocketAddr,
    /// Its FILE-DIR, if it has one.
    pub(crate) dir: PathBuf,
    dialect: Dialect,
    program: Program,
    /// Ends after the process.
    _namespace: Option<Namespace>,
}

/// What one connection should have come to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Result<'a> {
    /// All of these bytes.
    Content(&'a [u8]),
    /// A broken transfer.
    Error,
}

impl Trial<'_> {
    /// Says something beside the outcome.
    pub(crate) fn note(&self, text: impl Into<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = text.into();
        if !notes.contains(&text) {
            notes.push(text);
        }
    }

    /// Starts the server that the check is about, and waits until it listens.
    pub(crate) fn server(&self) -> Verdict<Running> {
        self.start(None)
    }

    /// The same behind a poor network: connect to the proxy.
    pub(crate) fn server_far_away(&self) -> Verdict<(Running, Proxy)> {
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
        self.proofs.keep(Program::Client, peer)
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
            if since.elapsed() > SOON + lateness::worst_since(since) {
                return Err(Stop::fault(expected, "it did not"));
            }
            self.proofs.stand(Program::Client)?;
        }
    }

    /// Sends `content` by the client to `port` of this machine; the client must be content.
    pub(crate) fn send_by_client(&self, port: u16, content: &[u8]) -> Verdict {
        self.proofs.stand(Program::Client)?;
        let mut client = self.client("127.0.0.1", port, content)?;
        succeeds(&mut client, Duration::from_secs(40))
    }

    /// Sends `content` by the client to the reference server over a poor network.
    pub(crate) fn send_far_away(&self, content: &[u8]) -> Verdict {
        let namespace = self.namespace()?;
        self.send_through(namespace, content)
    }

    /// The same over a network that really loses packets, or not at all.
    pub(crate) fn send_with_loss(&self, content: &[u8]) -> Verdict {
        let namespace = self.real_namespace()?;
        self.send_through(Some(namespace), content)
    }

    fn send_through(&self, namespace: Option<Namespace>, content: &[u8]) -> Verdict {
        self.proofs.stand(Program::Client)?;
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
    pub(crate) fn server_with_loss(&self) -> Verdict<Running> {
        let namespace = self.real_namespace()?;
        self.start(Some(namespace))
    }

    /// A command of the subject with arguments of any number and kind.
    pub(crate) fn run_with(&self, arguments: &[&str]) -> Verdict<Process> {
        let mut command = self.context.subject().template(self.program)?.bare();
        command.args(arguments);
        self.spawn(command, None)
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
        self.spawn(command, namespace)
    }

    fn start(&self, namespace: Option<Namespace>) -> Verdict<Running> {
        self.proofs.stand(self.program)?;
        let running = self.listens(namespace);
        self.proofs.keep(self.program, running)
    }

    fn listens(&self, namespace: Option<Namespace>) -> Verdict<Running> {
        let program = self.program;
        let template = self.context.subject().template(program)?;
        for _ in 0..STARTS {
            let port = ports::free()?;
            let dir = self.context.fresh("received");
            fs::create_dir(&dir)?;
            let text = port.to_string();
            let values: [(&str, &OsStr); 2] = [("port", text.as_ref()), ("dir", dir.as_os_str())];
            let mut process = self.spawn(template.command(&values), namespace.as_ref())?;
            let expected = format!("{} to listen at port {port}", process.command());
            let started = process.started();
            loop {
                if let Some((entry, listener)) = sockets::listener(process.pid(), port) {
                    let host = namespace.as_ref().map_or(Ipv4Addr::LOCALHOST, Namespace::inner);
                    let (bound, dialect) = (entry.local.ip(), self.dialect);
                    return Ok(Running {
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
                let late = started.elapsed() >= SOON + lateness::worst_since(started);
                // One that would run is late because of others.
                let pid = process.pid();
                if late && (started.elapsed() > STARTED || guard::settles(pid, RESTING)) {
                    let actual = format!("it runs, but does not listen after {SOON:?}");
                    return Err(Stop::fault(expected, actual));
                }
                self.proofs.stand(program)?;
                thread::sleep(Duration::from_millis(10));
            }
        }
        Err(Stop::Trouble(format!("no port that stays free in {STARTS} starts")))
    }

    fn spawn(&self, mut command: Command, namespace: Option<&Namespace>) -> Verdict<Process> {
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
        match self.context.spawn(command, Input::Null) {
            Err(Stop::Trouble(why)) => Err(Stop::fault("a command that can be run", why))
                .during(|| format!("{STARTING}{}", self.program.name())),
            other => other,
        }
    }

    /// A namespace where there can be one and it is wanted.
    fn namespace(&self) -> Verdict<Option<Namespace>> {
        if self.network == Network::Proxy {
            return Ok(None);
        }
        match namespaces() {
            Ok(()) => Namespace::create().map(Some).map_err(Stop::Trouble),
            Err(_) => Ok(None),
        }
    }

    fn real_namespace(&self) -> Verdict<Namespace> {
        if self.network == Network::Proxy {
            return Err(Stop::skip("--network proxy"));
        }
        namespaces().clone().map_err(Stop::Skip)?;
        Namespace::create().map_err(Stop::Trouble)
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
pub(crate) fn namespaces() -> &'static std::result::Result<(), String> {
    static ABLE: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    ABLE.get_or_init(|| Namespace::create().map(drop))
}

impl Running {
    /// A raw connection.
    pub(crate) fn connect(&self) -> Verdict<Peer> {
        Peer::connect(self.address)
    }

    /// A raw connection with the client's part of the handshake done, and taken by the server.
    pub(crate) fn greeted(&self) -> Verdict<Peer> {
        let mut peer = self.connect()?;
        peer.greet_as_client(self.dialect)?;
        self.accepted(&peer)?;
        Ok(peer)
    }

    /// A fault unless the server soon takes the connection.
    pub(crate) fn accepted(&self, peer: &Peer) -> Verdict {
        let taken = wait_until(SOON, || self.has_accepted(peer));
        ensure(taken, "the connection to be accepted", || "it waits in the backlog".into())
    }

    /// Whether the server has taken the connection.
    pub(crate) fn has_accepted(&self, peer: &Peer) -> bool {
        self.entry(peer).is_some_and(|entry| entry.inode != 0)
    }

    /// A fault unless the server soon has read all that was sent.
    pub(crate) fn has_read_all(&self, peer: &Peer) -> Verdict {
        let read = wait_until(SOON, || self.entry(peer).is_none_or(|entry| entry.unread == 0));
        ensure(read, "the server to read what came", || {
            let left = self.entry(peer).map_or(0, |entry| entry.unread);
            format!("{left} bytes unread after {SOON:?}")
        })
    }

    /// Gives the server the time to read all that was sent, on a busy machine too; what it does not
    /// read is for others to notice.
    pub(crate) fn lets_read(&self, peer: &Peer) {
        wait_until(RESTING, || self.entry(peer).is_none_or(|entry| entry.unread == 0));
    }

    /// A fault if anything comes within `time`, or as long as the server is busy with what came.
    pub(crate) fn expect_silence(&self, peer: &mut Peer, time: Duration) -> Verdict {
        expect_silence(self.process.pid(), peer, time)
    }

    /// Waits until the server rests.
    pub(crate) fn settles(&self) {
        guard::settles(self.process.pid(), RESTING);
    }

    fn entry(&self, peer: &Peer) -> Option<sockets::Entry> {
        let (near, far) = (peer.stream().local_addr().ok()?, peer.stream().peer_addr().ok()?);
        sockets::connection(self.listener, far, near)
    }

    /// A whole transfer over a raw connection, which stays open on our side.
    pub(crate) fn transfer(&self, content: &[u8]) -> Verdict<Peer> {
        let mut peer = self.greeted()?;
        peer.send(content)?;
        peer.fin()?;
        Ok(peer)
    }

    /// Whether it keeps files, rather than to count bytes.
    pub(crate) fn keeps_files(&self) -> bool {
        self.program == Program::Server
    }

    /// The path of connection `id`'s file.
    pub(crate) fn path(&self, id: usize) -> PathBuf {
        self.dir.join(format!("{id}.file"))
    }

    /// A fault unless connections 1, 2 and so on came to this. To be called last: it may end the
    /// server.
    pub(crate) fn expect(&mut self, results: &[Result<'_>]) -> Verdict {
        if self.program == Program::Server {
            for (index, result) in results.iter().enumerate() {
                self.expect_file(index + 1, result.content())?;
            }
            return Ok(());
        }
        let lines = self.lines(results.len())?;
        let expected: Vec<String> = results.iter().map(Result::line).collect();
        let actual: Vec<String> = lines.iter().map(|line| counted(line)).collect();
        ensure(actual == expected, format!("printed: {expected:?}"), || format!("{lines:?}"))
    }

    /// A fault unless connection `id`'s file soon holds exactly this.
    pub(crate) fn expect_file(&self, id: usize, content: &[u8]) -> Verdict {
        let path = self.path(id);
        wait_until(SOON, || holds(&path, content));
        payload::ensure_holds(&path, content)
    }

    /// The first `count` lines of stdout that are not empty; fewer when no more come, in which case
    /// the server is ended to see what it still holds.
    pub(crate) fn lines(&mut self, count: usize) -> Verdict<Vec<String>> {
        let lines = |text: String| -> Vec<String> {
            text.lines()
                .map(|line| line.trim().to_owned())
                .filter(|line| !line.is_empty())
                .collect()
        };
        let stdout = self.process.stdout().clone();
        let all = |stdout: &crate::e2e::process::Capture| {
            let text = stdout.text();
            lines(text.clone()).len() >= count && text.ends_with('\n')
        };
        // On a busy machine it may not have come to print what it has counted.
        let printed = wait_until(Duration::from_secs(3), || all(&stdout)) || {
            self.settles();
            wait_until(Duration::from_millis(50), || all(&stdout))
        };
        if !printed {
            self.signal(Signal::INT)?;
            let until = Instant::now() + ENDING;
            while !self.process.has_ended()? && Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
            }
            // What is in the pipe is read by now, or soon.
            stdout.wait(Duration::from_millis(300), |_, closed| closed.then_some(()));
        }
        let mut found = lines(stdout.text());
        found.truncate(count);
        Ok(found)
    }

    /// Sends a signal to the process that listens.
    pub(crate) fn signal(&self, signal: Signal) -> Verdict {
        if sockets::listener(self.process.pid(), self.address.port()).is_some() {
            return Ok(rustix::process::kill_process(self.listener, signal)?);
        }
        Ok(self.process.signal(signal)?)
    }

    /// A fault unless it ends soon after `signal`, with exit code 0.
    pub(crate) fn ends_on(mut self, signal: Signal, name: &str) -> Verdict {
        self.signal(signal)?;
        let expected = format!("exit code 0 within {ENDING:?} of {name}");
        let until = Instant::now() + ENDING;
        while !self.process.has_ended()? {
            if Instant::now() >= until {
                return Err(Stop::fault(expected, "it still runs"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        let exit = self.process.wait(SOON)?;
        ensure(exit.status.code() == Some(0), expected, || {
            format!("{}, stderr {:?}", exit.describe(), self.process.stderr().text())
        })
    }
}

impl Result<'_> {
    fn content(&self) -> &[u8] {
        match self {
            Result::Content(content) => content,
            Result::Error => ERROR,
        }
    }

    fn line(&self) -> String {
        match self {
            Result::Content(content) => content.len().to_string(),
            Result::Error => "ERROR".to_owned(),
        }
    }
}

/// What a line says, whatever else it says: a check about something else is not lost for words
/// around a number.
fn counted(line: &str) -> String {
    let mut numbers = line.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    match (numbers.next(), numbers.next()) {
        (Some(number), None) => number.to_owned(),
        (None, _) if line.contains("ERROR") => "ERROR".to_owned(),
        _ => line.to_owned(),
    }
}

/// A fault if anything comes to `peer` within `time`, or as long as `group` wants to run: on a busy
/// machine what is sent too early still comes late.
pub(crate) fn expect_silence(group: Pid, peer: &mut Peer, time: Duration) -> Verdict {
    peer.expect_silence(time)?;
    // One that is busy for ever has ten seconds for its handshake all the same.
    guard::settles(group, Duration::from_secs(1));
    peer.expect_silence(Duration::from_millis(1))
}

/// Whether the file is exactly that by now.
pub(crate) fn holds(path: &Path, content: &[u8]) -> bool {
    let length = fs::metadata(path).map(|metadata| metadata.len());
    length.is_ok_and(|length| length == content.len() as u64)
        && fs::read(path).is_ok_and(|now| now == content)
}

/// A fault unless the client ends within `limit`, with exit code 0.
pub(crate) fn succeeds(client: &mut Process, limit: Duration) -> Verdict {
    let exit = client.wait(limit)?;
    ensure(exit.status.code() == Some(0), format!("{} to exit with 0", client.command()), || {
        format!("{}, stderr {:?}", exit.describe(), client.stderr().text())
    })
}

/// A fault unless the program fails, as every program must, within `limit` of `since`.
pub(crate) fn fails(process: &mut Process, since: Instant, limit: Duration) -> Verdict<Exit> {
    let expected = format!("{} to give up within {limit:?}", process.command());
    let exit = ends(process, since, limit, expected)?;
    let said = process.stderr().text();
    let good = exit.status.code().is_some_and(|code| code != 0)
        && said.lines().any(|line| line.starts_with("ERROR:"));
    ensure(
        good,
        format!(
            "{} to exit with a code that is not 0 and a line on stderr that begins with ERROR:",
            process.command()
        ),
        || format!("{}, stderr {said:?}", exit.describe()),
    )?;
    Ok(exit)
}

/// Waits until the program ends; a fault when it runs on after `limit` from `since`, where nothing
/// but itself keeps it: the time in which this process was kept from looking, and the program from
/// running, is not its own.
pub(crate) fn ends(
    process: &mut Process,
    since: Instant,
    limit: Duration,
    expected: String,
) -> Verdict<Exit> {
    loop {
        let left = (limit + lateness::worst_since(since)).saturating_sub(since.elapsed());
        if left.is_zero() {
            break;
        }
        match process.wait(left) {
            Err(Stop::Fault(_)) => {}
            other => return other,
        }
    }
    let rests = guard::settles(process.pid(), RESTING);
    if process.has_ended()? {
        return process.wait(SOON);
    }
    let how = if rests { "and waits" } else { "and is busy" };
    let after = since.elapsed().as_secs_f64();
    Err(Stop::fault(expected, format!("it still runs after {after:.1} s, {how}")))
}
