//! The events that a connection waits for.

/// Events to watch a socket for. Data after the end, errors and resets are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes or the end of the stream.
    Read,
    /// Bytes, the end of the stream, or room in the send buffer.
    ReadWrite,
}
