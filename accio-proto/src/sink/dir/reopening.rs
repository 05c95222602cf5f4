//! Opens a file again, to read it back.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::sys::file as calls;

/// Opens files again: through `/proc`, or by a function of the program.
#[derive(Clone, Default)]
pub(super) struct Reopening(pub(super) Option<Arc<Open>>);

type Open = dyn Fn(BorrowedFd<'_>) -> io::Result<OwnedFd> + Send + Sync;

impl Reopening {
    /// Opens a file for reading.
    pub(super) fn open(&self, file: BorrowedFd<'_>) -> io::Result<OwnedFd> {
        let Some(open) = &self.0 else { return calls::reopen(file) };
        let opened = open(file)?;
        // The content of another file would be that of another connection.
        match calls::is_same_file(file, &opened)? {
            true => Ok(opened),
            false => Err(io::Error::other("the program opened another file")),
        }
    }
}

impl fmt::Debug for Reopening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "by the program" } else { "through /proc" })
    }
}
