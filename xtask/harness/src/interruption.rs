//! Ends child processes and removes folders when the run is interrupted.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::process;

/// What is to be done when somebody stops us: first this, then the folder goes.
static LEFTOVERS: Mutex<Vec<Leftovers>> = Mutex::new(Vec::new());

struct Leftovers {
    first: fn(),
    dir: PathBuf,
}

/// When somebody stops us, nothing we started goes on, and no file of ours stays. `first` is called
/// when all processes are ended.
pub fn end_all_when_interrupted(first: fn(), dir: PathBuf) -> io::Result<()> {
    let mut leftovers = LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner);
    leftovers.push(Leftovers { first, dir });
    if leftovers.len() > 1 {
        // Somebody watches already.
        return Ok(());
    }
    drop(leftovers);
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            process::kill_all_groups(|| {
                let leftovers = LEFTOVERS.lock().unwrap_or_else(PoisonError::into_inner);
                for Leftovers { first, dir } in leftovers.iter() {
                    first();
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
