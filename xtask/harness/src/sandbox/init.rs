//! The handle of the first process in a check's PID namespace.

use std::io::{self, Read, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use super::commands::{INIT, KILL, SELF};
use super::spawner::Spawner;
use crate::process::Process;

/// The first process. When it is dropped, the kernel kills all processes of the namespace.
#[derive(Debug)]
pub(super) struct Init {
    process: Process,
    input: Arc<Mutex<ChildStdin>>,
}

/// Kills all programs of a check.
#[derive(Debug)]
pub(super) struct Killer(Arc<Mutex<ChildStdin>>);

impl Init {
    /// Starts it in the namespaces of `spawner` and waits until it is ready.
    pub(super) fn start(spawner: &Spawner, owner: usize) -> io::Result<Init> {
        let mut command = Command::new(SELF);
        command.arg(INIT).env_clear().current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = "the first process of a sandbox".to_owned();
        let mut process = Process::spawn_with_pipes(command, line, owner, |command| {
            spawner.spawn(command, None)
        })?;
        let (Some(input), Some(mut output)) = (process.take_input(), process.take_output()) else {
            return Err(io::Error::other("no pipes"));
        };
        let mut ready = [0];
        if output.read(&mut ready)? == 0 {
            let mut why = String::new();
            if let Some(mut error) = process.take_error() {
                error.read_to_string(&mut why)?;
            }
            return Err(io::Error::other(why));
        }
        Ok(Init { process, input: Arc::new(Mutex::new(input)) })
    }

    /// Returns its process id in the namespace of this process.
    pub(super) fn pid(&self) -> i32 {
        self.process.pid().as_raw_nonzero().get()
    }

    pub(super) fn killer(&self) -> Killer {
        Killer(Arc::clone(&self.input))
    }
}

impl Killer {
    /// Kills all processes of the namespace but its first one.
    pub(super) fn kill(&self) {
        // If the first process has ended, so have the others.
        let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(KILL);
    }
}
