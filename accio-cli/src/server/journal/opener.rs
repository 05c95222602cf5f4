//! Opens the journal file again for a server whose sandbox forbids opening files.
//!
//! A helper, a second process of the same program, starts before the sandbox does. The server can
//! only ask it to open the one file that it was started for.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use accio_proto::os_error_text;
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::place::{Place, retry};
use crate::Failure;

/// First argument that makes the program run as this helper. It is not a valid port.
const HELPER: &str = "__journal";

/// How long the server waits for its answer (seconds: 5). A busy disk may take seconds to create a file. No
/// client waits, but the next SIGHUP has no effect before that.
const LIMIT: Duration = Duration::from_secs(5);

/// The helper process. It ends when the server does, or when [`Opener::end`] is called.
#[derive(Debug)]
pub(super) struct Opener {
    socket: UnixStream,
    limit: Duration,
    /// The number of requests that were given up, whose answers may still come. Locked during a
    /// request, because answers have no number; there is one request at a time.
    late: Mutex<u32>,
    is_ended: AtomicBool,
    process: Mutex<Child>,
}

impl Opener {
    /// Starts the helper process for the file at `place`.
    pub(super) fn start(place: &Place) -> Result<Self, Failure> {
        let start = || -> io::Result<Opener> {
            let (own, other) = UnixStream::pair()?;
            own.set_write_timeout(Some(LIMIT))?;
            let process = Command::new("/proc/self/exe")
                .arg0("accio-server")
                .arg(HELPER)
                .arg(place.path())
                .arg(if place.is_durable() { "durable" } else { "plain" })
                .env_clear()
                .stdin(Stdio::from(OwnedFd::from(other)))
                .stdout(Stdio::null())
                // Keeps the terminal's signals to the server away from the helper.
                .process_group(0)
                .spawn()?;
            Ok(Opener {
                socket: own,
                limit: LIMIT,
                late: Mutex::new(0),
                is_ended: AtomicBool::new(false),
                process: Mutex::new(process),
            })
        };
        start().map_err(|error| {
            Failure::new("cannot start the process that opens the journal", os_error_text(&error))
        })
    }

    /// Asks the helper to open the file.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + self.limit;
        (&self.socket).write_all(b"?").map_err(explain)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let answer = self.receive().inspect_err(|error| {
                *late += u32::from(error.kind() == io::ErrorKind::WouldBlock);
            });
            let answer = answer.map_err(explain)?;
            // The answer to an earlier request may be a file that was renamed since.
            if *late == 0 {
                return answer;
            }
            *late -= 1;
        }
    }

    /// Waits for an answer: a file, or the reason why it could not be opened.
    fn receive(&self) -> io::Result<io::Result<OwnedFd>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut code = [0; 4];
        let mut parts = [IoSliceMut::new(&mut code)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = retry(|| recvmsg(&self.socket, &mut parts, &mut ancillary, flags))?;
        if received.bytes != code.len() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let opened = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        Ok(opened.ok_or_else(|| match i32::from_ne_bytes(code) {
            // The kernel drops a descriptor for which the receiver has no room.
            0 => Errno::MFILE.into(),
            code => io::Error::from_raw_os_error(code),
        }))
    }

    /// Returns whether [`end`](Opener::end) was called, which makes requests fail.
    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Relaxed)
    }

    /// Ends the helper and waits for it, until `deadline` at most: when the server has ended, systemd
    /// kills the processes that are left and reports that.
    pub(super) fn end(&self, deadline: Instant) {
        const INTERVAL: Duration = Duration::from_millis(1);
        self.is_ended.store(true, Ordering::Relaxed);
        // If it fails, the helper has ended already.
        let _ = self.socket.shutdown(Shutdown::Both);
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(INTERVAL);
        }
    }
}

/// Names the helper as the cause of an error of its socket.
fn explain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::Error::other("the process that opens it does not answer"),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            io::Error::other("the process that opens it has ended")
        }
        _ => error,
    }
}

/// Returns whether a server has started this process as its helper: then stdin is a socket. A user who
/// calls the program in the same way gets an error about its arguments.
pub fn is_helper() -> bool {
    fstat(io::stdin()).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Socket)
}

/// Makes a helper process ignore the signals that end or notify a server: a supervisor may send them to
/// all processes of a server, which may then drain for long. A helper ends when its server does.
///
/// # Errors
///
/// Returns the error of the system.
pub fn outlive_signals() -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    let ignore = |signal| signal_hook::flag::register(signal, Arc::default()).map(drop);
    [SIGHUP, SIGINT, SIGQUIT, SIGTERM].into_iter().try_for_each(ignore)
}

/// Runs the helper if this process was started as one, after `confine` has restricted it to the
/// directory of the journal. Returns `None` otherwise.
pub fn open_journals(confine: impl FnOnce(BorrowedFd<'_>)) -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != HELPER || !is_helper() {
        return None;
    }
    let path = PathBuf::from(arguments.next()?);
    let durable = arguments.next()? == "durable";
    if outlive_signals().is_err() {
        return Some(ExitCode::FAILURE);
    }
    let place = match Place::new(&path, None, durable) {
        Ok(place) => place,
        Err(failure) => {
            failure.say();
            return Some(ExitCode::FAILURE);
        }
    };
    confine(place.directory());
    Some(match serve(&place, io::stdin()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Answers requests until the server ends.
fn serve(place: &Place, mut socket: impl Read + AsFd) -> io::Result<()> {
    while socket.read(&mut [0])? > 0 {
        answer(&socket, &place.open())?;
    }
    Ok(())
}

/// Sends the file, or the reason why it could not be opened.
fn answer(socket: impl AsFd, opened: &io::Result<OwnedFd>) -> io::Result<()> {
    let code = opened.as_ref().err().and_then(io::Error::raw_os_error).unwrap_or(0);
    let code = code.to_ne_bytes();
    let descriptors: Vec<_> = opened.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    let parts = [IoSlice::new(&code)];
    retry(|| sendmsg(&socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn opener(limit: Duration) -> (Opener, UnixStream) {
        let (socket, other) = UnixStream::pair().unwrap();
        let process = Mutex::new(Command::new("true").spawn().unwrap());
        let (late, is_ended) = (Mutex::new(0), AtomicBool::new(false));
        (Opener { socket, limit, late, is_ended, process }, other)
    }

    #[test]
    fn a_descriptor_that_the_kernel_has_dropped_is_reported() {
        let (opener, other) = opener(Duration::from_secs(60));
        // The answer to a request that succeeded, without its descriptor.
        rustix::io::write(&other, &[0; 4]).unwrap();
        let error = opener.open().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::MFILE.raw_os_error()));
    }

    #[test]
    fn a_late_answer_is_not_taken_for_that_to_a_later_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (mut opener, mut other) = opener(Duration::from_millis(20));
        for _ in 0..2 {
            let error = opener.open().unwrap_err().to_string();
            assert_eq!(error, "the process that opens it does not answer");
        }
        // The answers to these requests come now; the second of them is an error.
        fs::write(&path, "old").unwrap();
        let place = Place::new(&path, None, false).unwrap();
        let late = [place.open(), Err(io::Error::from_raw_os_error(13))];
        fs::remove_file(&path).unwrap();
        opener.limit = Duration::from_secs(60);
        let helper = thread::spawn(move || {
            for opened in late {
                other.read_exact(&mut [0]).unwrap();
                answer(&other, &opened).unwrap();
            }
            serve(&place, other)
        });
        for content in ["new", "newest"] {
            let mut file = File::from(opener.open().unwrap());
            file.write_all(content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            fs::remove_file(&path).unwrap();
        }
        opener.end(Instant::now() + Duration::from_secs(60));
        helper.join().unwrap().unwrap();
        let error = opener.open().unwrap_err().to_string();
        assert_eq!(error, "the process that opens it has ended");
    }
}
