//! Ends child processes and removes folders when the run is interrupted.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::process;

/// Cleanup to do when the run is interrupted.
static LEFTOVERS: Mutex<Vec<Leftovers>> = Mutex::new(Vec::new());

struct Leftovers {
    undo: fn(),
    dir: PathBuf,
}

/// Arranges that an interruption ends all child processes, calls `undo` and removes `dir`.
pub fn remove_when_interrupted(undo: fn(), dir: PathBuf) -> io::Result<()> {
    let mut leftovers = LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner);
    leftovers.push(Leftovers { undo, dir });
    if leftovers.len() > 1 {
        // A thread waits for signals already.
        return Ok(());
    }
    drop(leftovers);
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            process::kill_all_groups(|| {
                let leftovers = LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner);
                for Leftovers { undo, dir } in leftovers.iter() {
                    undo();
                    // Scenarios still write there for a moment; what cannot be removed stays.
                    let _ = (0..5).try_for_each(|_| match std::fs::remove_dir_all(dir) {
                        Ok(()) => Err(()),
                        Err(_) => Ok(()),
                    });
                }
                std::process::exit(128 + signal)
            })
        }
    });
    Ok(())
}
