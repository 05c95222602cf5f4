//! System calls that no program of a check may use. Namespaces do not separate keyrings: all
//! programs inherit that of the user's session. The others are not needed to speak TCP, and have
//! often had faults that let a program leave its sandbox.

use std::env::consts::ARCH;

use seccompiler::{BpfProgram, Error, SeccompAction, SeccompFilter, TargetArch};

/// They fail with EPERM.
const DENIED: [i64; 10] = [
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_kexec_load,
];

/// Denies them to this thread and its later children. Does nothing on a processor for which the
/// filter cannot be compiled.
pub(super) fn deny() -> Result<(), Error> {
    let Ok(arch) = TargetArch::try_from(ARCH) else { return Ok(()) };
    let rules = DENIED.into_iter().map(|number| (number, Vec::new())).collect();
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)
}
