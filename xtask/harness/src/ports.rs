//! Chooses port numbers for the programs under test.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Mutex, PoisonError};

use socket2::{Domain, Socket, Type};

use super::process;

/// Ports returned so far; none is returned twice.
static RETURNED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Lowest port to choose; lower ones often belong to well-known services.
const LOWEST: u16 = 10_000;

/// Returns a port that is not in use. It is below the kernel's range for outgoing connections,
/// which the tests open by the thousand, so that it stays free.
pub fn free() -> io::Result<u16> {
    let range = LOWEST..outgoing_from().max(LOWEST + 1);
    for _ in 0..1_000 {
        // If that range is too small, let the kernel choose.
        let wanted = if range.len() < 1_000 { 0 } else { fastrand::u16(range.clone()) };
        let Ok(port) = process::while_none_starts(|| bind(wanted)) else { continue };
        if RETURNED.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no free port in 1,000 attempts"))
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
}
