//! Environment variables named `ACCIO_…`: detects misspelled names, and invalid values.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use clap::error::{ContextKind, ContextValue};
use clap::{Command, Id};

/// The variables of all three programs: a variable that one program does not know may be meant for
/// another. Each program's tests compare its variables with this list.
const VARIABLES: &[&str] = &[
    "ACCIO_ACCEPT_IF",
    "ACCIO_ACCEPT_JOBS",
    "ACCIO_ACCEPT_TIMEOUT",
    "ACCIO_ALLOW",
    "ACCIO_BIND",
    "ACCIO_COLOR",
    "ACCIO_CONNECT_TIMEOUT",
    "ACCIO_DENY",
    "ACCIO_DIGEST",
    "ACCIO_DRAIN",
    "ACCIO_DURABLE",
    "ACCIO_EXISTING",
    "ACCIO_FROM_COMMAND",
    "ACCIO_HANDSHAKE",
    "ACCIO_IDS_FROM",
    "ACCIO_IDS_FROM_STORE",
    "ACCIO_JOBS",
    "ACCIO_JOURNAL",
    "ACCIO_LIMIT_RATE",
    "ACCIO_MAX_CONNECTIONS",
    "ACCIO_MAX_DURATION",
    "ACCIO_MAX_NEW_PER_IP",
    "ACCIO_MAX_PER_CLIENT",
    "ACCIO_MAX_PER_IP",
    "ACCIO_MAX_SIZE",
    "ACCIO_MAX_TIME",
    "ACCIO_METRICS",
    "ACCIO_METRICS_NAME",
    "ACCIO_METRICS_ONLY",
    "ACCIO_MIN_FREE",
    "ACCIO_MIN_RATE",
    "ACCIO_MODE",
    "ACCIO_NODE",
    "ACCIO_ON_COMMIT",
    "ACCIO_ON_COMMIT_JOBS",
    "ACCIO_ON_COMMIT_QUEUE",
    "ACCIO_PROGRESS",
    "ACCIO_PROXY_PROTOCOL",
    "ACCIO_RETRY",
    "ACCIO_SANDBOX",
    "ACCIO_SOURCE",
    "ACCIO_STORE_MEMORY",
    "ACCIO_TIMEOUT",
    "ACCIO_TLS",
    "ACCIO_TLS_CA",
    "ACCIO_TLS_CERT",
    "ACCIO_TLS_CLIENTS",
    "ACCIO_TLS_CLIENT_CA",
    "ACCIO_TLS_IDENTITY",
    "ACCIO_TLS_KEY",
    "ACCIO_TLS_MIN",
    "ACCIO_TLS_PIN",
    "ACCIO_WITHOUT",
    "ACCIO_WORKERS",
];

/// Variables that are set for the server's commands, which may run one of the programs.
const OF_COMMANDS: [&str; 6] =
    ["ACCIO_ID", "ACCIO_PATH", "ACCIO_BYTES", "ACCIO_PEER", "ACCIO_IDENTITY", "ACCIO_FILE_DIGEST"];

/// Prefix of all variable names.
const PREFIX: &str = "ACCIO_";

/// Minimum similarity of two names for one to be suggested.
const LIKENESS: f64 = 0.8;

/// The unknown variables that are set, kept until the log has started.
static UNKNOWN: OnceLock<Vec<Unknown>> = OnceLock::new();

/// Returns the variables of a program that are missing in the list of all programs' variables, for
/// the program's tests.
pub fn unlisted_variables(command: &Command) -> Vec<String> {
    let variables = variables_of(command).into_iter();
    variables.filter(|variable| !VARIABLES.contains(&&**variable)).collect()
}

/// Returns the variables that set a program's flags.
fn variables_of(command: &Command) -> BTreeSet<String> {
    let names = command.get_arguments().filter_map(|argument| argument.get_env());
    names.filter_map(|name| name.to_str().map(str::to_owned)).collect()
}

/// A variable that no program has.
#[derive(Debug, PartialEq, Eq)]
struct Unknown {
    name: String,
    /// The variable that was probably meant.
    suggestion: Option<String>,
}

/// Looks for variables that no program has, and stores them.
pub(crate) fn check(command: &Command) {
    let own = variables_of(command);
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = set.filter_map(|name| unknown(name, &own)).collect();
    // This is set once; a second program in this process would find the same variables.
    let _ = UNKNOWN.set(unknown);
}

/// Logs the unknown variables that [`check`] found: as a warning if the name is similar to a
/// variable of this program, otherwise as information, because it may belong to other software.
pub(crate) fn log_unknown() {
    for Unknown { name, suggestion } in UNKNOWN.get().into_iter().flatten() {
        match suggestion {
            Some(suggestion) => {
                log::warn!("unknown variable {name} has no effect: did you mean {suggestion}?");
            }
            None => log::info!("unknown variable {name} has no effect"),
        }
    }
}

fn unknown(name: String, own: &BTreeSet<String>) -> Option<Unknown> {
    let short = name.strip_prefix(PREFIX)?;
    let is_known = |name| VARIABLES.contains(&name) || OF_COMMANDS.contains(&name);
    if is_known(&name) || own.contains(&name) {
        return None;
    }
    // Compare without the prefix, which would make all names similar.
    let likeness = |known: &str| strsim::jaro(short, known.strip_prefix(PREFIX).unwrap_or(known));
    let best = own.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    let suggestion = best.filter(|best| likeness(best) >= LIKENESS).cloned();
    Some(Unknown { name, suggestion })
}

/// Returns the name of the variable that contains the invalid value, or the value that another
/// argument conflicts with; `None` if all of them are on the command line.
///
/// `command` is the definition of the program, and `arguments` are the arguments it was run with.
pub(crate) fn culprit(
    error: &clap::Error,
    command: &Command,
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
) -> Option<String> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let values = [ContextKind::InvalidArg, ContextKind::PriorArg].map(|kind| error.get(kind));
    let shown = values.into_iter().flatten().flat_map(|value| match value {
        ContextValue::String(shown) => std::slice::from_ref(shown),
        ContextValue::Strings(shown) => shown,
        _ => &[],
    });
    shown.filter_map(|shown| variable(shown, command)).find_map(|(id, variable)| {
        // Without the variable, the same command line is valid.
        let mut without = command.clone().mut_arg(id, |argument| argument.env(None));
        match without.try_get_matches_from_mut(&arguments) {
            Err(again) if is_same(&again, error) => None,
            _ => Some(variable),
        }
    })
}

/// Returns the variable of an argument, if it is set. Errors show the argument as
/// `--max-size <SIZE>`, for example.
fn variable(shown: &str, command: &Command) -> Option<(Id, String)> {
    let long = shown.strip_prefix("--")?.split(' ').next();
    let argument = command.get_arguments().find(|argument| argument.get_long() == long)?;
    let variable = argument.get_env()?.to_str()?.to_owned();
    std::env::var_os(&variable)?;
    Some((argument.get_id().clone(), variable))
}

fn is_same(one: &clap::Error, other: &clap::Error) -> bool {
    [ContextKind::InvalidArg, ContextKind::PriorArg]
        .into_iter()
        .all(|kind| one.get(kind) == other.get(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_a_variable_for_a_misspelled_one() {
        let own = ["ACCIO_MAX_SIZE", "ACCIO_TIMEOUT"].map(str::to_owned).into();
        let found = |name: &str| unknown(name.to_owned(), &own);
        for (name, meant) in [
            ("ACCIO_MAXSIZE", Some("ACCIO_MAX_SIZE")),
            ("ACCIO_TIMOUT", Some("ACCIO_TIMEOUT")),
            ("ACCIO_XYZ", None),
        ] {
            let suggestion = meant.map(str::to_owned);
            assert_eq!(found(name), Some(Unknown { name: name.to_owned(), suggestion }));
        }
        // Variables of this program, of another program, of commands, and of other software.
        for name in ["ACCIO_TIMEOUT", "ACCIO_JOBS", "ACCIO_PEER", "ACCIONA", "PATH"] {
            assert_eq!(found(name), None, "{name}");
        }
    }

    #[test]
    fn list_of_variables_is_sorted() {
        assert!(VARIABLES.is_sorted());
    }
}
