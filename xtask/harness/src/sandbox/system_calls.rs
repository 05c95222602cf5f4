//! System calls that no program of a check may use. Namespaces do not separate keyrings: all
//! programs inherit that of the user's session. The others are not needed to speak TCP, and have
//! often had faults that let a program leave its sandbox.

use std::env::consts::ARCH;
use std::io;

use libc::{BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use seccompiler::{BpfProgram, sock_filter};

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
/// The same for programs of x32, where it has another number than on x86-64.
const X32: [u32; 1] = [528];
/// The same for 32-bit programs on x86-64, in the same order.
const I386: [u32; 10] = [286, 287, 288, 425, 426, 427, 357, 336, 374, 283];
/// The same for 32-bit programs on AArch64, in the same order.
const ARM: [u32; 10] = [309, 310, 311, 425, 426, 427, 386, 364, 388, 347];

/// Flags in the kernel's identifiers of architectures.
const LITTLE_ENDIAN: u32 = 1 << 30;
const BITS_64: u32 = 1 << 31;
/// Marks the numbers of x32. All others are smaller.
const X32_FLAG: u32 = 1 << 30;
/// Offsets of fields that the filter sees.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Denies them to this thread and its later children. Programs of other architectures than those of
/// [`tables`] may use all.
pub(super) fn deny() -> io::Result<()> {
    let Some(tables) = tables() else {
        return Err(io::Error::other(format!("no filter for the processor {ARCH}")));
    };
    seccompiler::apply_filter(&filter(&tables)).map_err(|error| match error {
        seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error) => error,
        error => io::Error::other(error),
    })
}

/// Returns the denied numbers by architecture, for the architectures of programs that may run on
/// this processor.
fn tables() -> Option<Vec<(u32, Vec<u32>)>> {
    let mut native: Vec<u32> =
        DENIED.into_iter().filter_map(|number| number.try_into().ok()).collect();
    let id = |machine: u16, flags: u32| u32::from(machine) | LITTLE_ENDIAN | flags;
    Some(match ARCH {
        "x86_64" => {
            native.extend(X32);
            vec![(id(libc::EM_X86_64, BITS_64), native), (id(libc::EM_386, 0), I386.to_vec())]
        }
        "aarch64" => {
            vec![(id(libc::EM_AARCH64, BITS_64), native), (id(libc::EM_ARM, 0), ARM.to_vec())]
        }
        "riscv64" => vec![(id(libc::EM_RISCV, BITS_64), native)],
        _ => return None,
    })
}

/// Compiles the filter. The crate's own compiler kills the programs of other architectures.
fn filter(tables: &[(u32, Vec<u32>)]) -> BpfProgram {
    let load = |offset| statement(BPF_LD | BPF_W | BPF_ABS, offset);
    let answer = |value| statement(BPF_RET | BPF_K, value);
    let mut program = vec![load(ARCHITECTURE)];
    for (architecture, numbers) in tables {
        let mut block = vec![load(NUMBER), statement(BPF_ALU | BPF_AND | BPF_K, !X32_FLAG)];
        for (index, number) in numbers.iter().enumerate() {
            // Past the other comparisons and the first answer.
            block.push(jump_if(*number, numbers.len() - index, 0));
        }
        block.push(answer(libc::SECCOMP_RET_ALLOW));
        block.push(answer(libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()));
        program.push(jump_if(*architecture, 0, block.len()));
        program.extend(block);
    }
    program.push(answer(libc::SECCOMP_RET_ALLOW));
    program
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Skips `equal` instructions if the loaded value is `k`, and `other` ones if not.
fn jump_if(k: u32, equal: usize, other: usize) -> sock_filter {
    sock_filter { code: (BPF_JMP | BPF_JEQ | BPF_K) as u16, jt: equal as u8, jf: other as u8, k }
}
