//! Finds out whether and how a program has ended a connection, without reading from it.

use std::io::{self, ErrorKind};

use accio_harness::peer::Peer;

/// The state of the other side of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OtherSide {
    Open,
    Closed,
    Reset,
}

/// Looks at the other side once. The kernel reports a reset once; afterwards the connection looks as if
/// it had been closed.
pub(crate) fn look(peer: &Peer) -> OtherSide {
    // After the other side's FIN, a reset is only a pending error.
    if matches!(peer.stream().take_error(), Ok(Some(_))) {
        return OtherSide::Reset;
    }
    match peek(peer) {
        Ok(0) => OtherSide::Closed,
        Ok(_) => OtherSide::Open,
        Err(error) if error.kind() == ErrorKind::WouldBlock => OtherSide::Open,
        Err(_) => OtherSide::Reset,
    }
}

/// Returns whether the other side has reset the connection.
pub(crate) fn was_reset(peer: &Peer) -> bool {
    look(peer) == OtherSide::Reset
}

/// Looks at the next byte; returns 0 at the end.
pub(crate) fn peek(peer: &Peer) -> io::Result<usize> {
    let stream = peer.stream();
    stream.set_nonblocking(true)?;
    let seen = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    seen
}
