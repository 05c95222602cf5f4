//! Formats sizes, rates, durations, names and the final line of an upload.

use std::time::Duration;

use accio_cli::escape;
use accio_proto::Sent;

use crate::arguments::is_stdin;
use crate::content::Content;

/// Returns the final line of an upload.
pub(crate) fn end(name: &str, sent: &Sent) -> String {
    let start = format!(
        "sent {name} to {}: {} bytes in {:.3} s ({})",
        sent.peer,
        sent.bytes,
        sent.duration.as_secs_f64(),
        rate(sent.bytes, sent.duration),
    );
    let digest = sent.digest.map_or_else(String::new, |digest| format!(", {digest}"));
    match sent.confirmed {
        true => format!("{start}, confirmed{digest}"),
        false => format!(
            "note: {start}{digest}, not confirmed: the server has received all bytes but has not closed the \
             connection, so it may not have kept the file"
        ),
    }
}

/// Returns the name of an upload's content, always on a single line.
pub(crate) fn name(content: Content<'_>) -> String {
    match content {
        Content::Command { line, .. } => format!("output of {line:?}"),
        Content::File(file) if is_stdin(file) => "standard input".to_owned(),
        Content::File(file) => escape(&file.to_string_lossy()).into_owned(),
    }
}

/// Formats a rate in bytes per second, in decimal units.
pub(crate) fn rate(bytes: u64, duration: Duration) -> String {
    size(bytes as f64 / duration.as_secs_f64().max(1e-9)) + "/s"
}

/// Formats a number of bytes in decimal units.
pub(crate) fn size(mut bytes: f64) -> String {
    let mut unit = "B";
    for larger in ["kB", "MB", "GB"] {
        if bytes < 999.95 {
            break;
        }
        bytes /= 1000.0;
        unit = larger;
    }
    format!("{bytes:.1} {unit}")
}

/// Formats a short duration in a suitable unit.
pub(crate) fn time(time: Duration) -> String {
    match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1000.0),
        seconds => format!("{seconds:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn formats_rates_in_a_suitable_unit() {
        for (bytes, milliseconds, text) in [
            (0, 1000, "0.0 B/s"),
            (999, 1000, "999.0 B/s"),
            (1000, 1000, "1.0 kB/s"),
            (999_999, 1000, "1.0 MB/s"),
            (5 << 30, 2000, "2.7 GB/s"),
            (5_000_000_000_000, 1000, "5000.0 GB/s"),
        ] {
            assert_eq!(rate(bytes, Duration::from_millis(milliseconds)), text);
        }
        assert!(rate(7, Duration::ZERO).ends_with("GB/s"));
    }

    #[test]
    fn formats_names_on_one_line() {
        let name = |path| name(Content::File(Path::new(path)));
        assert_eq!(name("a\x1b\nb\u{202e}"), r"a\u{1b}\nb\u{202e}");
        assert_eq!(name("-"), "standard input");
        assert_eq!(name("./-"), "./-");
    }

    #[test]
    fn formats_durations_in_a_suitable_unit() {
        assert_eq!(time(Duration::from_micros(1240)), "1.2 ms");
        assert_eq!(time(Duration::from_millis(1500)), "1.50 s");
    }
}
