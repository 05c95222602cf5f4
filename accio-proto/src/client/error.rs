//! What can go wrong in sending a file.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::handshake::HandshakeError;
use crate::os_error::reason;
use crate::{Dialect, limits};

/// Why a file was not sent. Each text says what was being done, then why it failed.
///
/// Whichever it is, the connection was reset (or never was), so a server that follows the protocol
/// has not kept the file. With one doubt that no protocol can remove: when the network fails
/// between the end of the file and its confirmation ([`ClientError::Unconfirmed`], or
/// [`ClientError::Stalled`] with all bytes sent), the server may have kept it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The client was built with a time limit that is none.
    #[error("{name} {value:?}: must be above 0 and at most {} seconds", limits::MAX_TIMEOUT.as_secs())]
    Limit {
        /// The builder's method.
        name: &'static str,
        /// What it was given.
        value: Duration,
    },

    /// The host's name has no address.
    #[error("resolve {host:?}: {}", reason(.source))]
    Resolve {
        /// The name.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// Nobody said what the host's address is within the time to connect.
    #[error("resolve {host:?}: no answer within {after:?}")]
    ResolveTimeout {
        /// The name.
        host: String,
        /// The time limit.
        after: Duration,
    },
    /// The source address cannot be used.
    #[error("source address {ip}: {}", reason(.source))]
    Source {
        /// The address.
        ip: IpAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No address of the host took the connection.
    #[error("connect to {} port {port}: {}", .host.escape_debug(), reasons(.failures))]
    Connect {
        /// The host as given.
        host: String,
        /// The port.
        port: u16,
        /// Each address, in the order tried, with what the system said.
        failures: Vec<(SocketAddr, io::Error)>,
    },
    /// No address of the host answered within the time to connect.
    #[error("connect to {} port {port}: no answer within {after:?}", .host.escape_debug())]
    ConnectTimeout {
        /// The host as given.
        host: String,
        /// The port.
        port: u16,
        /// The time limit.
        after: Duration,
    },

    /// The server's bytes are not the dialect's greeting, or it closed instead of greeting.
    #[error("{dialect} handshake with {peer}: {source}")]
    Handshake {
        /// The server.
        peer: SocketAddr,
        /// The dialect spoken to it.
        dialect: Dialect,
        /// What differs.
        source: HandshakeError,
    },
    /// The handshake was not complete in time.
    #[error("{dialect} handshake with {peer}: not complete within {after:?}")]
    HandshakeTimeout {
        /// The server.
        peer: SocketAddr,
        /// The dialect spoken to it.
        dialect: Dialect,
        /// The time limit.
        after: Duration,
    },
    /// The connection broke within the handshake.
    #[error("{dialect} handshake with {peer}: {}", reason(.source))]
    HandshakeBroken {
        /// The server.
        peer: SocketAddr,
        /// The dialect spoken to it.
        dialect: Dialect,
        /// What the system said.
        source: io::Error,
    },

    /// The server reset the connection while the file was being sent.
    #[error("send to {peer}: the server reset the connection after {sent} bytes")]
    Reset {
        /// The server.
        peer: SocketAddr,
        /// Bytes of the file handed to the system by then.
        sent: u64,
    },
    /// The server closed its side before it can have seen the end of the file.
    #[error(
        "send to {peer}: the server closed the connection before the end of the file, after {sent} bytes"
    )]
    ClosedEarly {
        /// The server.
        peer: SocketAddr,
        /// Bytes of the file handed to the system by then.
        sent: u64,
    },
    /// For too long not one byte could be sent, nor was one acknowledged.
    #[error("send to {peer}: no progress for {after:?} after {sent} bytes")]
    Stalled {
        /// The server.
        peer: SocketAddr,
        /// Bytes of the file handed to the system by then.
        sent: u64,
        /// The time limit.
        after: Duration,
    },
    /// The connection broke in another way while the file was being sent.
    #[error("send to {peer}: {} after {sent} bytes", reason(.source))]
    Send {
        /// The server.
        peer: SocketAddr,
        /// Bytes of the file handed to the system by then.
        sent: u64,
        /// What the system said.
        source: io::Error,
    },
    /// The server reset the connection after the end of the file, instead of confirming it.
    #[error("confirmation from {peer}: the server reset the connection: it has not kept the file")]
    NotKept {
        /// The server.
        peer: SocketAddr,
    },
    /// The server did not confirm in time, and whether it got all bytes is unknown: this system
    /// does not tell how much was acknowledged.
    #[error(
        "confirmation from {peer}: none within {after:?}, and whether all bytes arrived is unknown"
    )]
    Unconfirmed {
        /// The server.
        peer: SocketAddr,
        /// The time limit.
        after: Duration,
    },

    /// The source could not be read.
    #[error("read the source: {}", reason(.source))]
    Read {
        /// What the system said.
        source: io::Error,
    },
    /// The file lost bytes while it was being sent.
    #[error("read the source: it shrank from {expected} to {found} bytes while it was being sent")]
    Shrank {
        /// Bytes to send by its size at the start.
        expected: u64,
        /// Bytes there were.
        found: u64,
    },
    /// This machine failed, such as for want of descriptors.
    #[error("{what}: {}", reason(.source))]
    Local {
        /// What failed.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl ClientError {
    /// The exit code for a program that has nothing better to do: curl's numbers.
    ///
    /// 2 usage, 6 resolve, 7 connect, 26 read the file, 28 any time limit, 45 the source address, 55
    /// send, 56 receive (the handshake and the confirmation).
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::Limit { .. } => 2,
            ClientError::Resolve { .. } => 6,
            ClientError::Connect { .. } | ClientError::Local { .. } => 7,
            ClientError::Source { .. } => 45,
            ClientError::Read { .. } | ClientError::Shrank { .. } => 26,
            ClientError::ResolveTimeout { .. }
            | ClientError::ConnectTimeout { .. }
            | ClientError::HandshakeTimeout { .. }
            | ClientError::Stalled { .. }
            | ClientError::Unconfirmed { .. } => 28,
            ClientError::Reset { .. }
            | ClientError::ClosedEarly { .. }
            | ClientError::Send { .. } => 55,
            ClientError::Handshake { .. }
            | ClientError::HandshakeBroken { .. }
            | ClientError::NotKept { .. } => 56,
        }
    }

    /// A name for each kind of error that stays the same in all versions, for programs to read.
    pub fn code(&self) -> &'static str {
        match self {
            ClientError::Limit { .. } => "limit",
            ClientError::Resolve { .. } => "resolve",
            ClientError::ResolveTimeout { .. } => "resolve-timeout",
            ClientError::Source { .. } => "source-address",
            ClientError::Connect { .. } => "connect",
            ClientError::ConnectTimeout { .. } => "connect-timeout",
            ClientError::Handshake { .. } => "handshake",
            ClientError::HandshakeTimeout { .. } => "handshake-timeout",
            ClientError::HandshakeBroken { .. } => "handshake-broken",
            ClientError::Reset { .. } => "reset",
            ClientError::ClosedEarly { .. } => "closed-early",
            ClientError::Stalled { .. } => "stalled",
            ClientError::Send { .. } => "send",
            ClientError::NotKept { .. } => "not-kept",
            ClientError::Unconfirmed { .. } => "unconfirmed",
            ClientError::Read { .. } => "read",
            ClientError::Shrank { .. } => "shrank",
            ClientError::Local { .. } => "local",
        }
    }

    /// The server that had taken the connection, unless it failed earlier than that. An Accio server
    /// has counted the connection then, and holds a file for it.
    pub fn peer(&self) -> Option<SocketAddr> {
        match *self {
            ClientError::Handshake { peer, .. }
            | ClientError::HandshakeTimeout { peer, .. }
            | ClientError::HandshakeBroken { peer, .. }
            | ClientError::Reset { peer, .. }
            | ClientError::ClosedEarly { peer, .. }
            | ClientError::Stalled { peer, .. }
            | ClientError::Send { peer, .. }
            | ClientError::NotKept { peer }
            | ClientError::Unconfirmed { peer, .. } => Some(peer),
            _ => None,
        }
    }

    /// Whether the same upload may work a little later: the network or the server failed, not this
    /// machine or the caller, and the server is not of another kind or dialect.
    pub fn is_transient(&self) -> bool {
        match self {
            // The standard library keeps the resolver's code to itself; this is EAI_AGAIN.
            ClientError::Resolve { source, .. } => source.to_string().contains("emporary failure"),
            ClientError::Handshake { source, .. } => {
                matches!(source, HandshakeError::Closed { .. })
            }
            error => !error.is_local(),
        }
    }

    /// Whether this machine or the caller is to blame, not the network or the server.
    pub fn is_local(&self) -> bool {
        matches!(
            self,
            ClientError::Limit { .. }
                | ClientError::Source { .. }
                | ClientError::Read { .. }
                | ClientError::Shrank { .. }
                | ClientError::Local { .. }
        )
    }
}

/// One reason where all addresses failed alike, else each address with its own.
fn reasons(failures: &[(SocketAddr, io::Error)]) -> String {
    let mut reasons = failures.iter().map(|(address, error)| (address, reason(error)));
    let Some((_, first)) = reasons.next() else { return "it has no address".into() };
    if reasons.all(|(_, other)| other == first) {
        return first;
    }
    let each =
        failures.iter().map(|(address, error)| format!("{} {}", address.ip(), reason(error)));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_refused_connection_reads_well() {
        let failure =
            |ip: &str, errno: Errno| (SocketAddr::new(ip.parse().unwrap(), 9), errno.into());
        let error = |failures| ClientError::Connect { host: "h\x1b".into(), port: 9, failures };
        let both =
            vec![failure("::1", Errno::CONNREFUSED), failure("127.0.0.1", Errno::CONNREFUSED)];
        assert_eq!(error(both).to_string(), r"connect to h\u{1b} port 9: connection refused");
        let mixed =
            vec![failure("::1", Errno::NETUNREACH), failure("127.0.0.1", Errno::CONNREFUSED)];
        assert_eq!(
            error(mixed).to_string(),
            r"connect to h\u{1b} port 9: ::1 network is unreachable, 127.0.0.1 connection refused"
        );
        assert_eq!(error(vec![]).to_string(), r"connect to h\u{1b} port 9: it has no address");
    }
}
