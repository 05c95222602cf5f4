//! Ends the processes that `--from-command` has started.
//!
//! A process group of its own would separate the command from the terminal: it could neither read a
//! password nor receive Ctrl-C. On Linux, this process adopts orphaned descendants instead, so that
//! all of them can be found below it.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, getpid, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Set once a signal ends this process.
static ENDING: AtomicBool = AtomicBool::new(false);
/// The children that this process had before: those of a shell that became this program by `exec`.
static INHERITED: OnceLock<Vec<i32>> = OnceLock::new();

/// Returns whether a signal is ending this process, so that its descendants are being killed.
pub(crate) fn is_ending() -> bool {
    ENDING.load(Ordering::SeqCst)
}

/// Adopts orphaned descendants, and kills all descendants when a signal ends this process.
pub(crate) fn watch() -> io::Result<()> {
    INHERITED.get_or_init(|| children(getpid().as_raw_nonzero().get()));
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(getpid()))?;
    let ignored = ignored_signals();
    let ending = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
    // `nohup` ignores SIGHUP, for example.
    let mut signals = Signals::new(ending.iter().filter(|signal| !ignored.contains(signal)))?;
    thread::Builder::new().name("accio-signals".into()).spawn(move || {
        for signal in signals.forever() {
            ENDING.store(true, Ordering::SeqCst);
            kill_all();
            // Ends the process.
            let _ = emulate_default_handler(signal);
        }
    })?;
    Ok(())
}

/// Kills all descendants. Each pass finds the children that were created since the last one; a
/// process that has been sent SIGKILL creates none.
pub(crate) fn kill_all() {
    let mut killed = BTreeSet::new();
    loop {
        let new: Vec<_> = descendants().into_iter().filter(|pid| killed.insert(*pid)).collect();
        if new.is_empty() {
            return;
        }
        for pid in new.into_iter().filter_map(Pid::from_raw) {
            // This fails only if the process has ended.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Returns all descendants but the inherited ones, parents before their children; none if `/proc`
/// does not list them.
fn descendants() -> Vec<i32> {
    let mut found = children(getpid().as_raw_nonzero().get());
    found.retain(|child| INHERITED.get().is_none_or(|inherited| !inherited.contains(child)));
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        found.extend(children(pid));
    }
    found
}

fn children(pid: i32) -> Vec<i32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists =
        threads.flatten().flat_map(|thread| fs::read_to_string(thread.path().join("children")));
    lists.flat_map(|list| list.split(' ').flat_map(str::parse).collect::<Vec<_>>()).collect()
}

/// Returns the signals that this process ignores.
fn ignored_signals() -> Vec<i32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    (1..=64).filter(|signal| mask & (1 << (signal - 1)) != 0).collect()
}
