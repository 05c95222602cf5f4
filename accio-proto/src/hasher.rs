//! Computes digests.

#[cfg(feature = "digest")]
pub use computed::Hasher;
#[cfg(not(feature = "digest"))]
pub(crate) use unavailable::Hasher;

#[cfg(feature = "digest")]
mod computed {
    use sha2::Digest as _;

    use crate::digest::{Digest, DigestAlgorithm};

    /// Computes the digest of content that arrives in pieces.
    ///
    /// ```
    /// use accio_proto::{Digest, DigestAlgorithm, Hasher};
    ///
    /// let mut hasher = Hasher::new(DigestAlgorithm::Sha256);
    /// hasher.update(b"some ");
    /// hasher.update(b"content");
    /// assert_eq!(hasher.finish().to_string().len(), "sha256:".len() + 64);
    /// ```
    #[derive(Debug, Clone)]
    pub struct Hasher(State);

    #[derive(Debug, Clone)]
    #[expect(clippy::large_enum_variant, reason = "one per upload, behind a pointer")]
    enum State {
        Sha256(sha2::Sha256),
        Blake3(blake3::Hasher),
    }

    impl Hasher {
        /// Returns a hasher that has seen no content.
        pub fn new(algorithm: DigestAlgorithm) -> Self {
            Hasher(match algorithm {
                DigestAlgorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
                DigestAlgorithm::Blake3 => State::Blake3(blake3::Hasher::new()),
            })
        }

        /// Adds the next bytes of the content.
        pub fn update(&mut self, bytes: &[u8]) {
            match &mut self.0 {
                State::Sha256(hasher) => hasher.update(bytes),
                State::Blake3(hasher) => {
                    hasher.update(bytes);
                }
            }
        }

        /// Returns the digest of all bytes.
        pub fn finish(self) -> Digest {
            match self.0 {
                State::Sha256(hasher) => {
                    Digest::new(DigestAlgorithm::Sha256, hasher.finalize().into())
                }
                State::Blake3(hasher) => {
                    Digest::new(DigestAlgorithm::Blake3, *hasher.finalize().as_bytes())
                }
            }
        }
    }
}

#[cfg(not(feature = "digest"))]
mod unavailable {
    use crate::digest::Digest;

    /// A type without values, because this build computes no digests.
    #[derive(Debug, Clone)]
    pub(crate) enum Hasher {}

    impl Hasher {
        pub(crate) fn update(&mut self, _bytes: &[u8]) {
            match *self {}
        }

        pub(crate) fn finish(self) -> Digest {
            match self {}
        }
    }
}

#[cfg(all(test, feature = "digest"))]
mod tests {
    use super::*;
    use crate::digest::DigestAlgorithm;

    fn digest(algorithm: DigestAlgorithm, pieces: &[&[u8]]) -> String {
        let mut hasher = Hasher::new(algorithm);
        pieces.iter().for_each(|piece| hasher.update(piece));
        hasher.finish().to_string()
    }

    #[test]
    fn computes_published_values() {
        // FIPS 180-2, appendix B, and the test vectors of BLAKE3.
        for (algorithm, content, value) in [
            (
                DigestAlgorithm::Sha256,
                "",
                "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                DigestAlgorithm::Sha256,
                "abc",
                "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                DigestAlgorithm::Blake3,
                "",
                "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
            ),
            (
                DigestAlgorithm::Blake3,
                "abc",
                "blake3:6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
            ),
        ] {
            assert_eq!(digest(algorithm, &[content.as_bytes()]), value);
        }
    }

    #[test]
    fn the_digest_does_not_depend_on_the_pieces() {
        let content: Vec<u8> = (0..200_000_u32).map(|index| (index % 251) as u8).collect();
        for algorithm in DigestAlgorithm::ALL {
            let whole = digest(algorithm, &[&content]);
            for cut in [0, 1, 63, 64, 1023, 1024, 65_536, 199_999] {
                let (first, second) = content.split_at(cut);
                assert_eq!(digest(algorithm, &[first, &[], second]), whole);
            }
        }
    }
}
