//! Sizes of the parts of large uploads.

/// Minimum size of every part except the last (8 MiB); stores require at least 5 MiB. Smaller files
/// are put in a single request.
pub(crate) const PART: usize = 8 << 20;

/// Maximum number of parts of one upload: the limit of S3 and compatible stores.
pub(crate) const MOST_PARTS: usize = 10_000;

/// Number of parts after which the size doubles.
const SAME: usize = 1000;

/// Maximum size of a part that every store accepts: Azure's 4000 MiB; others accept 5 GiB.
const LARGEST: usize = 4000 << 20;

/// Returns the size of part `index`, counted from 0, of an upload of unknown length. Sizes double
/// every thousand parts: the first 7.8 GiB use parts of 8 MiB, and the ten thousandth part ends at
/// 7.7 TiB. A part is never larger than a quarter of the memory for all uploads.
pub(crate) fn size(index: usize, memory: usize) -> usize {
    let doublings = u32::try_from(index / SAME).unwrap_or(u32::MAX).min(20);
    (PART << doublings).min(LARGEST).min(memory / 4).max(PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number of bytes that fit into ten thousand parts.
    fn most(memory: usize) -> u128 {
        (0..MOST_PARTS).map(|index| size(index, memory) as u128).sum()
    }

    #[test]
    fn parts_cover_the_largest_objects() {
        // S3's own limit for an object is 5 TiB.
        assert!(most(usize::MAX) > 5 << 40, "{}", most(usize::MAX));
        // The default, 2 GiB, and the minimum of memory.
        assert_eq!(most(512 << 20) >> 30, 867);
        assert_eq!(most(2 << 30) >> 30, 2492);
        assert_eq!(most(0) >> 30, 78);
    }

    #[test]
    fn the_first_parts_have_equal_sizes() {
        assert!((0..1000).all(|index| size(index, usize::MAX) == PART));
        assert_eq!(size(1000, usize::MAX), 2 * PART);
    }
}
