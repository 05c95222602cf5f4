//! `--on-commit`: a command for each file that has its name.

use std::io::{self, BufRead, BufReader, Stdin};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use accio_proto::os_error_text;

use super::children::Children;
use super::environment::describe;
use crate::commands::setup::Job;
use crate::commands::setup::OnCommit;

/// State shared by the threads that run the command.
pub(super) struct Runner {
    on_commit: OnCommit,
    queue: Mutex<BufReader<Stdin>>,
    file_dir: PathBuf,
    ending: Arc<AtomicBool>,
    children: Arc<Children>,
    /// Files that were still queued at shutdown.
    dropped: AtomicU64,
}

impl Runner {
    pub(super) fn new(
        on_commit: OnCommit,
        file_dir: PathBuf,
        ending: Arc<AtomicBool>,
        children: Arc<Children>,
    ) -> Self {
        let queue = Mutex::new(BufReader::new(io::stdin()));
        Runner { on_commit, queue, file_dir, ending, children, dropped: AtomicU64::new(0) }
    }

    pub(super) fn jobs(&self) -> usize {
        self.on_commit.jobs.get()
    }

    /// Runs the command for one file after another.
    pub(super) fn run(&self) {
        let mut line = String::new();
        loop {
            line.clear();
            let read = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                queue.read_line(&mut line)
            };
            match read {
                Ok(0) => return,
                Ok(_) if self.ending.load(Ordering::SeqCst) => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                Ok(_) => {}
                Err(error) => return log::error!("--on-commit: {}", os_error_text(&error)),
            }
            let job: Job = match serde_json::from_str(&line) {
                Ok(job) => job,
                Err(error) => {
                    log::error!("--on-commit: {error}");
                    continue;
                }
            };
            let (id, started) = (job.id, Instant::now());
            match self.run_for(&job) {
                Ok(status) if status.success() => {
                    log::debug!("connection {id}: --on-commit took {:.3?}", started.elapsed());
                }
                Ok(status) => log::warn!("connection {id}: --on-commit failed: {status}"),
                Err(error) => log::warn!("connection {id}: --on-commit: {}", os_error_text(&error)),
            }
        }
    }

    /// Logs the number of files that got no command because of the shutdown.
    pub(super) fn report(&self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            log::error!("{dropped} files without an --on-commit command: the server has ended");
        }
    }

    fn run_for(&self, job: &Job) -> io::Result<ExitStatus> {
        let [program, arguments @ ..] = &self.on_commit.command[..] else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let mut command = Command::new(program);
        describe(&mut command, job);
        command
            .args(arguments)
            .env("ACCIO_PATH", self.file_dir.join(format!("{}.file", job.id)))
            .stdin(Stdio::null())
            // The server's own stdout may be its journal.
            .stdout(io::stderr());
        self.children.run(&mut command)
    }
}
