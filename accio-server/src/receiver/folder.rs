//! Receives files into a directory.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

use accio_cli::{Failure, Program, say};
use accio_proto::{DirError, DirErrorKind, DirSink, FileSink, Outcome, Server, os_error_text};

use crate::arguments::{Arguments, Files, WithExisting};
use crate::on_commit::{self, ActiveHelper, Helper, OnCommit};
use crate::sandbox::Sandbox;

/// Receives files into the directory given on the command line.
pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { port, file_dir, workers, sandbox, files, limits, server, operations, .. } =
        arguments;
    server.verbosity.start_log();
    let command = files.on_commit.as_deref().map(on_commit::parse).transpose()?;
    let mut options = DirSink::options()
        .fast_paths(operations.fast_paths())
        .durable(files.durable)
        .min_free(limits.min_free)
        .existing(files.existing.into());
    if let Some(mode) = files.mode {
        options = options.mode(mode);
    }
    let sink = options.create(&file_dir).map_err(unusable)?;
    // An absolute path, because the journal's check and the commands must find the same directory
    // even if the working directory or a link changes.
    let folder = std::fs::canonicalize(&file_dir).map_err(|error| {
        Failure::new(format_args!("cannot use directory {file_dir:?}"), os_error_text(&error))
    })?;
    let first_id = first_id(&files, &sink, &file_dir, server.verbosity.quiet)?;
    let builder = files.apply(Server::builder(sink.clone()));
    let mut builder = limits.apply(builder).first_id(first_id);
    if let Some(workers) = workers {
        builder = builder.workers(workers);
    }
    let on_commit = command.map(|command| OnCommit {
        command,
        jobs: files.on_commit_jobs,
        queue: files.on_commit_queue as usize,
        folder: folder.clone(),
        verbosity: server.verbosity,
        color: server.color.color,
    });
    let durable = files.durable;
    let receiver = Receiver { folder, sink, durable, sandbox, on_commit, helper: OnceLock::new() };
    operations.run(&server, builder, port, receiver)
}

/// Adds advice about flags to the error of a directory.
fn unusable(error: DirError) -> Failure {
    let advice = match error.kind() {
        DirErrorKind::InUse => "stop that server, or start both with --existing keep",
        DirErrorKind::Mode => "remove --mode, or choose a directory on another file system",
        DirErrorKind::Durable => "remove --durable, or choose a directory on another file system",
        DirErrorKind::Publish => {
            "choose a directory on another file system, or another value of --existing"
        }
        _ => return error.into(),
    };
    Failure::from(error).with_advice(advice)
}

/// Returns the number of the first connection.
fn first_id(files: &Files, sink: &DirSink, path: &Path, quiet: bool) -> Result<u64, Failure> {
    let asked = files.ids_from;
    let unreadable = |error: std::io::Error| {
        Failure::new(format_args!("cannot read directory {path:?}"), os_error_text(&error))
    };
    if files.existing == WithExisting::Replace {
        let count = sink.count_from(asked).map_err(unreadable)?;
        if count > 0 && !quiet {
            let files = if count == 1 { "file" } else { "files" };
            say(format_args!(
                "{count} {files} of earlier runs in {path:?} will be replaced as connections reach \
                 their numbers; --existing keep keeps them"
            ));
        }
        return Ok(asked);
    }
    let highest = sink.highest().map_err(unreadable)?;
    match highest {
        Some(highest) if highest >= asked => {
            let next = highest.checked_add(1).ok_or_else(|| {
                let what = format_args!("cannot continue in {path:?}").to_string();
                Failure::new(what, format_args!("{highest}.file has the largest possible number"))
            })?;
            if !quiet {
                say(format_args!("keeping files up to {highest}.file; the next is {next}.file"));
            }
            Ok(next)
        }
        _ => Ok(asked),
    }
}

/// The hooks of a server that receives into a directory.
struct Receiver {
    folder: PathBuf,
    sink: DirSink,
    durable: bool,
    sandbox: Sandbox,
    on_commit: Option<OnCommit>,
    helper: OnceLock<Mutex<Option<ActiveHelper>>>,
}

impl Program for Receiver {
    fn folder(&self) -> Option<&Path> {
        Some(&self.folder)
    }

    fn is_durable(&self) -> bool {
        self.durable
    }

    fn readiness(&self) -> Result<(), String> {
        // The path must not be disclosed to everyone who can reach the metrics address.
        let cannot = |why: String| format!("cannot keep files: {why}");
        self.sink.check_ready().map_err(|error| cannot(os_error_text(error.cause())))?;
        if self.sink.has_room() { Ok(()) } else { Err("no room for files".to_owned()) }
    }

    fn is_confined(&self) -> bool {
        self.sandbox.is_on()
    }

    fn confine(&self, readable: &[OwnedFd]) -> Result<(), Failure> {
        // The helper starts before the sandbox, which forbids running programs.
        let helper = self.on_commit.as_ref().map(OnCommit::start).transpose()?;
        let group = helper.as_ref().map(Helper::group);
        self.sandbox.confine(&self.sink, readable, group)?;
        // The queue's thread starts after the sandbox and is therefore sandboxed, too.
        let helper = helper.map(Helper::run).transpose()?;
        self.helper.get_or_init(|| Mutex::new(helper));
        Ok(())
    }

    fn observe(&self, outcome: &Outcome) {
        if outcome.result.is_ok()
            && let Some(helper) = self.helper.get()
            && let Some(helper) = &*helper.lock().unwrap_or_else(PoisonError::into_inner)
        {
            helper.push(outcome);
        }
    }

    fn lost_commands(&self) -> Option<u64> {
        let helper = self.helper.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        helper.as_ref().map(ActiveHelper::lost)
    }

    fn finish(&self, deadline: &dyn Fn() -> Instant) {
        let helper = self.helper.get();
        let take = |helper: &Mutex<Option<ActiveHelper>>| {
            helper.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        if let Some(helper) = helper.and_then(take) {
            helper.finish(deadline);
        }
    }
}
