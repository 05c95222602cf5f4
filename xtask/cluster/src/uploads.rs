//! The contents and results of uploads.

/// The result of an upload as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadResult {
    Kept,
    Failed,
}

/// Returns the content of upload `index`, which starts with the index: some are empty, some small,
/// some large enough for several parts.
pub(super) fn content(index: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(index);
    let len = match index % 20 {
        0 => return Vec::new(),
        1..13 => random.usize(16..64 << 10),
        13..17 => random.usize(64 << 10..2 << 20),
        17..19 => random.usize(2 << 20..8 << 20),
        _ => random.usize(9 << 20..20 << 20),
    };
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes[..8].copy_from_slice(&index.to_le_bytes());
    bytes
}
