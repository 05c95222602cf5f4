//! Chooses port numbers for the programs under test.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Mutex, MutexGuard, PoisonError};

use socket2::{Domain, Socket, Type};

use super::process;

/// Lowest port to choose; lower ones often belong to well-known services.
const LOWEST: u16 = 10_000;

/// Number of ports that a thread reserves at a time.
const BLOCK: u16 = 64;

/// Number of blocks that a thread keeps reserved. Most programs on the ports of earlier ones have ended.
const KEPT: usize = 16;

/// Ports returned so far; none is returned twice.
static RETURNED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

thread_local! {
    /// Of a thread, not of the process, because each thread may be in a network namespace of its own.
    static RESERVED: RefCell<Reserved> = RefCell::default();
}

/// The ports that a thread has reserved.
///
/// A free port may be chosen twice, by different processes, before a program listens on it. So each
/// thread takes its ports from blocks that it has reserved.
#[derive(Default)]
struct Reserved {
    /// Ports of the last block that were not tried.
    left: Vec<u16>,
    blocks: VecDeque<Option<Reservation>>,
}

/// Returns a port that is not in use. It is below the kernel's range for outgoing connections,
/// which the tests open by the thousand, so that it stays free.
pub fn free() -> io::Result<u16> {
    for _ in 0..5_000 {
        let wanted = RESERVED.with_borrow_mut(Reserved::next);
        // Do not even bind it: the program that it was chosen for may be about to.
        if returned().contains(&wanted) {
            continue;
        }
        let Ok(port) = process::while_none_starts(|| bind(wanted)) else { continue };
        if returned().insert(port) {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port in 5,000 attempts"))
}

fn returned() -> MutexGuard<'static, BTreeSet<u16>> {
    RETURNED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reserved {
    /// Returns the next port to try, or 0 if the kernel must choose, because its own range leaves too
    /// few.
    fn next(&mut self) -> u16 {
        if self.left.is_empty() {
            let blocks = outgoing_from().saturating_sub(LOWEST) / BLOCK;
            if blocks < 16 {
                return 0;
            }
            // If none is found, others have reserved most blocks. A port of theirs may still be free.
            let mut first = LOWEST;
            for _ in 0..1_000 {
                first = LOWEST + fastrand::u16(..blocks) * BLOCK;
                if let Ok(reservation) = reserve(first) {
                    self.blocks.push_back(reservation);
                    break;
                }
            }
            if self.blocks.len() > KEPT {
                self.blocks.pop_front();
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
/// Returns an error if another thread or process has reserved the block.
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
    fn a_reserved_block_cannot_be_reserved_again() {
        let port = free().unwrap();
        let reserved =
            RESERVED.with_borrow(|reserved| matches!(reserved.blocks.back(), Some(Some(_))));
        if !reserved {
            return eprintln!("skipped: no ports can be reserved here");
        }
        let block = port - (port - LOWEST) % BLOCK;
        let error = reserve(block).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "the block of {port}");
        let other = std::thread::spawn(|| free().unwrap()).join().unwrap();
        assert_ne!(other - (other - LOWEST) % BLOCK, block, "the block of another thread");
    }
}
