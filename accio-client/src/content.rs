//! The content of an upload: a file, standard input, a directory as a tar archive, or a command's
//! output.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use accio_cli::check_stdin;
use accio_proto::Source;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use crate::arguments::is_stdin;
use crate::{command, directory};

/// The content of one upload, as given on the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    /// A FILE: a regular file, a directory, `-`, or anything else that can be read.
    File(&'a Path),
    /// The words of `--from-command`, and the text they were split from.
    Command { words: &'a [String], line: &'a str },
}

/// Opened content, which can be sent in several attempts.
#[derive(Debug)]
pub(crate) enum Opened<'a> {
    /// A regular file and the position at which its content begins.
    File { file: File, start: u64 },
    /// A pipe, terminal or device, whose bytes can be read only once.
    Stream(File),
    /// A directory, archived again for each attempt.
    Directory(&'a Path),
    /// A command, run again for each attempt.
    Command(&'a [String]),
}

impl<'a> Content<'a> {
    /// Opens the content, so that an unreadable file fails before the client connects. Waits for the
    /// writer of a named pipe, for at most `limit`.
    pub(crate) fn open(self, limit: Option<Duration>) -> io::Result<Opened<'a>> {
        let path = match self {
            Content::Command { words, .. } => return Ok(Opened::Command(words)),
            Content::File(path) => path,
        };
        let mut file = match is_stdin(path) {
            true => {
                check_stdin()?;
                File::from(io::stdin().as_fd().try_clone_to_owned()?)
            }
            false if cfg!(target_os = "linux") && is_pipe(path)? => open_pipe(path, limit)?,
            false => File::open(path)?,
        };
        let metadata = file.metadata()?;
        Ok(if metadata.is_file() {
            let start = file.stream_position()?;
            Opened::File { file, start }
        } else if !metadata.is_dir() {
            Opened::Stream(file)
        } else if is_stdin(path) {
            return Err(io::ErrorKind::IsADirectory.into());
        } else {
            Opened::Directory(path)
        })
    }

    /// Returns the FILE argument, unless the content comes from a command.
    pub(crate) fn path(self) -> Option<&'a Path> {
        match self {
            Content::File(path) => Some(path),
            Content::Command { .. } => None,
        }
    }

    /// Returns the command of `--from-command`, if the content comes from one.
    pub(crate) fn command(self) -> Option<&'a str> {
        match self {
            Content::File(_) => None,
            Content::Command { line, .. } => Some(line),
        }
    }
}

impl<'a> Opened<'a> {
    /// Returns the content from its beginning, for one attempt.
    pub(crate) fn source(&self) -> io::Result<Source<'a>> {
        Ok(match self {
            Opened::File { file, start } => {
                let mut file = file.try_clone()?;
                file.seek(SeekFrom::Start(*start))?;
                file.into()
            }
            Opened::Stream(file) => file.try_clone()?.into(),
            Opened::Directory(path) => directory::archive(path)?,
            Opened::Command(words) => command::output(words)?,
        })
    }

    /// Returns whether its bytes can be read only once.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Opened::Stream(_))
    }

    /// Returns whether the content is produced during the transfer, so that the server may have to
    /// wait for it.
    pub(crate) fn is_produced(&self) -> bool {
        !matches!(self, Opened::File { .. })
    }
}

fn is_pipe(path: &Path) -> io::Result<bool> {
    Ok(path.metadata()?.file_type().is_fifo())
}

/// Opens a named pipe and waits for its first byte or its end. After `limit` it returns
/// the pipe without either.
fn open_pipe(path: &Path, limit: Option<Duration>) -> io::Result<File> {
    let end = limit.and_then(|limit| Instant::now().checked_add(limit));
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    // Without this flag, the call blocks until another process opens the pipe for writing.
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let left = left.map(Timespec::try_from).transpose().map_err(|_| Errno::INVAL)?;
        // Linux reports no end before there has been a writer.
        match poll(&mut [PollFd::new(&file, PollFlags::IN)], left.as_ref()) {
            Err(Errno::INTR) => {}
            result => {
                result?;
                break;
            }
        }
    }
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}
