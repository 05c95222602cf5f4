//! Pins: digests of public keys, in curl's format.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;

use super::digest::sha256;

/// The SHA-256 digest of a certificate's public key, written like in curl: `sha256//` and base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin(pub(super) [u8; 32]);

/// A string that is not a valid pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("pin \"{}\": not sha256// and the base64 of 32 bytes", .0.escape_debug())]
pub struct InvalidPin(String);

const PREFIX: &str = "sha256//";

impl Pin {
    /// Returns the pin of a certificate's public key.
    ///
    /// # Errors
    ///
    /// Returns an error if the certificate is not valid X.509.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Pin, rustls::Error> {
        let key = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
        Ok(Pin::of_key(&key))
    }

    /// Returns the pin of a public key (`SubjectPublicKeyInfo`, in DER).
    pub fn of_key(key: &[u8]) -> Pin {
        let mut pin = [0; 32];
        pin.copy_from_slice(sha256(key).as_ref());
        Pin(pin)
    }
}

impl FromStr for Pin {
    type Err = InvalidPin;

    fn from_str(text: &str) -> Result<Self, InvalidPin> {
        let digest = text.strip_prefix(PREFIX).and_then(|digest| STANDARD.decode(digest).ok());
        let digest = digest.and_then(|digest| digest.try_into().ok());
        digest.map(Pin).ok_or_else(|| InvalidPin(text.to_owned()))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_formats_pins() {
        // printf '' | sha256sum | xxd -r -p | base64
        let empty = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(Pin::of_key(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Pin::of_key(b"")));
    }

    #[test]
    fn rejects_other_strings() {
        for bad in [
            "",
            "sha256//",
            "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "sha1//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
            "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU",
            "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=",
            "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuA==",
            "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU= ",
            "sha256//\u{e4}\n",
        ] {
            assert_eq!(bad.parse::<Pin>(), Err(InvalidPin(bad.to_owned())), "{bad:?}");
        }
    }
}
