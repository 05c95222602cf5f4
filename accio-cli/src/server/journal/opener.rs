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
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use accio_proto::os_error_text;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::place::{Place, retry};
use crate::Failure;

/// First argument that makes the program run as this helper. It is not a valid port.
const HELPER: &str = "__journal";

/// The helper process. It ends when the server does, or when [`Opener::end`] is called.
#[derive(Debug)]
pub(super) struct Opener {
    socket: UnixStream,
    process: Mutex<Child>,
}

impl Opener {
    /// Starts the helper process for the file at `place`.
    pub(super) fn start(place: &Place) -> Result<Self, Failure> {
        let start = || -> io::Result<Opener> {
            let (own, other) = UnixStream::pair()?;
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
            Ok(Opener { socket: own, process: Mutex::new(process) })
        };
        start().map_err(|error| {
            Failure::new("cannot start the process that opens the journal", os_error_text(&error))
        })
    }

    /// Asks the helper to open the file.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        (&self.socket).write_all(b"?")?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut code = [0; 4];
        let mut parts = [IoSliceMut::new(&mut code)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = retry(|| recvmsg(&self.socket, &mut parts, &mut ancillary, flags))?;
        if received.bytes != code.len() {
            return Err(io::Error::other("the helper has ended"));
        }
        let opened = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        opened.ok_or_else(|| io::Error::from_raw_os_error(i32::from_ne_bytes(code)))
    }

    /// Ends the helper and waits for it, until `deadline` at most: when the server has ended, systemd
    /// kills the processes that are left and reports that.
    pub(super) fn end(&self, deadline: Instant) {
        const INTERVAL: Duration = Duration::from_millis(1);
        // If it fails, the helper has ended already.
        let _ = self.socket.shutdown(Shutdown::Both);
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(INTERVAL);
        }
    }
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
    if arguments.next()? != HELPER {
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
    Some(match serve(&place) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Answers requests until the server ends.
fn serve(place: &Place) -> io::Result<()> {
    let socket = io::stdin();
    while socket.lock().read(&mut [0])? > 0 {
        let opened = place.open();
        let code = opened.as_ref().err().and_then(io::Error::raw_os_error).unwrap_or(0);
        let code = code.to_ne_bytes();
        let descriptors: Vec<_> = opened.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        }
        let parts = [IoSlice::new(&code)];
        retry(|| sendmsg(io::stdin(), &parts, &mut ancillary, SendFlags::NOSIGNAL))?;
    }
    Ok(())
}
