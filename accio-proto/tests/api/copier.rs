//! Tests of the copier with real sockets and files, with the fast paths enabled and disabled.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use accio_proto::{
    Connection, Copier, CopyError, CountSink, Demand, DirSink, FastPath, FastPaths, FileSink,
    SinkFile, Socket, Step, TcpSocket,
};

const IDLE: Duration = Duration::from_secs(5);

/// Creates a loopback connection; returns the peer's end, which blocks, and the server's end.
fn connection() -> (TcpStream, TcpSocket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    (peer, TcpSocket::new(stream).unwrap())
}

/// Returns content in which every position is recognisable.
fn pattern(length: usize, salt: u32) -> Vec<u8> {
    (0..length as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(salt) >> 11) as u8)
        .collect()
}

fn copiers() -> impl Iterator<Item = (Arc<FastPaths>, Copier)> {
    [vec![], vec![FastPath::Splice], vec![FastPath::Truncate], FastPath::ALL.to_vec()]
        .into_iter()
        .map(|without| {
            let paths = Arc::new(FastPaths::without(without));
            (Arc::clone(&paths), Copier::new(paths))
        })
}

/// Sends `bytes` and FIN while the copier runs.
fn upload<F: SinkFile>(copier: &mut Copier, file: &mut F, bytes: &[u8]) -> Result<u64, CopyError> {
    let (mut peer, mut socket) = connection();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // The server may fail and reset the connection.
            let _ = peer.write_all(bytes);
        });
        let copied = copier.copy_to_end(&mut socket, file, IDLE);
        drop(socket);
        copied
    })
}

/// A file that is used through its descriptor, and counts spliced and written bytes.
struct Plain {
    file: File,
    written: u64,
    spliced: u64,
}

impl Plain {
    fn new(file: File) -> Self {
        Plain { file, written: 0, spliced: 0 }
    }
}

impl SinkFile for Plain {
    fn demand(&self) -> Demand<'_> {
        Demand::Descriptor(self.file.as_fd())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn advance(&mut self, count: u64) {
        self.spliced += count;
    }

    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn abort(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn read_back(file: &mut File) -> Vec<u8> {
    let mut content = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut content).unwrap();
    content
}

#[test]
fn every_path_copies_the_same_content() {
    for (paths, mut copier) in copiers() {
        let dir = tempfile::tempdir().unwrap();
        let sink =
            DirSink::options().fast_paths(FastPaths::clone(&paths)).create(dir.path()).unwrap();
        for (id, length) in
            [0, 1, 65_535, 65_536, 65_537, 1 << 20, 9_999_999].into_iter().enumerate()
        {
            let bytes = pattern(length, id as u32);
            let mut file = sink.open(&Connection::new(id as u64)).unwrap();
            assert_eq!(upload(&mut copier, &mut file, &bytes).unwrap(), length as u64);
            file.commit().unwrap();
            let kept = std::fs::read(dir.path().join(format!("{id}.file"))).unwrap();
            assert!(kept == bytes, "{length} bytes with {paths:?}");
        }
    }
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux splices")]
fn uses_splice_where_it_is_allowed() {
    let bytes = pattern(3 << 20, 1);
    for without in [vec![], vec![FastPath::Splice]] {
        let mut copier = Copier::new(Arc::new(FastPaths::without(without.clone())));
        let mut file = Plain::new(tempfile::tempfile().unwrap());
        upload(&mut copier, &mut file, &bytes).unwrap();
        let ways = (file.spliced, file.written);
        let length = bytes.len() as u64;
        assert_eq!(ways, if without.is_empty() { (length, 0) } else { (0, length) });
        assert!(read_back(&mut file.file) == bytes);
    }
}

#[test]
fn every_path_counts_correctly() {
    for (_, mut copier) in copiers() {
        for length in [0, 1, 65_537, 5_000_000] {
            let mut file = CountSink.open(&Connection::new(1)).unwrap();
            let bytes = pattern(length, 7);
            assert_eq!(upload(&mut copier, &mut file, &bytes).unwrap(), length as u64);
        }
    }
}

/// A file opened for appending refuses splicing after the bytes have left the socket: the bytes
/// must then be written through the buffer, and splicing must stay disabled.
#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux splices")]
fn a_file_that_refuses_splicing_loses_no_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("appended");
    let paths = Arc::new(FastPaths::default());
    let mut copier = Copier::new(Arc::clone(&paths));
    let appending = OpenOptions::new().create(true).append(true).read(true).open(&path).unwrap();
    let mut file = Plain::new(appending);
    let bytes = pattern(4_000_000, 3);
    let (mut peer, mut socket) = connection();
    let (first, rest) = bytes.split_at(120_000);
    // More bytes than the buffer holds are available at once, and all of them get stuck in the
    // pipe.
    peer.write_all(first).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let step = copier.step(&mut socket, &mut file).unwrap();
    assert!(matches!(step, Step::Moved(count) if count > 65_536), "{step:?}");
    std::thread::scope(|scope| {
        scope.spawn(move || peer.write_all(rest).unwrap());
        copier.copy_to_end(&mut socket, &mut file, IDLE).unwrap();
    });
    assert_eq!((file.spliced, file.written), (0, bytes.len() as u64));
    assert!(read_back(&mut file.file) == bytes);
    assert!(!paths.has(FastPath::Splice), "disabled after the first refusal");

    let mut file = Plain::new(tempfile::tempfile().unwrap());
    upload(&mut copier, &mut file, &bytes).unwrap();
    assert_eq!((file.spliced, file.written), (0, bytes.len() as u64));
    assert!(read_back(&mut file.file) == bytes);
}

/// Bytes that a failed write leaves in the pipe are dropped, and none of them reaches the next
/// file.
#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux splices")]
fn bytes_of_a_failed_file_never_reach_the_next() {
    // Files that support splicing, unlike most that can be made to fail: one fails immediately, the
    // other accepts a part first, like a disk that becomes full.
    let broken = || {
        let (socket, _) = UnixStream::pair().unwrap();
        (socket, None)
    };
    let filling = || {
        let (socket, reader) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        (socket, Some(reader))
    };
    let makers: [&dyn Fn() -> (UnixStream, Option<UnixStream>); 2] = [&broken, &filling];
    for (paths, mut copier) in copiers() {
        let splices = paths.has(FastPath::Splice);
        for round in 0..6 {
            let (socket, _reader) = makers[round as usize % 2]();
            let mut bad = Plain::new(File::from(OwnedFd::from(socket)));
            let foreign = vec![b'!'; 2_000_000];
            let error = upload(&mut copier, &mut bad, &foreign).unwrap_err();
            assert!(matches!(error, CopyError::Write(_)), "{error} with {paths:?}");

            let bytes = pattern(300_000, round);
            let mut file = Plain::new(tempfile::tempfile().unwrap());
            assert_eq!(upload(&mut copier, &mut file, &bytes).unwrap(), bytes.len() as u64);
            assert!(read_back(&mut file.file) == bytes, "with {paths:?}");
            assert_eq!(file.spliced > 0, splices, "a full disk does not disable splicing");
        }
    }
}

/// Combines both cases: /dev/full refuses splicing and then fails the write.
#[test]
fn a_full_device_fails_the_write_on_every_path() {
    for (paths, mut copier) in copiers() {
        let mut full = Plain::new(OpenOptions::new().write(true).open("/dev/full").unwrap());
        let error = upload(&mut copier, &mut full, &vec![b'!'; 700_000]).unwrap_err();
        let is_full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
        assert!(matches!(&error, CopyError::Write(error) if is_full(error)), "{error}");

        let bytes = pattern(300_000, 2);
        let mut file = Plain::new(tempfile::tempfile().unwrap());
        upload(&mut copier, &mut file, &bytes).unwrap();
        assert!(read_back(&mut file.file) == bytes, "with {paths:?}");
    }
}

#[test]
fn a_reset_after_data_is_an_error_on_every_path() {
    for (paths, mut copier) in copiers() {
        for counting in [false, true] {
            let (mut peer, mut socket) = connection();
            peer.write_all(&pattern(10_000, 0)).unwrap();
            socket2::SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            drop(peer);
            let result = if counting {
                let mut file = CountSink.open(&Connection::new(1)).unwrap();
                copier.copy_to_end(&mut socket, &mut file, IDLE)
            } else {
                let mut file = Plain::new(tempfile::tempfile().unwrap());
                copier.copy_to_end(&mut socket, &mut file, IDLE)
            };
            assert!(matches!(result, Err(CopyError::Receive(_))), "{result:?} with {paths:?}");
        }
    }
}

#[test]
fn a_fin_before_a_reset_completes_the_file() {
    for (paths, mut copier) in copiers() {
        let (mut peer, mut socket) = connection();
        let bytes = pattern(10_000, 0);
        // The greeting stays unread, so the peer's close resets the connection after its FIN.
        assert_eq!(socket.send(b"accio\r\n").unwrap(), 7);
        peer.write_all(&bytes).unwrap();
        peer.shutdown(std::net::Shutdown::Write).unwrap();
        drop(peer);
        std::thread::sleep(Duration::from_millis(20));
        let mut file = Plain::new(tempfile::tempfile().unwrap());
        let copied = copier.copy_to_end(&mut socket, &mut file, IDLE).unwrap();
        assert_eq!(copied, bytes.len() as u64, "with {paths:?}");
        assert!(read_back(&mut file.file) == bytes);
    }
}

#[test]
fn waits_for_each_byte_for_at_most_the_idle_timeout() {
    let idle = Duration::from_millis(1200);
    for (_, mut copier) in copiers() {
        let (mut peer, mut socket) = connection();
        let mut file = Plain::new(tempfile::tempfile().unwrap());
        assert_eq!(copier.step(&mut socket, &mut file).unwrap(), Step::Blocked);
        let started = Instant::now();
        let talker = std::thread::spawn(move || {
            // Takes longer than the timeout in total, but is never idle for that long.
            for byte in 0..5u8 {
                std::thread::sleep(idle / 3);
                peer.write_all(&[byte]).unwrap();
            }
            (Instant::now(), peer)
        });
        let error = copier.copy_to_end(&mut socket, &mut file, idle).unwrap_err();
        let (last, _peer) = talker.join().unwrap();
        assert!(matches!(error, CopyError::Idle(limit) if limit == idle), "{error}");
        assert!(started.elapsed() >= idle / 3 * 5 + idle - Duration::from_millis(10));
        let late = last.elapsed();
        assert!(late < idle + Duration::from_secs(2), "{late:?}");
        assert_eq!(read_back(&mut file.file), [0, 1, 2, 3, 4]);
    }
}

/// Splicing stops before an urgent byte, whether or not the end follows it.
#[test]
fn urgent_bytes_are_content() {
    for (paths, mut copier) in copiers() {
        for finished_first in [false, true] {
            let (peer, mut socket) = connection();
            let talk = move || {
                let mut peer = peer;
                for piece in [&[b'a'; 20_000][..], &[b'b'; 20_000], b""] {
                    peer.write_all(piece).unwrap();
                    assert_eq!(socket2::SockRef::from(&peer).send_out_of_band(b"!").unwrap(), 1);
                    std::thread::sleep(Duration::from_millis(10));
                }
            };
            let mut file = Plain::new(tempfile::tempfile().unwrap());
            let copied = if finished_first {
                talk();
                copier.copy_to_end(&mut socket, &mut file, IDLE)
            } else {
                let talker = std::thread::spawn(talk);
                let copied = copier.copy_to_end(&mut socket, &mut file, IDLE);
                talker.join().unwrap();
                copied
            };
            assert_eq!(copied.unwrap(), 40_003, "{finished_first} with {paths:?}");
            let content = [&[b'a'; 20_000][..], b"!", &[b'b'; 20_000], b"!!"].concat();
            assert!(read_back(&mut file.file) == content);
        }
    }
}
