//! Messages between the server and its helper.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The decision of `--accept-if` on a file.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Decision {
    pub(super) id: u64,
    /// The reason of a rejection.
    pub(super) rejected: Option<String>,
}

/// Maximum size of a message (64 KiB). The identity of a client is the longest field and comes from
/// a certificate, whose size the TLS library limits.
const MAX: usize = 64 << 10;

/// Creates a connected pair of sockets that keep messages apart.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}

/// Sends a message, and a descriptor with it, and waits for room.
pub(super) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptor: Option<&OwnedFd>,
) -> io::Result<()> {
    send_with(socket, message, descriptor, SendFlags::empty())
}

/// Sends a message, and a descriptor with it.
///
/// # Errors
///
/// Returns [`WouldBlock`](io::ErrorKind::WouldBlock) if there is no room for it.
pub(super) fn try_send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptor: Option<&OwnedFd>,
) -> io::Result<()> {
    send_with(socket, message, descriptor, SendFlags::DONTWAIT)
}

/// Waits until there is room for a message or the connection has ended, but not longer than `limit`.
pub(super) fn wait_for_room(socket: impl AsFd, limit: Duration) -> io::Result<()> {
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    let mut entries = [PollFd::new(&socket, PollFlags::OUT)];
    match poll(&mut entries, Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn send_with(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptor: Option<&OwnedFd>,
    flags: SendFlags,
) -> io::Result<()> {
    let text = serde_json::to_vec(message)?;
    if text.len() > MAX {
        return Err(io::Error::other("the message is too long"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(AsFd::as_fd);
    let descriptors = descriptors.as_slice();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(&socket, &[IoSlice::new(&text)], &mut control, flags | SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives a message and its descriptor; `None` if the other side has ended.
pub(super) fn receive<T: DeserializeOwned>(
    socket: impl AsFd,
) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut text = vec![0; MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let parts = &mut [IoSliceMut::new(&mut text)];
        recvmsg(&socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut descriptor = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            descriptor = descriptors.last();
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    Ok(Some((serde_json::from_slice(&text[..received.bytes])?, descriptor)))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use super::*;
    use crate::commands::setup::Job;

    #[test]
    fn messages_keep_their_bounds_and_descriptors() {
        let (near, far) = pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        file.rewind().unwrap();
        let job = |id| Job { id, bytes: 7, peer: None, identity: Some("a".into()), digest: None };
        send(&near, &job(1), Some(&file.into())).unwrap();
        send(&near, &job(2), None).unwrap();
        let (first, descriptor) = receive::<Job>(&far).unwrap().unwrap();
        let mut content = String::new();
        File::from(descriptor.unwrap()).read_to_string(&mut content).unwrap();
        assert_eq!((first.id, &*content), (1, "content"));
        let (second, descriptor) = receive::<Job>(&far).unwrap().unwrap();
        assert_eq!((second.id, second.identity.as_deref()), (2, Some("a")));
        assert!(descriptor.is_none());
        let rejected = Decision { id: 2, rejected: Some("x".repeat(1000)) };
        send(&far, &rejected, None).unwrap();
        assert_eq!(receive::<Decision>(&near).unwrap().unwrap().0, rejected);
        drop(far);
        assert!(receive::<Decision>(&near).unwrap().is_none());
        send(&near, &job(3), None).unwrap_err();
    }
}
