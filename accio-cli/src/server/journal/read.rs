//! Reads a journal back: which files it lists.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use accio_proto::Digest;
use serde::Deserialize;

/// Maximum length of a line in bytes (1 MiB). The server writes far shorter ones.
const LINE_MAX: u64 = 1 << 20;

/// The files that a journal lists, by the last record of each number: a server that is restarted
/// may begin again at 1 and replace them.
#[derive(Debug, Default)]
pub struct ListedFiles {
    /// The files by their number.
    pub files: BTreeMap<u64, ListedFile>,
    /// Number of lines that the server could not write, by its own records.
    pub lost: u64,
    /// Number of lines that cannot be read, such as those torn by a crash.
    pub torn: u64,
}

/// A file as the journal describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListedFile {
    /// The file is complete.
    Complete {
        /// Its size.
        bytes: u64,
        /// Its digest, if the server computed one.
        digest: Option<Digest>,
    },
    /// The file is complete, but its digest is malformed or of an unknown algorithm.
    Unverifiable {
        /// The digest in the journal.
        digest: String,
    },
    /// The transfer failed, so the file is the error marker.
    Failed {
        /// The reason, in one word.
        reason: String,
    },
}

/// The fields of a line that matter here.
#[derive(Debug, Deserialize)]
struct Line {
    id: Option<u64>,
    #[serde(default)]
    bytes: u64,
    digest: Option<String>,
    outcome: Option<String>,
    reason: Option<String>,
    unmarked: Option<String>,
    lost: Option<u64>,
}

impl ListedFiles {
    /// Reads a journal to its end.
    ///
    /// # Errors
    ///
    /// Returns an error if the journal cannot be read.
    pub fn read(mut journal: impl BufRead) -> io::Result<Self> {
        let mut listed = ListedFiles::default();
        let mut line = Vec::new();
        loop {
            match read_line(&mut journal, &mut line)? {
                None => return Ok(listed),
                Some(Length::TooLong) => listed.torn += 1,
                Some(Length::Whole) if line.trim_ascii().is_empty() => {}
                Some(Length::Whole) => listed.add(&line),
            }
        }
    }

    fn add(&mut self, line: &[u8]) {
        let Ok(line) = serde_json::from_slice::<Line>(line) else {
            self.torn += 1;
            return;
        };
        if let Some(lost) = line.lost {
            self.lost = self.lost.saturating_add(lost);
            return;
        }
        let file = match (line.id, line.outcome.as_deref()) {
            // A failed TLS handshake has no file.
            (None, Some("refused")) => return,
            // Not even the marker was stored: the file of an earlier record is still there.
            (Some(_), Some("error")) if line.unmarked.is_some() => return,
            (Some(_), Some("complete")) => {
                match line.digest.as_deref().map(str::parse).transpose() {
                    Ok(digest) => ListedFile::Complete { bytes: line.bytes, digest },
                    Err(_) => ListedFile::Unverifiable { digest: line.digest.unwrap_or_default() },
                }
            }
            (Some(_), Some("error")) => {
                ListedFile::Failed { reason: line.reason.unwrap_or_default() }
            }
            _ => {
                self.torn += 1;
                return;
            }
        };
        self.files.extend(line.id.map(|id| (id, file)));
    }
}

/// Whether a line was kept.
#[derive(Debug, PartialEq, Eq)]
enum Length {
    Whole,
    TooLong,
}

/// Reads a line, of which it keeps at most [`LINE_MAX`] bytes; returns `None` at the end.
fn read_line(journal: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<Length>> {
    line.clear();
    let count = journal.by_ref().take(LINE_MAX).read_until(b'\n', line)?;
    if count == 0 {
        return Ok(None);
    }
    if count as u64 == LINE_MAX && !line.ends_with(b"\n") {
        journal.skip_until(b'\n')?;
        return Ok(Some(Length::TooLong));
    }
    Ok(Some(Length::Whole))
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    #[test]
    fn the_last_record_of_a_number_counts() {
        let digest = format!("blake3:{}", "0a".repeat(32));
        let journal = format!(
            "{{\"time\":\"t\",\"id\":1,\"peer\":null,\"dialect\":\"accio\",\"bytes\":3,\"digest\":\"{digest}\",\"duration\":0.1,\"outcome\":\"complete\"}}\n\
             {{\"id\":2,\"bytes\":9,\"outcome\":\"error\",\"reason\":\"reset\",\"error\":\"x\"}}\n\
             {{\"time\":\"t\",\"lost\":17}}\n\
             {{\"peer\":null,\"outcome\":\"refused\",\"reason\":\"tls-plain\"}}\n\
             {{\"id\":4,\"bytes\":4,\"outcome\":\"comp\n\
             \n\
             {{\"id\":2,\"bytes\":5,\"digest\":\"md9:00\",\"outcome\":\"complete\"}}\n\
             {{\"id\":1,\"bytes\":0,\"outcome\":\"error\",\"reason\":\"exists\",\"unmarked\":\"file exists\"}}\n\
             {{\"id\":3,\"bytes\":0,\"outcome\":\"error\",\"reason\":\"full\",\"unmarked\":\"no space\"}}\n\
             {{\"id\":5,\"bytes\":1,\"outco"
        );
        let listed = ListedFiles::read(journal.as_bytes()).unwrap();
        assert_eq!((listed.lost, listed.torn), (17, 2));
        let digest = Some(digest.parse().unwrap());
        assert_eq!(listed.files.keys().collect::<Vec<_>>(), [&1, &2]);
        assert_eq!(listed.files[&1], ListedFile::Complete { bytes: 3, digest });
        assert_eq!(listed.files[&2], ListedFile::Unverifiable { digest: "md9:00".to_owned() });
    }

    #[test]
    fn a_line_of_another_kind_is_counted() {
        let listed = ListedFiles::read(&b"{}\nnull\n[1]\n{\"id\":-1}\n"[..]).unwrap();
        assert_eq!((listed.torn, listed.files.len()), (4, 0));
    }

    #[test]
    fn counts_of_lost_lines_do_not_overflow() {
        let line = format!("{{\"lost\":{}}}\n", u64::MAX);
        let listed = ListedFiles::read(line.repeat(2).as_bytes()).unwrap();
        assert_eq!(listed.lost, u64::MAX);
    }

    #[test]
    fn hostile_lines_take_bounded_memory_and_stop_nothing() {
        let lost = format!("{{\"lost\":{}}}\n", u64::MAX).repeat(2);
        let twice = "{\"id\":1,\"id\":2,\"bytes\":1,\"outcome\":\"complete\"}\n";
        let deep = format!("{}\n", "[".repeat(100_000));
        let tail = "{\"id\":7,\"bytes\":5,\"outcome\":\"complete\"}\n";
        let binary = &b"\xff\xfe\0\n{\"id\":1e400}\n{\"id\":18446744073709551616}\n"[..];
        let start = [lost.as_bytes(), twice.as_bytes(), deep.as_bytes(), binary].concat();
        // A line of 256 MiB, which must not be kept in memory.
        let endless = BufReader::with_capacity(1 << 20, io::repeat(b'x').take(256 << 20));
        let journal = start.chain(endless).chain(&b"\n"[..]).chain(tail.as_bytes());
        let listed = ListedFiles::read(journal).unwrap();
        assert_eq!((listed.lost, listed.torn), (u64::MAX, 6));
        assert_eq!(listed.files.keys().collect::<Vec<_>>(), [&7]);
    }

    #[test]
    fn keeps_at_most_a_mebibyte_of_a_line() {
        let long = BufReader::with_capacity(1 << 20, io::repeat(b'x').take(64 << 20));
        let mut journal = long.chain(&b"\nnext\n"[..]);
        let mut line = Vec::new();
        assert_eq!(read_line(&mut journal, &mut line).unwrap(), Some(Length::TooLong));
        assert!(line.capacity() <= 4 << 20, "{}", line.capacity());
        assert_eq!(read_line(&mut journal, &mut line).unwrap(), Some(Length::Whole));
        assert_eq!(
            (&line[..], read_line(&mut journal, &mut Vec::new()).unwrap()),
            (&b"next\n"[..], None)
        );
    }
}
