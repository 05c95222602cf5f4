//! Where a client takes its bytes from.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::FileTypeExt;

/// What to send. A [`File`] goes within the kernel where it can, be it a regular one or a pipe;
/// anything else is read.
///
/// A file is sent from its position to its end *as found*: what it grows by meanwhile is sent
/// too, and when it shrinks below its size at the start, the sending fails and the connection is
/// reset. So a file that others write to is sent as one of its states, or not at all, only if
/// they append.
///
/// A [`File`] that is none, such as a pipe, a terminal or a socket, is sent until its end. It may be
/// silent for as long as it likes: the client waits for it and for the server at once, so it notices
/// when the server has had enough of waiting (an Accio server after ten seconds).
pub struct Source<'a>(pub(super) SourceKind<'a>);

pub(super) enum SourceKind<'a> {
    /// A regular file.
    File(File),
    /// Another descriptor that can be waited for, and whether it is a pipe.
    Stream(File, bool),
    /// The rest of the world.
    Read(Box<dyn Read + Send + 'a>),
}

impl<'a> Source<'a> {
    /// All that `reader` has. While it blocks, the server waits, and may give up; that is noticed
    /// when the reader comes back. Where it reads a descriptor, better give that as a [`File`].
    pub fn reader(reader: impl Read + Send + 'a) -> Self {
        Source(SourceKind::Read(Box::new(reader)))
    }

    /// How much there is to send, where that is known.
    pub(super) fn size(&mut self) -> io::Result<Option<u64>> {
        match &mut self.0 {
            SourceKind::File(file) => {
                let position = file.stream_position()?;
                Ok(Some(file.metadata()?.len().saturating_sub(position)))
            }
            SourceKind::Stream(..) | SourceKind::Read(_) => Ok(None),
        }
    }
}

impl From<File> for Source<'_> {
    fn from(file: File) -> Self {
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Source(SourceKind::File(file)),
            // Pipes and devices have neither a size nor a position; a directory's fault shows in
            // reading it.
            Ok(metadata) => Source(SourceKind::Stream(file, metadata.file_type().is_fifo())),
            Err(_) => Source(SourceKind::Stream(file, false)),
        }
    }
}

impl<'a> From<&'a [u8]> for Source<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Source::reader(bytes)
    }
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            SourceKind::File(file) | SourceKind::Stream(file, _) => {
                f.debug_tuple("Source").field(file).finish()
            }
            SourceKind::Read(_) => f.write_str("Source(reader)"),
        }
    }
}
