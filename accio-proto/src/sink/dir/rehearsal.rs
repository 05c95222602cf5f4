//! A trial run of every operation that an upload needs, before the first upload.
//!
//! File systems differ in what they support, and some report success for calls without effect. The
//! rehearsal does the same with a hidden name as uploads do with theirs, checks the result, chooses
//! alternatives for calls that do not work, and removes its files.

use std::io;
use std::os::fd::OwnedFd;

use super::directory::{Dir, Exclusive};
use super::error::{DirError, DirErrorKind};
use super::existing::Existing;
use super::room;
use crate::fast_path::FastPath;
use crate::program_log as log;
use crate::sink::ERROR_MARKER;
use crate::sys::{file as calls, file_system};

/// A problem found by a rehearsal.
struct Fault {
    kind: DirErrorKind,
    why: io::Error,
}

/// Names that are removed at the end of a rehearsal.
struct Names<'a> {
    dir: &'a Dir,
    names: Vec<String>,
}

impl Drop for Names<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = calls::unlink(&self.dir.fd, name)
                && error.kind() != io::ErrorKind::NotFound
            {
                log::warn!("cannot remove {name:?}: {error}");
            }
        }
    }
}

/// Finds a way to store files in `dir` that satisfies its options, or returns the reason why none
/// works.
pub(super) fn rehearse(dir: &mut Dir, ways: &[Exclusive]) -> Result<(), DirError> {
    let mut last = None;
    for &exclusive in ways {
        dir.exclusive = exclusive;
        let mut outcome = attempt(dir);
        if let Err(fault) = &outcome
            && dir.paths.has(FastPath::Tmpfile)
            && fault.kind != DirErrorKind::Durable
        {
            // Unnamed files may be the cause.
            let why = fault.why.to_string();
            dir.paths.refused(FastPath::Tmpfile, why);
            outcome = attempt(dir);
        }
        match outcome {
            Ok(()) => {
                warn_of_weak_sync(dir);
                dir.counts_inodes = calls::free_space(&dir.fd).is_ok_and(room::counts_inodes);
                return Ok(());
            }
            Err(fault) if is_full(&fault.why) && fault.kind != DirErrorKind::Unusable => {
                let path = &dir.path;
                log::warn!(
                    "cannot try out {path:?}, which is full: problems may appear only at the first upload"
                );
                return Ok(());
            }
            Err(fault) => {
                // Another way to publish helps only if publishing failed.
                let is_final = fault.kind != DirErrorKind::Publish;
                last = Some(fault);
                if is_final {
                    break;
                }
            }
        }
    }
    match last {
        None => Ok(()),
        Some(fault) => Err(explain(dir, fault)),
    }
}

fn explain(dir: &Dir, Fault { kind, why }: Fault) -> DirError {
    let action = match kind {
        DirErrorKind::Mode => "cannot set the permissions of files in directory",
        DirErrorKind::Durable => "cannot write to the disk on request in directory",
        DirErrorKind::Publish => "cannot give complete files their names in directory",
        _ => "cannot create files in directory",
    };
    let source = match (kind, file_system::name(&dir.fd)) {
        (DirErrorKind::Unusable, _) | (_, None) => why,
        (_, Some(name)) => {
            let why = crate::os_error::reason(&why);
            io::Error::other(format!("{why} (the file system is {name})"))
        }
    };
    DirError::new(kind, action, &dir.path, source)
}

fn attempt(dir: &Dir) -> Result<(), Fault> {
    let fault = |kind| move |why| Fault { kind, why };
    let mut names = Names { dir, names: Vec::new() };

    // Create a file like an error marker and like an upload.
    let (marker, mut hidden) = create(&mut names).map_err(fault(DirErrorKind::Unusable))?;
    check_mode(dir, &marker).map_err(fault(DirErrorKind::Mode))?;
    let written = match calls::write_all(&marker, ERROR_MARKER) {
        Err(error) if is_full(&error) => 0,
        written => {
            written.map(|()| ERROR_MARKER.len() as u64).map_err(fault(DirErrorKind::Unusable))?
        }
    };
    if hidden.is_some() {
        calls::flush(&marker).map_err(fault(DirErrorKind::Unusable))?;
    }
    if dir.durable {
        calls::sync_data(&marker).map_err(fault(DirErrorKind::Durable))?;
    }
    let published = dir.hidden_names.first_free(0, |name| {
        names.names.push(name.to_owned());
        dir.publish(&marker, &mut hidden, name)
    });
    let ((), name) = published.map_err(fault(DirErrorKind::Publish))?;
    expect_size(dir, &name, written).map_err(fault(DirErrorKind::Publish))?;
    if let Some(mode) = dir.mode {
        expect_mode(mode, calls::stat(&dir.fd, &name)).map_err(fault(DirErrorKind::Mode))?;
    }

    // Create a second file with the same name, one byte shorter.
    let (second, mut hidden) = create(&mut names).map_err(fault(DirErrorKind::Unusable))?;
    let shorter = written.saturating_sub(1);
    calls::write_all(&second, &ERROR_MARKER[..shorter as usize])
        .and_then(|()| if hidden.is_some() { calls::flush(&second) } else { Ok(()) })
        .map_err(fault(DirErrorKind::Unusable))?;
    let published = dir.publish(&second, &mut hidden, &name);
    names.names.extend(hidden);
    let size = match (dir.existing, published) {
        (Existing::Replace, Ok(())) => shorter,
        (Existing::Replace, Err(why)) => return Err(Fault { kind: DirErrorKind::Publish, why }),
        (Existing::Keep, Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => written,
        (Existing::Keep, Err(why)) => return Err(Fault { kind: DirErrorKind::Publish, why }),
        (Existing::Keep, Ok(())) => {
            let why = io::Error::other("an existing file was replaced");
            return Err(Fault { kind: DirErrorKind::Publish, why });
        }
    };
    expect_size(dir, &name, size).map_err(fault(DirErrorKind::Publish))?;
    if dir.durable {
        calls::sync(&dir.fd).map_err(fault(DirErrorKind::Durable))?;
    }
    calls::unlink(&dir.fd, &name).map_err(fault(DirErrorKind::Publish))
}

fn create(names: &mut Names<'_>) -> io::Result<(OwnedFd, Option<String>)> {
    let (fd, hidden) = names.dir.open(0)?;
    names.names.extend(hidden.clone());
    Ok((fd, hidden))
}

fn check_mode(dir: &Dir, file: &OwnedFd) -> io::Result<()> {
    let Some(mode) = dir.mode else { return Ok(()) };
    dir.set_mode(file)?;
    expect_mode(mode, calls::fstat(file))
}

fn expect_mode(mode: u32, stat: io::Result<calls::Stat>) -> io::Result<()> {
    match stat?.mode {
        found if found == mode => Ok(()),
        found => Err(io::Error::other(format!("files have mode {found:03o}, not {mode:03o}"))),
    }
}

fn expect_size(dir: &Dir, name: &str, size: u64) -> io::Result<()> {
    match calls::stat(&dir.fd, name)?.size {
        found if found == size => Ok(()),
        found => Err(io::Error::other(format!("a file has {found} bytes instead of {size}"))),
    }
}

/// Returns whether the error may disappear when files are removed.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Warns about FUSE file systems: one without a sync function reports success for every sync.
fn warn_of_weak_sync(dir: &Dir) {
    if dir.durable
        && let Some(name) = file_system::name(&dir.fd).filter(|name| name.starts_with("fuse"))
    {
        log::warn!(
            "files in {:?} are as durable as {name} makes them: it may ignore syncs",
            dir.path
        );
    }
}
