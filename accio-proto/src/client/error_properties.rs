//! Properties of the client's errors, for programs that decide whether to retry.

use std::io;
use std::net::SocketAddr;

use super::error::ClientError;
use super::tls_failure::TlsFailure;
use crate::handshake::HandshakeError;
use crate::sys::client::{is_local_failure, is_shortage};

impl ClientError {
    /// Returns a name for the kind of error, for other programs. It is the same in all versions.
    pub fn code(&self) -> &'static str {
        match self {
            ClientError::Limit { .. } => "limit",
            ClientError::Resolve { .. } | ClientError::NoAddress { .. } => "resolve",
            ClientError::ResolveTimeout { .. } => "resolve-timeout",
            ClientError::Source { .. } => "source-address",
            ClientError::Connect { .. } if self.is_local() => "local",
            ClientError::Connect { .. } => "connect",
            ClientError::ConnectTimeout { .. } => "connect-timeout",
            ClientError::TlsName { .. } => "tls-name",
            ClientError::Tls { cause, .. } => cause.code(),
            ClientError::Handshake { .. } => "handshake",
            ClientError::HandshakeTimeout { .. } => "handshake-timeout",
            ClientError::HandshakeBroken { .. } => "handshake-broken",
            ClientError::Reset { .. } => "reset",
            ClientError::ClosedEarly { .. } => "closed-early",
            ClientError::Stalled { .. } => "stalled",
            ClientError::Send { .. } => "send",
            ClientError::NotKept { .. } => "not-kept",
            ClientError::Unconfirmed { .. } => "unconfirmed",
            ClientError::TransferTimeout { .. } => "transfer-timeout",
            ClientError::Read { .. } => "read",
            ClientError::Shrank { .. } => "shrank",
            ClientError::Local { .. } => "local",
        }
    }

    /// Returns the address of the server, if the connection was established. An Accio server has then
    /// given the connection a number and stores a file for it, unless the TLS handshake failed
    /// ([`Tls`](ClientError::Tls)).
    pub fn peer(&self) -> Option<SocketAddr> {
        match *self {
            ClientError::Tls { peer, .. }
            | ClientError::Handshake { peer, .. }
            | ClientError::HandshakeTimeout { peer, .. }
            | ClientError::HandshakeBroken { peer, .. }
            | ClientError::Reset { peer, .. }
            | ClientError::ClosedEarly { peer, .. }
            | ClientError::Stalled { peer, .. }
            | ClientError::Send { peer, .. }
            | ClientError::NotKept { peer }
            | ClientError::Unconfirmed { peer, .. } => Some(peer),
            ClientError::TransferTimeout { peer, .. } => peer,
            _ => None,
        }
    }

    /// Returns whether the server may have stored the file although it was not confirmed: the whole
    /// file and its end were sent, and then the network failed or a time limit ended the wait for the
    /// confirmation. A retry may then store the file a second time, under another number. If this is
    /// false, a server that follows the protocol has not stored the file.
    ///
    /// A server that is killed in the moment between storing and confirming a file resets the
    /// connection, which looks like a server that has not kept it ([`NotKept`](ClientError::NotKept)).
    pub fn may_be_stored(&self) -> bool {
        match *self {
            ClientError::Unconfirmed { .. } => true,
            ClientError::Tls { cause: TlsFailure::Required | TlsFailure::Refused(_), .. } => false,
            ClientError::Tls { end_sent, .. }
            | ClientError::Stalled { end_sent, .. }
            | ClientError::Send { end_sent, .. }
            | ClientError::TransferTimeout { end_sent, .. } => end_sent,
            _ => false,
        }
    }

    /// Returns this error for an upload whose end was sent.
    pub(super) fn after_end(mut self) -> Self {
        if let ClientError::Tls { end_sent, .. }
        | ClientError::Stalled { end_sent, .. }
        | ClientError::Send { end_sent, .. }
        | ClientError::TransferTimeout { end_sent, .. } = &mut self
        {
            *end_sent = true;
        }
        self
    }

    /// Returns whether the same upload may succeed later: the network or the server failed and the
    /// server speaks the same protocol and dialect, or this machine lacks descriptors, memory or ports.
    pub fn is_transient(&self) -> bool {
        match self {
            ClientError::Resolve { is_temporary, .. } => *is_temporary,
            ClientError::NoAddress { .. } => false,
            ClientError::Handshake { cause, .. } => matches!(cause, HandshakeError::Closed { .. }),
            ClientError::Tls { cause, .. } => cause.is_transient(),
            ClientError::Read { cause } => is_shortage(cause),
            error => match error.local_cause() {
                Some(cause) => is_shortage(cause),
                None => !error.is_local(),
            },
        }
    }

    /// Returns the error of the operating system that only this machine can have caused: a lack of
    /// descriptors, memory or ports, a link-local address without its scope, or a firewall.
    pub fn local_cause(&self) -> Option<&io::Error> {
        match self {
            ClientError::Local { cause, .. } => Some(cause),
            ClientError::Connect { failures, .. } => {
                let is_local = failures.iter().all(|(_, error)| is_local_failure(error));
                failures.first().filter(|_| is_local).map(|(_, error)| error)
            }
            _ => None,
        }
    }

    /// Returns whether the cause is this machine or the caller, not the network or the server.
    pub fn is_local(&self) -> bool {
        matches!(
            self,
            ClientError::Limit { .. }
                | ClientError::TlsName { .. }
                | ClientError::Source { .. }
                | ClientError::Read { .. }
                | ClientError::Shrank { .. }
        ) || self.local_cause().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::client::family::Family;
    use crate::dialect::Dialect;

    #[test]
    fn only_a_temporary_resolver_failure_is_transient() {
        for is_temporary in [false, true] {
            let cause = io::Error::other("no answer");
            let error = ClientError::Resolve { host: "h".into(), is_temporary, cause };
            assert_eq!((error.is_transient(), error.code()), (is_temporary, "resolve"));
        }
        let error = ClientError::NoAddress { host: "h".into(), family: Family::Ipv6 };
        assert_eq!(error.to_string(), r#"resolve "h": it has no IPv6 address"#);
        assert!(!error.is_transient() && !error.is_local());
    }

    /// Returns errors of every variant, with each value on which a property depends.
    fn samples() -> Vec<ClientError> {
        let (peer, after) = (SocketAddr::from(([127, 0, 0, 1], 9)), Duration::from_secs(1));
        let dialect = Dialect::Accio;
        let (host, sent) = (|| "host".to_owned(), 5);
        let no_descriptors = || io::Error::from_raw_os_error(24);
        let invalid = || io::Error::from_raw_os_error(22);
        let other = || io::Error::other("the cause");
        let connect = |cause| {
            let failures = vec![(peer, cause)];
            ClientError::Connect { host: host(), port: 9, failures }
        };
        let handshake = |cause| ClientError::Handshake { peer, dialect, cause };
        let expected = crate::GREETING;
        let mut samples = vec![
            ClientError::Limit { name: "timeout", value: after },
            ClientError::Resolve { host: host(), is_temporary: true, cause: other() },
            ClientError::Resolve { host: host(), is_temporary: false, cause: other() },
            ClientError::NoAddress { host: host(), family: Family::Ipv6 },
            ClientError::ResolveTimeout { host: host(), after },
            ClientError::Source { address: peer, cause: invalid() },
            ClientError::Source { address: peer, cause: no_descriptors() },
            connect(other()),
            connect(invalid()),
            connect(no_descriptors()),
            ClientError::ConnectTimeout { host: host(), port: 9, after },
            ClientError::TlsName { host: host() },
            handshake(HandshakeError::Mismatch { expected, got: b"x".into() }),
            handshake(HandshakeError::Closed { expected, matched: 3 }),
            ClientError::HandshakeTimeout { peer, dialect, after },
            ClientError::HandshakeBroken { peer, dialect, cause: other() },
            ClientError::Reset { peer, sent },
            ClientError::ClosedEarly { peer, sent },
            ClientError::NotKept { peer },
            ClientError::Unconfirmed { peer, after },
            ClientError::Read { cause: other() },
            ClientError::Read { cause: no_descriptors() },
            ClientError::Shrank { expected: 2, found: 1 },
            ClientError::Local { what: "open a socket", cause: invalid() },
            ClientError::Local { what: "open a socket", cause: no_descriptors() },
        ];
        for end_sent in [false, true] {
            samples.extend([
                ClientError::Tls { peer, end_sent, cause: TlsFailure::Truncated },
                ClientError::Tls { peer, end_sent, cause: TlsFailure::Required },
                ClientError::Stalled { peer, sent, end_sent, after },
                ClientError::Send { peer, sent, end_sent, cause: other() },
                ClientError::TransferTimeout { peer: Some(peer), sent, end_sent, after },
            ]);
        }
        samples
    }

    /// "yes" and "no" hold for all samples of a variant; any other text is a condition, which holds
    /// for some of them only.
    #[test]
    fn the_table_of_the_errors_is_right() {
        let source = include_str!("error.rs");
        let rows = source.lines().filter_map(|line| line.strip_prefix("/// | [`"));
        let rows: Vec<(&str, Vec<&str>)> = rows
            .map(|row| {
                let (variant, cells) = row.split_once('`').unwrap();
                (variant, cells.split('|').skip(1).map(str::trim).collect())
            })
            .collect();
        let variants = source.lines().filter_map(|line| {
            let name = line.strip_prefix("    ")?.split_once(" {")?.0;
            (name.starts_with(char::is_uppercase) && name.chars().all(char::is_alphanumeric))
                .then_some(name)
        });
        assert!(rows.iter().map(|(variant, _)| *variant).eq(variants), "{rows:?}");
        let samples = samples();
        let properties: [fn(&ClientError) -> bool; 3] =
            [ClientError::may_be_stored, ClientError::is_transient, ClientError::is_local];
        for (variant, cells) in &rows {
            let name =
                |error: &ClientError| format!("{error:?}").split(' ').next() == Some(variant);
            let samples: Vec<_> = samples.iter().filter(|error| name(error)).collect();
            for (cell, property) in cells[1..4].iter().zip(properties) {
                let found: BTreeSet<_> = samples.iter().map(|error| property(error)).collect();
                let expected = match *cell {
                    "yes" => BTreeSet::from([true]),
                    "no" => BTreeSet::from([false]),
                    _ => BTreeSet::from([false, true]),
                };
                assert_eq!(found, expected, "{variant}: {cell}");
            }
        }
    }
}
