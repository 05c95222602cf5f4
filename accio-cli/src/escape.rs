//! Escaping of characters that a terminal or a reader's screen would obey instead of showing.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns `text` with each character that [`is_unprintable`] escaped.
///
/// File names, command lines and peers can contain escape sequences that a terminal obeys, and
/// bidirectional overrides that make a name look like another one.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\0'..'\u{7f}' if c.is_control() => escaped.extend(c.escape_debug()),
            c if is_unprintable(c) => escaped.extend(c.escape_unicode()),
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Returns `json`, which a serializer has written, with the characters of [`escape`] as `\u` escapes.
///
/// JSON requires that of U+0000 to U+001F only, and a serializer has done so. A JSON document has
/// characters above U+007E in strings alone, so each of them may be escaped.
pub fn escape_json(json: String) -> String {
    let is_raw = |c: char| c >= '\u{7f}' && is_unprintable(c);
    if !json.contains(is_raw) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_raw(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Whether `c` is a control character, or one of the invisible characters that direct how others are
/// shown: bidirectional marks, embeddings, overrides and isolates, line and paragraph separators,
/// zero-width characters, annotations and tags.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_bidirectional_characters_are_escaped() {
        for (text, expected) in [
            ("plain é \u{1f980} 文.txt", "plain é \u{1f980} 文.txt"),
            ("a\x1b[2J\nb\t\0", r"a\u{1b}[2J\nb\t\0"),
            ("\u{9b}2J\u{7f}", r"\u{9b}2J\u{7f}"),
            ("photo\u{202e}gpj.exe", r"photo\u{202e}gpj.exe"),
            (
                "\u{2066}a\u{2069}\u{200f}\u{2028}\u{feff}\u{e0041}",
                r"\u{2066}a\u{2069}\u{200f}\u{2028}\u{feff}\u{e0041}",
            ),
        ] {
            assert_eq!(escape(text), expected);
        }
    }

    #[test]
    fn escaped_json_means_the_same() {
        let written = format!("[\"{}\"]", "\\u001b\\\"\\\\\u{9b}\u{7f}\u{202e}\u{e0041}é\\n");
        let escaped = escape_json(written);
        assert_eq!(escaped, r#"["\u001b\"\\\u009b\u007f\u202e\udb40\udc41é\n"]"#);
    }
}
