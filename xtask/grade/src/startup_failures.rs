//! Programs that do not start or do not connect: once that is proved, no other check waits for
//! them in vain.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use accio_harness::subject::Program;
use accio_harness::verdict::{During, Stop, Verdict};

/// How many checks must have found it.
const ENOUGH: u32 = 2;

/// Prefix of the place of a program that does not start.
pub(crate) const STARTING: &str = "starting ";

/// The failures that the checks of a submission have found so far.
#[derive(Debug, Default)]
pub(crate) struct StartupFailures(Mutex<BTreeMap<Program, Found>>);

#[derive(Debug, Default)]
struct Found {
    times: u32,
    actual: String,
}

impl StartupFailures {
    /// Keeps in mind that `program` did not start, if that is what `verdict` says.
    pub(crate) fn keep<T>(&self, program: Program, verdict: Verdict<T>) -> Verdict<T> {
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

    /// A fault when enough checks have found that `program` does not start.
    pub(crate) fn stand(&self, program: Program) -> Verdict {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = all.get(&program).filter(|found| found.times >= ENOUGH) else {
            return Ok(());
        };
        let expected = match program {
            Program::Client => "the client to connect".to_owned(),
            _ => format!("the {} to listen at its port", program.name()),
        };
        let actual = format!("not waited for, after {ENOUGH} other checks found: {}", found.actual);
        Err(Stop::fault(expected, actual)).during(|| format!("{STARTING}{}", program.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_faults_are_a_proof_and_only_about_their_program() {
        let startup_failures = StartupFailures::default();
        let found = || -> Verdict { Err(Stop::fault("it to listen", "it does not")) };
        assert!(startup_failures.keep(Program::Server, found()).is_err());
        startup_failures.stand(Program::Server).unwrap();
        startup_failures.keep(Program::Server, Ok(())).unwrap();
        startup_failures.stand(Program::Server).unwrap();
        assert!(startup_failures.keep(Program::Server, found()).is_err());
        startup_failures.stand(Program::Client).unwrap();
        let Err(Stop::Fault(fault)) = startup_failures.stand(Program::Server) else {
            panic!("it stands")
        };
        assert!(fault.actual.ends_with("it does not"), "{fault:?}");
        assert_eq!(fault.during, ["starting server"]);
    }
}
