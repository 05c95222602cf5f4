//! Chooses port numbers for the programs under test.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Mutex, PoisonError};

use socket2::{Domain, Socket, Type};

use super::process;

/// Lowest port to choose; lower ones often belong to well-known services.
const LOWEST: u16 = 10_000;

/// Number of ports that a process reserves at a time.
const BLOCK: u16 = 64;

/// Number of blocks that a process keeps; the programs on the ports of earlier ones have ended.
const KEPT: usize = 16;

static PORTS: Mutex<Ports> =
    Mutex::new(Ports { left: Vec::new(), returned: BTreeSet::new(), reserved: VecDeque::new() });

/// The ports of this process.
///
/// A port that is free may be chosen by another process, too, before the program that it is for
/// listens. So each process takes its ports from blocks that it has reserved.
struct Ports {
    /// Ports of the last block that were not tried.
    left: Vec<u16>,
    /// None is returned twice.
    returned: BTreeSet<u16>,
    reserved: VecDeque<Option<Reservation>>,
}

/// Returns a port that is not in use. It is below the kernel's range for outgoing connections,
/// which the tests open by the thousand, so that it stays free.
pub fn free() -> io::Result<u16> {
    let mut ports = PORTS.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..5_000 {
        let wanted = ports.next();
        let Ok(port) = process::while_none_starts(|| bind(wanted)) else { continue };
        if ports.returned.insert(port) {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port in 5,000 attempts"))
}

impl Ports {
    /// Returns the next port to try, or 0 to let the kernel choose, if its own range leaves too few.
    fn next(&mut self) -> u16 {
        if self.left.is_empty() {
            let blocks = outgoing_from().saturating_sub(LOWEST) / BLOCK;
            if blocks < 16 {
                return 0;
            }
            // If most blocks are reserved, this one may be another's; the port is probably free then, too.
            let mut first = 0;
            for _ in 0..1_000 {
                first = LOWEST + fastrand::u16(..blocks) * BLOCK;
                if let Ok(reservation) = reserve(first) {
                    self.reserved.push_back(reservation);
                    break;
                }
            }
            if self.reserved.len() > KEPT {
                self.reserved.pop_front();
            }
            self.left = (first..first + BLOCK).collect();
            fastrand::shuffle(&mut self.left);
        }
        self.left.pop().unwrap_or(0)
    }
}

#[cfg(linux_sys)]
type Reservation = std::os::unix::net::UnixListener;
#[cfg(not(linux_sys))]
type Reservation = ();

/// Reserves a block of ports in this network namespace for as long as the result exists. Returns `None`
/// if nothing can be reserved here.
///
/// # Errors
///
/// Returns an error if another process has reserved the block.
fn reserve(first: u16) -> io::Result<Option<Reservation>> {
    #[cfg(linux_sys)]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener};

        let name = SocketAddr::from_abstract_name(format!("accio-ports-{first}"))?;
        match UnixListener::bind_addr(&name) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            Err(_) => Ok(None),
        }
    }
    #[cfg(not(linux_sys))]
    {
        let _ = first;
        Ok(None)
    }
}

/// Binds `port` on all interfaces like the servers do, and closes the socket again.
fn bind(port: u16) -> io::Result<u16> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Do not set SO_REUSEADDR: the program under test may not set it either, and then old connections
    // in TIME-WAIT would prevent its bind.
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(1)?;
    let address = socket.local_addr()?.as_socket_ipv4();
    Ok(address.as_ref().map_or(port, SocketAddrV4::port))
}

fn outgoing_from() -> u16 {
    const USUAL: u16 = 32_768;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_returns_a_port_twice() {
        let ports: BTreeSet<u16> = (0..50).map(|_| free().unwrap()).collect();
        assert_eq!(ports.len(), 50);
        assert!(!ports.contains(&0));
    }

    #[test]
    #[cfg(linux_sys)]
    fn two_processes_never_choose_the_same_port() {
        let port = free().unwrap();
        let block = port - (port - LOWEST) % BLOCK;
        let error = reserve(block).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "the block of {port} is reserved");
    }
}
