//! Opens files in FILE-DIR for reading, on behalf of a server whose sandbox forbids that.
//!
//! A helper, a second process of the same program, starts before the sandbox does. The server passes
//! it the descriptor of an upload, which has no name yet, and gets a readable descriptor of the same
//! file, to compute its digest. The helper opens no other file: see [`check`].

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use accio_proto::os_error_text;
use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, fstat, openat};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// First argument that makes the program run as this helper. It is not a valid port.
const HELPER: &str = "__reopen";

/// How long the server waits for an answer (seconds: 1). The helper needs some microseconds, and a
/// server that stops does not wait for the worker that waits.
const LIMIT: Duration = Duration::from_secs(1);

/// How long the helper may take to end, even if the server has used up its time.
const END: Duration = Duration::from_millis(20);

/// The helper process. It ends when the server does, or when [`Reopener::close`] is called.
#[derive(Debug)]
pub(crate) struct Reopener {
    socket: UnixStream,
    /// Whether the helper has failed. Locked during a request, because answers have no number. Only
    /// workers that begin to read a large upload back wait for the lock, for as long as one request
    /// takes: after a failure there are no more.
    has_failed: Mutex<bool>,
    process: Mutex<Child>,
}

impl Reopener {
    /// Starts the helper process for the files of the directory.
    pub(crate) fn start(dir: impl AsFd) -> io::Result<Self> {
        let (own, other) = UnixStream::pair()?;
        own.set_read_timeout(Some(LIMIT))?;
        own.set_write_timeout(Some(LIMIT))?;
        // A duplicate of the descriptor would keep the lock of the directory.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(dir, ".", flags, Mode::empty())?;
        let process = Command::new("/proc/self/exe")
            .arg0("accio-server")
            .arg(HELPER)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(other)))
            .stdout(Stdio::from(dir))
            // Keeps the terminal's signals to the server away from the helper.
            .process_group(0)
            .spawn()?;
        let (has_failed, process) = (Mutex::new(false), Mutex::new(process));
        Ok(Reopener { socket: own, has_failed, process })
    }

    /// Asks the helper to open the file for reading.
    ///
    /// # Errors
    ///
    /// Returns the helper's error. If it has ended or does not answer, that is logged once, and all
    /// further calls fail at once.
    pub(crate) fn open(&self, file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let mut has_failed = self.has_failed.lock().unwrap_or_else(PoisonError::into_inner);
        if *has_failed {
            return Err(ended());
        }
        let answer = send(&self.socket, &[0], Some(file)).and_then(|()| receive(&self.socket));
        match answer {
            Ok(Some((_, Some(opened)))) => Ok(opened),
            // The kernel drops a descriptor for which the receiver has no room.
            Ok(Some((code, None))) if code == [0; 4] => Err(Errno::MFILE.into()),
            Ok(Some((code, None))) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(code))),
            failed => {
                // An answer that comes later would be taken for that to another request.
                *has_failed = true;
                let error = failed.err().unwrap_or_else(ended);
                let why = match error.kind() {
                    io::ErrorKind::WouldBlock => "it does not answer".to_owned(),
                    _ => os_error_text(&error),
                };
                log::warn!(
                    "the process that opens uploads for their digests has failed: {why}: digests need \
                     more CPU time from now on"
                );
                Err(error)
            }
        }
    }

    /// Makes the helper end, without waiting.
    pub(crate) fn close(&self) {
        // If it fails, the helper has ended already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Waits for the end of the helper after [`close`](Reopener::close), until `deadline` at most: when the
    /// server has ended, systemd kills the processes that are left and reports that.
    pub(crate) fn wait_ended(&self, deadline: Instant) {
        const INTERVAL: Duration = Duration::from_millis(1);
        let deadline = deadline.max(Instant::now() + END);
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(INTERVAL);
        }
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "it has ended")
}

/// Runs the helper if this process was started as one, after `confine` has restricted it to reading
/// files of the directory. Returns `None` otherwise.
pub(crate) fn reopen_files(confine: impl FnOnce(BorrowedFd<'_>)) -> Option<ExitCode> {
    if std::env::args_os().nth(1)? != HELPER || !accio_cli::is_helper() {
        return None;
    }
    if accio_cli::outlive_signals().is_err() {
        return Some(ExitCode::FAILURE);
    }
    let (socket, dir) = (io::stdin(), io::stdout());
    confine(dir.as_fd());
    Some(match serve(socket.as_fd(), dir.as_fd()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Answers requests until the server ends.
fn serve(socket: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> io::Result<()> {
    let device = fstat(dir)?.st_dev;
    while let Some(([_], file)) = receive(socket)? {
        let opened = match file {
            Some(file) => check(&file, device).and_then(|()| open(&file)),
            None => Err(Errno::BADF),
        };
        let code = opened.as_ref().err().map_or(0, |error| error.raw_os_error());
        let opened = opened.ok();
        send(socket, &code.to_ne_bytes(), opened.as_ref().map(AsFd::as_fd))?;
    }
    Ok(())
}

/// Allows only an upload in progress: a regular file without a name on the device of the directory,
/// which was created without a name. A server that an attacker controls could otherwise remove the
/// name of a stored file and have that opened, except a file that it received itself. Only this kind of descriptor has the flag, and no
/// call adds it later.
fn check(file: &OwnedFd, device: u64) -> Result<(), Errno> {
    let stat = fstat(file)?;
    let is_upload = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_nlink == 0
        && stat.st_dev == device
        && fcntl_getfl(file)?.contains(OFlags::TMPFILE);
    if is_upload { Ok(()) } else { Err(Errno::PERM) }
}

/// Opens the file again, for reading, without changing the time of its last access.
fn open(file: &OwnedFd) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
    retry_on_intr(|| openat(CWD, &path, flags, Mode::empty()))
}

/// Sends a message, and a descriptor with it.
fn send(socket: impl AsFd, message: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = file.as_slice();
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(files));
    }
    let parts = [IoSlice::new(message)];
    let sent = retry_on_intr(|| sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL))?;
    if sent == message.len() { Ok(()) } else { Err(ended()) }
}

/// Receives a message of this length and its descriptor; `None` if the other side has ended.
fn receive<const N: usize>(socket: impl AsFd) -> io::Result<Option<([u8; N], Option<OwnedFd>)>> {
    let mut message = [0; N];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        let parts = &mut [IoSliceMut::new(&mut message)];
        recvmsg(&socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let file = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    Ok((received.bytes == N).then_some((message, file)))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read, Write};
    use std::path::Path;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn unnamed(dir: &Path, access: OFlags) -> OwnedFd {
        let flags = access | OFlags::TMPFILE | OFlags::CLOEXEC;
        openat(CWD, dir, flags, Mode::from_raw_mode(0o600)).unwrap()
    }

    /// Returns the server's side of a helper that runs in a thread.
    fn helper(dir: &Path) -> Reopener {
        let (own, other) = UnixStream::pair().unwrap();
        own.set_read_timeout(Some(PATIENCE)).unwrap();
        let dir = File::open(dir).unwrap();
        thread::spawn(move || serve(other.as_fd(), dir.as_fd()));
        reopener(own)
    }

    fn reopener(socket: UnixStream) -> Reopener {
        let process = Command::new("true").spawn().unwrap();
        Reopener { socket, has_failed: Mutex::new(false), process: Mutex::new(process) }
    }

    #[test]
    fn opens_an_upload_for_reading_only() {
        let dir = tempfile::tempdir().unwrap();
        let helper = helper(dir.path());
        let mut upload = File::from(unnamed(dir.path(), OFlags::WRONLY));
        upload.write_all(b"content").unwrap();
        let mut opened = File::from(helper.open(upload.as_fd()).unwrap());
        let mut content = String::new();
        opened.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        opened.write_all(b"more").unwrap_err();
    }

    #[test]
    fn refuses_everything_but_uploads_in_progress() {
        let dir = tempfile::tempdir().unwrap();
        let helper = helper(dir.path());
        let path = dir.path().join("1.file");
        fs::write(&path, "stored").unwrap();
        let named = File::options().write(true).open(&path).unwrap();
        // An attacker could do this to each stored file.
        let removed = File::options().write(true).open(&path).unwrap();
        let linked = unnamed(dir.path(), OFlags::WRONLY);
        let target = dir.path().join("2.file");
        let link = format!("/proc/self/fd/{}", linked.as_raw_fd());
        rustix::fs::linkat(CWD, link, CWD, &target, rustix::fs::AtFlags::SYMLINK_FOLLOW).unwrap();
        let is_refused = |file: BorrowedFd<'_>| {
            helper.open(file).is_err_and(|error| error.raw_os_error() == Some(1))
        };
        assert!(is_refused(named.as_fd()), "a named file");
        assert!(is_refused(linked.as_fd()), "an upload that has got its name");
        fs::remove_file(&path).unwrap();
        assert!(is_refused(removed.as_fd()), "a file whose name was removed");
        assert!(is_refused(File::open(dir.path()).unwrap().as_fd()), "a directory");
        let (reader, writer) = io::pipe().unwrap();
        assert!(is_refused(reader.as_fd()) && is_refused(writer.as_fd()), "a pipe");
        assert!(is_refused(helper.socket.as_fd()), "a socket");
        assert!(is_refused(File::open("/dev/null").unwrap().as_fd()), "a device");
        let by_path = openat(CWD, dir.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        assert!(is_refused(by_path.unwrap().as_fd()), "a path");
        let memory = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert!(is_refused(memory.as_fd()), "a file elsewhere");
        // It still answers.
        let upload = unnamed(dir.path(), OFlags::WRONLY);
        helper.open(upload.as_fd()).unwrap();
    }

    #[test]
    fn a_request_without_a_descriptor_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let helper = helper(dir.path());
        send(&helper.socket, &[0], None).unwrap();
        let (code, file) = receive::<4>(&helper.socket).unwrap().unwrap();
        assert_eq!((i32::from_ne_bytes(code), file.is_none()), (Errno::BADF.raw_os_error(), true));
    }

    #[test]
    fn a_server_without_a_free_descriptor_may_ask_again() {
        let dir = tempfile::tempdir().unwrap();
        let upload = unnamed(dir.path(), OFlags::WRONLY);
        let (own, other) = UnixStream::pair().unwrap();
        let short = reopener(own);
        for _ in 0..2 {
            // The kernel has dropped the descriptor.
            send(&other, &[0; 4], None).unwrap();
            let error = short.open(upload.as_fd()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
        }
    }

    #[test]
    fn a_helper_that_has_ended_or_does_not_answer_fails_once_and_then_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let upload = unnamed(dir.path(), OFlags::WRONLY);
        let (own, other) = UnixStream::pair().unwrap();
        own.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let silent = reopener(own);
        assert_eq!(silent.open(upload.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // A late answer changes nothing.
        send(&other, &[0; 4], Some(upload.as_fd())).unwrap();
        assert_eq!(silent.open(upload.as_fd()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);

        let (own, other) = UnixStream::pair().unwrap();
        drop(other);
        let dead = reopener(own);
        for _ in 0..2 {
            assert_eq!(dead.open(upload.as_fd()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
