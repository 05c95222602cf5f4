//! Digests of content that is read back from its file, with real sockets and files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use accio_proto::{
    Abort, Connection, Copier, Demand, Digest, DigestAlgorithm, Ended, FastPath, FastPaths,
    FileSink, Hasher, OpenError, ServerDialect, Session, SessionLimits, SinkCall, SinkFile, Socket,
    TcpSocket, Turn,
};

/// Pause between two looks at a socket.
const PAUSE: Duration = Duration::from_millis(1);

/// How the file behaves when it is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Again {
    Right,
    Never,
    /// The descriptor cannot be read.
    WriteOnly,
    /// The descriptor is of a file with fewer bytes.
    Shorter,
    /// It panics.
    Panics,
}

/// A sink with one file, which counts what reaches it by `write`.
#[derive(Debug, Clone)]
struct OneFile {
    dir: Arc<tempfile::TempDir>,
    again: Again,
}

struct Upload {
    sink: OneFile,
    file: File,
    written: u64,
    moved: u64,
}

impl OneFile {
    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("upload")
    }
}

impl FileSink for OneFile {
    type File = Upload;

    fn open(&self, _: &Connection) -> Result<Upload, OpenError> {
        let file = File::create(self.path())?;
        Ok(Upload { sink: self.clone(), file, written: 0, moved: 0 })
    }

    fn mark(&self, _: &Connection) -> io::Result<()> {
        Ok(())
    }
}

impl SinkFile for Upload {
    fn demand(&self) -> Demand<'_> {
        Demand::Descriptor(self.file.as_fd())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn advance(&mut self, count: u64) {
        self.moved += count;
    }

    fn reopen(&self) -> Option<OwnedFd> {
        match self.sink.again {
            Again::Right => File::open(self.sink.path()).ok().map(OwnedFd::from),
            Again::Never => None,
            Again::WriteOnly => {
                File::options().write(true).open(self.sink.path()).ok().map(OwnedFd::from)
            }
            Again::Shorter => {
                let path = self.sink.dir.path().join("other");
                fs::write(&path, vec![0; 3 << 20]).unwrap();
                File::open(path).ok().map(OwnedFd::from)
            }
            Again::Panics => panic!("reopen"),
        }
    }

    fn commit(&mut self) -> io::Result<()> {
        let name = format!("{} {}", self.written, self.moved);
        fs::write(self.sink.dir.path().join("counts"), name)
    }

    fn abort(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn content(length: usize) -> Vec<u8> {
    let mut content = vec![7; length];
    for (index, block) in (0_u32..).zip(content.chunks_exact_mut(512)) {
        block[..4].copy_from_slice(&index.to_le_bytes());
    }
    content
}

/// Uploads the content to a session with this file; returns its result, the number of bytes and the
/// digest.
fn upload(
    sink: &OneFile,
    paths: FastPaths,
    algorithm: DigestAlgorithm,
    content: &[u8],
) -> (Result<(), Abort>, u64, Option<Digest>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let socket = TcpSocket::new(listener.accept().unwrap().0).unwrap();
    let (limits, now) = (SessionLimits::default(), Instant::now());
    let dialect: ServerDialect = "direct".parse().unwrap();
    let mut session = Session::begin(Connection::new(1), socket, dialect, now).digest(algorithm);
    let mut copier = Copier::new(Arc::new(paths));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The server resets a failed transfer.
            let _ = peer.write_all(content);
        });
        loop {
            match session.handle_ready(sink, &mut copier, &limits, now) {
                Turn::Ended(result) => {
                    let Ended { result, bytes, digest, socket, .. } =
                        session.close(result).finish(sink);
                    // Otherwise the client of a failed transfer would wait.
                    drop(socket);
                    return (result, bytes, digest);
                }
                Turn::Waiting => {}
            }
            // So the client fills the buffer, and the session becomes bulk.
            std::thread::sleep(PAUSE);
            while !session.socket().has_input() {
                std::thread::sleep(PAUSE);
            }
        }
    })
}

fn one_file(again: Again) -> OneFile {
    OneFile { dir: Arc::new(tempfile::tempdir().unwrap()), again }
}

/// Returns how many bytes of a complete file were written and moved.
fn counts(sink: &OneFile) -> (u64, u64) {
    let text = fs::read_to_string(sink.dir.path().join("counts")).unwrap();
    let (written, moved) = text.split_once(' ').unwrap();
    (written.parse().unwrap(), moved.parse().unwrap())
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux splices")]
fn content_that_is_read_back_is_moved_by_the_kernel_and_has_the_same_digest() {
    for algorithm in DigestAlgorithm::ALL {
        for length in [1 << 20, 12 << 20] {
            let content = content(length);
            let mut hasher = Hasher::new(algorithm);
            hasher.update(&content);
            let expected = hasher.finish();
            for (again, without, moves) in [
                (Again::Right, None, true),
                (Again::Never, None, false),
                (Again::Right, Some(FastPath::ReadBack), false),
                (Again::Right, Some(FastPath::Splice), false),
            ] {
                let sink = one_file(again);
                let paths = FastPaths::without(without);
                let (result, bytes, digest) = upload(&sink, paths, algorithm, &content);
                result.unwrap();
                assert_eq!((bytes, digest), (length as u64, Some(expected)));
                assert!(fs::read(sink.path()).unwrap() == content);
                let (written, moved) = counts(&sink);
                assert_eq!(written + moved, length as u64);
                assert!(written >= 1 << 20, "{length}: {written}");
                assert_eq!(moved > 0, moves && length > 10 << 20, "{again:?} {without:?} {moved}");
            }
        }
    }
}

/// Small pieces are hashed from memory, after what was read back before them.
#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux splices")]
fn content_whose_pieces_become_small_and_large_again_has_the_same_digest() {
    let content = content(8 << 20);
    let mut hasher = Hasher::new(DigestAlgorithm::Blake3);
    hasher.update(&content);
    let sink = one_file(Again::Right);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let socket = TcpSocket::new(listener.accept().unwrap().0).unwrap();
    let (limits, now) = (SessionLimits::default(), Instant::now());
    let dialect: ServerDialect = "direct".parse().unwrap();
    let session = Session::begin(Connection::new(1), socket, dialect, now);
    let mut session = session.digest(DigestAlgorithm::Blake3);
    let new_copier = |without| Copier::new(Arc::new(FastPaths::without(without)));
    let (mut splicing, mut copying) = (new_copier(None), new_copier(Some(FastPath::Splice)));
    let turn = |session: &mut Session<TcpSocket, Upload>, copier: &mut Copier| {
        while !session.socket().has_input() {
            std::thread::sleep(PAUSE);
        }
        session.handle_ready(&sink, copier, &limits, now)
    };
    for (megabyte, content) in content.chunks(1 << 20).enumerate() {
        // A piece that fills the buffer makes the session bulk; a turn without input ends that.
        let (size, copier) = match megabyte % 3 {
            0 => (128 << 10, &mut splicing),
            1 => (128 << 10, &mut copying),
            _ => (32 << 10, &mut splicing),
        };
        let (urgent, others) = content.split_last().unwrap();
        for piece in others.chunks(size) {
            peer.write_all(piece).unwrap();
            assert!(matches!(turn(&mut session, copier), Turn::Waiting));
        }
        // Splice stops before an urgent byte.
        socket2::SockRef::from(&peer).send_out_of_band(&[*urgent]).unwrap();
        assert!(matches!(turn(&mut session, copier), Turn::Waiting));
        assert!(matches!(session.handle_ready(&sink, copier, &limits, now), Turn::Waiting));
    }
    drop(peer);
    let Turn::Ended(result) = turn(&mut session, &mut splicing) else { panic!("no end") };
    let ended = session.close(result).finish(&sink);
    ended.result.unwrap();
    assert_eq!((ended.bytes, ended.digest), (8 << 20, Some(hasher.finish())));
    assert!(fs::read(sink.path()).unwrap() == content);
    let (written, moved) = counts(&sink);
    assert!(written >= 2 << 20 && moved >= 1 << 20, "{written} {moved}");
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux splices")]
fn content_that_cannot_be_read_back_fails_the_transfer() {
    let content = content(8 << 20);
    for (again, call) in [
        (Again::WriteOnly, SinkCall::Read),
        (Again::Shorter, SinkCall::Read),
        (Again::Panics, SinkCall::Write),
    ] {
        let sink = one_file(again);
        let algorithm = DigestAlgorithm::Blake3;
        let (result, bytes, digest) = upload(&sink, FastPaths::default(), algorithm, &content);
        assert_eq!(digest, None);
        assert!(bytes <= 4 << 20, "{again:?}: {bytes}: a step fails that cannot be read back");
        match result {
            Err(Abort::Sink { action, .. }) => assert_eq!(action, call, "{again:?}"),
            result => panic!("{again:?}: {result:?}"),
        }
        assert!(!sink.dir.path().join("counts").exists(), "{again:?}: committed");
    }
}
