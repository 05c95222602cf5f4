//! Remembers programs that do not start or do not connect, so that further checks do not wait for
//! them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use accio_harness::subject::Program;
use accio_harness::verdict::{During, Stop, Verdict};

/// Number of checks after which a program is considered not to start.
const ENOUGH: u32 = 2;

/// Prefix of the step in which a program is started.
pub(crate) const STARTING: &str = "starting ";

/// The startup failures of a submission's programs.
#[derive(Debug, Default)]
pub(crate) struct StartupFailures(Mutex<BTreeMap<Program, FailureCount>>);

#[derive(Debug, Default)]
struct FailureCount {
    times: u32,
    actual: String,
}

impl StartupFailures {
    /// Records it if `verdict` is a fault of starting `program`.
    pub(crate) fn record<T>(&self, program: Program, verdict: Verdict<T>) -> Verdict<T> {
        if let Err(Stop::Fault(fault)) = &verdict {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let found = all.entry(program).or_default();
            found.times += 1;
            if found.times <= ENOUGH {
                found.actual.clone_from(&fault.actual);
            }
        }
        verdict.during(|| format!("{STARTING}{}", program.name()))
    }

    /// Returns a fault if enough checks have found that `program` does not start.
    pub(crate) fn check(&self, program: Program) -> Verdict {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = all.get(&program).filter(|found| found.times >= ENOUGH) else {
            return Ok(());
        };
        let expected = match program {
            Program::Client => "the client to connect".to_owned(),
            _ => format!("the {} to listen on its port", program.name()),
        };
        let actual = format!("not tried, because {ENOUGH} other checks found: {}", found.actual);
        Err(Stop::fault(expected, actual)).during(|| format!("{STARTING}{}", program.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_given_up_after_two_startup_failures() {
        let startup_failures = StartupFailures::default();
        let found = || -> Verdict { Err(Stop::fault("it to listen", "it does not")) };
        assert!(startup_failures.record(Program::Server, found()).is_err());
        startup_failures.check(Program::Server).unwrap();
        startup_failures.record(Program::Server, Ok(())).unwrap();
        startup_failures.check(Program::Server).unwrap();
        assert!(startup_failures.record(Program::Server, found()).is_err());
        startup_failures.check(Program::Client).unwrap();
        let Err(Stop::Fault(fault)) = startup_failures.check(Program::Server) else {
            panic!("it should fail")
        };
        assert!(fault.actual.ends_with("it does not"), "{fault:?}");
        assert_eq!(fault.during, ["starting server"]);
    }
}
