//! The helper's children: the commands, and processes that outlive the command that started them.
//!
//! Such orphans would become children of the first process, which in a container is the server and
//! waits for no strangers. The helper takes them over, and so has to wait for all of its children.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitOptions, getpid, set_child_subreaper};

#[derive(Debug, Default)]
pub(super) struct Children {
    /// Who waits for the exit status of which process.
    commands: Mutex<HashMap<i32, Sender<ExitStatus>>>,
    started: Condvar,
}

impl Children {
    /// Makes this process the parent of orphans, and starts the thread that waits for children.
    pub(super) fn adopt() -> io::Result<Arc<Self>> {
        if let Err(error) = set_child_subreaper(Some(getpid())) {
            log::warn!("--on-commit: processes that outlive a command may stay zombies: {error}");
        }
        let children = Arc::new(Children::default());
        let waiting = Arc::clone(&children);
        thread::Builder::new()
            .name("accio-wait".to_owned())
            .spawn(move || waiting.wait_for_all())?;
        Ok(children)
    }

    /// Runs a command to its end.
    pub(super) fn run(&self, command: &mut Command) -> io::Result<ExitStatus> {
        let (sender, receiver) = mpsc::channel();
        {
            // Nobody waits for children meanwhile: a command that cannot be run has ended already,
            // and `spawn` waits for that itself.
            let mut commands = self.lock();
            let id = command.spawn()?.id();
            commands.insert(id as i32, sender);
        }
        self.started.notify_one();
        receiver.recv().map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn wait_for_all(&self) {
        loop {
            // Leaves the child as it is, for it may be one of `spawn`.
            match rustix::process::waitid(
                WaitId::All,
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    if error != Errno::CHILD {
                        log::error!("--on-commit: cannot wait for commands: {error}");
                    }
                    // Without children there are no orphans either.
                    let commands = self.lock();
                    let none = |commands: &mut HashMap<_, _>| commands.is_empty();
                    drop(self.started.wait_while(commands, none));
                    continue;
                }
            }
            let mut commands = self.lock();
            if let Ok(Some((id, status))) = rustix::process::wait(WaitOptions::NOHANG)
                && let Some(sender) = commands.remove(&id.as_raw_nonzero().get())
            {
                // It waits until this comes.
                let _ = sender.send(ExitStatus::from_raw(status.as_raw()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Sender<ExitStatus>>> {
        // Every change is one call.
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
