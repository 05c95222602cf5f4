//! The limits of a running server, for monitoring.

use std::num::NonZeroU32;

use crate::dialect::ServerDialect;
use crate::session::SessionLimits;

/// The limits that a server enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerLimits {
    /// The dialects that the server accepts.
    pub dialect: ServerDialect,
    /// The limits of each transfer.
    pub transfer: SessionLimits,
    /// Maximum number of connections in service.
    pub max_connections: usize,
    /// Maximum number of connections in service per address.
    pub max_per_ip: Option<NonZeroU32>,
    /// Maximum number of new connections per address and second.
    pub max_new_per_ip: Option<NonZeroU32>,
}
