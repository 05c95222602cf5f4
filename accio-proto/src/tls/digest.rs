//! The digest for pins.

use rustls::SupportedCipherSuite;
use rustls::crypto::hash::Output;

/// Computes the digest for pins, with the implementation that TLS uses anyway.
pub(super) fn sha256(bytes: &[u8]) -> Output {
    match rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256 {
        SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider.hash(bytes),
        // The constant is a cipher suite of TLS 1.3.
        #[allow(unreachable_patterns, reason = "reachable with rustls's feature tls12")]
        _ => unreachable!("TLS13_AES_128_GCM_SHA256 is a suite of TLS 1.3"),
    }
}
