//! The journal: one line of JSON for every connection.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use accio_proto::{Abort, Dialect, Outcome};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use serde::Serialize;

use crate::{Failure, USAGE, check_stdout, escape_json, reason};

/// How long a pipe that nobody empties may hold up the server, once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where the lines go. Each is written by one call, before the peer is told of the outcome.
#[derive(Debug)]
pub(super) struct Journal {
    /// `None` for stdout.
    file: Option<Place>,
    writer: Mutex<Writer>,
}

/// A file, by the directory it is in.
#[derive(Debug)]
struct Place {
    dir: OwnedFd,
    path: PathBuf,
}

#[derive(Debug)]
struct Writer {
    fd: OwnedFd,
    /// The last write left a part of a line.
    torn: bool,
    /// Lines that could not be written since the last one that was.
    lost: u64,
}

/// One line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: String,
    id: u64,
    peer: Option<String>,
    dialect: Option<&'a str>,
    bytes: u64,
    /// In seconds.
    duration: f64,
    outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Why not even the error marker was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    unmarked: Option<String>,
}

impl Journal {
    /// Writes to stdout.
    pub(super) fn stdout() -> Result<Self, Failure> {
        let fd = check_stdout().and_then(|()| io::stdout().as_fd().try_clone_to_owned());
        let fd = fd.map_err(|error| Failure::new("cannot use stdout", reason(&error)))?;
        Ok(Journal { file: None, writer: Mutex::new(Writer::new(fd)) })
    }

    /// Appends to the file at `path`, which may not be inside `folder`.
    pub(super) fn open(path: &Path, folder: Option<&Path>) -> Result<Self, Failure> {
        let failure = |why: io::Error| {
            Failure::new(format_args!("cannot open the journal {path:?}"), reason(&why))
        };
        let path = resolve(path).map_err(failure)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        if let Some(folder) = folder
            && is_inside(parent, folder)
        {
            let what = format_args!("the journal {path:?}").to_string();
            let why = format_args!(
                "inside {folder:?}, where the clients' files are; choose a place outside"
            )
            .to_string();
            return Err(Failure::new(what, why).with_code(USAGE));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = retry(|| openat(CWD, parent, flags, Mode::empty())).map_err(failure)?;
        let place = Place { dir, path: path.clone() };
        let fd = place.open().map_err(failure)?;
        Ok(Journal { file: Some(place), writer: Mutex::new(Writer::new(fd)) })
    }

    /// The directory of the file, which needs the rights to write and make files.
    pub(super) fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(|place| place.dir.as_fd())
    }

    /// Opens the file anew, for it may have been moved away.
    pub(super) fn reopen(&self) {
        let Some(place) = &self.file else { return };
        match place.open() {
            Ok(fd) => {
                // Between two lines, as all writing is under this lock.
                self.writer().fd = fd;
                log::info!("journal {:?} opened anew", place.path);
            }
            Err(error) => {
                let (path, why) = (&place.path, reason(&error));
                log::error!("cannot open the journal {path:?} anew, going on with the old: {why}");
            }
        }
    }

    /// Writes a line for a connection that ended. Harms nothing if it cannot.
    pub(super) fn record(&self, outcome: &Outcome) {
        let line = line(outcome, jiff::Timestamp::now());
        let mut writer = self.writer();
        match (writer.write(&line), writer.lost) {
            (Ok(()), 0) => {}
            (Ok(()), lost) => {
                writer.lost = 0;
                log::warn!("the journal is written again; {lost} lines are missing");
            }
            (Err(error), lost) => {
                writer.lost = lost + 1;
                if lost == 0 {
                    let why = reason(&error);
                    log::error!("cannot write the journal, transfers go on without: {why}");
                }
            }
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // Every change is one assignment, so a panic elsewhere leaves it whole.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn open(&self) -> io::Result<OwnedFd> {
        let name = self.path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::NOFOLLOW
            | OFlags::NOCTTY
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        retry(|| openat(&self.dir, name, flags, Mode::from_raw_mode(0o640)))
    }
}

impl Writer {
    fn new(fd: OwnedFd) -> Self {
        Writer { fd, torn: false, lost: 0 }
    }

    /// Writes one line, all of it or an error; a part that was written stays a line of its own.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.wait()?;
        let ended;
        let line = if self.torn {
            ended = [b"\n", line].concat();
            &ended
        } else {
            line
        };
        let mut rest = line;
        while !rest.is_empty() {
            match retry(|| rustix::io::write(&self.fd, rest)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    rest = &rest[count..];
                    self.torn = !rest.is_empty();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until a pipe has room for a line; a second at most, and not at all if that was in
    /// vain before.
    fn wait(&self) -> io::Result<()> {
        if FileType::from_raw_mode(fstat(&self.fd)?.st_mode) == FileType::RegularFile {
            return Ok(());
        }
        let patience = if self.lost == 0 { PATIENCE } else { Duration::ZERO };
        let patience = Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        match retry(|| poll(&mut fds, Some(&patience)))? {
            0 => Err(io::Error::new(io::ErrorKind::TimedOut, "nobody reads it")),
            _ => Ok(()),
        }
    }
}

fn line(outcome: &Outcome, time: jiff::Timestamp) -> Vec<u8> {
    let error = outcome.result.as_ref().err();
    // An IPv4 client is written as one, whatever socket it came through.
    let canonical = |peer: SocketAddr| SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let line = Line {
        time: format!("{time:.6}"),
        id: outcome.id,
        peer: outcome.peer.map(|peer| canonical(peer).to_string()),
        dialect: outcome.dialect.map(Dialect::name),
        bytes: outcome.bytes,
        duration: outcome.duration.as_micros() as f64 / 1e6,
        outcome: if error.is_none() { "complete" } else { "error" },
        reason: error.map(Abort::code),
        error: error.map(ToString::to_string),
        unmarked: outcome.unmarked.as_ref().map(reason),
    };
    // Numbers and strings always have a form in JSON.
    let line = serde_json::to_string(&line).unwrap_or_default();
    (escape_json(line) + "\n").into_bytes()
}

/// Repeats a call that a signal interrupted.
fn retry<T>(call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    rustix::io::retry_on_intr(call).map_err(io::Error::from)
}

/// The absolute path with no link in it, whether or not the file is there.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(io::ErrorKind::IsADirectory)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok(fs::canonicalize(parent.unwrap_or(Path::new(".")))?.join(name))
        }
        resolved => resolved,
    }
}

/// Whether `path` is `folder` or below it, under whatever name.
fn is_inside(path: &Path, folder: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let folder = identity(folder);
    folder.is_some() && path.ancestors().any(|path| identity(path) == folder)
}
