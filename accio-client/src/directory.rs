//! Archives a directory in tar format: a thread writes into a pipe while the client sends from it.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Cursor, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use accio_proto::{Source, os_error_text};
use rustix::fs::{Dev, OFlags, major, minor};
use tar::{Builder, EntryType, Header};

/// Maximum size of a file that is read into memory first, so that its entry has the size that was
/// actually read. Files in `/proc` and `/sys` report a wrong size.
const IN_MEMORY: u64 = 1 << 20;

/// Starts archiving the directory. Reading the source fails at the end unless every file was read.
pub(crate) fn archive(directory: &Path) -> io::Result<Source<'static>> {
    let (output, input) = io::pipe()?;
    let directory = directory.to_owned();
    let archiving = thread::Builder::new()
        .name("accio-archive".into())
        .spawn(move || write(&directory, io::BufWriter::with_capacity(1 << 16, input)))?;
    let mut archiving = Some(archiving);
    let outcome = move || {
        // The thread closes its end of the pipe just before it ends.
        let archiving = archiving.take_if(|thread| thread.is_finished())?;
        let panicked = |_| Err(io::Error::other("the archive could not be written"));
        Some(archiving.join().unwrap_or_else(panicked))
    };
    Ok(Source::with_outcome(File::from(OwnedFd::from(output)), outcome))
}

/// Writes the archive of `directory` with its entries in alphabetical order.
fn write(directory: &Path, output: impl Write) -> io::Result<()> {
    let mut archive = Builder::new(output);
    archive.follow_symlinks(false);
    let mut waiting = vec![(directory.to_owned(), PathBuf::from(name(directory)?))];
    while let Some((path, name)) = waiting.pop() {
        let named = |error: io::Error| {
            let text = format!("{path:?}: {}", os_error_text(&error));
            io::Error::new(error.kind(), text)
        };
        let is_top = path == directory;
        let metadata = if is_top { fs::metadata(&path) } else { fs::symlink_metadata(&path) };
        let metadata = metadata.map_err(named)?;
        if metadata.is_dir() {
            let mut header = header(&metadata, EntryType::Directory, 0);
            archive.append_data(&mut header, &name, io::empty()).map_err(named)?;
            let mut entries = Vec::new();
            for entry in fs::read_dir(&path).map_err(named)? {
                entries.push(entry.map_err(named)?.file_name());
            }
            entries.sort_unstable_by(|a, b| b.cmp(a));
            waiting.extend(entries.iter().map(|entry| (path.join(entry), name.join(entry))));
        } else if metadata.is_file() {
            append_file(&mut archive, &path, &name).map_err(named)?;
        } else if metadata.is_symlink() {
            append_link(&mut archive, &metadata, &path, &name).map_err(named)?;
        } else {
            append_special(&mut archive, &metadata, &name).map_err(named)?;
        }
    }
    archive.into_inner()?.flush()
}

/// Returns the name of the directory in the archive, which is the name of the directory itself.
fn name(directory: &Path) -> io::Result<std::ffi::OsString> {
    if let Some(name) = directory.file_name() {
        return Ok(name.to_owned());
    }
    // The path is `.`, `..` or `/`.
    let directory = fs::canonicalize(directory)?;
    Ok(directory.file_name().unwrap_or(OsStr::new(".")).to_owned())
}

/// Appends a regular file: a small one as it was read, a large one with its size at the time it is
/// opened. Fails if a large file shrinks; ignores bytes appended after it was opened.
fn append_file(archive: &mut Builder<impl Write>, path: &Path, name: &Path) -> io::Result<()> {
    // If the file was replaced by a link or a pipe since it was listed, do not follow it or block
    // on it.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let mut file = File::options().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it changed while it was archived"));
    }
    if metadata.len() < IN_MEMORY {
        let mut content = Vec::new();
        (&mut file).take(IN_MEMORY + 1).read_to_end(&mut content)?;
        if content.len() as u64 > IN_MEMORY {
            return Err(io::Error::other("it grew while it was archived"));
        }
        let mut header = header(&metadata, EntryType::Regular, content.len() as u64);
        return archive.append_data(&mut header, name, Cursor::new(content));
    }
    let mut header = header(&metadata, EntryType::Regular, metadata.len());
    archive.append_data(&mut header, name, Exactly { file, left: metadata.len() })
}

/// Appends a symbolic link with its exact target. The library would remove `//` and `./` from it.
fn append_link(
    archive: &mut Builder<impl Write>,
    metadata: &Metadata,
    path: &Path,
    name: &Path,
) -> io::Result<()> {
    let target = fs::read_link(path)?.into_os_string().into_vec();
    let mut header = header(metadata, EntryType::Symlink, 0);
    if header.set_link_name_literal(&target).is_err() {
        // The target is too long for the header: a separate entry has it, with a NUL at its end.
        let mut long = Header::new_gnu();
        let name = b"././@LongLink";
        long.as_old_mut().name[..name.len()].copy_from_slice(name);
        long.set_mode(0o644);
        long.set_entry_type(EntryType::GNULongLink);
        long.set_size(target.len() as u64 + 1);
        long.set_cksum();
        archive.append(&long, target.chain(io::repeat(0).take(1)))?;
    }
    archive.append_data(&mut header, name, io::empty())
}

/// Appends a named pipe or device. The library would name the entry by its path on this machine,
/// which may be absolute.
fn append_special(
    archive: &mut Builder<impl Write>,
    metadata: &Metadata,
    name: &Path,
) -> io::Result<()> {
    let kind = metadata.file_type();
    let entry_type = if kind.is_fifo() {
        EntryType::Fifo
    } else if kind.is_char_device() {
        EntryType::Char
    } else if kind.is_block_device() {
        EntryType::Block
    } else {
        return Err(io::Error::other("a socket cannot be archived"));
    };
    let mut header = header(metadata, entry_type, 0);
    #[allow(clippy::unnecessary_cast, reason = "it has 32 bits on macOS")]
    let device = metadata.rdev() as Dev;
    header.set_device_major(major(device))?;
    header.set_device_minor(minor(device))?;
    archive.append_data(&mut header, name, io::empty())
}

fn header(metadata: &Metadata, entry_type: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata(metadata);
    header.set_entry_type(entry_type);
    header.set_size(size);
    if let (true, Some(header)) = (metadata.mtime() < 0, header.as_gnu_mut()) {
        // The time is before 1970. GNU tar writes such numbers in two's complement, which the
        // library does not know.
        header.mtime = [0xff; 12];
        header.mtime[4..].copy_from_slice(&metadata.mtime().to_be_bytes());
    }
    header
}

/// Reads an exact number of bytes from a file; fails if the file has fewer.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read(&mut buffer[..wanted])?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::other("it shrank while it was archived"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn archived(directory: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut bytes = Vec::new();
        write(directory, &mut bytes)?;
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries()?.map(|entry| {
            let mut entry = entry?;
            let name = entry.path()?.display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            if let Some(target) = entry.link_name()? {
                content = target.as_os_str().as_encoded_bytes().to_vec();
            }
            Ok((name, content))
        });
        entries.collect()
    }

    #[test]
    fn archives_all_entries_of_a_directory_under_its_name() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("photos");
        fs::create_dir_all(directory.join("empty")).unwrap();
        fs::create_dir_all(directory.join("sub")).unwrap();
        let large = vec![7; 3 << 20];
        fs::write(directory.join("a"), b"").unwrap();
        fs::write(directory.join("large"), &large).unwrap();
        fs::write(directory.join("sub").join("x".repeat(200)), b"content").unwrap();
        symlink("../nowhere", directory.join("sub/link")).unwrap();
        let entry = |name: &str, content: &[u8]| (name.to_owned(), content.to_vec());
        let expected = [
            entry("photos", b""),
            entry("photos/a", b""),
            entry("photos/empty", b""),
            entry("photos/large", &large),
            entry("photos/sub", b""),
            entry("photos/sub/link", b"../nowhere"),
            entry(&format!("photos/sub/{}", "x".repeat(200)), b"content"),
        ];
        let trim =
            |(name, content): (String, Vec<u8>)| (name.trim_end_matches('/').to_owned(), content);
        let found: Vec<_> = archived(&directory).unwrap().into_iter().map(trim).collect();
        assert_eq!(found, expected);
        assert_eq!(name(&directory.join(".")).unwrap(), "photos");
        assert_eq!(name(Path::new("/")).unwrap(), ".");
    }

    #[test]
    fn keeps_the_exact_targets_of_links() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("d");
        fs::create_dir(&directory).unwrap();
        let long = format!("./{}//x", "y".repeat(200));
        for (name, target) in [("a", "http://example.org/./a"), ("b", "./x//y/"), ("c", &long)] {
            symlink(target, directory.join(name)).unwrap();
        }
        let mut bytes = Vec::new();
        write(&directory, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap().map(Result::unwrap);
        let targets: Vec<_> =
            entries.filter_map(|entry| Some(entry.link_name_bytes()?.into_owned())).collect();
        assert_eq!(targets, [&b"http://example.org/./a"[..], b"./x//y/", long.as_bytes()]);
    }

    #[test]
    fn keeps_times_before_1970() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("old");
        let time = std::time::UNIX_EPOCH - std::time::Duration::from_secs(300_000_000);
        File::create(&path).unwrap().set_modified(time).unwrap();
        let header = header(&fs::metadata(&path).unwrap(), EntryType::Regular, 0);
        let expected = [&[0xff; 4][..], &(-300_000_000_i64).to_be_bytes()].concat();
        assert_eq!(header.as_gnu().unwrap().mtime[..], expected);
    }

    #[test]
    fn names_pipes_by_their_place_in_the_directory() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("d");
        fs::create_dir_all(directory.join("sub")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o640);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, directory.join("sub/pipe"), kind, mode, 0).unwrap();
        // An absolute path, and one with `..`.
        for path in [directory.clone(), directory.join("sub/..")] {
            let mut bytes = Vec::new();
            write(&path, &mut bytes).unwrap();
            let mut archive = tar::Archive::new(&bytes[..]);
            let last = archive.entries().unwrap().last().unwrap().unwrap();
            assert_eq!(last.path().unwrap(), Path::new("d/sub/pipe"), "{path:?}");
            assert_eq!(last.header().entry_type(), EntryType::Fifo);
            assert_eq!(last.header().mode().unwrap() & 0o777, 0o640);
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn archives_devices() {
        let mut bytes = Vec::new();
        let mut archive = Builder::new(&mut bytes);
        let metadata = fs::symlink_metadata("/dev/null").unwrap();
        append_special(&mut archive, &metadata, Path::new("d/null")).unwrap();
        drop(archive);
        let mut archive = tar::Archive::new(&bytes[..]);
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        let header = entry.header();
        assert_eq!(
            (entry.path().unwrap().as_ref(), header.entry_type()),
            (Path::new("d/null"), EntryType::Char)
        );
        assert_eq!(
            (header.device_major().unwrap(), header.device_minor().unwrap()),
            (Some(1), Some(3))
        );
    }

    #[test]
    fn a_shrinking_file_fails_and_growth_is_ignored() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("f");
        fs::write(&path, [1; 10]).unwrap();
        let exactly = |left| Exactly { file: File::open(&path).unwrap(), left };
        assert_eq!(io::read_to_string(exactly(4)).unwrap().len(), 4);
        let error = io::read_to_string(exactly(11)).unwrap_err();
        assert_eq!(error.to_string(), "it shrank while it was archived");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn archives_files_that_report_a_wrong_size() {
        let mut bytes = Vec::new();
        let mut archive = Builder::new(&mut bytes);
        append_file(&mut archive, Path::new("/proc/version"), Path::new("version")).unwrap();
        drop(archive);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        assert_eq!(content, fs::read_to_string("/proc/version").unwrap());
    }

    #[test]
    fn reports_the_path_of_a_socket_once() {
        let place = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place.path().join("s")).unwrap();
        let error = write(place.path(), io::sink()).unwrap_err();
        let expected = format!("{:?}: a socket cannot be archived", place.path().join("s"));
        assert_eq!(error.to_string(), expected);
    }
}
