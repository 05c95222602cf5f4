//! Observes a program's sockets from outside: whether it listens, has accepted a connection, has
//! read all bytes. Unlike a test connection, this does not affect the program.
//!
//! Not every system shows the sockets of other programs. Then the kit only sees what a client can see,
//! and skips the checks that need more.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use rustix::process::Pid;
use socket2::{Domain, Socket, Type};

use super::sock_diag;
use super::socket_entry::Entry;
use accio_harness::context::wait_until;
use accio_harness::peer::Peer;
use accio_harness::verdict::Stop;
use accio_harness::{process, process_table};

/// TCP_LISTEN.
const LISTENS: u8 = 0x0a;
/// TCP_ESTABLISHED.
const CONNECTED: u8 = 0x01;
/// TCP_SYN_SENT.
const CONNECTING: u8 = 0x02;

/// How this system shows the sockets of other programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Single sockets, on request (NETLINK_SOCK_DIAG). Not in every container, and not under qemu.
    Diagnosis,
    /// Only tables of all sockets, `/proc/PID/net/tcp`.
    Tables,
    /// Not at all.
    Nothing,
}

/// Returns the first source that shows this process a connection of its own correctly.
fn source() -> Source {
    static SOURCE: OnceLock<Source> = OnceLock::new();
    *SOURCE.get_or_init(|| if cfg!(linux_sys) { find_source() } else { Source::Nothing })
}

fn find_source() -> Source {
    /// How long bytes may be on their way on a busy machine.
    const LIMIT: Duration = Duration::from_secs(3);
    let connect = || -> io::Result<_> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let mut client = TcpStream::connect(listener.local_addr()?)?;
        client.write_all(b"five!")?;
        let (server, from) = (listener.local_addr()?, client.local_addr()?);
        Ok(((listener, client), server, from))
    };
    // Without these, no server could be checked at all.
    let Ok((_sockets, SocketAddr::V4(server), SocketAddr::V4(from))) = connect() else {
        return Source::Nothing;
    };
    let server = (*server.ip(), server.port());
    let own = inodes(i32::try_from(std::process::id()).unwrap_or_default());
    let works = |source: &Source| {
        let listener = find_in(*source, server, None);
        let connection = find_in(*source, server, Some((*from.ip(), from.port())));
        listener.is_some_and(|entry| entry.state == LISTENS && own.contains(&entry.inode))
            && connection.is_some_and(|entry| entry.unread == 5 && entry.inode == 0)
    };
    let mut found = None;
    wait_until(LIMIT, || {
        found = [Source::Diagnosis, Source::Tables].into_iter().find(works);
        found.is_some()
    });
    found.unwrap_or(Source::Nothing)
}

/// Returns whether this system shows the sockets of other programs.
pub(crate) fn are_visible() -> bool {
    source() != Source::Nothing
}

/// Returns a skip unless this system shows the sockets of other programs.
pub(crate) fn require() -> Result<(), Stop> {
    if are_visible() {
        return Ok(());
    }
    Err(Stop::skip("this system does not show the sockets of other programs"))
}

/// A listening program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListeningProcess {
    /// The process that listens, as far as can be seen.
    pub(crate) pid: Pid,
    /// The address that it is bound to, if it can be seen.
    pub(crate) bound: Option<IpAddr>,
}

/// Returns the process of the group that listens on `port`.
pub(crate) fn listener(group: Pid, port: u16) -> Option<ListeningProcess> {
    if !are_visible() {
        return is_taken(port).then_some(ListeningProcess { pid: group, bound: None });
    }
    let listens = |entry: &Entry| entry.state == LISTENS && entry.local.port() == port;
    let found: Vec<Entry> = if is_in_our_network(group) {
        // The addresses that it may listen on.
        let hosts = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 1, 1)];
        let found = hosts.into_iter().find_map(|host| find((host, port), None));
        found.into_iter().filter(listens).collect()
    } else {
        table(group).into_iter().filter(listens).collect()
    };
    if found.is_empty() {
        return None;
    }
    let leader = group.as_raw_nonzero().get();
    let holds = |pid: i32| {
        let own = inodes(pid);
        let entry = found.iter().find(|entry| own.contains(&entry.inode))?;
        Some(ListeningProcess { pid: Pid::from_raw(pid)?, bound: Some(entry.local.ip()) })
    };
    // Prefer the leader if several processes share the socket.
    holds(leader).or_else(|| process_table::members(group).into_iter().find_map(holds))
}

/// Returns whether a program has bound the port, and has had the time to listen on it.
fn is_taken(port: u16) -> bool {
    /// The time from bind to listen, even on a busy machine.
    const LISTENING: Duration = Duration::from_millis(200);
    let bind = || -> io::Result<()> {
        // Without SO_REUSEADDR, which the standard library sets: systems differ in its meaning.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())
    };
    // A program that starts at the same time would inherit the socket for a moment.
    let bound = process::while_none_starts(bind);
    let is_taken = bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    if is_taken {
        thread::sleep(LISTENING);
    }
    is_taken
}

/// Returns the address of a listener on `port` in the network namespace of `group`, even if clients
/// cannot reach it.
pub(crate) fn listens_at(group: Pid, port: u16) -> Option<IpAddr> {
    let listens = |entry: &Entry| entry.state == LISTENS && entry.local.port() == port;
    table(group).into_iter().find(listens).map(|entry| entry.local.ip())
}

/// Returns the number of connections in the backlog of our listener at `host` and `port`, if it can
/// be seen.
pub(crate) fn backlog(host: Ipv4Addr, port: u16) -> Option<u64> {
    find((host, port), None).map(|entry| entry.unread)
}

/// Returns the server's socket of the connection from `client` to `server`; `pid` is the server's.
pub(crate) fn connection(pid: Pid, server: SocketAddr, client: SocketAddr) -> Option<Entry> {
    if is_in_our_network(pid) {
        let (IpAddr::V4(near), IpAddr::V4(far)) = (server.ip(), client.ip()) else { return None };
        let entry = find((near, server.port()), Some((far, client.port())))?;
        // Without such a connection the kernel returns the listening socket.
        return (entry.state != LISTENS).then_some(entry);
    }
    table(pid).into_iter().find(|entry| {
        entry.local.port() == server.port() && entry.remote == client && entry.state != LISTENS
    })
}

/// Returns the sockets of a connection between two processes on this machine: the one of `peer`, and
/// the one of the program under test, if it is in our network namespace.
pub(crate) fn pair(peer: &Peer) -> (Option<Entry>, Option<Entry>) {
    let addresses = (peer.stream().local_addr(), peer.stream().peer_addr());
    let (Ok(SocketAddr::V4(near)), Ok(SocketAddr::V4(far))) = addresses else {
        return (None, None);
    };
    let (near, far) = ((*near.ip(), near.port()), (*far.ip(), far.port()));
    let find =
        |local, remote| find(local, Some(remote)).filter(|entry: &Entry| entry.state != LISTENS);
    (find(near, far), find(far, near))
}

/// Returns whether the program under test has received and read all bytes that `peer` has sent, as
/// far as can be seen.
pub(crate) fn has_read(peer: &Peer) -> bool {
    let (own, theirs) = pair(peer);
    own.is_none_or(|own| own.unacknowledged == 0) && theirs.is_none_or(|theirs| theirs.unread == 0)
}

/// The progress of connecting to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionProgress {
    /// No connection was attempted.
    None,
    /// A connection attempt waits for an answer.
    Connecting,
    /// A connection is established.
    Connected,
}

/// Returns the progress of connections from `pid` to `server`. Connections from the ports `known`,
/// which belong to this process, are ignored.
pub(crate) fn progress(pid: Pid, server: SocketAddr, known: &[u16]) -> ConnectionProgress {
    let states = 1 << CONNECTED | 1 << CONNECTING;
    let found = (source() == Source::Diagnosis).then(|| sock_diag::all_to(server, states));
    let entries = found.flatten().unwrap_or_else(|| table(pid));
    let states: Vec<u8> = entries
        .into_iter()
        .filter(|entry| entry.remote == server && !known.contains(&entry.local.port()))
        .map(|entry| entry.state)
        .collect();
    match (states.contains(&CONNECTED), states.contains(&CONNECTING)) {
        (true, _) => ConnectionProgress::Connected,
        (_, true) => ConnectionProgress::Connecting,
        _ => ConnectionProgress::None,
    }
}

/// Returns whether `pid` is in the same network namespace as this thread.
fn is_in_our_network(pid: Pid) -> bool {
    let theirs = fs::read_link(format!("/proc/{}/ns/net", pid.as_raw_nonzero()));
    let ours = fs::read_link("/proc/thread-self/ns/net");
    match (theirs, ours) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        // The process has ended, or belongs to another user.
        _ => true,
    }
}

/// An address of IPv4.
type Address = (Ipv4Addr, u16);

/// Returns the socket in our network namespace that listens at `local`, or the one that is connected
/// with `remote`.
fn find(local: Address, remote: Option<Address>) -> Option<Entry> {
    find_in(source(), local, remote)
}

fn find_in(source: Source, local: Address, remote: Option<Address>) -> Option<Entry> {
    match (source, remote) {
        (Source::Diagnosis, _) => sock_diag::find(local, remote),
        (Source::Tables, Some(remote)) => table_at("thread-self").into_iter().find(|entry| {
            entry.local == SocketAddr::from(local) && entry.remote == SocketAddr::from(remote)
        }),
        (Source::Tables, None) => table_at("thread-self").into_iter().find(|entry| {
            let host = entry.local.ip();
            let serves = host.is_unspecified() || host == IpAddr::V4(local.0);
            entry.state == LISTENS && entry.local.port() == local.1 && serves
        }),
        (Source::Nothing, _) => None,
    }
}

/// Reads the sockets in the network namespace of `pid`.
fn table(pid: Pid) -> Vec<Entry> {
    table_at(&pid.as_raw_nonzero().to_string())
}

/// Reads the sockets in the network namespace of a process or thread, by its name in `/proc`.
fn table_at(process: &str) -> Vec<Entry> {
    if !cfg!(linux_sys) {
        return Vec::new();
    }
    let read =
        |name: &str| fs::read_to_string(format!("/proc/{process}/net/{name}")).unwrap_or_default();
    let both = [read("tcp"), read("tcp6")];
    both.iter().flat_map(|text| text.lines().skip(1).filter_map(parse)).collect()
}

/// Returns the inodes of the sockets that `pid` has open.
fn inodes(pid: i32) -> BTreeSet<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let inode = |link: String| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    entries
        .filter_map(|entry| inode(fs::read_link(entry.path()).ok()?.to_str()?.to_owned()))
        .collect()
}

fn parse(line: &str) -> Option<Entry> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (unacknowledged, unread) = fields.get(4)?.split_once(':')?;
    Some(Entry {
        local: address(fields.get(1)?)?,
        remote: address(fields.get(2)?)?,
        state: u8::from_str_radix(fields.get(3)?, 16).ok()?,
        unread: u64::from_str_radix(unread, 16).ok()?,
        unacknowledged: u64::from_str_radix(unacknowledged, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// Parses an address as printed by the kernel: words of 32 bits in the machine's byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (host, port) = text.split_once(':')?;
    let mut bytes = Vec::new();
    for at in (0..host.len()).step_by(8) {
        let word = u32::from_str_radix(host.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let host = if let Ok(four) = <[u8; 4]>::try_from(bytes.as_slice()) {
        IpAddr::V4(Ipv4Addr::from(four))
    } else {
        IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?)).to_canonical()
    };
    Some(SocketAddr::new(host, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broken;
    use accio_harness::peer::Listener;

    #[test]
    fn observes_the_sockets_of_this_process() {
        let own = Pid::from_raw(i32::try_from(std::process::id()).unwrap()).unwrap();
        for host in ["127.0.0.1:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(host) else { continue };
            let port = listener.local_addr().unwrap().port();
            let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut client = TcpStream::connect(at).unwrap();
            let from = client.local_addr().unwrap();
            let look = || {
                let entry = connection(own, at, from);
                let read = table(own)
                    .into_iter()
                    .find(|entry| entry.local.port() == port && entry.remote == from);
                assert_eq!(entry.map(|entry| entry.inode), read.map(|entry| entry.inode));
                entry
            };
            assert_eq!(look().unwrap().inode, 0, "not accepted yet");
            let (server, _) = listener.accept().unwrap();
            client.write_all(b"five!").unwrap();
            let waits = || look().is_some_and(|entry| entry.unread == 5);
            assert!(wait_until(Duration::from_secs(5), waits));
            assert_ne!(look().unwrap().inode, 0);
            let found = sock_diag::find((Ipv4Addr::LOCALHOST, port), None).unwrap();
            assert_eq!(found.local.ip(), listener.local_addr().unwrap().ip().to_canonical());
            assert!(inodes(own.as_raw_nonzero().get()).contains(&found.inode));
            // No socket listens on the port of a client.
            assert_eq!(sock_diag::find((Ipv4Addr::LOCALHOST, from.port()), None), None);
            drop((server, client));
        }
    }

    #[test]
    fn distinguishes_attempts_from_connections() {
        let own = Pid::from_raw(i32::try_from(std::process::id()).unwrap()).unwrap();
        let listener = Listener::with(0, None).unwrap();
        let server = listener.address();
        assert_eq!(progress(own, server, &[]), ConnectionProgress::None);
        let fillers = broken::fill(&listener).unwrap();
        let known: Vec<u16> =
            fillers.iter().map(|filler| filler.local_addr().unwrap().port()).collect();
        assert_eq!(progress(own, server, &[]), ConnectionProgress::Connected);
        assert_eq!(progress(own, server, &known), ConnectionProgress::None);
        for domain in [Domain::IPV4, Domain::IPV6] {
            let Ok(caller) = Socket::new(domain, Type::STREAM, None) else { continue };
            caller.set_nonblocking(true).unwrap();
            let to = match (domain, server) {
                (Domain::IPV6, SocketAddr::V4(server)) => {
                    SocketAddr::from((server.ip().to_ipv6_mapped(), server.port()))
                }
                _ => server,
            };
            caller.connect(&to.into()).unwrap_err();
            assert_eq!(progress(own, server, &known), ConnectionProgress::Connecting, "{domain:?}");
        }
        assert_eq!(progress(own, server, &known), ConnectionProgress::None);
    }

    #[test]
    fn parses_a_line_of_the_kernels_table() {
        let line = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000 \
                    0 0 4711 1 0 100 0 0 10 0";
        let entry = parse(line).unwrap();
        assert_eq!(entry.local, "0.0.0.0:8080".parse().unwrap());
        assert_eq!((entry.state, entry.unread, entry.inode), (LISTENS, 2, 4711));
        assert_eq!(parse("sl local_address"), None);
    }
}
