//! File contents: derives them from a seed, compares and describes them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::verdict::{Stop, Verdict};

/// The content of a file whose transfer failed.
pub const ERROR: &[u8] = b"ERROR";

/// Length in bytes of the random block that contents repeat, with a different stamp in every page.
const BLOCK: usize = 1 << 20;
/// Distance of the stamps, so that all pages of all contents differ.
const PAGE: usize = 4096;
/// Number of leading bytes in descriptions.
const START: usize = 48;

/// Returns `length` bytes that depend on `seed`.
pub fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut content = Vec::with_capacity(length);
    blocks(seed, length as u64, |block| {
        content.extend_from_slice(block);
        Ok(())
    })
    // The closure never fails.
    .unwrap_or_default();
    content
}

/// Writes the same bytes as [`bytes`] to a file, in constant memory.
pub fn write(file: &mut File, seed: u64, length: u64) -> io::Result<()> {
    blocks(seed, length, |block| file.write_all(block))
}

fn blocks(
    seed: u64,
    mut length: u64,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut block = vec![0; BLOCK.min(usize::try_from(length).unwrap_or(BLOCK))];
    let mut random = fastrand::Rng::with_seed(seed);
    random.fill(&mut block);
    while length > 0 {
        let part = block.len().min(usize::try_from(length).unwrap_or(BLOCK));
        take(&block[..part])?;
        length -= part as u64;
        for page in block.chunks_mut(PAGE) {
            let stamp = random.u64(..).to_le_bytes();
            page.iter_mut().zip(stamp).for_each(|(byte, stamp)| *byte = stamp);
        }
    }
    Ok(())
}

/// Returns a fault unless the file at `path` contains exactly `expected`.
pub fn ensure_holds(path: &Path, expected: &[u8]) -> Verdict {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match std::fs::read(path) {
        Ok(actual) if actual == expected => Ok(()),
        Ok(actual) => Err(Stop::fault(
            format!("{name} to contain {}", describe(expected)),
            format!(
                "{}{}{}",
                describe(&actual),
                first_difference(expected, &actual),
                last(&actual)
            ),
        )),
        Err(error) => {
            Err(Stop::system_error(format!("{name} to contain {}", describe(expected)), &error))
        }
    }
}

/// Returns a fault unless both files contain the same bytes; compares them in constant memory.
pub fn ensure_same(source: &Path, received: &Path) -> Verdict {
    let name = received.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut source_file = File::open(source)?;
    let size = source_file.metadata()?.len();
    let expected = format!("{name} to be the {size} bytes that were sent");
    let mut received_file =
        File::open(received).map_err(|error| Stop::system_error(&expected, &error))?;
    let received_size = received_file.metadata()?.len();
    if received_size != size {
        return Err(Stop::fault(expected, format!("{received_size} bytes")));
    }
    let (mut left, mut right) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut offset = 0;
    while offset < size {
        let part = BLOCK.min(usize::try_from(size - offset).unwrap_or(BLOCK));
        source_file.read_exact(&mut left[..part])?;
        received_file.read_exact(&mut right[..part])?;
        if left[..part] != right[..part] {
            let difference = first_difference(&left[..part], &right[..part]);
            return Err(Stop::fault(
                expected,
                format!("different bytes in the MiB at offset {offset}{difference}"),
            ));
        }
        offset += part as u64;
    }
    Ok(())
}

/// Describes bytes by their number and the first of them.
pub fn describe(bytes: &[u8]) -> String {
    let dots = if bytes.len() > START { "…" } else { "" };
    let start = &bytes[..bytes.len().min(START)];
    let plural = if bytes.len() == 1 { "" } else { "s" };
    format!("{} byte{plural} \"{}{dots}\"", bytes.len(), start.escape_ascii())
}

/// Describes bytes as [`describe`], but without their values if they are not text: contents are
/// random.
pub fn summarize(bytes: &[u8]) -> String {
    if is_text(bytes) { describe(bytes) } else { format!("{} bytes", bytes.len()) }
}

/// Returns whether all of the bytes are printable, and few enough to be shown.
pub fn is_text(bytes: &[u8]) -> bool {
    bytes.len() <= START && bytes.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n'))
}

/// Escapes the control characters in a line of output.
pub fn escape_line(line: &str) -> String {
    let mut escaped = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '\'' | '"' => escaped.push(c),
            c => escaped.extend(c.escape_debug()),
        }
    }
    escaped
}

/// Describes the first difference of two contents; empty if one is a prefix of the other.
pub fn first_difference(expected: &[u8], actual: &[u8]) -> String {
    match expected.iter().zip(actual).position(|(expected, actual)| expected != actual) {
        Some(offset) => format!(", which differ from offset {offset} on"),
        None => String::new(),
    }
}

/// Describes the last bytes of a long content, which show appended bytes.
fn last(bytes: &[u8]) -> String {
    const SHOWN: usize = 12;
    if bytes.len() <= START {
        return String::new();
    }
    format!(", at the end \"…{}\"", bytes[bytes.len() - SHOWN..].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_contents_and_all_pages_differ() {
        assert_eq!(bytes(1, 3 * BLOCK + 5), bytes(1, 3 * BLOCK + 5));
        assert_ne!(bytes(1, 500), bytes(2, 500));
        let content = bytes(3, 2 * BLOCK);
        assert_ne!(content[..PAGE], content[BLOCK..BLOCK + PAGE]);
        assert_eq!(bytes(4, 0), b"");
    }

    #[test]
    fn finds_differences_between_files() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        write(&mut File::create(&one).unwrap(), 5, 2_500_000).unwrap();
        assert_eq!(std::fs::read(&one).unwrap(), bytes(5, 2_500_000));
        std::fs::copy(&one, &two).unwrap();
        ensure_same(&one, &two).unwrap();
        let mut content = bytes(5, 2_500_000);
        content[2_400_000] ^= 1;
        std::fs::write(&two, &content).unwrap();
        let Err(Stop::Fault(fault)) = ensure_same(&one, &two) else { panic!("not found") };
        assert!(fault.actual.contains("2097152"), "{fault:?}");
        std::fs::write(&two, &content[..7]).unwrap();
        assert!(matches!(ensure_same(&one, &two), Err(Stop::Fault(_))));
        std::fs::write(&two, [&content[..100], b"ERROR"].concat()).unwrap();
        let Err(Stop::Fault(fault)) = ensure_holds(&two, b"ERROR") else { panic!("not found") };
        assert!(fault.actual.ends_with("ERROR\""), "{fault:?}");
    }

    #[test]
    fn escapes_control_characters() {
        assert_eq!(describe(b"a\x1b\r\n"), r#"4 bytes "a\x1b\r\n""#);
        assert_eq!(describe(b"x"), r#"1 byte "x""#);
        assert!(describe(&[b'x'; 100]).ends_with("…\""));
        assert_eq!(escape_line("b'é' \"\x1b[2J"), r#"b'é' "\u{1b}[2J"#);
    }
}
