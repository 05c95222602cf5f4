//! Reads from the server's journal which uploads were complete.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use accio_harness::verdict::{Verdict, ensure};

/// Returns the size of each complete upload in the journal, by its number. Torn lines, which a power
/// loss may leave, are ignored.
pub(crate) fn complete_uploads(journal: &Path) -> Verdict<BTreeMap<u64, u64>> {
    let text = fs::read(journal)?;
    let mut uploads = BTreeMap::new();
    for line in String::from_utf8_lossy(&text).lines() {
        let is_whole = line.starts_with('{') && line.ends_with('}');
        if !is_whole || !line.contains("\"outcome\":\"complete\"") {
            continue;
        }
        if let (Some(id), Some(bytes)) = (number(line, "\"id\":"), number(line, "\"bytes\":")) {
            let before = uploads.insert(id, bytes);
            ensure(before.is_none(), "one line per upload", || format!("two for {id}"))?;
        }
    }
    Ok(uploads)
}

/// Returns the number after `name`.
fn number(line: &str, name: &str) -> Option<u64> {
    let rest = line.split_once(name)?.1;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_complete_uploads_and_ignores_torn_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let line = |id: u64, outcome: &str| {
            format!(
                "{{\"id\":{id},\"peer\":\"x\",\"bytes\":{},\"outcome\":\"{outcome}\"}}\n",
                id * 10
            )
        };
        let torn = "{\"id\":4,\"bytes\":40,\"outcome\":\"complete\"";
        fs::write(&path, line(1, "complete") + &line(2, "error") + &line(3, "complete") + torn)
            .unwrap();
        assert!(complete_uploads(&path).unwrap().into_iter().eq([(1, 10), (3, 30)]));
        fs::write(&path, line(1, "complete").repeat(2)).unwrap();
        complete_uploads(&path).unwrap_err();
    }
}
