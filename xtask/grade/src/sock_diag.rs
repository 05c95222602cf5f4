//! Asks the kernel about single TCP sockets (NETLINK_SOCK_DIAG). The tables in /proc are too slow
//! on a machine with tens of thousands of sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::socket_entry::Entry;

/// SOCK_DIAG_BY_FAMILY, from linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
/// NLM_F_REQUEST.
const REQUEST: u16 = 1;
/// NLM_F_DUMP: return all matching sockets.
const DUMP: u16 = 0x300;
/// NLMSG_ERROR and NLMSG_DONE.
const ENDS: [u16; 2] = [2, 3];
const TCP: u8 = 6;
const V4: u8 = 2;
const V6: u8 = 10;
/// Length of the header of a netlink message.
const HEADER: usize = 16;
/// Length of a request.
const LENGTH: usize = HEADER + 56;

/// Returns the socket in our network namespace that listens at `local`, or the one that is
/// connected with `remote`; `None` if there is none or the kernel does not report it.
pub(crate) fn find(local: (Ipv4Addr, u16), remote: Option<(Ipv4Addr, u16)>) -> Option<Entry> {
    let remote = remote.unwrap_or((Ipv4Addr::UNSPECIFIED, 0));
    ask(&request(REQUEST, V4, u32::MAX, local, remote)).ok().flatten()
}

/// Returns the sockets in our network namespace that are in one of `states`, a bit mask, and whose
/// peer is `remote`; `None` if the kernel does not report them.
pub(crate) fn all_to(remote: SocketAddr, states: u32) -> Option<Vec<Entry>> {
    let any = (Ipv4Addr::UNSPECIFIED, 0);
    let to = (Ipv4Addr::UNSPECIFIED, remote.port());
    let mut found = Vec::new();
    // A client may connect to an IPv4 address with an IPv6 socket.
    for family in [V4, V6] {
        let message = request(REQUEST | DUMP, family, states, any, to);
        found.extend(ask_for_all(&message).ok()?);
    }
    found.retain(|entry| entry.remote == remote);
    Some(found)
}

fn request(
    flags: u16,
    family: u8,
    states: u32,
    local: (Ipv4Addr, u16),
    (remote_host, remote_port): (Ipv4Addr, u16),
) -> Vec<u8> {
    let mut message = Vec::with_capacity(LENGTH);
    // LENGTH fits into 32 bits.
    message.extend(u32::try_from(LENGTH).unwrap_or_default().to_ne_bytes());
    message.extend(BY_FAMILY.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, TCP, 0, 0]);
    message.extend(states.to_ne_bytes());
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

fn sent(message: &[u8]) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(rustix::net::netlink::SOCK_DIAG),
    )?;
    rustix::net::send(&socket, message, SendFlags::empty())?;
    Ok(socket)
}

fn ask_for_all(message: &[u8]) -> Result<Vec<Entry>, Errno> {
    let socket = sent(message)?;
    let mut buffer = vec![0; 64 << 10];
    let mut found = Vec::new();
    loop {
        let (count, _) = rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let mut left = &buffer[..count];
        while let Some((length, kind)) = header(left) {
            if ENDS.contains(&kind) {
                return Ok(found);
            }
            found.extend(parse(left));
            left = left.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

/// Returns the length and type of the first message, if there is one.
fn header(messages: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(messages.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(messages.get(4..6)?.try_into().ok()?);
    (length >= HEADER).then_some((length, kind))
}

fn ask(message: &[u8]) -> Result<Option<Entry>, Errno> {
    let socket = sent(message)?;
    let mut answer = [0; 1024];
    let (count, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    Ok(parse(&answer[..count]))
}

fn parse(answer: &[u8]) -> Option<Entry> {
    // Any other type is an error, such as "no such socket".
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
        unacknowledged: number(60)?.into(),
        inode: number(68)?.into(),
    })
}
