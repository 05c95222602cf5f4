//! Connecting to one of several addresses, similar to RFC 8305 ("happy eyeballs").
//!
//! The addresses alternate between the families. A new attempt starts 250 ms after the one before,
//! or as soon as one has failed. The first to connect wins.
//!
//! A server numbers every connection, even one that is closed immediately, so the other attempts must
//! not reach a server. They are closed while their SYN is unanswered; an answer that arrives later
//! finds no socket, and the kernel resets it before the server can accept the connection. One case
//! remains: two answers within the few microseconds between the last wait and the close. The second
//! connection is then reset, and the server stores an ERROR file for it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use super::error::ClientError;
use crate::program_log as log;
use crate::sys::client::{
    Socket, Started, bind, is_family_unsupported, open, refused, start_connect, timed_out, wait_any,
};
use crate::tuning::client::CONNECT_STAGGER;

/// Returns the addresses in the order to try them: the families alternate, beginning with that of
/// the first address, in the order of the system within each family.
pub(super) fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_ipv4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first_is_ipv4);
    let longest = first.len().max(second.len());
    let turns = (0..longest).flat_map(|turn| [first.get(turn), second.get(turn)]);
    turns.flatten().copied().collect()
}

/// Returns whether binding failed because no port of the address is free, not because the address
/// is another machine's or because the chosen port is taken.
fn lacks_port(error: &io::Error, source: SocketAddr) -> bool {
    error.kind() == io::ErrorKind::AddrInUse && source.port() == 0
}

/// The addresses that did not connect, each with its error, in the order tried.
pub(super) type Failures = Vec<(SocketAddr, io::Error)>;

/// Connects to the first address that answers. The outer error is a failure of this machine, which
/// ends all attempts unless one is pending.
pub(super) fn race(
    addresses: &[SocketAddr],
    source: Option<SocketAddr>,
    deadline: Instant,
) -> Result<Result<(TcpStream, SocketAddr), Failures>, ClientError> {
    race_with(open, addresses, source, deadline)
}

/// [`race`] with a function that opens the sockets.
fn race_with(
    open: fn(SocketAddr) -> io::Result<Socket>,
    addresses: &[SocketAddr],
    source: Option<SocketAddr>,
    deadline: Instant,
) -> Result<Result<(TcpStream, SocketAddr), Failures>, ClientError> {
    let mut race = Race { open, source, running: Vec::new(), failures: Vec::new() };
    let mut waiting = addresses.iter().copied();
    let mut next_at = Instant::now();
    let winner = loop {
        let now = Instant::now();
        if now >= deadline {
            break None;
        }
        if now >= next_at || race.running.is_empty() {
            let rest = waiting.clone();
            if let Some(address) = waiting.next() {
                let running = race.running.len();
                match race.start(address) {
                    Ok(Some(stream)) => break Some((stream, address)),
                    Ok(None) => {}
                    // An earlier attempt may still succeed. If it fails, this one is tried again.
                    Err(ClientError::Local { .. }) if running > 0 => {
                        (waiting, next_at) = (rest, deadline);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                if race.running.len() > running {
                    next_at = now + CONNECT_STAGGER;
                }
                continue;
            }
            if race.running.is_empty() {
                break None;
            }
        }
        let until = if waiting.len() > 0 { next_at.min(deadline) } else { deadline };
        let failed = race.failures.len();
        if let Some(winner) = race.wait(until)? {
            break Some(winner);
        }
        if race.failures.len() > failed {
            next_at = Instant::now();
        }
    };
    if let Some(winner) = winner {
        return Ok(Ok(winner));
    }
    let Race { running, mut failures, .. } = race;
    let late = running.into_iter().map(|(address, _)| address).chain(waiting);
    failures.extend(late.map(|address| (address, timed_out())));
    failures.sort_by_key(|(address, _)| addresses.iter().position(|tried| tried == address));
    Ok(Err(failures))
}

struct Race {
    open: fn(SocketAddr) -> io::Result<Socket>,
    source: Option<SocketAddr>,
    /// Pending attempts, in the order they were started.
    running: Vec<(SocketAddr, Socket)>,
    failures: Failures,
}

impl Race {
    /// Starts an attempt, which may complete immediately.
    fn start(&mut self, address: SocketAddr) -> Result<Option<TcpStream>, ClientError> {
        let socket = match (self.open)(address) {
            Ok(socket) => socket,
            // The kernel has no IPv6; the other addresses may work.
            Err(error) if is_family_unsupported(&error) => {
                self.fail(address, error);
                return Ok(None);
            }
            Err(cause) => return Err(ClientError::Local { what: "open a socket", cause }),
        };
        if let Some(source) = self.source {
            bind(&socket, source).map_err(|cause| match lacks_port(&cause, source) {
                // The address is this machine's, but none of its ports is free.
                true => ClientError::Local { what: "bind to the source address", cause },
                false => ClientError::Source { address: source, cause },
            })?;
        }
        match start_connect(&socket, address) {
            Ok(Started::Connected) => return Ok(self.end(address, socket)),
            Ok(Started::Pending) => self.running.push((address, socket)),
            Err(error) => self.fail(address, error),
        }
        Ok(None)
    }

    /// Waits until an attempt is complete, and returns its stream if it is connected.
    fn wait(&mut self, until: Instant) -> Result<Option<(TcpStream, SocketAddr)>, ClientError> {
        let timeout = until.saturating_duration_since(Instant::now());
        let over = wait_any(self.running.iter().map(|(_, socket)| socket), timeout)
            .map_err(|cause| ClientError::Local { what: "wait for a connection", cause })?;
        let (mut still, mut ended) = (Vec::new(), Vec::new());
        for (attempt, over) in std::mem::take(&mut self.running).into_iter().zip(over) {
            if over { ended.push(attempt) } else { still.push(attempt) }
        }
        self.running = still;
        for (address, socket) in ended {
            if let Some(stream) = self.end(address, socket) {
                return Ok(Some((stream, address)));
            }
        }
        Ok(None)
    }

    /// Returns the stream of a completed attempt, unless it failed.
    fn end(&mut self, address: SocketAddr, socket: Socket) -> Option<TcpStream> {
        let stream = match socket.take_error() {
            Ok(None) => TcpStream::from(socket),
            Ok(Some(error)) | Err(error) => {
                self.fail(address, error);
                return None;
            }
        };
        // A connection attempt to an unused port in the ephemeral range of this machine can connect
        // to itself.
        match stream.local_addr() {
            Ok(local) if local == address => {
                self.fail(address, refused());
                None
            }
            Ok(_) => Some(stream),
            Err(error) => {
                self.fail(address, error);
                None
            }
        }
    }

    fn fail(&mut self, address: SocketAddr, error: io::Error) {
        log::debug!("connect to {address}: {error}");
        self.failures.push((address, error));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 9)).collect()
    }

    #[test]
    fn families_alternate_beginning_with_the_systems_first_address() {
        for (given, order) in [
            (&[][..], &[][..]),
            (&["1.1.1.1"], &["1.1.1.1"]),
            (&["::1", "::2", "::3", "1.1.1.1"], &["::1", "1.1.1.1", "::2", "::3"]),
            (&["1.1.1.1", "2.2.2.2", "::1"], &["1.1.1.1", "::1", "2.2.2.2"]),
        ] {
            assert_eq!(interleave(addresses(given)), addresses(order));
        }
    }

    /// Returns a listener with a full backlog, which drops further SYNs.
    fn silent(ip: &str) -> (Socket, Vec<io::Result<TcpStream>>, SocketAddr) {
        let any = SocketAddr::new(ip.parse().unwrap(), 0);
        let listener =
            Socket::new(socket2::Domain::for_address(any), socket2::Type::STREAM, None).unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let short = Duration::from_millis(50);
        let waiting = (0..3).map(|_| TcpStream::connect_timeout(&address, short)).collect();
        (listener, waiting, address)
    }

    fn refusing(ip: &str) -> (Socket, SocketAddr) {
        let any = SocketAddr::new(ip.parse().unwrap(), 0);
        let socket =
            Socket::new(socket2::Domain::for_address(any), socket2::Type::STREAM, None).unwrap();
        socket.bind(&any.into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn a_silent_address_delays_the_next_by_250_ms() {
        let (listener, waiting, silent) = silent("::1");
        let good = TcpListener::bind("127.0.0.1:0").unwrap();
        let start = Instant::now();
        let order = [silent, good.local_addr().unwrap()];
        let (_, winner) = race(&order, None, soon()).unwrap().unwrap();
        assert_eq!(winner, order[1]);
        let took = start.elapsed();
        assert!((CONNECT_STAGGER..CONNECT_STAGGER * 12).contains(&took), "{took:?}");
        // Only the winner reaches a server, even when a second SYN would be due: the other queue
        // holds only the connections that filled it.
        let count = |listener: Socket| {
            listener.set_nonblocking(true).unwrap();
            std::iter::from_fn(|| listener.accept().ok()).count()
        };
        let filled = waiting.iter().filter(|stream| stream.is_ok()).count();
        let second = listener.try_clone().unwrap();
        assert_eq!(count(listener), filled);
        std::thread::sleep(Duration::from_millis(1300));
        assert_eq!((count(second), count(Socket::from(good))), (0, 1));
    }

    #[test]
    fn a_late_answer_wins_while_a_later_attempt_runs() {
        // The first peer answers a SYN once its backlog has room; the second never does.
        let (listener, waiting, first) = silent("127.0.0.1");
        let (_other, _others, second) = silent("::1");
        let room = std::thread::spawn(move || {
            std::thread::sleep(CONNECT_STAGGER * 2);
            while let Ok((socket, _)) = listener.accept() {
                drop(socket);
                if waiting.len() < 2 {
                    break;
                }
                listener.set_nonblocking(true).unwrap();
            }
            listener
        });
        let (_, winner) = race(&[first, second], None, soon()).unwrap().unwrap();
        assert_eq!(winner, first);
        drop(room.join().unwrap());
    }

    #[test]
    fn a_refusal_starts_the_next_attempt_at_once() {
        let refused: Vec<_> = (0..4).map(|_| refusing("127.0.0.1")).collect();
        let good = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut order: Vec<_> = refused.iter().map(|(_, address)| *address).collect();
        order.push(good.local_addr().unwrap());
        let start = Instant::now();
        let (_, winner) = race(&order, None, soon()).unwrap().unwrap();
        assert_eq!(winner, order[4]);
        assert!(start.elapsed() < CONNECT_STAGGER * 3, "{:?}", start.elapsed());
    }

    #[test]
    fn a_lack_of_descriptors_does_not_end_a_pending_attempt() {
        let without_ipv6 = |address: SocketAddr| match address.is_ipv6() {
            true => Err(rustix::io::Errno::MFILE.into()),
            false => open(address),
        };
        let (listener, waiting, pending) = silent("127.0.0.1");
        let second = addresses(&["::1"])[0];
        // The first peer answers a SYN once its backlog has room.
        let room = std::thread::spawn(move || {
            std::thread::sleep(CONNECT_STAGGER * 2);
            for _ in waiting.iter().filter(|stream| stream.is_ok()) {
                drop(listener.accept());
            }
            listener
        });
        let (_, winner) =
            race_with(without_ipv6, &[pending, second], None, soon()).unwrap().unwrap();
        assert_eq!(winner, pending);
        drop(room.join().unwrap());
        let error = race_with(without_ipv6, &[second], None, soon()).unwrap_err();
        assert!(matches!(error, ClientError::Local { .. }), "{error:?}");
    }

    #[test]
    fn reports_failures_in_the_order_of_the_addresses() {
        let (_listener, _waiting, silent) = silent("127.0.0.1");
        let (_socket, refused) = refusing("127.0.0.1");
        let deadline = Instant::now() + Duration::from_millis(400);
        let failures = race(&[silent, refused], None, deadline).unwrap().unwrap_err();
        let kinds: Vec<_> = failures.iter().map(|(at, error)| (*at, error.kind())).collect();
        assert_eq!(
            kinds,
            [(silent, io::ErrorKind::TimedOut), (refused, io::ErrorKind::ConnectionRefused)]
        );
    }
}
