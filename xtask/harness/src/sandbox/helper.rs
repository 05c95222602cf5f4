//! The tool as a helper of its own sandboxes: the first process of a PID namespace, and the process
//! that gives up its rights before it executes a program of a check.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{self, Signal};
use nix::unistd::{Gid, Pid, Uid};
use rustix::process::WaitOptions;
use signal_hook::consts::SIGCHLD;
use signal_hook::iterator::Signals;

use super::commands::{DENIES, INIT, KILL, NOT_EXECUTED, NOT_PREPARED, PROBE, READY, RUN};
use super::{mounts, probe, support, system_calls};
use crate::os_error_text;

/// Acts as a helper if the arguments of this process say so, and returns its exit code. Call it
/// first, while this process has one thread.
pub fn helper() -> Option<ExitCode> {
    let mut arguments = env::args_os().skip(1);
    let first = arguments.next()?;
    let outcome = match first.to_str()? {
        RUN => run(arguments),
        INIT => init(),
        PROBE => probe::probe(),
        _ => return None,
    };
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = write!(io::stderr(), "{}", os_error_text(&error));
            ExitCode::FAILURE
        }
    })
}

/// Executes a program. Its standard input is a pipe, to which an error is written.
fn run(mut arguments: impl Iterator<Item = OsString>) -> io::Result<()> {
    let mut report_to = File::from(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?);
    let report = match prepare(&mut arguments, report_to.as_raw_fd()) {
        Ok(()) => {
            let error = Command::new(arguments.next().unwrap_or_default()).args(arguments).exec();
            let number = error.raw_os_error().unwrap_or(Errno::EINVAL as i32);
            [&[NOT_EXECUTED][..], &number.to_ne_bytes()].concat()
        }
        // It must not be taken for an error of the program.
        Err(why) => [&[NOT_PREPARED], why.as_bytes()].concat(),
    };
    report_to.write_all(&report)
}

/// Changes this process to the user and the limits that the arguments name. Of the other
/// descriptors, only `kept` stays open. An error says what failed, why, and what to do.
fn prepare(arguments: &mut impl Iterator<Item = OsString>, kept: RawFd) -> Result<(), String> {
    let mut word = || arguments.next().unwrap_or_default().to_string_lossy().into_owned();
    let (identity, denies) = (word(), word() == DENIES);
    let [processes, file, memory] = [word(), word(), word()].map(|word| word.parse().unwrap_or(0));
    let failed = |what: &'static str| {
        move |error: io::Error| {
            let why = os_error_text(&error);
            format!("cannot {what}: {why}: run the kit as another user or in a virtual machine")
        }
    };
    File::open("/dev/null")
        .and_then(|null| Ok(nix::unistd::dup2_stdin(null)?))
        .map_err(failed("use /dev/null as standard input"))?;
    // A session of its own, without the terminal of the user.
    nix::unistd::setsid().map_err(|error| failed("create a session")(error.into()))?;
    // If memory runs out, the kernel shall kill this process first.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    become_user(&identity).map_err(failed("change the user"))?;
    limit(Resource::RLIMIT_CORE, 0, 'c')?;
    limit(Resource::RLIMIT_FSIZE, file, 'f')?;
    limit(Resource::RLIMIT_DATA, memory, 'd')?;
    if processes > 0 {
        limit(Resource::RLIMIT_NPROC, processes, 'u')?;
    }
    nix::sys::prctl::set_no_new_privs()
        .map_err(|error| failed("set no_new_privs")(error.into()))?;
    close_inherited(kept).map_err(failed("close inherited descriptors"))?;
    if denies {
        system_calls::deny().map_err(failed("deny system calls"))?;
    }
    Ok(())
}

/// Sets a limit, which option `option` of the shell's `ulimit` sets, too.
fn limit(resource: Resource, value: u64, option: char) -> Result<(), String> {
    setrlimit(resource, value, value).map_err(|error| {
        format!(
            "cannot set {resource:?} to {value}: {}: raise the limit of the kit, with `ulimit -{option} \
             unlimited`",
            os_error_text(&error.into())
        )
    })
}

/// Closes the descriptors that the caller of the tool left open, such as a log or a directory of the
/// grader.
fn close_inherited(kept: RawFd) -> io::Result<()> {
    let names = fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.file_name());
    let open: Vec<RawFd> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2 && *fd != kept) {
        // The one with which the list was read is closed already.
        let _ = nix::unistd::close(fd);
    }
    Ok(())
}

fn become_user(identity: &str) -> io::Result<()> {
    let number = |text: &str| text.parse::<u32>().map_err(io::Error::other);
    match identity.split_once(':') {
        Some(("user", uid)) => {
            let uid = number(uid)?;
            let gid = Gid::from_raw(uid);
            nix::unistd::setgroups(&[])?;
            nix::unistd::setresgid(gid, gid, gid)?;
            let uid = Uid::from_raw(uid);
            nix::unistd::setresuid(uid, uid, uid)?;
            Ok(())
        }
        Some(("nested", uid)) => {
            nix::sched::unshare(CloneFlags::CLONE_NEWUSER)?;
            support::map_user(number(uid)?, 0, 0)
        }
        _ => Ok(()),
    }
}

/// Runs the first process of a PID namespace. It ends, and with it all other processes of the
/// namespace, when its standard input is closed, which happens if the tool is killed.
fn init() -> io::Result<()> {
    mounts::mount_proc()?;
    let mut signals = Signals::new([SIGCHLD])?;
    thread::spawn(|| {
        let mut command = [0];
        while matches!(io::stdin().read(&mut command), Ok(1)) {
            if command == KILL {
                // The kernel spares this process, which is the first one.
                let _ = signal::kill(Pid::from_raw(-1), Signal::SIGKILL);
            }
        }
        std::process::exit(0);
    });
    let mut out = io::stdout();
    out.write_all(READY)?;
    out.flush()?;
    for _ in signals.forever() {
        while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
    }
    Ok(())
}
