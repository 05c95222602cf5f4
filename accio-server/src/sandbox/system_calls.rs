//! The system calls that a server needs once it listens; seccomp denies all others.
//!
//! Landlock covers files, TCP, signals and abstract UNIX sockets. It does not cover MPTCP, UDP,
//! other UNIX sockets, `listen` without `bind`, or changes of permissions.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

/// Calls that are allowed with any arguments. Landlock decides which files they may open.
const ALLOWED: &[i64] = &[
    // Existing and accepted connections.
    libc::SYS_accept4,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    // Content.
    libc::SYS_close,
    libc::SYS_lseek,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_splice,
    libc::SYS_write,
    libc::SYS_writev,
    // Files: creating, naming and syncing them.
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getdents64,
    libc::SYS_linkat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statx,
    libc::SYS_sync_file_range,
    libc::SYS_syncfs,
    libc::SYS_unlinkat,
    // Waiting.
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_restart_syscall,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    // Calls that cannot fail unless they are denied, so rustix does not check their results: the host
    // name, and the owner that a key file must have when TLS is reloaded.
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_uname,
    // Threads, memory, signal handlers, and the end of the process and its helpers.
    libc::SYS_brk,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Older calls that the C library may prefer where they exist.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
];

/// Commands of `fcntl` that concern the descriptor, its pipe or locks; others can send signals.
const FCNTL: &[i32] = &[
    libc::F_DUPFD,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GETFD,
    libc::F_GETFL,
    libc::F_GETPIPE_SZ,
    libc::F_SETFD,
    libc::F_SETFL,
    libc::F_SETPIPE_SZ,
    libc::F_OFD_GETLK,
    libc::F_OFD_SETLK,
];

/// Requests of `ioctl`: those that the standard library uses for sockets and terminals, and the one
/// for the name of an interface, which a link-local address needs.
#[allow(clippy::unnecessary_cast, reason = "they are `i32` with musl")]
const IOCTL: &[u64] =
    &[libc::FIONBIO as u64, libc::FIONREAD as u64, libc::TCGETS as u64, libc::SIOCGIFNAME as u64];

/// Restricts this thread and the threads that it starts later. `helper` is a process group that may
/// be signalled.
pub(super) fn restrict(helper: Option<i32>) -> Result<(), Error> {
    let arch = TargetArch::try_from(ARCH)?;
    // The flags of `clone3` are in memory, which a filter cannot read. If it is denied, the C
    // library uses `clone`.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let unknown = SeccompAction::Errno(libc::ENOSYS as u32);
    install(SeccompFilter::new(clone3, SeccompAction::Allow, unknown, arch)?)?;
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    install(SeccompFilter::new(rules(helper)?, denied, SeccompAction::Allow, arch)?)
}

fn install(filter: SeccompFilter) -> Result<(), Error> {
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)
}

fn rules(helper: Option<i32>) -> Result<BTreeMap<i64, Vec<SeccompRule>>, Error> {
    // An empty list of conditions allows all arguments.
    let mut rules: BTreeMap<_, _> = ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    // The other filter denies this call.
    rules.insert(libc::SYS_clone3, Vec::new());
    let threads = libc::CLONE_THREAD as u64;
    let thread = argument(0, SeccompCmpOp::MaskedEq(threads), threads)?;
    rules.insert(libc::SYS_clone, vec![thread]);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let executable = libc::PROT_EXEC as u64;
        rules.insert(call, vec![argument(2, SeccompCmpOp::MaskedEq(executable), 0)?]);
    }
    // Sets the name of a thread.
    rules.insert(libc::SYS_prctl, vec![equal(0, libc::PR_SET_NAME as u64)?]);
    // Limits may be read but not changed.
    rules.insert(libc::SYS_prlimit64, vec![argument(2, SeccompCmpOp::Eq, 0)?]);
    // `abort` signals its own thread.
    rules.insert(libc::SYS_tgkill, vec![equal(0, std::process::id().into())?]);
    if let Some(helper) = helper {
        // A negative number is a process group; its upper half is ignored.
        rules.insert(libc::SYS_kill, vec![equal(0, u64::from(helper.wrapping_neg() as u32))?]);
    }
    let commands = FCNTL.iter().map(|command| equal(1, *command as u64));
    rules.insert(libc::SYS_fcntl, commands.collect::<Result<_, _>>()?);
    let requests = IOCTL.iter().map(|request| equal(1, *request));
    rules.insert(libc::SYS_ioctl, requests.collect::<Result<_, _>>()?);
    Ok(rules)
}

/// Returns a rule for the lower half of an argument: the kernel ignores the rest of an `int`.
fn equal(index: u8, value: u64) -> Result<SeccompRule, Error> {
    let length = SeccompCmpArgLen::Dword;
    let condition = SeccompCondition::new(index, length, SeccompCmpOp::Eq, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, Error> {
    let length = SeccompCmpArgLen::Qword;
    let condition = SeccompCondition::new(index, length, operator, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}
