//! Child processes of the helper: the commands, and processes that outlive the command that started
//! them.
//!
//! Orphaned processes become children of process 1, which in a container is the server, and the
//! server does not wait for unknown children. The helper therefore adopts them (as a subreaper) and
//! waits for all of its children.

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
    /// Recipients of exit statuses, by process ID.
    commands: Mutex<HashMap<i32, Sender<ExitStatus>>>,
    started: Condvar,
}

impl Children {
    /// Makes this process adopt orphans, and starts the thread that waits for children.
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

    /// Runs a command and waits for it to end.
    pub(super) fn run(&self, command: &mut Command) -> io::Result<ExitStatus> {
        let (sender, receiver) = mpsc::channel();
        {
            // The lock keeps the waiting thread from reaping this child: if the command cannot be
            // run, the child has ended already and `spawn` waits for it.
            let mut commands = self.lock();
            let id = command.spawn()?.id();
            commands.insert(id as i32, sender);
        }
        self.started.notify_one();
        receiver.recv().map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn wait_for_all(&self) {
        loop {
            // Does not reap the child, which may belong to `spawn`.
            match rustix::process::waitid(
                WaitId::All,
                WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    if error != Errno::CHILD {
                        log::error!("--on-commit: cannot wait for commands: {error}");
                    }
                    // A process without children has no orphans either.
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
                // The thread that runs the command waits for this status.
                let _ = sender.send(ExitStatus::from_raw(status.as_raw()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Sender<ExitStatus>>> {
        // Every change under this lock is a single call.
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
