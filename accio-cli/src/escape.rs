//! Escapes characters that a terminal would interpret, or that change how text is displayed.

use std::borrow::Cow;
use std::fmt::Write;

/// Returns `text` with each character escaped for which [`is_unprintable`] is true.
///
/// File names, command lines and data from peers can contain escape sequences, which a terminal
/// interprets, and bidirectional overrides, which make one name look like another.
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

/// Returns a serialized JSON document in which the characters that [`escape`] would escape are `\u`
/// escapes.
///
/// JSON requires this for U+0000 to U+001F only, and the serializer has done it for these.
/// Characters above U+007E occur only within strings of a JSON document, so each of them may be
/// escaped.
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

/// Returns whether `c` is a control character, or an invisible character that affects the display
/// of others: bidirectional marks, embeddings, overrides and isolates, line and paragraph
/// separators, zero-width characters, annotations and tags.
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
    fn escapes_control_and_bidirectional_characters() {
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
    fn escaping_json_preserves_its_meaning() {
        let written = format!("[\"{}\"]", "\\u001b\\\"\\\\\u{9b}\u{7f}\u{202e}\u{e0041}é\\n");
        let escaped = escape_json(written);
        assert_eq!(escaped, r#"["\u001b\"\\\u009b\u007f\u202e\udb40\udc41é\n"]"#);
    }
}
