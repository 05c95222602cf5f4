//! Tests of digests of sent files.

use super::*;
use crate::digest::{Digest, DigestAlgorithm};
use crate::hasher::Hasher;

fn digest(algorithm: DigestAlgorithm, content: &[u8]) -> Option<Digest> {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(content);
    Some(hasher.finish())
}

#[test]
fn every_source_has_the_digest_of_its_content() {
    for algorithm in DigestAlgorithm::ALL {
        let client = builder().digest(algorithm).build().unwrap();
        for size in [0, 1, 5000, 300_000, 5 << 20] {
            let content = pattern(size);
            let expected = digest(algorithm, &content);
            let send = |source: Source<'_>| {
                let peer = good(Dialect::Accio);
                let sent = client.send("127.0.0.1", peer.port, source).unwrap();
                assert!(peer.end() == content, "{size} bytes");
                assert_eq!(sent.digest, expected, "{size} bytes");
            };
            send(file(&content).into());
            send(Source::reader(&content[..]));
            let fed = content.clone();
            let (pipe, feeder) = pipe(move |mut pipe| pipe.write_all(&fed).unwrap());
            send(pipe.into());
            feeder.join().unwrap();
        }
    }
}

#[test]
fn computes_the_digest_of_the_sent_bytes_only() {
    let content = pattern(100_000);
    let mut file = file(&content);
    file.seek(SeekFrom::Start(70_000)).unwrap();
    let peer = good(Dialect::Confirm);
    let builder = builder().dialect(Dialect::Confirm).digest(DigestAlgorithm::Sha256);
    let sent = builder.build().unwrap().send("127.0.0.1", peer.port, file).unwrap();
    assert_eq!(sent.digest, digest(DigestAlgorithm::Sha256, &content[70_000..]));
    peer.end();
    let peer = good(Dialect::Accio);
    let sent = client().send("127.0.0.1", peer.port, &content[..]).unwrap();
    assert_eq!(sent.digest, None);
    peer.end();
}
