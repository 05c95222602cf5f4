//! The journal's descriptor: appends whole lines to a file or pipe.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, SeekFrom, fstat, seek};
use rustix::io::pread;

use super::place::retry;
use super::queue::Written;
use crate::server::sys;

/// Maximum number of bytes that a pipe accepts as a unit (`PIPE_BUF`).
const PIPE_BATCH: usize = 4096;

/// Maximum number of bytes in one write to a file.
const FILE_BATCH: usize = 64 << 10;

/// How often to look again at a file while other processes are writing to it. More than a few looks
/// need a file to which others write all the time; then an empty line may separate two records.
const LOOKS: u32 = 100;

/// Requested capacity of a pipe (1 MiB, about 5,000 lines), so that a reader that pauses briefly
/// does not delay any client.
const PIPE_CAPACITY: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Output {
    fd: OwnedFd,
    is_file: bool,
    /// Whether a line must be on the disk before its client is released.
    durable: bool,
    /// Where the last write of this process ended. A file of another size has been written to by
    /// another process.
    end: Option<u64>,
    /// Whether the last write ended in the middle of a line.
    torn: bool,
}

impl Output {
    pub(super) fn new(fd: OwnedFd, durable: bool) -> io::Result<Self> {
        let kind = FileType::from_raw_mode(fstat(&fd)?.st_mode);
        if kind == FileType::Fifo
            && let Err(error) = sys::set_pipe_capacity(&fd, PIPE_CAPACITY)
        {
            log::debug!("cannot enlarge the pipe of the journal: {error}");
        }
        let is_file = kind == FileType::RegularFile;
        Ok(Output { fd, is_file, durable: durable && is_file, end: None, torn: false })
    }

    /// Returns the maximum number of bytes to pass to one call of [`write`](Output::write).
    pub(super) fn batch(&self) -> usize {
        if self.is_file { FILE_BATCH } else { PIPE_BATCH }
    }

    /// Waits until a pipe has room, for at most `limit`. For a file it always waits for `limit`,
    /// because only another attempt shows whether a full disk has room again.
    pub(super) fn wait(&self, limit: Duration) {
        if self.is_file {
            return std::thread::sleep(limit);
        }
        let limit = Timespec { tv_sec: 0, tv_nsec: limit.subsec_nanos().into() };
        // The result does not matter: the caller tries to write in any case.
        let _ = poll(&mut [PollFd::new(&self.fd, PollFlags::OUT)], Some(&limit));
    }

    /// Writes lines with a single call and, if `durable`, syncs them to the disk.
    pub(super) fn write(&mut self, lines: &[u8]) -> Written {
        let repaired;
        let (text, prefix) = if self.ends_within_a_line() {
            repaired = [b"\n", lines].concat();
            (repaired.as_slice(), 1)
        } else {
            (lines, 0)
        };
        match self.write_once(text) {
            Ok(count) => {
                self.torn = text[count - 1] != b'\n';
                let bytes = count.saturating_sub(prefix);
                // Sync even if the disk is full: the clients of complete lines are notified.
                let synced = self.sync();
                let is_synced = synced.is_ok();
                let whole = match bytes < lines.len() {
                    true => Err(io::ErrorKind::StorageFull.into()),
                    false => Ok(()),
                };
                Written { bytes, is_synced, result: synced.and(whole) }
            }
            Err(error) => Written { bytes: 0, is_synced: true, result: Err(error) },
        }
    }

    fn write_once(&mut self, text: &[u8]) -> io::Result<usize> {
        if !self.is_file {
            // Without O_NONBLOCK, a write to a full pipe would block.
            let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
            if retry(|| poll(&mut fds, Some(&Timespec::default())))? == 0 {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "the pipe is full"));
            }
        }
        match retry(|| rustix::io::write(&self.fd, text)) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::new(io::ErrorKind::WouldBlock, "the pipe is full"))
            }
            written => written,
        }
        .inspect(|_| {
            if self.is_file {
                // The size could already count a part of another process's line.
                self.end = seek(&self.fd, SeekFrom::Current(0)).ok();
            }
        })
    }

    fn sync(&self) -> io::Result<()> {
        if self.durable { retry(|| sys::sync_data(&self.fd)) } else { Ok(()) }
    }

    /// Returns whether the next line would be joined to an incomplete one, left by this server, by
    /// a server that was killed, or by another process that writes to the same file.
    fn ends_within_a_line(&self) -> bool {
        if !self.is_file {
            return self.torn;
        }
        let mut seen = None;
        for _ in 0..LOOKS {
            let Ok(size) = fstat(&self.fd).map(|stat| stat.st_size as u64) else { return false };
            if size == 0 || (self.end == Some(size) && !self.torn) {
                return false;
            }
            if seen == Some(size) {
                return true;
            }
            let mut last = [b'\n'];
            // The stdout of a shell is only open for writing. Then only the lines that this process has
            // written are known.
            if retry(|| pread(&self.fd, &mut last, size - 1)).is_err() {
                return self.torn;
            }
            if last == *b"\n" {
                return false;
            }
            // File systems store a write in pages, so this may be the middle of a line that another
            // process is writing now. A write of nothing changes nothing, but waits until it has
            // written it. If the file then has the same size, no process will complete the line.
            let _ = rustix::io::write(&self.fd, &[]);
            seen = Some(size);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;

    use super::*;

    fn open(path: &std::path::Path) -> Output {
        let file = File::options().read(true).append(true).create(true).open(path).unwrap();
        Output::new(file.into(), false).unwrap()
    }

    #[test]
    fn starts_a_new_line_after_an_incomplete_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        // As left by a server that was killed.
        fs::write(&path, "{\"torn\":").unwrap();
        let mut output = open(&path);
        assert!(matches!(output.write(b"one\n"), Written { bytes: 4, result: Ok(()), .. }));
        assert!(matches!(output.write(b"two\n"), Written { bytes: 4, result: Ok(()), .. }));
        // As left by another server whose disk was full.
        File::options().append(true).open(&path).unwrap().write_all(b"{\"tor").unwrap();
        assert!(matches!(output.write(b"three\n"), Written { bytes: 6, result: Ok(()), .. }));
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"torn\":\none\ntwo\n{\"tor\nthree\n");
    }

    /// As the stdout of `accio-server --journal - >>journal`.
    #[test]
    fn starts_a_new_line_in_a_file_that_it_may_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let file = File::options().append(true).create(true).open(&path).unwrap();
        let mut output = Output::new(file.into(), false).unwrap();
        // As if the disk had been full after these bytes.
        assert!(matches!(output.write(b"{\"tor"), Written { bytes: 5, result: Ok(()), .. }));
        assert!(matches!(output.write(b"one\n"), Written { bytes: 4, result: Ok(()), .. }));
        assert!(matches!(output.write(b"two\n"), Written { bytes: 4, result: Ok(()), .. }));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"tor\none\ntwo\n");
    }

    #[test]
    fn separates_no_line_that_another_process_is_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        // Lines of this length often end in the middle of a page, and begin in the one before.
        let line = [&[b'x'; 699][..], b"\n"].concat();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut output = open(&path);
                    for _ in 0..5_000 {
                        assert!(matches!(
                            output.write(&line),
                            Written { bytes: 700, result: Ok(()), .. }
                        ));
                    }
                });
            }
        });
        let text = fs::read(&path).unwrap();
        let empty = text.split(|&byte| byte == b'\n').filter(|line| line.is_empty()).count();
        // The last line feed ends the file.
        assert_eq!(empty, 1, "empty lines");
        assert_eq!(text.len(), 10_000 * line.len());
    }

    #[test]
    fn refuses_lines_while_the_pipe_is_full() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut output = Output::new(writer.into(), false).unwrap();
        let line = [&[b'x'; 999][..], b"\n"].concat();
        let mut written = 0;
        while let Written { bytes: 1000, result: Ok(()), .. } = output.write(&line) {
            written += 1;
        }
        assert!(
            written > if cfg!(linux_sys) { 1000 } else { 10 },
            "{written} lines in a pipe of {PIPE_CAPACITY} bytes"
        );
        assert!(matches!(output.write(&line), Written { bytes: 0, result: Err(error), .. }
            if error.kind() == io::ErrorKind::WouldBlock));
        std::io::Read::read_exact(&mut &reader, &mut [0; 100_000]).unwrap();
        assert!(matches!(output.write(&line), Written { bytes: 1000, result: Ok(()), .. }));
    }
}
