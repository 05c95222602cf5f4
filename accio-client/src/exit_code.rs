//! Exit codes, the same as curl's.

use accio_proto::{ClientError, TlsFailure};

/// Exit code for a failure of this machine.
pub(crate) const LOCAL: u8 = 7;

/// Exit code for standard output that cannot be written.
pub(crate) const WRITE: u8 = 23;

/// Exit code for a file that cannot be read.
pub(crate) const READ: u8 = 26;

/// Exit code for a time limit.
pub(crate) const TIMEOUT: u8 = 28;

/// Returns the exit code for an error of the library.
pub(crate) fn exit_code(error: &ClientError) -> u8 {
    match error {
        ClientError::Limit { .. } => 2,
        ClientError::Resolve { .. } | ClientError::NoAddress { .. } => 6,
        ClientError::Connect { .. } | ClientError::Local { .. } => LOCAL,
        ClientError::Read { .. } | ClientError::Shrank { .. } => READ,
        ClientError::ResolveTimeout { .. }
        | ClientError::ConnectTimeout { .. }
        | ClientError::HandshakeTimeout { .. }
        | ClientError::Stalled { .. }
        | ClientError::Unconfirmed { .. }
        | ClientError::TransferTimeout { .. } => TIMEOUT,
        ClientError::Source { .. } => 45,
        ClientError::TlsName { .. } => 35,
        ClientError::Tls { cause, .. } => match cause {
            TlsFailure::Late(_) => 28,
            TlsFailure::Untrusted(_) => 60,
            TlsFailure::Truncated => 56,
            _ => 35,
        },
        ClientError::Reset { .. } | ClientError::ClosedEarly { .. } | ClientError::Send { .. } => {
            55
        }
        ClientError::Handshake { .. }
        | ClientError::HandshakeBroken { .. }
        | ClientError::NotKept { .. } => 56,
        // An error that a later version of the library adds.
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use accio_proto::handshake::HandshakeError;
    use accio_proto::{Dialect, Family};

    use super::*;

    #[test]
    fn each_error_has_the_exit_code_of_curl() {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let (dialect, after, sent) = (Dialect::Accio, Duration::from_secs(10), 1);
        let host = || "h".to_owned();
        let cause = || io::Error::from(io::ErrorKind::Other);
        let closed = HandshakeError::Closed { expected: b"x", matched: 0 };
        for (error, code) in [
            (ClientError::Limit { name: "stall_timeout", value: Duration::ZERO }, 2),
            (ClientError::Resolve { host: host(), is_temporary: true, cause: cause() }, 6),
            (ClientError::NoAddress { host: host(), family: Family::Ipv6 }, 6),
            (ClientError::ResolveTimeout { host: host(), after }, 28),
            (ClientError::Source { address: peer, cause: cause() }, 45),
            (ClientError::Connect { host: host(), port: 9, failures: vec![] }, 7),
            (ClientError::ConnectTimeout { host: host(), port: 9, after }, 28),
            (ClientError::Handshake { peer, dialect, cause: closed }, 56),
            (ClientError::HandshakeTimeout { peer, dialect, after }, 28),
            (ClientError::HandshakeBroken { peer, dialect, cause: cause() }, 56),
            (ClientError::Reset { peer, sent }, 55),
            (ClientError::ClosedEarly { peer, sent }, 55),
            (ClientError::Stalled { peer, sent, end_sent: false, after }, 28),
            (ClientError::Send { peer, sent, end_sent: false, cause: cause() }, 55),
            (ClientError::NotKept { peer }, 56),
            (ClientError::Unconfirmed { peer, after }, 28),
            (ClientError::TransferTimeout { peer: None, sent, end_sent: false, after }, 28),
            (ClientError::Read { cause: cause() }, 26),
            (ClientError::Shrank { expected: 2, found: 1 }, 26),
            (ClientError::Local { what: "open a socket", cause: cause() }, 7),
        ] {
            assert_eq!(exit_code(&error), code, "{error}");
        }
    }
}
