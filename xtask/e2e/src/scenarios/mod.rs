//! The scenarios, one file per group.

mod arguments;
mod client;
mod concurrency;
mod connect;
mod content;
mod dialects;
mod digests;
mod errors;
mod limits;
mod portable;
mod signals;
mod third_party;
mod timeouts;
mod tls;
mod tls_machines;
mod tls_peers;

use crate::runner::Scenario;
use accio_harness::context::Context;
use accio_harness::peer::SOON;
use accio_harness::process;
use accio_harness::subject::Program;
use accio_harness::verdict::{Stop, Verdict};

/// Returns a skip if the programs are those of other systems than Linux (`cargo xtask test-portable`).
fn require_linux_programs(context: &Context) -> Verdict {
    let mut command = context.subject().template(Program::Server)?.bare();
    command.arg("--help");
    let help = process::output(command, b"", SOON)?.stdout;
    let help = String::from_utf8_lossy(&help);
    if help.contains("--journal") && !help.contains("--sandbox") {
        return Err(Stop::skip("the programs were built without what only Linux has"));
    }
    Ok(())
}

/// Returns all scenarios.
pub(crate) fn all() -> impl Iterator<Item = &'static Scenario> {
    [
        dialects::SCENARIOS,
        content::SCENARIOS,
        errors::SCENARIOS,
        timeouts::SCENARIOS,
        client::SCENARIOS,
        connect::SCENARIOS,
        signals::SCENARIOS,
        arguments::SCENARIOS,
        concurrency::SCENARIOS,
        limits::SCENARIOS,
        portable::SCENARIOS,
        third_party::SCENARIOS,
        tls::SCENARIOS,
        tls_peers::SCENARIOS,
        tls_machines::SCENARIOS,
        digests::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_have_a_group() {
        let mut seen = BTreeSet::new();
        for scenario in super::all() {
            assert!(seen.insert(scenario.name), "{} twice", scenario.name);
            assert_eq!(scenario.name.split('/').count(), 2, "{}", scenario.name);
            assert!(!scenario.about.is_empty() && !scenario.about.ends_with('.'));
        }
    }
}
