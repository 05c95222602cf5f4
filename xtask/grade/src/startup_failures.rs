//! Remembers what checks found out about a program, such as that it does not start, so that further
//! checks do not wait for it again.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use accio_harness::subject::Program;
use accio_harness::verdict::{During, Stop, Verdict};

/// Number of checks after which a finding is considered true.
const ENOUGH: u32 = 2;

/// Prefix of the step in which a program is started.
pub(crate) const STARTING: &str = "starting ";
/// The step in which the first client of a server is greeted.
pub(crate) const HANDSHAKE: &str = "the handshake with ";
/// The step in which a server closes the connection after the client.
const CLOSING: &str = "the end of a connection with ";

/// The beginning of the description of a check that was not tried because of a finding.
pub(crate) const NOT_TRIED: &str = "not tried, because ";

/// The findings about a submission's programs.
#[derive(Debug, Default)]
pub(crate) struct StartupFailures(Mutex<BTreeMap<(Program, &'static str), FailureCount>>);

#[derive(Debug, Default)]
struct FailureCount {
    times: u32,
    expected: String,
    actual: String,
}

impl StartupFailures {
    /// Records it if `verdict` is a fault of starting `program`.
    pub(crate) fn record<T>(&self, program: Program, verdict: Verdict<T>) -> Verdict<T> {
        self.record_step(program, STARTING, verdict)
    }

    /// Records it if `verdict` is a fault of this step.
    pub(crate) fn record_step<T>(
        &self,
        program: Program,
        step: &'static str,
        verdict: Verdict<T>,
    ) -> Verdict<T> {
        if let Err(Stop::Fault(fault)) = &verdict {
            self.add(program, step, &fault.expected, &fault.actual);
        }
        verdict.during(|| format!("{step}{}", program.name()))
    }

    fn add(&self, program: Program, step: &'static str, expected: &str, actual: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.entry((program, step)).or_default();
        found.times += 1;
        if found.times <= ENOUGH {
            found.expected = expected.to_owned();
            found.actual = actual.to_owned();
        }
    }

    /// Returns a fault if enough checks have found that `program` does not start.
    pub(crate) fn check(&self, program: Program) -> Verdict {
        self.check_step(program, STARTING)
    }

    /// Returns a fault if enough checks have found that this step fails.
    pub(crate) fn check_step(&self, program: Program, step: &'static str) -> Verdict {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = all.get(&(program, step)).filter(|found| found.times >= ENOUGH) else {
            return Ok(());
        };
        let expected = match (step, program) {
            (STARTING, Program::Client) => "the client to connect".to_owned(),
            (STARTING, _) => format!("the {} to listen on its port", program.name()),
            _ => found.expected.clone(),
        };
        let actual = format!("{NOT_TRIED}{ENOUGH} other checks found: {}", found.actual);
        Err(Stop::fault(expected, actual)).during(|| format!("{step}{}", program.name()))
    }

    /// Records that the server left a connection open after the client had closed it.
    pub(crate) fn record_open(&self, program: Program) {
        self.add(program, CLOSING, "", "");
    }

    /// Returns whether enough checks have found that the server leaves connections open.
    pub(crate) fn never_closes(&self, program: Program) -> bool {
        self.check_step(program, CLOSING).is_err()
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
        startup_failures.check_step(Program::Server, HANDSHAKE).unwrap();
        let Err(Stop::Fault(fault)) = startup_failures.check(Program::Server) else {
            panic!("it should fail")
        };
        assert!(fault.actual.ends_with("it does not"), "{fault:?}");
        assert_eq!(fault.during, ["starting server"]);
        assert!(!startup_failures.never_closes(Program::Server));
        startup_failures.record_open(Program::Server);
        startup_failures.record_open(Program::Server);
        assert!(startup_failures.never_closes(Program::Server));
    }
}
