//! The ends of connections.

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer closed its side.
    Fin,
    /// The peer reset the connection.
    Reset,
    /// The connection was still open at the time limit.
    Open,
}
