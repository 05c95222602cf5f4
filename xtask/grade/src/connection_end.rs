//! Finds out whether and how a program has ended a connection, without reading from it.

use std::io::{self, ErrorKind};

use accio_harness::peer::Peer;

/// Returns whether the other side has closed the connection, without a reset.
pub(crate) fn is_closed(peer: &Peer) -> bool {
    matches!(peek(peer), Ok(0))
}

/// Returns whether the other side has reset the connection.
pub(crate) fn was_reset(peer: &Peer) -> bool {
    // After the other side's FIN, a reset is only a pending error.
    matches!(peer.stream().take_error(), Ok(Some(_)))
        || peek(peer).is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
}

/// Looks at the next byte; returns 0 at the end.
pub(crate) fn peek(peer: &Peer) -> io::Result<usize> {
    let stream = peer.stream();
    stream.set_nonblocking(true)?;
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    seen
}
