//! Child processes of the helper: the commands, and processes that outlive the command that started
//! them.
//!
//! Orphaned processes become children of process 1, which in a container is the server, and the
//! server does not wait for unknown children. The helper therefore adopts them (as a subreaper) and
//! waits for all of its children.

use std::collections::HashMap;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStderr, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions};
#[cfg(linux_sys)]
use rustix::process::{getpid, set_child_subreaper};

#[derive(Debug, Default)]
pub(super) struct Children {
    /// Running commands, by process ID.
    commands: Mutex<HashMap<i32, Recipient>>,
    started: Condvar,
}

/// The recipient of an exit status.
#[derive(Debug)]
struct Recipient {
    sender: Sender<ExitStatus>,
    /// Whether the command has a process group of its own, which ends with it.
    leads_group: bool,
}

/// A command that was started.
#[derive(Debug)]
pub(super) struct Started {
    id: i32,
    pub(super) stderr: Option<ChildStderr>,
    status: Receiver<ExitStatus>,
}

impl Started {
    /// Waits for the end of the command, for `limit` at most.
    pub(super) fn ended(&self, limit: Duration) -> Option<ExitStatus> {
        self.status.recv_timeout(limit).ok()
    }
}

impl Children {
    /// Makes this process adopt orphans, and starts the thread that waits for children.
    pub(super) fn adopt() -> io::Result<Arc<Self>> {
        #[cfg(linux_sys)]
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
        let started = self.spawn(command, false)?;
        started.status.recv().map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Starts a command in a process group of its own. When the command ends, the other processes of
    /// the group are killed.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Started> {
        command.process_group(0);
        self.spawn(command, true)
    }

    /// Sends a signal to the process group of a command, unless the command has ended.
    pub(super) fn signal(&self, started: &Started, signal: Signal) {
        // While the command is in the table, no other process can have its number.
        let commands = self.lock();
        if commands.contains_key(&started.id) {
            kill_group(started.id, signal);
        }
    }

    fn spawn(&self, command: &mut Command, leads_group: bool) -> io::Result<Started> {
        let (sender, status) = mpsc::channel();
        let (id, stderr) = {
            // The lock keeps the waiting thread from reaping this child: if the command cannot be
            // run, the child has ended already and `spawn` waits for it.
            let mut commands = self.lock();
            let mut child = command.spawn()?;
            let id = child.id() as i32;
            commands.insert(id, Recipient { sender, leads_group });
            (id, child.stderr.take())
        };
        self.started.notify_one();
        Ok(Started { id, stderr, status })
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
            end_groups(&commands);
            if let Ok(Some((id, status))) = rustix::process::wait(WaitOptions::NOHANG)
                && let Some(recipient) = commands.remove(&id.as_raw_nonzero().get())
            {
                if recipient.leads_group {
                    // It may have ended after `end_groups`. Its number belongs to its group as long
                    // as that has processes.
                    kill_group(id.as_raw_nonzero().get(), Signal::KILL);
                }
                // A command that could not be killed in time has no recipient any more.
                let _ = recipient.sender.send(ExitStatus::from_raw(status.as_raw()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i32, Recipient>> {
        // Every change under this lock is a single call.
        self.commands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills the process groups of commands that have ended. None of these is reaped yet, so no other
/// group can have its number.
fn end_groups(commands: &HashMap<i32, Recipient>) {
    for (&id, _) in commands.iter().filter(|(_, recipient)| recipient.leads_group) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        let Some(pid) = Pid::from_raw(id) else { continue };
        if matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(Some(_))) {
            kill_group(id, Signal::KILL);
        }
    }
}

fn kill_group(id: i32, signal: Signal) {
    let Some(group) = Pid::from_raw(id) else { return };
    if let Err(error) = rustix::process::kill_process_group(group, signal) {
        log::debug!("cannot send a signal to a command: {error}");
    }
}
