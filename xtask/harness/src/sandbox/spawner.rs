//! A thread that starts processes in the namespaces of a check. Namespaces belong to threads, and
//! the threads of the check itself must stay in those of this process to see its files.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;

use nix::sched::CloneFlags;

use super::mounts::View;

/// A command to start, the network to start it in, and where to send the process.
struct Request {
    command: Command,
    network: Option<OwnedFd>,
    reply: mpsc::Sender<io::Result<Child>>,
}

/// The handle of the thread, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Spawner(mpsc::Sender<Request>);

impl Spawner {
    /// Starts the thread and creates its namespaces. It uses the network of the calling thread.
    pub(super) fn start(view: View) -> io::Result<Spawner> {
        let (requests, receiver) = mpsc::channel::<Request>();
        let (ready, entered) = mpsc::channel();
        thread::Builder::new().name("spawner".to_owned()).spawn(move || {
            // Open it now: the first process will mount a process table without this thread.
            let own = File::open("/proc/thread-self/ns/net");
            let entered = own.and_then(|own| enter(&view).map(|()| own));
            let (outcome, own) = match entered {
                Ok(own) => (Ok(()), Some(own)),
                Err(error) => (Err(error), None),
            };
            // The caller waits for it.
            let _ = ready.send(outcome);
            let Some(own) = own else { return };
            for Request { command, network, reply } in receiver {
                let child = spawn(command, network, &own);
                // The caller waits for it.
                let _ = reply.send(child);
            }
        })?;
        entered.recv().map_err(io::Error::other)??;
        Ok(Spawner(requests))
    }

    /// Starts a command, which is taken out of its place so that its pipes are closed.
    pub(super) fn spawn(
        &self,
        command: &mut Command,
        network: Option<OwnedFd>,
    ) -> io::Result<Child> {
        let (reply, child) = mpsc::channel();
        let command = std::mem::replace(command, Command::new(""));
        self.0.send(Request { command, network, reply }).map_err(io::Error::other)?;
        child.recv().map_err(io::Error::other)?
    }
}

fn enter(view: &View) -> io::Result<()> {
    nix::sched::unshare(
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC,
    )?;
    view.apply()
}

/// Starts a command in `network`, by a thread that ends after that.
pub(super) fn spawn_in(network: &OwnedFd, command: &mut Command) -> io::Result<Child> {
    let start = || {
        nix::sched::setns(network, CloneFlags::CLONE_NEWNET)?;
        command.spawn()
    };
    let started = thread::scope(|scope| scope.spawn(start).join());
    started.unwrap_or_else(|_| Err(io::Error::other("panic")))
}

/// Starts a command in `network`, or in the network of this thread, which is `own`.
fn spawn(mut command: Command, network: Option<OwnedFd>, own: &File) -> io::Result<Child> {
    let Some(network) = network else { return command.spawn() };
    nix::sched::setns(&network, CloneFlags::CLONE_NEWNET)?;
    let child = command.spawn();
    nix::sched::setns(own, CloneFlags::CLONE_NEWNET)?;
    child
}
