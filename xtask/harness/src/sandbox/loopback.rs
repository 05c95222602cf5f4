//! Starts the loopback interface of the calling thread's network namespace, which is down at first.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// RTM_NEWLINK, from linux/rtnetlink.h.
const NEW_LINK: u16 = 16;
/// NLM_F_REQUEST | NLM_F_ACK.
const REQUEST: u16 = 1 | 4;
/// IFF_UP.
const UP: u32 = 1;
/// The index of the loopback interface, the first one of every namespace.
const INDEX: u32 = 1;
/// Lengths of the message's header and of the whole message.
const HEADER: usize = 16;
const LENGTH: u32 = 32;

/// Starts it.
pub(super) fn start() -> io::Result<()> {
    let mut message = Vec::new();
    message.extend(LENGTH.to_ne_bytes());
    message.extend(NEW_LINK.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]);
    // The address family and the type are unspecified.
    message.extend([0; 4]);
    for field in [INDEX, UP, UP] {
        message.extend(field.to_ne_bytes());
    }
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is 0.
        None,
    )?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 128];
    rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    // The answer is an error code, which is 0 for success.
    let code = answer[HEADER..HEADER + 4].try_into().map_or(-1, i32::from_ne_bytes);
    match code {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}
