//! Asks the kernel about one TCP socket (NETLINK_SOCK_DIAG), however many others there are: the
//! tables in /proc are of no use on a machine with tens of thousands of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::sockets::Entry;

/// SOCK_DIAG_BY_FAMILY, as linux/sock_diag.h has it.
const BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST.
const REQUEST: u16 = 1;
const TCP: u8 = 6;
const V4: u8 = 2;
/// The header of a netlink message, and with it the request.
const HEADER: usize = 16;
const LENGTH: usize = HEADER + 56;

/// The socket at `local` that listens, or that is connected with `remote`, in our own network;
/// nothing when there is none or the kernel does not tell.
pub(crate) fn find(local: (Ipv4Addr, u16), remote: Option<(Ipv4Addr, u16)>) -> Option<Entry> {
    ask(&request(local, remote)).ok().flatten()
}

fn request(local: (Ipv4Addr, u16), remote: Option<(Ipv4Addr, u16)>) -> Vec<u8> {
    let (remote_host, remote_port) = remote.unwrap_or((Ipv4Addr::UNSPECIFIED, 0));
    let mut message = Vec::with_capacity(LENGTH);
    // LENGTH fits.
    message.extend(u32::try_from(LENGTH).unwrap_or_default().to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([V4, TCP, 0, 0]);
    message.extend(u32::MAX.to_ne_bytes());
    message.extend(local.1.to_be_bytes());
    message.extend(remote_port.to_be_bytes());
    for host in [local.0, remote_host] {
        message.extend(host.octets());
        message.extend([0; 12]);
    }
    // No interface, any cookie.
    message.extend([0; 4]);
    message.extend([0xff; 8]);
    message
}

fn ask(message: &[u8]) -> Result<Option<Entry>, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(rustix::net::netlink::SOCK_DIAG),
    )?;
    rustix::net::send(&socket, message, SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (count, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    Ok(parse(&answer[..count]))
}

fn parse(answer: &[u8]) -> Option<Entry> {
    // Anything else is an error: there is no such socket.
    if answer.get(4..6)? != BY_FAMILY.to_ne_bytes() {
        return None;
    }
    let body = answer.get(HEADER..)?;
    let family = *body.first()?;
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let number = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let host = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = body.get(at..at + 16)?.try_into().ok()?;
        Some(if family == V4 {
            Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()
        } else {
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        })
    };
    Some(Entry {
        local: SocketAddr::new(host(8)?, port(4)?),
        remote: SocketAddr::new(host(24)?, port(6)?),
        state: *body.get(1)?,
        unread: number(56)?.into(),
        inode: number(68)?.into(),
    })
}
