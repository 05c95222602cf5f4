//! Errors of TLS handshakes.

use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error, OtherError};

use super::Pin;
use crate::os_error::reason;

/// The reason for a failed TLS handshake, from the server's point of view. The connection was reset,
/// and has neither a number nor a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeFailure {
    /// The first bytes of the client are not TLS: it must enable TLS.
    #[error("the client does not speak TLS: it sent \"{}\"", .0.escape_ascii())]
    NotTls(Vec<u8>),
    /// The client sent nothing until the time limit. A client without TLS waits for the greeting.
    #[error("the client sent nothing for {} s: it may not use TLS", .0.as_secs_f64())]
    Silent(Duration),
    /// The client sent nothing, and closed the connection when it received the first TLS message.
    #[error(
        "the client does not speak TLS: it sent nothing and closed the connection at the first TLS message"
    )]
    Plain,
    /// The handshake was not complete within the idle timeout, although the client sent a part of it.
    #[error("the TLS handshake was not complete within {} s", .0.as_secs_f64())]
    Late(Duration),
    /// The client closed the connection during the handshake.
    #[error("the client closed the connection during the TLS handshake")]
    Closed,
    /// The connection failed during the handshake: the client was killed, or the network failed.
    #[error("the connection was lost during the TLS handshake: {}", reason(.0))]
    Lost(io::Error),
    /// The handshake exceeded its maximum number of bytes: the client is faulty or an attacker, or its
    /// chain of certificates is very long.
    #[error("the TLS handshake took more than {0} bytes")]
    TooLong(usize),
    /// The identity has its [maximum number](crate::ServerBuilder::max_per_identity) of connections.
    #[error("{identity} already has {max} connections")]
    TooMany {
        /// The identity.
        identity: String,
        /// The maximum number of connections per identity.
        max: u32,
    },
    /// The TLS protocol failed: the client has no accepted certificate, does not trust that of the
    /// server, or has no version or cipher suite in common with it. The error says which.
    #[error("TLS handshake: {}", describe(.0))]
    Tls(Error),
}

impl From<Error> for HandshakeFailure {
    fn from(error: Error) -> Self {
        HandshakeFailure::Tls(error)
    }
}

impl HandshakeFailure {
    /// Returns a word for the reason, for other programs. It is the same in all versions.
    ///
    /// The words are `tls-plain`, `tls-silent`, `tls-late`, `tls-lost`, `tls-too-long`,
    /// `tls-too-many`, `tls-no-certificate`, `tls-unknown-client`, `tls-refused` (by the client),
    /// `tls-incompatible`, and `tls-invalid` for any other violation of TLS.
    pub fn code(&self) -> &'static str {
        match self {
            HandshakeFailure::NotTls(_) | HandshakeFailure::Plain => "tls-plain",
            HandshakeFailure::Silent(_) => "tls-silent",
            HandshakeFailure::Late(_) => "tls-late",
            HandshakeFailure::Closed | HandshakeFailure::Lost(_) => "tls-lost",
            HandshakeFailure::TooLong(_) => "tls-too-long",
            HandshakeFailure::TooMany { .. } => "tls-too-many",
            HandshakeFailure::Tls(error) => match error {
                Error::NoCertificatesPresented => "tls-no-certificate",
                Error::InvalidCertificate(_) => "tls-unknown-client",
                Error::AlertReceived(_) => "tls-refused",
                Error::PeerIncompatible(_) | Error::NoApplicationProtocol => "tls-incompatible",
                _ => "tls-invalid",
            },
        }
    }
}

/// A rustls error within an [`io::Error`], with our own text for terse messages.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe(.0))]
struct Invalid(Error);

/// Returns the error of a connection whose bytes are not valid TLS, or that received an alert.
pub(crate) fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Invalid(error))
}

/// Returns the rustls error within an error of a connection, if there is one.
#[cfg(feature = "client")]
pub(crate) fn error_of(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref().map(|Invalid(error)| error)
}

/// The key of a client that is not listed.
#[derive(Debug, thiserror::Error)]
#[error("the client's key is not listed: {0}")]
pub(crate) struct UnknownClient(pub(crate) Pin);

/// The key of a server that is not the expected one.
#[derive(Debug, thiserror::Error)]
#[error("the server has another key: {0}")]
pub(crate) struct OtherServer(pub(crate) Pin);

/// Describes the error, with our own text where that of rustls is terse.
pub(crate) fn describe(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(why)))
            if why.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity) =>
        {
            "the certificate is one of an authority, not of a server or client".into()
        }
        Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => why.to_string(),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the certificate is not signed by a trusted authority".into()
        }
        Error::NoCertificatesPresented => "the client presented no certificate".into(),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "the server requires a client certificate".into()
        }
        Error::AlertReceived(alert) => format!("the peer refused: {}", words(*alert)),
        other => other.to_string(),
    }
}

/// Returns the name of an alert as in its specification: `unknown_ca` for `UnknownCA`.
fn words(alert: AlertDescription) -> String {
    let name = format!("{alert:?}");
    let mut words = String::with_capacity(name.len() + 4);
    let mut was_upper = true;
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !was_upper {
            words.push('_');
        }
        was_upper = letter.is_ascii_uppercase();
        words.push(letter.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn each_failure_has_a_code_and_a_text() {
        let io = || io::Error::from(io::ErrorKind::ConnectionReset);
        let unknown = CertificateError::Other(OtherError(Arc::new(UnknownClient(Pin([0; 32])))));
        for (failure, code, text) in [
            (
                HandshakeFailure::NotTls(b"GET /\r\n".to_vec()),
                "tls-plain",
                r#"the client does not speak TLS: it sent "GET /\r\n""#,
            ),
            (
                HandshakeFailure::Silent(Duration::from_secs(10)),
                "tls-silent",
                "the client sent nothing for 10 s: it may not use TLS",
            ),
            (
                HandshakeFailure::Late(Duration::from_millis(2500)),
                "tls-late",
                "the TLS handshake was not complete within 2.5 s",
            ),
            (
                HandshakeFailure::Lost(io()),
                "tls-lost",
                "the connection was lost during the TLS handshake: connection reset",
            ),
            (
                Error::AlertReceived(AlertDescription::UnknownCA).into(),
                "tls-refused",
                "TLS handshake: the peer refused: unknown_ca",
            ),
            (
                Error::NoCertificatesPresented.into(),
                "tls-no-certificate",
                "TLS handshake: the client presented no certificate",
            ),
            (
                Error::InvalidCertificate(unknown).into(),
                "tls-unknown-client",
                "TLS handshake: the client's key is not listed: \
                 sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            ),
        ] {
            assert_eq!(failure.code(), code);
            assert_eq!(failure.to_string(), text);
        }
        assert_eq!(HandshakeFailure::Closed.code(), "tls-lost");
        assert_eq!(HandshakeFailure::Plain.code(), "tls-plain");
        assert_eq!(HandshakeFailure::TooLong(1).code(), "tls-too-long");
        assert_eq!(HandshakeFailure::from(Error::NoApplicationProtocol).code(), "tls-incompatible");
        assert_eq!(HandshakeFailure::from(Error::DecryptError).code(), "tls-invalid");
    }

    #[test]
    fn names_alerts_as_in_their_specification() {
        assert_eq!(words(AlertDescription::UnknownCA), "unknown_ca");
        assert_eq!(words(AlertDescription::BadCertificate), "bad_certificate");
        assert_eq!(words(AlertDescription::NoApplicationProtocol), "no_application_protocol");
    }
}
