//! Makes every system call of a recorded run fail, with every error in the table: once at each
//! place, a few times in a row, and from that place on.

mod checks;
mod client;
mod server;
mod syncs;
mod threads;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use super::errno_table::{Failures, TRANSIENT, failures};
use super::runner::{Case, RunOptions};
use super::strace::{InjectedFault, Occurrence};
use accio_harness::context::Context;
use accio_harness::tools;
use accio_harness::verdict::{During, Stop, Verdict, ensure};
use client::{fail_client, record_client};
use server::{SERVERS, fail_service, fail_start, record_service, record_start};
use syncs::{name_remains, sync_fails};

/// Largest number of places at which one system call is made to fail.
const PLACES: usize = 12;

const SYNC: &str = "syscalls/fdatasync-is-not-retried";
const NAME: &str = "syscalls/a-name-that-remains-is-not-confirmed";
const TABLE: &str = "syscalls/table-is-complete";

/// Client modes: name, flags, bytes to send, whether it runs in the full run only.
const CLIENTS: [(&str, &[&str], usize, bool); 4] = [
    ("accio-client", &[], 700_000, false),
    ("accio-client-portable", &["--without", "sendfile"], 700_000, true),
    ("accio-client-confirm", &["--handshake", "confirm"], 500, true),
    ("accio-client-empty", &[], 0, true),
];

/// Records healthy runs and returns a case for every failure of one of their calls.
pub(crate) fn cases(context: &Context, options: &RunOptions) -> Verdict<Vec<Case>> {
    tools::require_tracing()?;
    let mut cases = Vec::new();
    let mut excluded = ExcludedCalls::default();
    for mode in SERVERS.into_iter().filter(|mode| !(options.quick && mode.more)) {
        let start = record_start(context, mode).during(|| mode.name)?;
        for fault in faults(&start.0, &start.1, options, &mut excluded) {
            let name = format!("syscalls/{}/start/{}", mode.name, fault.name());
            cases.push(Case::new(name, "it reports why it does not start, or serves correctly", {
                move |context| fail_start(context, mode, &fault)
            }));
        }
        for thread in mode.threads {
            let place = format!("syscalls/{}/service/{}", mode.name, thread.name());
            let service = record_service(context, mode, *thread).during(|| place.clone())?;
            let mut faults = faults(&BTreeMap::new(), &service, options, &mut excluded);
            faults.retain(|fault| thread.may_fail(fault));
            for fault in faults {
                cases.push(Case::new(
                    format!("{place}/{}", fault.name()),
                    "no false confirmation, no leak, no busy loop, and the next upload is exact",
                    move |context| fail_service(context, mode, *thread, &fault),
                ));
            }
        }
    }
    for (name, flags, size, more) in CLIENTS {
        if options.quick && more {
            continue;
        }
        let (before, all) = record_client(context, flags, size).during(|| name)?;
        for fault in faults(&before, &all, options, &mut excluded) {
            let name = format!("syscalls/{name}/{}", fault.name());
            cases.push(Case::new(name, "the client reports success only if its file is kept", {
                move |context| fail_client(context, flags, size, &fault)
            }));
        }
    }
    let about = "a file that could not be synced is not kept, and not synced again";
    cases.push(Case::new(SYNC, about, sync_fails));
    let about = "a client gets no confirmation if the name of its file may be lost";
    cases.push(Case::new(NAME, about, name_remains));
    let calls = count_calls(&cases);
    let ExcludedCalls { not_injected, unknown } = excluded;
    let about = "every recorded call is in the table";
    cases.push(Case::new(TABLE, about, move |_| {
        let names = || format!("{unknown:?} are not");
        ensure(unknown.is_empty(), "every recorded call to be in the table", names)?;
        Ok(calls.clone())
    }));
    for (call, why) in not_injected {
        let name = format!("syscalls/left-alone/{call}");
        cases.push(Case::new(name, "no failure is injected", move |_| Err(Stop::skip(why))));
    }
    Ok(cases)
}

/// Returns a summary of the injected faults.
fn count_calls(cases: &[Case]) -> String {
    let faults = cases.iter().filter_map(|case| case.name.rsplit_once('/'));
    let mut sites = BTreeSet::new();
    let mut pairs = BTreeSet::new();
    for (place, fault) in faults {
        let Some((pair, when)) = fault.split_once('@') else { continue };
        let call = pair.split('=').next().unwrap_or_default();
        sites.insert(format!("{place}/{call}@{when}"));
        pairs.insert(pair.to_owned());
    }
    let total = cases.len();
    format!("{} places, {} calls × errnos, {total} faults in all", sites.len(), pairs.len())
}

/// Recorded calls without a case.
#[derive(Debug, Default)]
struct ExcludedCalls {
    not_injected: BTreeMap<String, &'static str>,
    unknown: BTreeSet<String>,
}

/// Returns the faults for the calls in `all`, except for the first ones, counted in `before`.
fn faults(
    before: &BTreeMap<String, usize>,
    all: &BTreeMap<String, usize>,
    options: &RunOptions,
    excluded: &mut ExcludedCalls,
) -> Vec<InjectedFault> {
    let mut found = Vec::new();
    for (call, count) in all {
        let errors = match failures(call) {
            Some(Failures::Errors(errors)) => errors,
            Some(Failures::None(why)) => {
                excluded.not_injected.insert(call.clone(), why);
                continue;
            }
            None => {
                excluded.unknown.insert(call.clone());
                continue;
            }
        };
        let first = before.get(call).copied().unwrap_or(0) + 1;
        if first > *count {
            continue;
        }
        let places = *count - first + 1;
        let errors = if options.quick { &errors[..1] } else { errors };
        for errno in errors.iter().copied() {
            let fault = |when| InjectedFault { call: call.clone(), errno, when };
            let wanted = if options.quick { 1 } else { PLACES.min(places) };
            // Spread over all places, including the first and the last.
            let mut at: Vec<usize> = (0..wanted)
                .map(|n| first + if wanted > 1 { n * (places - 1) / (wanted - 1) } else { 0 })
                .collect();
            at.dedup();
            found.extend(at.into_iter().map(|k| fault(Occurrence::Once(k))));
            if TRANSIENT.contains(&errno) {
                found.push(fault(Occurrence::Burst(first, first + 4)));
            } else {
                found.push(fault(Occurrence::From(first)));
                if !options.quick && places > 1 {
                    found.push(fault(Occurrence::From(first + places / 2)));
                }
            }
        }
    }
    found
}

/// Returns examples of the cases' names, which need a recorded run otherwise.
#[cfg(test)]
pub(super) fn sample_names() -> Vec<String> {
    let fault =
        InjectedFault { call: "close".into(), errno: "EIO", when: Occurrence::Once(1) }.name();
    let servers = SERVERS.iter().flat_map(|mode| {
        let threads = mode.threads.iter().map(|thread| format!("service/{}", thread.name()));
        threads
            .chain(["start".to_owned()])
            .map(|when| format!("syscalls/{}/{when}/{fault}", mode.name))
    });
    let clients = CLIENTS.iter().map(|(name, ..)| format!("syscalls/{name}/{fault}"));
    let excluded = [SYNC, NAME, TABLE].map(String::from);
    servers.chain(clients).chain(excluded).collect()
}
