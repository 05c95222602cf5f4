//! Receives files into a directory.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
#[cfg(linux_sys)]
use std::sync::Arc;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Instant;

#[cfg(linux_sys)]
use accio_cli::USAGE;
use accio_cli::{Failure, Program, say};
#[cfg(all(linux_sys, feature = "digest"))]
use accio_proto::FastPath;
use accio_proto::{
    DirError, DirErrorKind, DirSink, FileSink, Outcome, Port, Server, os_error_text,
};

use crate::arguments::{Arguments, Files, WithExisting};
use crate::commands::{self, ActiveHelper, Commands, Helper, OnCommit};
#[cfg(linux_sys)]
use crate::commands::{AcceptIf, Reviews};
#[cfg(all(linux_sys, feature = "digest"))]
use crate::reopener::Reopener;
#[cfg(linux_sys)]
use crate::sandbox::Sandbox;

/// Receives files into the directory given on the command line.
pub(crate) fn run(
    port: Port,
    file_dir: PathBuf,
    arguments: Arguments,
) -> Result<ExitCode, Failure> {
    #[cfg(linux_sys)]
    let sandbox = arguments.sandbox;
    let Arguments { workers, files, limits, server, operations, .. } = arguments;
    server.verbosity.start_log();
    operations.check()?;
    let on_commit = on_commit(&files)?;
    #[cfg(linux_sys)]
    let accept_if = accept_if(&files)?;
    let paths = operations.fast_paths();
    #[cfg(all(linux_sys, feature = "digest"))]
    let reads_back = files.digest.is_some() && paths.has(FastPath::ReadBack);
    let mut options = DirSink::options()
        .fast_paths(paths)
        .durable(files.durable)
        .min_free(limits.min_free)
        .existing(files.existing.into());
    if let Some(mode) = files.mode {
        options = options.mode(mode);
    }
    // The process starts later, but before the first connection.
    #[cfg(all(linux_sys, feature = "digest"))]
    let reopener = (reads_back && sandbox.is_on()).then(Arc::default);
    #[cfg(all(linux_sys, feature = "digest"))]
    if let Some(reopener) = &reopener {
        let reopener: Arc<OnceLock<Reopener>> = Arc::clone(reopener);
        options = options.reopen(move |file| match reopener.get() {
            Some(reopener) => reopener.open(file),
            None => Err(ErrorKind::NotConnected.into()),
        });
    }
    let sink = options.create(&file_dir).map_err(unusable)?;
    // An absolute path, because the journal's check and the commands must find the same directory
    // even if the working directory or a link changes.
    let absolute = std::fs::canonicalize(&file_dir).map_err(|error| {
        Failure::new(format_args!("cannot use directory {file_dir:?}"), os_error_text(&error))
    })?;
    let (first_id, notice) = first_id(&files, &sink, &file_dir)?;
    let notice = notice.filter(|_| !server.verbosity.quiet);
    let builder = files.apply(Server::builder(sink.clone()));
    let mut builder = limits.apply(builder).first_id(first_id).local_addresses(false);
    if let Some(workers) = workers {
        builder = builder.workers(workers);
    }
    // The helper starts later, but before the first connection.
    #[cfg(linux_sys)]
    let reviews = Arc::new(OnceLock::<Arc<Reviews>>::new());
    #[cfg(linux_sys)]
    if accept_if.is_some() {
        let reviews = Arc::clone(&reviews);
        builder = builder.reviewer(move |review| match reviews.get() {
            Some(reviews) => reviews.push(review),
            None => review.reject("the helper of --accept-if has not started"),
        });
    }
    let commands = Commands {
        on_commit,
        #[cfg(linux_sys)]
        accept_if,
        queue: files.on_commit_queue as usize,
        file_dir: absolute.clone(),
        verbosity: server.verbosity,
        color: server.color.color,
    };
    let (durable, helper) = (files.durable, OnceLock::new());
    let receiver = Receiver {
        file_dir: absolute,
        sink,
        notice,
        durable,
        #[cfg(linux_sys)]
        sandbox,
        commands,
        #[cfg(linux_sys)]
        reviews,
        #[cfg(all(linux_sys, feature = "digest"))]
        reopener,
        helper,
    };
    operations.run(&server, builder, port, receiver)
}

/// Returns the command of `--on-commit`.
fn on_commit(files: &Files) -> Result<Option<OnCommit>, Failure> {
    let Some(line) = &files.on_commit else { return Ok(None) };
    let command = commands::parse("--on-commit", line)?;
    Ok(Some(OnCommit { command, jobs: files.on_commit_jobs }))
}

/// Returns the command of `--accept-if`.
#[cfg(linux_sys)]
fn accept_if(files: &Files) -> Result<Option<AcceptIf>, Failure> {
    let Some(line) = &files.accept_if else { return Ok(None) };
    if let Some(mode) = files.mode.filter(|mode| mode & 0o400 == 0) {
        let why = format_args!("the command could not read files of --mode {mode:03o}").to_string();
        let advice = "use a mode that lets the owner read, such as 600";
        return Err(Failure::new("--accept-if", why).with_code(USAGE).with_advice(advice));
    }
    let command = commands::parse("--accept-if", line)?;
    Ok(Some(AcceptIf { command, jobs: files.accept_jobs, timeout: files.accept_timeout }))
}

/// Adds advice about flags to the error of a directory.
fn unusable(error: DirError) -> Failure {
    let advice = match error.kind() {
        DirErrorKind::InUse => {
            "stop that server, or start both with --existing keep and a range of numbers for each \
             (--ids-from)"
        }
        DirErrorKind::Mode => "remove --mode, or choose a directory on another file system",
        DirErrorKind::Durable => "remove --durable, or choose a directory on another file system",
        DirErrorKind::Publish => {
            "choose a directory on another file system, or another value of --existing"
        }
        DirErrorKind::Unusable if is_not_a_directory(error.cause().kind()) => {
            "give the path of a directory; the server creates it if it is missing"
        }
        _ => return error.into(),
    };
    Failure::from(error).with_advice(advice)
}

fn is_not_a_directory(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotADirectory | ErrorKind::AlreadyExists)
}

/// Returns the number of the first connection, and a notice about files of earlier runs.
fn first_id(files: &Files, sink: &DirSink, path: &Path) -> Result<(u64, Option<String>), Failure> {
    let asked = files.ids_from;
    let unreadable = |error: std::io::Error| {
        Failure::new(format_args!("cannot read directory {path:?}"), os_error_text(&error))
    };
    if files.existing == WithExisting::Replace {
        let count = sink.count_from(asked).map_err(unreadable)?;
        let notice = (count > 0).then(|| {
            let files = if count == 1 { "file" } else { "files" };
            format!(
                "{count} {files} of earlier runs in {path:?} will be replaced as connections reach \
                 their numbers; --existing keep keeps them"
            )
        });
        return Ok((asked, notice));
    }
    if sink.is_shared() {
        log::warn!(
            "another server uses {path:?}: uploads fail if both assign the same number; give each \
             its own range with --ids-from"
        );
    }
    let Some(highest) = sink.highest().map_err(unreadable)? else { return Ok((asked, None)) };
    let next = highest.checked_add(1).ok_or_else(|| {
        let what = format_args!("cannot continue in {path:?}").to_string();
        Failure::new(what, format_args!("{highest}.file has the largest possible number"))
    })?;
    let next = next.max(asked);
    Ok((next, Some(format!("keeping files up to {highest}.file; the next is {next}.file"))))
}

/// The hooks of a server that receives into a directory.
struct Receiver {
    file_dir: PathBuf,
    sink: DirSink,
    /// A line about files of earlier runs, printed once the server listens.
    notice: Option<String>,
    durable: bool,
    #[cfg(linux_sys)]
    sandbox: Sandbox,
    commands: Commands,
    #[cfg(linux_sys)]
    reviews: Arc<OnceLock<Arc<Reviews>>>,
    /// Opens uploads again, to compute their digests in the sandbox.
    #[cfg(all(linux_sys, feature = "digest"))]
    reopener: Option<Arc<OnceLock<Reopener>>>,
    helper: OnceLock<Mutex<Option<ActiveHelper>>>,
}

impl Program for Receiver {
    fn file_dir(&self) -> Option<&Path> {
        Some(&self.file_dir)
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

    #[cfg(linux_sys)]
    fn is_confined(&self) -> bool {
        self.sandbox.is_on()
    }

    #[cfg_attr(not(linux_sys), expect(unused_variables, reason = "the sandbox needs Linux"))]
    fn confine(&self, readable: &[OwnedFd]) -> Result<(), Failure> {
        // The helpers start before the sandbox, which forbids running programs.
        #[cfg(all(linux_sys, feature = "digest"))]
        if let Some(reopener) = &self.reopener {
            match Reopener::start(&self.sink) {
                Ok(started) => drop(reopener.set(started)),
                Err(error) => log::warn!(
                    "cannot start the process that opens uploads for their digests: {}: digests need \
                     more CPU time",
                    os_error_text(&error)
                ),
            }
        }
        let helper = self.commands.start()?;
        #[cfg(linux_sys)]
        {
            let group = helper.as_ref().map(Helper::group);
            self.sandbox.confine(&self.sink, readable, group)?;
        }
        // The queue's thread starts after the sandbox and is therefore sandboxed, too.
        let helper = helper.map(Helper::run).transpose()?;
        #[cfg(linux_sys)]
        if let Some(reviews) = helper.as_ref().and_then(ActiveHelper::reviews) {
            self.reviews.get_or_init(|| Arc::clone(reviews));
        }
        self.helper.get_or_init(|| Mutex::new(helper));
        if let Some(notice) = &self.notice {
            say(notice);
        }
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
        helper.as_ref().and_then(ActiveHelper::lost)
    }

    #[cfg(linux_sys)]
    fn stopping(&self) {
        if let Some(helper) = self.helper.get()
            && let Some(helper) = &*helper.lock().unwrap_or_else(PoisonError::into_inner)
        {
            helper.stop_reviews();
        }
    }

    fn finish(&self, deadline: &dyn Fn() -> Instant) {
        #[cfg(all(linux_sys, feature = "digest"))]
        let reopener = self.reopener.as_ref().and_then(|reopener| reopener.get());
        #[cfg(all(linux_sys, feature = "digest"))]
        reopener.inspect(|reopener| reopener.close());
        let helper = self.helper.get();
        let take = |helper: &Mutex<Option<ActiveHelper>>| {
            helper.lock().unwrap_or_else(PoisonError::into_inner).take()
        };
        if let Some(helper) = helper.and_then(take) {
            helper.finish(deadline);
        }
        #[cfg(all(linux_sys, feature = "digest"))]
        reopener.inspect(|reopener| reopener.wait_ended(deadline()));
    }
}
