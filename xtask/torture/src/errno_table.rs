//! The errors that each system call can return, or the reason why none is injected.

/// The errors to inject into a system call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failures {
    /// These errors, the likeliest first.
    Errors(&'static [&'static str]),
    /// No error, for the given reason.
    None(&'static str),
}

use Failures::{Errors, None};

/// Errors that ask for another attempt. They are not injected for ever: no kernel does that.
pub(crate) const TRANSIENT: [&str; 2] = ["EINTR", "EAGAIN"];

/// Returns the failures to inject into the call `name`, or `None` if it is not in the table yet.
pub(crate) fn failures(name: &str) -> Option<Failures> {
    const LIBC: Failures = None("called by the C library or the runtime, not by the program");
    const SOUND: Failures = None("cannot fail with the arguments it is given");
    Some(match name {
        // Connections.
        "accept4" => Errors(&[
            "EMFILE",
            "ECONNABORTED",
            "ENFILE",
            "ENOBUFS",
            "ENOMEM",
            "EPROTO",
            "EPERM",
            "ENETDOWN",
            "EINTR",
            "EAGAIN",
        ]),
        "recvfrom" | "recvmsg" => {
            Errors(&["ECONNRESET", "ENOMEM", "ETIMEDOUT", "EHOSTUNREACH", "EINTR", "EAGAIN"])
        }
        "sendto" | "sendmsg" => {
            Errors(&["ECONNRESET", "EPIPE", "ENOBUFS", "ENOMEM", "EHOSTUNREACH", "EINTR", "EAGAIN"])
        }
        "connect" => Errors(&[
            "ECONNREFUSED",
            "ETIMEDOUT",
            "ENETUNREACH",
            "EHOSTUNREACH",
            "EADDRNOTAVAIL",
            "EACCES",
            "EINTR",
            "EAGAIN",
        ]),
        "shutdown" => Errors(&["ENOTCONN", "ENOBUFS"]),
        "socket" => Errors(&["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EACCES", "EAFNOSUPPORT"]),
        "bind" => Errors(&["EADDRINUSE", "EACCES", "EADDRNOTAVAIL"]),
        "listen" => Errors(&["EADDRINUSE", "EOPNOTSUPP"]),
        "setsockopt" | "getsockopt" => Errors(&["ENOBUFS", "ENOMEM", "ENOPROTOOPT", "EINVAL"]),
        "getsockname" | "getpeername" => Errors(&["ENOBUFS", "ENOTCONN"]),
        // Bytes.
        "splice" => Errors(&[
            "EINVAL",
            "ENOSPC",
            "EIO",
            "EDQUOT",
            "EFBIG",
            "ENOMEM",
            "ECONNRESET",
            "EINTR",
            "EAGAIN",
        ]),
        "sendfile" => {
            Errors(&["EINVAL", "ENOSYS", "EIO", "ENOMEM", "ECONNRESET", "EPIPE", "EINTR", "EAGAIN"])
        }
        "write" => {
            Errors(&["ENOSPC", "EIO", "EDQUOT", "EFBIG", "EROFS", "EPERM", "EINTR", "EAGAIN"])
        }
        "read" => Errors(&["EIO", "ENOMEM", "EINTR", "EAGAIN"]),
        "lseek" => Errors(&["EINVAL", "ESPIPE", "EIO"]),
        // Files.
        "openat" | "open" => Errors(&[
            "EMFILE",
            "ENFILE",
            "ENOSPC",
            "EDQUOT",
            "EACCES",
            "EROFS",
            "EOPNOTSUPP",
            "EISDIR",
            "EINVAL",
            "ENOMEM",
            "EIO",
            "ENOENT",
            "EINTR",
        ]),
        "linkat" => Errors(&[
            "EEXIST", "ENOENT", "EPERM", "EACCES", "ENOSPC", "EDQUOT", "EROFS", "EIO", "EMLINK",
            "EINVAL", "ENOSYS",
        ]),
        "renameat" | "renameat2" | "rename" => {
            Errors(&["EIO", "ENOSPC", "EDQUOT", "EROFS", "EACCES", "ENOENT", "EINTR"])
        }
        "unlinkat" | "unlink" => Errors(&["EIO", "EROFS", "EACCES", "EBUSY", "EINTR"]),
        "mkdir" | "mkdirat" => Errors(&["EACCES", "ENOSPC", "EROFS", "EEXIST", "ENAMETOOLONG"]),
        "fallocate" => {
            Errors(&["EOPNOTSUPP", "ENOSPC", "EDQUOT", "EIO", "EFBIG", "EPERM", "ENOSYS", "EINTR"])
        }
        "ftruncate" => Errors(&["EIO", "EPERM", "EROFS", "EINTR"]),
        "fdatasync" | "fsync" => Errors(&["EIO", "ENOSPC", "EDQUOT", "EROFS", "EINTR"]),
        "sync_file_range" => Errors(&["EIO", "ENOSPC", "ESPIPE", "EINTR"]),
        "fstatfs" => Errors(&["EIO", "ENOSYS", "EINTR"]),
        "flock" => Errors(&["EAGAIN", "ENOLCK", "EINTR"]),
        "getdents64" => Errors(&["EIO", "ENOENT"]),
        "newfstatat" | "statx" | "fstat" | "stat" => Errors(&["EIO", "EACCES", "ENOMEM"]),
        // Descriptors, events, processes.
        "pipe2" | "socketpair" | "eventfd2" | "epoll_create1" | "timerfd_create" => {
            Errors(&["EMFILE", "ENFILE", "ENOMEM"])
        }
        "fcntl" => Errors(&["EPERM", "EBUSY", "ENOMEM", "EMFILE"]),
        "ioctl" => Errors(&["ENOTTY", "ENOMEM"]),
        "epoll_ctl" => Errors(&["ENOMEM", "ENOSPC"]),
        "epoll_wait" | "epoll_pwait" | "poll" | "ppoll" => Errors(&["EINTR"]),
        "clone3" | "clone" => Errors(&["EAGAIN", "ENOMEM", "EPERM"]),
        "mmap" => Errors(&["ENOMEM"]),
        "prctl" => Errors(&["EPERM", "EINVAL"]),
        "seccomp" => Errors(&["EACCES", "EINVAL", "ENOMEM", "ENOSYS"]),
        "prlimit64" => Errors(&["EPERM", "EINVAL"]),
        "rt_sigaction" => Errors(&["EINVAL"]),
        "getrandom" => Errors(&["ENOSYS", "EINTR"]),
        "sched_getaffinity" => Errors(&["EPERM", "ENOSYS"]),
        "access" => Errors(&["EACCES"]),
        "readlink" | "readlinkat" => Errors(&["ENOENT", "EINVAL", "EACCES", "EIO", "ENOSYS"]),
        "landlock_create_ruleset" => Errors(&["ENOSYS", "EOPNOTSUPP", "ENOMEM", "EMFILE"]),
        "landlock_add_rule" | "landlock_restrict_self" => Errors(&["EPERM", "ENOMEM", "EINVAL"]),
        // No error is injected.
        "close" => {
            None("an injected failure would leave the descriptor open, which Linux never does")
        }
        "timerfd_settime" | "clock_gettime" => SOUND,
        "gettid" | "getpid" | "exit" | "exit_group" | "sched_yield" | "clock_nanosleep"
        | "nanosleep" => SOUND,
        "futex" | "brk" | "mprotect" | "munmap" | "mremap" | "madvise" | "rt_sigprocmask"
        | "rt_sigreturn" | "sigaltstack" | "rseq" | "set_robust_list" | "set_tid_address"
        | "arch_prctl" | "restart_syscall" | "execve" | "pread64" | "uname" => LIBC,
        _ => return Option::None,
    })
}
