//! Queries the number of bytes that the peer of a connection has not acknowledged.
//!
//! `ioctl(SIOCOUTQ)` returns this number, including the FIN, but requires unsafe code. The kernel's
//! socket diagnosis returns it in a netlink message instead. If that service is missing (on another
//! system, in a strict sandbox, or in a kernel built without it), the number is unknown.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
    sockopt,
};

/// A query about one connection, which can be repeated.
#[derive(Debug)]
pub(crate) struct Unacked {
    netlink: OwnedFd,
    request: [u8; REQUEST],
    sequence: u32,
}

impl Unacked {
    /// Prepares the query about `stream`.
    pub(crate) fn of(stream: &TcpStream) -> Option<Self> {
        let local = stream.local_addr().ok()?;
        let peer = stream.peer_addr().ok()?;
        let cookie = sockopt::socket_cookie(stream).ok()?;
        let netlink = socket_with(
            AddressFamily::NETLINK,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            Some(netlink::SOCK_DIAG),
        )
        .ok()?;
        Some(Unacked { netlink, request: request(local, peer, cookie), sequence: 0 })
    }

    /// Returns the number of bytes that the kernel has accepted and the peer has not acknowledged;
    /// `None` if the kernel does not know it, as after a reset.
    pub(crate) fn outstanding(&mut self) -> Option<u64> {
        self.sequence = self.sequence.wrapping_add(1);
        self.request[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        send(&self.netlink, &self.request, SendFlags::empty()).ok()?;
        // The kernel has replied by the time the send returns.
        let mut answer = [0; 4096];
        loop {
            let (_, length) = recv(&self.netlink, &mut answer[..], RecvFlags::empty()).ok()?;
            let answer = answer.get(..length)?;
            if word(answer, 8)? == self.sequence {
                return wqueue(answer);
            }
        }
    }
}

/// Lengths of `nlmsghdr`, `inet_diag_req_v2` and the fields of `inet_diag_msg` before its queues.
const HEADER: usize = 16;
const REQUEST: usize = HEADER + 56;
const WQUEUE: usize = HEADER + 4 + 48 + 4 + 4;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;

/// `struct nlmsghdr`, then `struct inet_diag_req_v2`, for exactly this socket.
fn request(local: SocketAddr, peer: SocketAddr, cookie: u64) -> [u8; REQUEST] {
    let mut bytes = Vec::with_capacity(REQUEST);
    bytes.extend((REQUEST as u32).to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend([0; 8]); // sequence, sender

    let family = if local.is_ipv4() { AF_INET } else { AF_INET6 };
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes()); // any state
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(peer.port().to_be_bytes());
    bytes.extend(address(local.ip()));
    bytes.extend(address(peer.ip()));
    let interface = match peer {
        SocketAddr::V6(peer) => peer.scope_id(),
        SocketAddr::V4(_) => 0,
    };
    bytes.extend(interface.to_ne_bytes());
    bytes.extend((cookie as u32).to_ne_bytes());
    bytes.extend(((cookie >> 32) as u32).to_ne_bytes());

    let mut request = [0; REQUEST];
    request.copy_from_slice(&bytes);
    request
}

/// Returns an address as 16 bytes, padded with zeros.
fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V6(address) => address.octets(),
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
    }
}

/// Returns `idiag_wqueue` of an answer; an error message has another type.
fn wqueue(answer: &[u8]) -> Option<u64> {
    let kind = answer.get(4..6)?;
    if kind != SOCK_DIAG_BY_FAMILY.to_ne_bytes() {
        return None;
    }
    word(answer, WQUEUE).map(u64::from)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener};
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    fn settles(queue: &mut Unacked, wanted: impl Fn(Option<u64>) -> bool) -> Option<u64> {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let found = queue.outstanding();
            if wanted(found) || Instant::now() > end {
                return found;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn check_outstanding_bytes(listen: &str, connect: &str) {
        let listener = TcpListener::bind(listen).unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut stream = TcpStream::connect(format!("{connect}:{port}")).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let mut queue = Unacked::of(&stream).expect("this kernel supports socket diagnosis");
        assert_eq!(queue.outstanding(), Some(0));

        stream.set_nonblocking(true).unwrap();
        let mut sent = 0;
        let mut quiet = 0;
        while quiet < 20 {
            match stream.write(&[7; 65536]) {
                Ok(n) => (sent, quiet) = (sent + n as u64, 0),
                Err(_) => {
                    quiet += 1;
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
        let stuck = queue.outstanding().unwrap();
        assert!(stuck > 0 && stuck < sent, "{stuck} of {sent} bytes outstanding, nothing read");

        let mut count = 0;
        let mut buffer = [0; 65536];
        while count < sent {
            count += peer.read(&mut buffer).unwrap() as u64;
        }
        assert_eq!(settles(&mut queue, |found| found == Some(0)), Some(0));

        // The FIN counts as a byte, and the kernel of the peer acknowledges it by itself.
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(settles(&mut queue, |found| found == Some(0)), Some(0));

        socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(settles(&mut queue, |found| found.is_none()), None, "unknown after a reset");
    }

    #[test]
    fn ipv4() {
        check_outstanding_bytes("127.0.0.1:0", "127.0.0.1");
    }

    #[test]
    fn ipv6() {
        check_outstanding_bytes("[::1]:0", "[::1]");
    }

    #[test]
    fn reports_bytes_over_ipv4_on_an_ipv6_socket() {
        check_outstanding_bytes("127.0.0.1:0", "[::ffff:127.0.0.1]");
    }

    #[test]
    fn the_number_is_unknown_for_a_closed_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut queue = Unacked::of(&stream).unwrap();
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        drop(stream);
        assert_eq!(queue.outstanding(), None);
    }

    #[test]
    fn the_number_is_unknown_after_short_or_unrelated_replies() {
        let mut answer = [0; WQUEUE + 4];
        assert_eq!(wqueue(&answer), None);
        answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        answer[WQUEUE..].copy_from_slice(&9u32.to_ne_bytes());
        assert_eq!(wqueue(&answer), Some(9));
        assert_eq!(wqueue(&answer[..WQUEUE + 3]), None);
        assert_eq!(wqueue(&[]), None);
    }
}
