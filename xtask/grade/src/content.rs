//! Describes received content by how it differs from the sent one. The bytes themselves are random,
//! so they are shown only where they help.

use accio_harness::payload;

/// Length from which equal bytes at the end are no coincidence.
const PART: usize = 48;
/// Number of other bytes that are shown.
const OTHERS: usize = 24;

/// Describes the content that was sent.
pub(crate) fn sent(content: &[u8]) -> String {
    match content {
        [] => "no bytes".into(),
        _ if payload::is_text(content) => payload::describe(content),
        _ => format!("the {} bytes that were sent", content.len()),
    }
}

/// Describes the content that was received instead of `expected`.
pub(crate) fn received(expected: &[u8], actual: &[u8]) -> String {
    let (sent, got) = (expected.len(), actual.len());
    let quoted = |bytes: &[u8]| {
        let dots = if bytes.len() > OTHERS { "…" } else { "" };
        format!("\"{}{dots}\"", bytes[..bytes.len().min(OTHERS)].escape_ascii())
    };
    if got == 0 {
        return "no bytes".into();
    }
    if got < sent && expected.starts_with(actual) {
        return format!("only the first {got} bytes; the last {} are missing", sent - got);
    }
    if got < sent && expected.ends_with(actual) && got >= PART {
        return format!("only the last {got} bytes; the first {} are missing", sent - got);
    }
    if got > sent && sent > 0 && actual.ends_with(expected) {
        let before = &actual[..got - sent];
        return format!("{}, {}, before the content", count(before), quoted(before));
    }
    if got > sent && sent > 0 && actual.starts_with(expected) {
        let after = &actual[sent..];
        return format!("the content, then {} more, {}", count(after), quoted(after));
    }
    if payload::is_text(actual) {
        return payload::describe(actual);
    }
    let offset = expected.iter().zip(actual).position(|(one, other)| one != other);
    let offset = offset.unwrap_or(got.min(sent));
    let others = quoted(&actual[offset..]);
    format!("{got} bytes, which differ from offset {offset} on: {others}")
}

fn count(bytes: &[u8]) -> String {
    format!("{} byte{}", bytes.len(), if bytes.len() == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_difference_instead_of_random_bytes() {
        let content = payload::bytes(1, 500);
        assert_eq!(sent(&content), "the 500 bytes that were sent");
        assert_eq!(sent(b"one"), "3 bytes \"one\"");
        let but = |actual: &[u8]| received(&content, actual);
        assert_eq!(but(&content[100..]), "only the last 400 bytes; the first 100 are missing");
        assert_eq!(but(&content[..400]), "only the first 400 bytes; the last 100 are missing");
        assert_eq!(
            but(&[&content[..], b"ERROR"].concat()),
            "the content, then 5 bytes more, \"ERROR\""
        );
        assert_eq!(
            but(&[b"confirm-accio\r\n", &content[..]].concat()),
            "15 bytes, \"confirm-accio\\r\\n\", before the content"
        );
        let mut other = content.clone();
        other[7] ^= 1;
        assert!(but(&other).starts_with("500 bytes, which differ from offset 7 on: "));
        assert_eq!(received(b"ERROR", b"ERROR\n"), "the content, then 1 byte more, \"\\n\"");
        assert_eq!(but(b"ERROR"), "5 bytes \"ERROR\"");
        assert_eq!(but(b""), "no bytes");
    }
}
