//! Where decrypted content goes.

/// Where content goes.
pub(crate) enum Output<'a> {
    /// A buffer, and the number of bytes already in it.
    Copy(&'a mut [u8], usize),
    /// No destination: counts up to the given number of bytes.
    Count(usize, usize),
}

impl Output<'_> {
    /// Copies as much content as fits, and returns the number of bytes.
    pub(super) fn take(&mut self, content: &[u8]) -> usize {
        match self {
            Output::Copy(buffer, filled) => {
                let count = content.len().min(buffer.len() - *filled);
                buffer[*filled..*filled + count].copy_from_slice(&content[..count]);
                *filled += count;
                count
            }
            Output::Count(limit, counted) => {
                let count = content.len().min(*limit - *counted);
                *counted += count;
                count
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Output::Copy(_, count) | Output::Count(_, count) => *count,
        }
    }

    /// Returns the number of bytes that still fit.
    pub(super) fn room(&self) -> usize {
        match self {
            Output::Copy(buffer, filled) => buffer.len() - filled,
            Output::Count(limit, counted) => limit - counted,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.room() == 0
    }
}
