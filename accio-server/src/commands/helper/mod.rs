//! The helper process: runs the commands.

#[cfg(linux_sys)]
mod accept_if;
#[cfg_attr(not(linux_sys), expect(dead_code, reason = "--accept-if needs the rest"))]
mod children;
mod environment;
#[cfg(linux_sys)]
mod first_line;
mod on_commit;

use std::io;
#[cfg(linux_sys)]
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::{self, Scope};

use accio_cli::Verbosity;
use accio_proto::os_error_text;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};

use super::setup::{HELPER, Setup};
#[cfg(linux_sys)]
use accept_if::Reviewer;
use children::Children;
use on_commit::Runner;

/// Runs the helper if this process was started as one. Returns `None` otherwise.
pub(crate) fn help() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != HELPER {
        return None;
    }
    // The colour.
    arguments.next()?;
    let setup: Setup = serde_json::from_str(arguments.next()?.to_str()?).ok()?;
    let file_dir = PathBuf::from(arguments.next()?);
    Verbosity { quiet: setup.quiet, verbose: setup.verbose }.start_log();
    Some(match run(setup, file_dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("the helper for commands: {}", os_error_text(&error));
            ExitCode::FAILURE
        }
    })
}

fn run(setup: Setup, file_dir: PathBuf) -> io::Result<()> {
    // After a signal, the helper finishes the running commands of --on-commit and starts no more.
    // The commands themselves run with default signal handlers.
    let ending = Arc::new(AtomicBool::new(false));
    // The log may be a file.
    signal_hook::flag::register(SIGXFSZ, Arc::default())?;
    for signal in [SIGINT, SIGQUIT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ending))?;
    }
    let children = Children::adopt()?;
    #[cfg(linux_sys)]
    let socket = io::stdout().as_fd().try_clone_to_owned()?;
    let runner = setup.on_commit.map(|on_commit| {
        Runner::new(on_commit, file_dir, Arc::clone(&ending), Arc::clone(&children))
    });
    #[cfg(linux_sys)]
    let reviewer =
        setup.accept_if.map(|accept_if| Reviewer::new(accept_if, socket, ending, children));
    thread::scope(|scope| {
        if let Some(runner) = &runner {
            spawn(scope, "accio-on-commit", runner.jobs(), || runner.run());
        }
        #[cfg(linux_sys)]
        if let Some(reviewer) = &reviewer {
            spawn(scope, "accio-accept-if", reviewer.jobs(), || reviewer.run());
        }
    });
    if let Some(runner) = &runner {
        runner.report();
    }
    Ok(())
}

/// Starts a thread for each command that may run at once; fewer threads run all of them, too.
fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    jobs: usize,
    work: impl Fn() + Copy + Send + 'scope,
) {
    let start = |_| thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work).ok();
    match (0..jobs).map_while(start).count() {
        0 => log::error!("{name}: cannot start a thread"),
        threads => log::debug!("{name}: up to {threads} commands at once"),
    }
}
