//! The handling of files that exist already.

/// Handling of an existing file with a connection's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Existing {
    /// The new file replaces the existing one in one step.
    #[default]
    Replace,
    /// The existing file stays and the transfer fails, leaving neither its content nor an error
    /// marker.
    Keep,
}
