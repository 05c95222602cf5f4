//! The ends of connections.

use std::fmt;

use crate::verdict::{Verdict, ensure};

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer closed its side.
    Fin,
    /// The peer reset the connection.
    Reset,
    /// The connection was still open at the time limit.
    Open,
}

impl End {
    /// Returns a fault unless the connection ended with FIN after exactly `expected` bytes.
    pub fn expect_fin(self, expected: u64, actual: u64) -> Verdict {
        ensure(
            (self, actual) == (Self::Fin, expected),
            format!("{expected} bytes, then FIN"),
            || format!("{actual} bytes, then {self}"),
        )
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fin => "FIN",
            Self::Reset => "a reset",
            Self::Open => "nothing more while the connection is open",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Stop;

    #[test]
    fn describes_an_end_in_the_words_of_the_protocol() {
        assert!(End::Fin.expect_fin(500, 500).is_ok());
        let Err(Stop::Fault(fault)) = End::Reset.expect_fin(538, 38) else { panic!("no fault") };
        assert_eq!(fault.expected, "538 bytes, then FIN");
        assert_eq!(fault.actual, "38 bytes, then a reset");
        assert!(End::Fin.expect_fin(500, 499).is_err());
    }
}
