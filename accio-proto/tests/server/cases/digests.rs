//! Tests of digests: only stored files have one.

use accio_proto::{DigestAlgorithm, Hasher};

use super::*;

fn digest(algorithm: DigestAlgorithm, content: &[u8]) -> Option<Digest> {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(content);
    Some(hasher.finish())
}

#[test]
fn a_complete_file_has_a_digest_and_a_failed_one_has_none() {
    for algorithm in DigestAlgorithm::ALL {
        for without in [&[][..], &FastPath::ALL] {
            let dir = tempfile::tempdir().unwrap();
            let paths = FastPaths::without(without.iter().copied());
            let sink = DirSink::options().fast_paths(paths.clone()).create(dir.path()).unwrap();
            let server = start(builder(sink).fast_paths(paths).digest(algorithm));
            let mut contents: Vec<Vec<u8>> =
                [0, 1, 65_536, 65_537, 12 << 20].into_iter().map(pattern).collect();
            // Content that is held back as a possible handshake, until the end or until the next
            // byte.
            contents.push(b"confirm-acc".to_vec());
            contents.push(b"confirm-accio\r or not".to_vec());
            for content in &contents {
                upload(&server, content);
            }
            upload_and_reset(&server, &contents[4]);
            let count = contents.len();
            let outcomes = server.outcomes.wait(count + 1);
            server.stop().unwrap();
            for (id, content) in (1..).zip(&contents) {
                assert_eq!(outcomes[&id].digest, digest(algorithm, content), "{id}");
                let stored = std::fs::read(dir.path().join(format!("{id}.file"))).unwrap();
                assert!(stored == *content, "{id}");
            }
            assert_eq!(outcomes[&(count as u64 + 1)].digest, None);
            let names = std::fs::read_dir(dir.path()).unwrap().count();
            assert_eq!(names, count + 1, "nothing else appears");
        }
    }
}

#[test]
fn a_file_that_cannot_be_committed_has_no_digest() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("1.file")).unwrap();
    let sink = DirSink::create(dir.path()).unwrap();
    let server = start(builder(sink).digest(DigestAlgorithm::Blake3));
    let mut stream = server.connect();
    greeted(&mut stream);
    stream.write_all(b"content").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(is_reset(&mut stream));
    let outcomes = server.outcomes.wait(1);
    assert_eq!((outcomes[&1].bytes, outcomes[&1].digest), (7, None));
}

#[test]
fn counted_files_have_digests_only_with_the_setting() {
    let server = start(builder(CountSink).digest(DigestAlgorithm::Sha256));
    upload(&server, &[7; 200_000]);
    let expected = digest(DigestAlgorithm::Sha256, &[7; 200_000]);
    assert_eq!(server.outcomes.wait(1)[&1].digest, expected);
    let server = start(builder(CountSink));
    upload(&server, b"content");
    assert_eq!(server.outcomes.wait(1)[&1].digest, None);
}
