//! Ends child processes and removes directories when the run is interrupted.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::process;

/// The clean-up to do when the run is interrupted.
static CLEANUPS: Mutex<Vec<Cleanup>> = Mutex::new(Vec::new());

struct Cleanup {
    undo: fn(),
    dir: PathBuf,
}

/// Makes an interruption end all child processes, call `undo` and remove `dir`.
pub fn remove_when_interrupted(undo: fn(), dir: PathBuf) -> io::Result<()> {
    let mut cleanups = CLEANUPS.lock().unwrap_or_else(PoisonError::into_inner);
    cleanups.push(Cleanup { undo, dir });
    if cleanups.len() > 1 {
        // The thread that waits for signals is running already.
        return Ok(());
    }
    drop(cleanups);
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            process::kill_all_groups(|| {
                let cleanups = CLEANUPS.lock().unwrap_or_else(PoisonError::into_inner);
                for Cleanup { undo, dir } in cleanups.iter() {
                    undo();
                    // Scenarios may still write there for a moment, so try several times.
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
