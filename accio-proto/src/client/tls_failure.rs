//! TLS errors of a client.

use std::io::{self, ErrorKind};
use std::time::Duration;

use crate::os_error::reason;

/// Reason for a TLS failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFailure {
    /// The server requires TLS, which the client does not use: enable it in the builder.
    #[error("the server requires TLS, which is not enabled")]
    Required,
    /// The first bytes of the server are not TLS: use the port on which it speaks TLS, or none.
    #[error("the server does not speak TLS: it sent \"{}\"", .0.escape_ascii())]
    Plain(Vec<u8>),
    /// The handshake was not complete within the
    /// [handshake timeout](crate::ClientBuilder::handshake_timeout): the server is busy, or waits for a
    /// client without TLS. Try again later.
    #[error("the handshake was not complete within {0:?}: the server may be busy or not speak TLS")]
    Late(Duration),
    /// The server closed the connection during the handshake. Try again later.
    #[error("the server closed the connection during the handshake")]
    Closed,
    /// The connection failed during the handshake. If the server reset it, its rules may refuse this
    /// address, or limit the connections of an address; otherwise try again later.
    #[error("the connection was lost during the handshake: {}", reason(.0))]
    Lost(io::Error),
    /// The certificate or key of the server is not the expected one. Check the host name, the
    /// authorities or pins of the configuration, and the dates of the certificate; it may also be
    /// another server than intended.
    #[error("{}", reason(.0))]
    Untrusted(io::Error),
    /// The server rejected the client with an alert: in most cases it requires a certificate that the
    /// client does not have, or does not know the key of its certificate.
    #[error("{}", reason(.0))]
    Refused(io::Error),
    /// The bytes of the server are not valid TLS, or the two have no version, cipher suite or ALPN
    /// protocol in common. Compare both configurations.
    #[error("{}", reason(.0))]
    Invalid(io::Error),
    /// The connection ended without close_notify, so the server has not confirmed the file: it was
    /// killed, or an attacker on the network cut the connection. A retry may succeed.
    #[error("the connection was cut: it ended without close_notify")]
    Truncated,
}

impl TlsFailure {
    /// Returns the failure that an error of a connection contains; any other error is returned
    /// unchanged.
    pub(super) fn of(error: io::Error) -> Result<Self, io::Error> {
        match error.kind() {
            ErrorKind::UnexpectedEof => Ok(TlsFailure::Truncated),
            #[cfg(feature = "tls")]
            ErrorKind::InvalidData => Ok(match crate::tls::error_of(&error) {
                Some(rustls::Error::AlertReceived(_)) => TlsFailure::Refused(error),
                _ => TlsFailure::Invalid(error),
            }),
            _ => Err(error),
        }
    }

    /// Returns a name for the kind of failure, for other programs. It is the same in all versions.
    pub fn code(&self) -> &'static str {
        match self {
            TlsFailure::Required => "tls-required",
            TlsFailure::Plain(_) => "tls-plain",
            TlsFailure::Late(_) => "tls-timeout",
            TlsFailure::Closed | TlsFailure::Lost(_) => "tls-lost",
            TlsFailure::Untrusted(_) => "tls-untrusted",
            TlsFailure::Refused(_) => "tls-refused",
            TlsFailure::Invalid(_) => "tls-invalid",
            TlsFailure::Truncated => "truncated",
        }
    }

    /// Returns whether the same upload may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            TlsFailure::Late(_) | TlsFailure::Closed | TlsFailure::Lost(_) | TlsFailure::Truncated
        )
    }
}

#[cfg(feature = "tls")]
impl From<crate::tls::HandshakeFailure> for TlsFailure {
    fn from(failure: crate::tls::HandshakeFailure) -> Self {
        use crate::tls::HandshakeFailure;

        match failure {
            HandshakeFailure::NotTls(bytes) => TlsFailure::Plain(bytes),
            HandshakeFailure::Closed => TlsFailure::Closed,
            HandshakeFailure::Lost(error) => TlsFailure::Lost(error),
            HandshakeFailure::Tls(error) => {
                let kind = match &error {
                    rustls::Error::InvalidCertificate(_) => TlsFailure::Untrusted,
                    rustls::Error::AlertReceived(_) => TlsFailure::Refused,
                    _ => TlsFailure::Invalid,
                };
                kind(crate::tls::invalid(error))
            }
            other => TlsFailure::Invalid(io::Error::new(ErrorKind::InvalidData, other)),
        }
    }
}
