//! Compares the stored objects with the outcomes that the clients saw.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Result;

use super::topology::Cluster;
use super::uploads::{UploadResult, content};

/// The comparison of stored objects with the clients' outcomes.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    complete: usize,
    empty: usize,
    marked: usize,
    /// Complete, though the client was not told.
    unheard: usize,
    half: Vec<String>,
    /// Confirmed to the client, but not stored.
    lost: Vec<u64>,
    /// Lost uploads that only the proxy confirmed: it had them open at the killed receiver.
    proxys: Vec<u64>,
    unfinished: usize,
}

/// Looks at all there is.
pub(super) fn judge(
    cluster: &Cluster,
    told: &BTreeMap<u64, UploadResult>,
    open: &[u64],
) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut stored = BTreeMap::<u64, usize>::new();
    for key in cluster.store().keys()? {
        let Some(bytes) = cluster.store().get(&key)? else { continue };
        match &bytes[..] {
            [] => verdict.empty += 1,
            b"ERROR" => verdict.marked += 1,
            index if index.len() >= 16 => {
                let mut number = [0; 8];
                number.copy_from_slice(&index[..8]);
                let number = u64::from_le_bytes(number);
                if told.contains_key(&number) && content(number) == index {
                    verdict.complete += 1;
                    *stored.entry(number).or_default() += 1;
                } else {
                    verdict.half.push(key);
                }
            }
            _ => verdict.half.push(key),
        }
    }
    let is_empty = |index: u64| content_is_empty(index);
    for (index, told) in told {
        match (told, stored.contains_key(index)) {
            (UploadResult::Kept, false) if !is_empty(*index) => verdict.lost.push(*index),
            (UploadResult::Failed, true) => verdict.unheard += 1,
            _ => {}
        }
    }
    // Empty ones look alike: there must be enough of them.
    let empty =
        told.iter().filter(|(index, told)| **told == UploadResult::Kept && is_empty(**index));
    let mut empty: Vec<u64> = empty.map(|(index, _)| *index).collect();
    let missing = empty.len().saturating_sub(verdict.empty);
    empty.sort_by_key(|index| !open.contains(index));
    verdict.lost.extend(empty.into_iter().take(missing));
    (verdict.proxys, verdict.lost) = verdict.lost.iter().partition(|index| open.contains(index));
    verdict.unfinished = cluster.store().unfinished()?;
    Ok(verdict)
}

fn content_is_empty(index: u64) -> bool {
    index.is_multiple_of(20)
}

impl Verdict {
    pub(super) fn holds(&self) -> bool {
        self.half.is_empty() && self.lost.is_empty() && self.unfinished == 0
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "  complete in the store         {} and {} empty",
            self.complete, self.empty
        )?;
        writeln!(out, "  ERROR in the store            {}", self.marked)?;
        writeln!(out, "  complete, but not confirmed   {}", self.unheard)?;
        writeln!(out, "  confirmed, but not there      {} {:?}", self.lost.len(), self.lost)?;
        if !self.proxys.is_empty() {
            writeln!(
                out,
                "  confirmed by the proxy alone  {} {:?}\n    \
                 (open at the receiver that was killed: haproxy turns its reset into a FIN)",
                self.proxys.len(),
                self.proxys
            )?;
        }
        writeln!(out, "  neither whole nor ERROR       {} {:?}", self.half.len(), self.half)?;
        writeln!(out, "  uploads left unfinished       {}", self.unfinished)?;
        writeln!(out, "{}", if self.holds() { "passed" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_tell_which_they_are() {
        for index in 0..40 {
            let bytes = content(index);
            assert_eq!(bytes.is_empty(), content_is_empty(index));
            assert!(bytes.is_empty() || bytes[..8] == index.to_le_bytes());
        }
    }
}
