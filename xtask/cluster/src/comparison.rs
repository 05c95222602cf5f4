//! Compares the stored objects with the results that the clients saw.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Result;

use super::topology::Cluster;
use super::uploads::{UploadResult, content};

/// The result of the comparison.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    complete: usize,
    empty: usize,
    marked: usize,
    /// Complete, but not confirmed to the client.
    unconfirmed: usize,
    damaged: Vec<String>,
    /// Confirmed to the client, but not stored.
    lost: Vec<u64>,
    /// Lost uploads that only haproxy confirmed, because they were open at the killed receiver.
    confirmed_by_haproxy: Vec<u64>,
    unfinished: usize,
}

/// Compares all objects in the store with `results`. `open` lists the uploads that haproxy had open
/// at the killed receiver.
pub(super) fn compare(
    cluster: &Cluster,
    results: &BTreeMap<u64, UploadResult>,
    open: &[u64],
) -> Result<Comparison> {
    let mut comparison = Comparison::default();
    let mut stored = BTreeMap::<u64, usize>::new();
    for key in cluster.store().keys()? {
        let Some(bytes) = cluster.store().get(&key)? else { continue };
        match &bytes[..] {
            [] => comparison.empty += 1,
            b"ERROR" => comparison.marked += 1,
            index if index.len() >= 16 => {
                let mut number = [0; 8];
                number.copy_from_slice(&index[..8]);
                let number = u64::from_le_bytes(number);
                if results.contains_key(&number) && content(number) == index {
                    comparison.complete += 1;
                    *stored.entry(number).or_default() += 1;
                } else {
                    comparison.damaged.push(key);
                }
            }
            _ => comparison.damaged.push(key),
        }
    }
    let is_empty = |index: u64| content_is_empty(index);
    for (index, result) in results {
        match (result, stored.contains_key(index)) {
            (UploadResult::Kept, false) if !is_empty(*index) => comparison.lost.push(*index),
            (UploadResult::Failed, true) => comparison.unconfirmed += 1,
            _ => {}
        }
    }
    // Empty objects cannot be told apart, so compare their number.
    let empty = results
        .iter()
        .filter(|(index, result)| **result == UploadResult::Kept && is_empty(**index));
    let mut empty: Vec<u64> = empty.map(|(index, _)| *index).collect();
    let missing = empty.len().saturating_sub(comparison.empty);
    empty.sort_by_key(|index| !open.contains(index));
    comparison.lost.extend(empty.into_iter().take(missing));
    (comparison.confirmed_by_haproxy, comparison.lost) =
        comparison.lost.iter().partition(|index| open.contains(index));
    comparison.unfinished = cluster.store().unfinished()?;
    Ok(comparison)
}

fn content_is_empty(index: u64) -> bool {
    index.is_multiple_of(20)
}

impl Comparison {
    pub(super) fn passes(&self) -> bool {
        self.damaged.is_empty() && self.lost.is_empty() && self.unfinished == 0
    }

    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "  complete in the store         {} and {} empty",
            self.complete, self.empty
        )?;
        writeln!(out, "  ERROR in the store            {}", self.marked)?;
        writeln!(out, "  complete, but not confirmed   {}", self.unconfirmed)?;
        writeln!(out, "  confirmed, but not stored     {} {:?}", self.lost.len(), self.lost)?;
        if !self.confirmed_by_haproxy.is_empty() {
            writeln!(
                out,
                "  confirmed by haproxy only     {} {:?}\n    \
                 (open at the killed receiver: haproxy turns its reset into a FIN)",
                self.confirmed_by_haproxy.len(),
                self.confirmed_by_haproxy
            )?;
        }
        writeln!(out, "  neither complete nor ERROR    {} {:?}", self.damaged.len(), self.damaged)?;
        writeln!(out, "  unfinished uploads            {}", self.unfinished)?;
        writeln!(out, "{}", if self.passes() { "passed" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_content_starts_with_its_index() {
        for index in 0..40 {
            let bytes = content(index);
            assert_eq!(bytes.is_empty(), content_is_empty(index));
            assert!(bytes.is_empty() || bytes[..8] == index.to_le_bytes());
        }
    }
}
