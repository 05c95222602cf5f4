//! The result of a scenario, and the assertions that produce it.

use std::fmt::{self, Debug};
use std::io;
use std::time::{Duration, Instant};

use super::{os_error_text, scheduling_delay};

/// The result of a scenario or of one of its steps.
pub type Verdict<T = ()> = Result<T, Stop>;

/// The reason why a scenario ended early.
#[derive(Debug, Clone)]
pub enum Stop {
    /// The subject did not behave as expected.
    Fault(Fault),
    /// This machine lacks a requirement of the test.
    Skip(String),
    /// The test itself failed, so the behaviour of the subject is unknown.
    Trouble(String),
}

/// An expectation that was not met.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The expected behaviour.
    pub expected: String,
    /// The actual behaviour.
    pub actual: String,
    /// The steps of the scenario during which it happened, innermost first.
    pub during: Vec<String>,
    /// Whether neither the load of this machine nor timing can have caused it, so that the test
    /// need not be repeated.
    pub certain: bool,
}

impl Stop {
    /// Creates a fault of the subject.
    pub fn fault(expected: impl Into<String>, actual: impl Into<String>) -> Stop {
        Stop::Fault(Fault {
            expected: expected.into(),
            actual: actual.into(),
            during: Vec::new(),
            certain: false,
        })
    }

    /// Creates a fault of the subject that a system error shows.
    pub fn system_error(expected: impl Into<String>, error: &io::Error) -> Stop {
        Stop::fault(expected, os_error_text(error))
    }

    /// Converts it to trouble, for steps that do not depend on the subject.
    #[must_use]
    pub fn into_trouble(self) -> Stop {
        Stop::Trouble(self.to_string())
    }

    /// Converts it to a skip, for requirements that a machine may lack.
    #[must_use]
    pub fn into_skip(self) -> Stop {
        Stop::Skip(self.to_string())
    }

    /// Creates a skip; `why` names the missing requirement.
    pub fn skip(why: impl Into<String>) -> Stop {
        Stop::Skip(why.into())
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Fault(Fault { expected, actual, .. }) => {
                write!(f, "expected {expected}, got {actual}")
            }
            Stop::Skip(why) | Stop::Trouble(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for Stop {}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Trouble(os_error_text(&error))
    }
}

impl From<rustix::io::Errno> for Stop {
    fn from(error: rustix::io::Errno) -> Self {
        io::Error::from(error).into()
    }
}

/// Returns whether an error means that this machine lacks resources, which is not a fault of the
/// subject.
pub fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let short = [
        Errno::AGAIN,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        Errno::ADDRNOTAVAIL,
    ];
    Errno::from_io_error(error).is_some_and(|error| short.contains(&error))
}

/// Adds the step during which an error happened.
pub trait During {
    /// Adds `place` to a fault or trouble.
    #[must_use]
    fn during<S: Into<String>>(self, place: impl FnOnce() -> S) -> Self;
}

impl<T> During for Verdict<T> {
    fn during<S: Into<String>>(mut self, place: impl FnOnce() -> S) -> Self {
        match &mut self {
            Err(Stop::Fault(fault)) => fault.during.push(place().into()),
            Err(Stop::Trouble(why)) => *why = format!("{}: {why}", place().into()),
            Ok(_) | Err(Stop::Skip(_)) => {}
        }
        self
    }
}

/// Marks faults that need not be confirmed by repeating the test.
pub trait Certain {
    /// Marks a fault as independent of load and timing.
    #[must_use]
    fn certain(self) -> Self;
}

impl<T> Certain for Verdict<T> {
    fn certain(mut self) -> Self {
        if let Err(Stop::Fault(fault)) = &mut self {
            fault.certain = true;
        }
        self
    }
}

/// Returns a fault unless `holds`.
pub fn ensure(
    holds: bool,
    expected: impl Into<String>,
    actual: impl FnOnce() -> String,
) -> Verdict {
    if holds { Ok(()) } else { Err(Stop::fault(expected, actual())) }
}

/// Returns a fault unless `actual` equals `expected`; `what` names the value.
pub fn ensure_eq<T: PartialEq + Debug>(what: &str, expected: T, actual: T) -> Verdict {
    ensure(expected == actual, format!("{what}: {expected:?}"), || format!("{actual:?}"))
}

/// Returns a fault unless `what`, which began between `began.0` and `began.1` and ended at `ended`,
/// took from `low` to `high`. The subject is not blamed for delays of this process.
pub fn ensure_took(
    what: &str,
    began: (Instant, Instant),
    ended: Instant,
    low: Duration,
    high: Duration,
) -> Verdict {
    let longest = ended.saturating_duration_since(began.0);
    let shortest = ended.saturating_duration_since(began.1);
    let own = scheduling_delay::worst_since(began.0);
    ensure(
        longest >= low && shortest <= high + own,
        format!("{what} to take from {:.2} to {:.2} s", low.as_secs_f64(), high.as_secs_f64()),
        || {
            format!(
                "it took from {:.3} to {:.3} s (this process was delayed by up to {:.3} s)",
                shortest.as_secs_f64(),
                longest.as_secs_f64(),
                own.as_secs_f64()
            )
        },
    )
}

/// Returns a fault if more than `high` has passed since `began`.
pub fn ensure_within(what: &str, began: Instant, high: Duration) -> Verdict {
    ensure_took(what, (began, began), Instant::now(), Duration::ZERO, high)
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn system_errors_are_in_lower_case_and_without_a_number() {
        let refused = Stop::system_error("a connection", &Errno::CONNREFUSED.into());
        assert_eq!(refused.to_string(), "expected a connection, got connection refused");
        let missing = "no such file or directory";
        assert_eq!(Stop::from(Errno::NOENT).to_string(), missing);
        assert_eq!(Stop::from(io::Error::from(Errno::NOENT)).to_string(), missing);
    }
}
