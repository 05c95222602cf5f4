//! What an upload sends: a file, standard input, a folder as a tar archive, or a command's output.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;

use accio_cli::check_stdin;
use accio_proto::Source;

use crate::arguments::is_stdin;
use crate::{command, folder};

/// One upload's content, as the command line names it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'a> {
    /// A FILE: a regular file, a folder, `-`, or anything else that can be read.
    File(&'a Path),
    /// The words of `--from-command`, and the text they were split from.
    Command { words: &'a [String], line: &'a str },
}

/// Opened content, for as many attempts as it takes.
#[derive(Debug)]
pub(crate) enum Opened<'a> {
    /// A regular file and the position its content begins at.
    File { file: File, start: u64 },
    /// A pipe, a terminal or a device: its bytes can be read once.
    Stream(File),
    /// A folder, archived anew for each attempt.
    Folder(&'a Path),
    /// A command, run anew for each attempt.
    Command(&'a [String]),
}

impl<'a> Content<'a> {
    /// Opens the content, so that what cannot be read fails before the server is connected to.
    pub(crate) fn open(self) -> io::Result<Opened<'a>> {
        let path = match self {
            Content::Command { words, .. } => return Ok(Opened::Command(words)),
            Content::File(path) => path,
        };
        let mut file = match is_stdin(path) {
            true => {
                check_stdin()?;
                File::from(io::stdin().as_fd().try_clone_to_owned()?)
            }
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
            Opened::Folder(path)
        })
    }

    /// The FILE of the command line, if it is one.
    pub(crate) fn path(self) -> Option<&'a Path> {
        match self {
            Content::File(path) => Some(path),
            Content::Command { .. } => None,
        }
    }

    /// The command of `--from-command`, if it is one.
    pub(crate) fn command(self) -> Option<&'a str> {
        match self {
            Content::File(_) => None,
            Content::Command { line, .. } => Some(line),
        }
    }
}

impl<'a> Opened<'a> {
    /// The content from its start, for one attempt.
    pub(crate) fn source(&self) -> io::Result<Source<'a>> {
        Ok(match self {
            Opened::File { file, start } => {
                let mut file = file.try_clone()?;
                file.seek(SeekFrom::Start(*start))?;
                file.into()
            }
            Opened::Stream(file) => file.try_clone()?.into(),
            Opened::Folder(path) => folder::archive(path)?,
            Opened::Command(words) => command::output(words)?,
        })
    }

    /// Whether its bytes are gone once they have been read.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self, Opened::Stream(_))
    }

    /// Whether it is produced while it is sent, so that the server may wait for it.
    pub(crate) fn is_produced(&self) -> bool {
        !matches!(self, Opened::File { .. })
    }
}
