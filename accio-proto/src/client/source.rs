//! The sources of an upload.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::task::{Context, Poll};

/// The bytes to send. Regular files and pipes given as a [`File`] are sent by the kernel without a
/// copy where possible; anything else is read and then sent.
///
/// A file is sent from its position to its end at the time when the end is reached: bytes appended
/// during the upload are sent too. If the file becomes shorter than it was at the start, the upload
/// fails and the connection is reset. So a file that other programs change during the upload is
/// sent in one of its states, or not at all, only if they append. The size of a file without
/// blocks, as in `/proc` and `/sys`, is not relied on.
///
/// A [`File`] that is not a regular file, such as a pipe, a terminal or a socket, is sent until its
/// end. It may pause for any time: the client waits for it and for the server at once, so it
/// notices when the server closes the connection (an Accio server does so after ten seconds of
/// silence).
pub struct Source<'a> {
    pub(super) kind: SourceKind<'a>,
    /// Called after the end until it returns whether the source was complete.
    pub(super) outcome: Option<Box<OutcomeOf<'a>>>,
}

/// Argument of [`Source::with_outcome`].
pub(super) type OutcomeOf<'a> = dyn FnMut() -> Option<io::Result<()>> + Send + 'a;

/// Argument of [`Source::poll`].
pub(super) type PollRead<'a> =
    dyn FnMut(&mut Context<'_>, &mut [u8]) -> Poll<io::Result<usize>> + Send + 'a;

pub(super) enum SourceKind<'a> {
    /// A regular file.
    File(File),
    /// Another descriptor that can be waited for, and whether it is a pipe.
    Stream(File, bool),
    /// Any other reader.
    Read(Box<dyn Read + Send + 'a>),
    /// A reader that is polled.
    Poll(Box<PollRead<'a>>),
}

impl<'a> Source<'a> {
    /// Returns a source that reads `reader` to its end. While a read blocks, the client does not
    /// notice that the server has closed the connection. If the reader is a descriptor, pass it as
    /// a [`File`] instead.
    pub fn reader(reader: impl Read + Send + 'a) -> Self {
        SourceKind::Read(Box::new(reader)).into()
    }

    /// Returns a source that is read by a function like `AsyncRead::poll_read`, for
    /// [`Connected::upload`](super::Connected::upload). The function returns the number of bytes,
    /// 0 at the end. While it is pending, the client notices when the server closes the connection.
    ///
    /// [`Client::send`](super::Client::send) calls it about ten times a second while it is pending.
    pub fn poll(
        read: impl FnMut(&mut Context<'_>, &mut [u8]) -> Poll<io::Result<usize>> + Send + 'a,
    ) -> Self {
        SourceKind::Poll(Box::new(read)).into()
    }

    /// Returns a source for a stream whose end does not tell whether it is complete, such as a pipe
    /// from another process.
    ///
    /// After the end of the stream, `outcome` is called until it returns a value, about ten times a
    /// second at least. An error fails the upload with [`ClientError::Read`](super::ClientError::Read)
    /// and resets the connection. It is dropped when the upload has ended, and with it what it owns.
    pub fn with_outcome(
        stream: File,
        outcome: impl FnMut() -> Option<io::Result<()>> + Send + 'a,
    ) -> Self {
        Source { outcome: Some(Box::new(outcome)), ..Source::from(stream) }
    }

    /// Returns the number of bytes to send, if it is known.
    pub(super) fn size(&mut self) -> io::Result<Option<u64>> {
        match &mut self.kind {
            SourceKind::File(file) => {
                let position = file.stream_position()?;
                Ok(Some(file.metadata()?.len().saturating_sub(position)))
            }
            SourceKind::Stream(..) | SourceKind::Read(_) | SourceKind::Poll(_) => Ok(None),
        }
    }
}

/// The state of a regular file before it is sent, to find out whether it became shorter.
pub(super) struct FileState {
    length: u64,
    times: [(i64, i64); 2],
    has_blocks: bool,
}

impl FileState {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(FileState {
            length: metadata.len(),
            times: [
                (metadata.mtime(), metadata.mtime_nsec()),
                (metadata.ctime(), metadata.ctime_nsec()),
            ],
            has_blocks: metadata.blocks() > 0,
        })
    }

    /// Returns whether the file never had the length it reports: it ended early, it has no blocks,
    /// nothing about it has changed, and it still ends at its position. File systems without a
    /// disk, such as sysfs, report a page for every file.
    pub(super) fn misreports_length(&self, mut file: &File) -> io::Result<bool> {
        let now = FileState::of(file)?;
        Ok(!self.has_blocks
            && !now.has_blocks
            && (now.length, now.times) == (self.length, self.times)
            && file.read(&mut [0])? == 0)
    }
}

impl<'a> From<SourceKind<'a>> for Source<'a> {
    fn from(kind: SourceKind<'a>) -> Self {
        Source { kind, outcome: None }
    }
}

impl From<File> for Source<'_> {
    fn from(file: File) -> Self {
        let kind = match file.metadata() {
            Ok(metadata) if metadata.is_file() => SourceKind::File(file),
            // Pipes and devices have neither a size nor a position. For a directory, reading
            // returns the error.
            Ok(metadata) => SourceKind::Stream(file, metadata.file_type().is_fifo()),
            Err(_) => SourceKind::Stream(file, false),
        };
        kind.into()
    }
}

impl<'a> From<&'a [u8]> for Source<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Source::reader(bytes)
    }
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            SourceKind::File(file) | SourceKind::Stream(file, _) => {
                f.debug_tuple("Source").field(file).finish()
            }
            SourceKind::Read(_) | SourceKind::Poll(_) => f.write_str("Source(reader)"),
        }
    }
}
