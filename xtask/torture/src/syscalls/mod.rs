//! Every system call that a recorded run makes fails, in every way it may: once at each place, a
//! few times in a row, and from then on.

mod checks;
mod client;
mod server;
mod work;

use std::collections::{BTreeMap, BTreeSet};

use super::errno_table::{Failures, PASSING, failures};
use super::runner::{Case, RunOptions};
use super::strace::{self, Fault, When};
use accio_harness::context::Context;
use accio_harness::verdict::{During, Stop, Verdict, ensure};
use client::{fail_client, record_client};
use server::{SERVERS, fail_service, fail_start, record_server, sync_fails};

/// Places at which one call is made to fail, at the most.
const PLACES: usize = 12;

const SYNC: &str = "syscalls/fdatasync-is-not-retried";
const TABLE: &str = "syscalls/table-is-complete";

/// A client in a certain mode: flags, bytes to send.
const CLIENTS: [(&str, &[&str], usize, bool); 4] = [
    ("accio-client", &[], 700_000, false),
    ("accio-client-portable", &["--without", "sendfile"], 700_000, true),
    ("accio-client-confirm", &["--handshake", "confirm"], 500, true),
    ("accio-client-empty", &[], 0, true),
];

/// Records healthy runs and makes a case of every way in which one of their calls may fail.
pub(crate) fn cases(context: &Context, plan: &RunOptions) -> Verdict<Vec<Case>> {
    strace::ensure_available()?;
    let mut cases = Vec::new();
    let mut others = Others::default();
    for subject in SERVERS.into_iter().filter(|subject| !(plan.quick && subject.more)) {
        let (start, service) = record_server(context, subject).during(|| subject.name)?;
        for fault in faults(&start.0, &start.1, plan, &mut others) {
            let name = format!("syscalls/{}/start/{}", subject.name, fault.name());
            cases.push(Case::new(name, "it says why it does not start, or serves well", {
                move |context| fail_start(context, subject, &fault)
            }));
        }
        for fault in faults(&BTreeMap::new(), &service, plan, &mut others) {
            let name = format!("syscalls/{}/service/{}", subject.name, fault.name());
            cases.push(Case::new(name, "no lie, no leak, no busy loop, the next exact", {
                move |context| fail_service(context, subject, &fault)
            }));
        }
    }
    for (name, flags, size, more) in CLIENTS {
        if plan.quick && more {
            continue;
        }
        let (before, all) = record_client(context, flags, size).during(|| name)?;
        for fault in faults(&before, &all, plan, &mut others) {
            let name = format!("syscalls/{name}/{}", fault.name());
            cases.push(Case::new(name, "success only for a file that is kept", {
                move |context| fail_client(context, flags, size, &fault)
            }));
        }
    }
    let about = "what could not be synced is not kept, and not synced again";
    cases.push(Case::new(SYNC, about, sync_fails));
    let calls = count_calls(&cases);
    let Others { left_alone, unknown } = others;
    let about = "every recorded call is in the table";
    cases.push(Case::new(TABLE, about, move |_| {
        let names = || format!("{unknown:?} are not");
        ensure(unknown.is_empty(), "every recorded call to be in the table", names)?;
        Ok(calls.clone())
    }));
    for (call, why) in left_alone {
        let name = format!("syscalls/left-alone/{call}");
        cases.push(Case::new(name, "not made to fail", move |_| Err(Stop::skip(why))));
    }
    Ok(cases)
}

/// How many calls fail, in how many ways, for people.
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
    let ways = cases.len();
    format!("{} places, {} calls × errnos, {ways} faults in all", sites.len(), pairs.len())
}

/// Recorded calls that get no case.
#[derive(Debug, Default)]
struct Others {
    left_alone: BTreeMap<String, &'static str>,
    unknown: BTreeSet<String>,
}

/// The faults for calls that were made so often in `all`, the first `before` of them left alone.
fn faults(
    before: &BTreeMap<String, usize>,
    all: &BTreeMap<String, usize>,
    plan: &RunOptions,
    others: &mut Others,
) -> Vec<Fault> {
    let mut found = Vec::new();
    for (call, count) in all {
        let errors = match failures(call) {
            Some(Failures::Errors(errors)) => errors,
            Some(Failures::None(why)) => {
                others.left_alone.insert(call.clone(), why);
                continue;
            }
            None => {
                others.unknown.insert(call.clone());
                continue;
            }
        };
        let first = before.get(call).copied().unwrap_or(0) + 1;
        if first > *count {
            continue;
        }
        let places = *count - first + 1;
        let errors = if plan.quick { &errors[..1] } else { errors };
        for errno in errors.iter().copied() {
            let fault = |when| Fault { call: call.clone(), errno, when };
            let wanted = if plan.quick { 1 } else { PLACES.min(places) };
            // Spread over all places, the first and the last among them.
            let mut at: Vec<usize> = (0..wanted)
                .map(|n| first + if wanted > 1 { n * (places - 1) / (wanted - 1) } else { 0 })
                .collect();
            at.dedup();
            found.extend(at.into_iter().map(|k| fault(When::Once(k))));
            if PASSING.contains(&errno) {
                found.push(fault(When::Burst(first, first + 4)));
            } else {
                found.push(fault(When::From(first)));
                if !plan.quick && places > 1 {
                    found.push(fault(When::From(first + places / 2)));
                }
            }
        }
    }
    found
}

/// Names such as the cases have, without a recorded run.
#[cfg(test)]
pub(super) fn sample_names() -> Vec<String> {
    let fault = Fault { call: "close".into(), errno: "EIO", when: When::Once(1) }.name();
    let servers = SERVERS.iter().flat_map(|subject| {
        ["start", "service"].map(|when| format!("syscalls/{}/{when}/{fault}", subject.name))
    });
    let clients = CLIENTS.iter().map(|(name, ..)| format!("syscalls/{name}/{fault}"));
    let others = [SYNC, TABLE].map(String::from);
    servers.chain(clients).chain(others).collect()
}
