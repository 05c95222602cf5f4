//! Texts of the status page: short, without unprintable characters, and escaped for HTML.

use std::fmt::{self, Write};
use std::time::Duration;

use crate::escape;

/// Maximum length of errors, names and notes, in characters.
const LONGEST: usize = 400;

/// Returns `text` without unprintable characters, truncated if it is long.
pub(super) fn clip(text: &str) -> String {
    clip_to(text, LONGEST)
}

/// Returns `text` without unprintable characters, truncated after `longest` characters.
pub(super) fn clip_to(text: &str, longest: usize) -> String {
    // The truncated part need not be escaped.
    let end = text.char_indices().nth(longest).map_or(text.len(), |(end, _)| end);
    let shown = escape(&text[..end]);
    match shown.char_indices().nth(longest) {
        Some((cut, _)) => format!("{}…", &shown[..cut]),
        None if end < text.len() => format!("{shown}…"),
        None => shown.into_owned(),
    }
}

/// A text in an HTML element or a quoted attribute.
pub(super) struct Html<'a>(pub(super) &'a str);

impl fmt::Display for Html<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in escape(self.0).chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Formats a number of bytes in a unit that leaves digits before the point: `999 B`, `1.5 MiB`.
pub(super) fn size(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes;
    let mut unit = 0;
    // 1023.95 would be formatted as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{value:.0} B"),
        _ => format!("{value:.1} {}", UNITS[unit]),
    }
}

/// Formats a number with commas between groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a duration in its largest units: `420 ms`, `12.3 s`, `3 min 5 s`, `2 h 4 min`, `5 d 1
/// h`.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 if duration.is_zero() => "0 s".to_owned(),
        0 if duration.as_millis() == 0 => "under 1 ms".to_owned(),
        0 => format!("{} ms", duration.as_millis()),
        1..60 if duration.subsec_millis() == 0 => format!("{seconds} s"),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_markup_and_control_characters() {
        for (text, html) in [
            ("<script>alert('x')</script>", "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"),
            ("\" onload=\"x", "&quot; onload=&quot;x"),
            ("a&amp;b", "a&amp;amp;b"),
            ("photo\u{202e}gpj.exe", r"photo\u{202e}gpj.exe"),
            ("\u{2066}\u{200b}\u{feff}", r"\u{2066}\u{200b}\u{feff}"),
            ("line\nbreak\0\u{9b}2J", r"line\nbreak\0\u{9b}2J"),
            ("]]>--><!--", "]]&gt;--&gt;&lt;!--"),
            ("Zoë 文 🦀", "Zoë 文 🦀"),
        ] {
            assert_eq!(Html(text).to_string(), html);
        }
    }

    #[test]
    fn truncates_long_texts() {
        assert_eq!(clip_to("four", 4), "four");
        assert_eq!(clip_to("fives", 4), "five…");
        assert_eq!(clip_to("文文文", 2), "文文…");
        assert_eq!(clip_to("\u{202e}\u{202e}", 4), "\\u{2…");
        assert_eq!(clip(&"\u{202e}".repeat(1 << 20)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn formats_sizes_numbers_and_spans() {
        for (bytes, text) in
            [(0.0, "0 B"), (999.0, "999 B"), (1024.0, "1.0 KiB"), (1_572_864.0, "1.5 MiB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(1_073_741_823.0), "1.0 GiB");
        assert_eq!(size(u64::MAX as f64), "16384.0 PiB");
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")]
        {
            assert_eq!(grouped(number), text);
        }
        for (milliseconds, text) in [
            (0, "0 s"),
            (420, "420 ms"),
            (10_000, "10 s"),
            (12_340, "12.3 s"),
            (185_000, "3 min 5 s"),
            (7_440_000, "2 h 4 min"),
            (435_600_000, "5 d 1 h"),
        ] {
            assert_eq!(span(Duration::from_millis(milliseconds)), text);
        }
    }
}
