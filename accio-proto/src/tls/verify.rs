//! Certificate verification by public key instead of by an authority.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};

use super::error::{OtherServer, UnknownClient};
use super::{KnownClients, Pin};

/// Accepts a server whose public key is one of these, regardless of the rest of its certificate.
///
/// The server must prove that it has the private key. Names and dates in the certificate are not
/// checked.
#[derive(Debug)]
pub struct PinnedServer {
    pins: Vec<Pin>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Accepts a client whose public key is listed, regardless of the rest of its certificate.
///
/// The client must prove that it has the private key. A client without a certificate is refused.
#[derive(Debug)]
pub struct ListedClients {
    clients: Arc<KnownClients>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedServer {
    /// Creates a verifier for these public keys.
    pub fn new(pins: impl IntoIterator<Item = Pin>, provider: &CryptoProvider) -> Self {
        let pins = pins.into_iter().collect();
        PinnedServer { pins, algorithms: provider.signature_verification_algorithms }
    }
}

impl ListedClients {
    /// Creates a verifier for these clients.
    pub fn new(clients: Arc<KnownClients>, provider: &CryptoProvider) -> Self {
        ListedClients { clients, algorithms: provider.signature_verification_algorithms }
    }
}

/// Defines the methods that both verifiers have in common: the check of signatures.
macro_rules! verify_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &self.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for PinnedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pin = Pin::of(end_entity)?;
        match self.pins.contains(&pin) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(refused(OtherServer(pin))),
        }
    }

    verify_signatures!();
}

impl ClientCertVerifier for ListedClients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let pin = Pin::of(end_entity)?;
        match self.clients.name(&pin) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(refused(UnknownClient(pin))),
        }
    }

    verify_signatures!();
}

fn refused(why: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}
