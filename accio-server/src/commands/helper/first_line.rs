//! The first line of a command's output.

use accio_cli::escape;

/// Maximum length of a line in bytes; the rest of a longer one is cut off.
const MAX: usize = 200;

/// Keeps the first line that is not empty, however much follows.
#[derive(Debug, Default)]
pub(super) struct FirstLine {
    text: Vec<u8>,
    complete: bool,
}

impl FirstLine {
    /// Adds the next bytes.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.complete {
                return;
            }
            match byte {
                b'\n' | b'\r' if self.text.trim_ascii().is_empty() => self.text.clear(),
                b'\n' => self.complete = true,
                byte => self.text.push(byte),
            }
            self.complete |= self.text.len() >= MAX;
        }
    }

    /// Returns the line with control characters escaped, or `None` if nothing was printed.
    pub(super) fn text(&self) -> Option<String> {
        let text = String::from_utf8_lossy(self.text.trim_ascii());
        (!text.is_empty()).then(|| escape(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(pieces: &[&[u8]]) -> Option<String> {
        let mut line = FirstLine::default();
        pieces.iter().for_each(|piece| line.add(piece));
        line.text()
    }

    #[test]
    fn only_the_first_line_that_is_not_empty_counts() {
        assert_eq!(first(&[]), None);
        assert_eq!(first(&[b"\n  \r\n"]), None);
        assert_eq!(first(&[b"\n fo", b"und\r\nmore\n", b"and more"]).unwrap(), "found");
        assert_eq!(first(&[b"no line end"]).unwrap(), "no line end");
        assert_eq!(first(&[&[b'x'; 100_000]]).unwrap().len(), MAX);
    }

    #[test]
    fn control_characters_and_invalid_text_are_escaped() {
        let text = first(&[b"\x1b[31mred\x07\x00 \xff \xe2\x80\xae\n"]).unwrap();
        assert!(!text.chars().any(accio_cli::is_unprintable), "{text:?}");
        assert!(text.contains("\\u{1b}[31mred"), "{text:?}");
    }
}
