//! Digests of content: the algorithms and the values.

use std::fmt;
use std::str::FromStr;

/// A hash algorithm for content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DigestAlgorithm {
    /// SHA-256, which `sha256sum` computes.
    Sha256,
    /// BLAKE3 with its default output of 256 bits, which `b3sum` computes. Several times as fast on
    /// most processors.
    Blake3,
}

impl DigestAlgorithm {
    /// All algorithms.
    pub const ALL: [DigestAlgorithm; 2] = [DigestAlgorithm::Sha256, DigestAlgorithm::Blake3];

    /// Returns the name for command lines and records.
    pub const fn name(self) -> &'static str {
        match self {
            DigestAlgorithm::Sha256 => "sha256",
            DigestAlgorithm::Blake3 => "blake3",
        }
    }
}

impl fmt::Display for DigestAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DigestAlgorithm {
    type Err = InvalidDigest;

    fn from_str(value: &str) -> Result<Self, InvalidDigest> {
        let found = DigestAlgorithm::ALL.into_iter().find(|algorithm| algorithm.name() == value);
        found.ok_or_else(|| InvalidDigest::Algorithm(value.to_owned()))
    }
}

/// The digest of a file's content, written as `sha256:` or `blake3:` and 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest {
    algorithm: DigestAlgorithm,
    bytes: [u8; 32],
}

impl Digest {
    /// Returns the digest with these bytes.
    pub const fn new(algorithm: DigestAlgorithm, bytes: [u8; 32]) -> Self {
        Digest { algorithm, bytes }
    }

    /// Returns the algorithm.
    pub const fn algorithm(&self) -> DigestAlgorithm {
        self.algorithm
    }

    /// Returns the bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.algorithm)?;
        self.bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A string that is not a digest, or not the name of an algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDigest {
    /// The algorithm is unknown.
    #[error("unknown digest algorithm {0:?}: use sha256 or blake3")]
    Algorithm(String),
    /// The algorithm is not followed by a colon and 64 hexadecimal digits.
    #[error("invalid digest {0:?}: use ALGORITHM:HEX with 64 digits")]
    Value(String),
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(value: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest::Value(value.to_owned());
        let (algorithm, digits) = value.split_once(':').ok_or_else(invalid)?;
        let algorithm = algorithm.parse()?;
        let digits = digits.as_bytes();
        if digits.len() != 64 {
            return Err(invalid());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |digit: u8| char::from(digit).to_digit(16).ok_or_else(invalid);
            // Two digits fit into a byte.
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Ok(Digest { algorithm, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_round_trip() {
        let mut bytes = [0; 32];
        (0..).zip(&mut bytes).for_each(|(value, byte): (u8, _)| *byte = value.wrapping_mul(9));
        for algorithm in DigestAlgorithm::ALL {
            let digest = Digest::new(algorithm, bytes);
            let text = digest.to_string();
            assert!(text.starts_with(&format!("{}:0009121b", algorithm.name())), "{text}");
            assert_eq!(text.parse(), Ok(digest));
            assert_eq!(
                text.to_uppercase()
                    .replace(&algorithm.name().to_uppercase(), algorithm.name())
                    .parse(),
                Ok(digest)
            );
        }
    }

    #[test]
    fn rejects_other_strings_as_digests() {
        let digits = "0".repeat(64);
        for bad in ["", "sha256", "sha256:", "sha256:0", &format!("sha256:{digits}0"), &digits] {
            assert_eq!(bad.parse::<Digest>(), Err(InvalidDigest::Value(bad.to_owned())));
        }
        let bad = format!("sha256:{}+f", "0".repeat(62));
        assert!(matches!(bad.parse::<Digest>(), Err(InvalidDigest::Value(_))));
        let bad = format!("md5:{digits}");
        assert_eq!(bad.parse::<Digest>(), Err(InvalidDigest::Algorithm("md5".to_owned())));
        assert!("SHA256".parse::<DigestAlgorithm>().is_err());
    }
}
