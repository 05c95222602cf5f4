//! Machines that refuse the kit a part of its sandbox, and programs for which a protection is not
//! made. Neither may cost a student points.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use accio_harness::namespace::{PrivateNamespace, without_mount_namespaces};
use accio_harness::process::{Input, NO_OWNER, Process};
use accio_harness::tools;
use rustix::process::Signal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use serde_json::Value;

use crate::attacks::running;
use crate::isolation::{graded, has_python, kits, printed, python, shared_directory};
use crate::{kit, run, script, skips, submit};

/// Time limit for waits.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Makes system call `number` fail with EINVAL in this thread and its child processes.
fn refuse(number: i64) {
    let refused = SeccompAction::Errno(libc::EINVAL as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let rules = [(number, Vec::new())].into_iter().collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// Makes `unshare` fail with EINVAL in this thread and its child processes, if it is called with these
/// flags among others.
fn refuse_to_unshare(flags: i32) {
    let flags = u64::try_from(flags).unwrap();
    let refused = SeccompAction::Errno(libc::EINVAL as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let has = SeccompCmpOp::MaskedEq(flags);
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, has, flags).unwrap();
    let rules = vec![SeccompRule::new(vec![condition]).unwrap()];
    let rules = [(libc::SYS_unshare, rules)].into_iter().collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

/// Grades a correct server in each kit, of which `change` changes the command.
fn grade_correct(test: &str, change: impl Fn(Command) -> Command) -> Vec<(Value, Option<i32>)> {
    let dir = shared_directory(&std::env::temp_dir());
    submit(dir.path(), "good", &["server-s"], "confirm", "none");
    let mut found = Vec::new();
    for kit in kits(test) {
        let mut kit = change(kit);
        kit.args(["--json", "--no-retry", "--network", "proxy", "--handshake", "confirm"]);
        kit.args(["--filter", "server-s/4", "--subject"]).arg(dir.path().join("good"));
        let output = run(kit.env_remove("CARGO").current_dir("/"));
        let results: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        found.push((results["submissions"][0].clone(), output.status.code()));
    }
    found
}

#[test]
fn programs_run_where_the_kernel_refuses_filters() {
    let test = "programs_run_where_the_kernel_refuses_filters";
    for (results, code) in grade_correct(test, |kit| kit) {
        assert_eq!((&results["earned"], code), (&5.into(), Some(0)), "{results:#}");
        let protections = results["protections"].to_string();
        assert!(protections.contains("\"system calls denied: io_uring"), "{protections}");
    }
    let refused = thread::spawn(move || {
        refuse(libc::SYS_seccomp);
        grade_correct(test, |kit| kit)
    });
    for (results, code) in refused.join().unwrap() {
        assert_eq!((&results["earned"], code), (&5.into(), Some(0)), "{results:#}");
        let protections = results["protections"].to_string();
        let expected = "no system calls denied (invalid argument";
        assert!(protections.contains(expected), "{protections}");
    }
}

#[test]
fn servers_are_behind_the_lossy_network_without_the_sandbox_too() {
    let test = "servers_are_behind_the_lossy_network_without_the_sandbox_too";
    if let Some(why) = no_lossy_network() {
        skips::tell(test, why);
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    submit(dir.path(), "good", &["server", "client"], "confirm", "none");
    let mut kit = kit();
    kit.args(["--json", "--no-retry", "--handshake", "confirm", "--filter", "/loss", "--subject"]);
    kit.arg(dir.path().join("good"));
    let output = thread::spawn(move || {
        refuse_to_unshare(libc::CLONE_NEWPID);
        run(&mut kit)
    });
    let output = output.join().unwrap();
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let submission = &results["submissions"][0];
    assert!(submission["protections"].to_string().contains("no namespaces"), "{submission:#}");
    let checks = submission["checks"].as_array().unwrap();
    let ids: Vec<&str> = checks.iter().filter_map(|check| check["id"].as_str()).collect();
    assert_eq!(ids, ["client/loss", "server/loss"]);
    for check in checks {
        assert_eq!(check["outcome"], "passed", "{check:#}");
        assert!(check["notes"].to_string().contains("network: namespace, 1.5 %"), "{check:#}");
    }
}

/// Returns why this user cannot create networks that lose packets, if so. It does not use the code with
/// which the kit creates them.
fn no_lossy_network() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    if tools::find("ip").is_none() {
        return Some("needs ip".to_owned());
    }
    let rules = "table ip t { chain c { type filter hook input priority 0; \
                 numgen random mod 1000 < 15 counter drop; }\n}\n";
    PrivateNamespace::find(rules).err().map(|stop| stop.to_string())
}

#[test]
fn a_limit_of_the_kits_caller_is_no_fault_of_the_program() {
    let graded = grade_correct("a_limit_of_the_kits_caller_is_no_fault_of_the_program", |inner| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -f 100000; exec \"$0\" \"$@\""]);
        shell.arg(inner.get_program()).args(inner.get_args());
        shell
    });
    for (results, code) in graded {
        let check = &results["checks"][0];
        assert_eq!((check["outcome"].as_str(), code), (Some("trouble"), Some(3)), "{results:#}");
        assert!(check.to_string().contains("`ulimit -f unlimited`"), "{check:#}");
    }
}

/// Returns a program for Linux on i386 that prints `alive`, asks for its keyring, prints `denied` if
/// that fails with EPERM, and exits with 1.
fn program_for_i386() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let print = |address: u32, length: u8| {
        let mut code = vec![0xb8, 4, 0, 0, 0, 0xbb, 2, 0, 0, 0, 0xb9];
        code.extend(address.to_le_bytes());
        code.extend([0xba, length, 0, 0, 0, 0xcd, 0x80]);
        code
    };
    let text = b"alive\ndenied\n";
    let start = HEADERS + text.len() as u32;
    let mut code = print(BASE + HEADERS, 6);
    // keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0)
    code.extend([0xb8, 0x20, 1, 0, 0, 0x31, 0xdb, 0xb9, 0xfd, 0xff, 0xff, 0xff, 0x31, 0xd2]);
    code.extend([0xcd, 0x80, 0x83, 0xf8, 0xff, 0x75]);
    let denied = print(BASE + HEADERS + 6, 7);
    code.push(denied.len() as u8);
    code.extend(denied);
    code.extend([0xb8, 1, 0, 0, 0, 0xbb, 1, 0, 0, 0, 0xcd, 0x80]);
    let size = start + code.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    for word in [1, BASE + start, 52, 0, 0, 52 | 32 << 16, 1, 0] {
        file.extend(word.to_le_bytes());
    }
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        file.extend(u32::to_le_bytes(word));
    }
    file.extend(text);
    file.extend(code);
    file
}

#[test]
fn programs_of_32_bits_run_without_the_denied_calls() {
    let test = "programs_of_32_bits_run_without_the_denied_calls";
    let dir = shared_directory(&std::env::temp_dir());
    let program = dir.path().join("server-s");
    fs::write(&program, program_for_i386()).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let outside = Command::new(&program);
    let runs = accio_harness::process::output(&mut { outside }, b"", TIMEOUT)
        .is_ok_and(|output| output.status.code() == Some(1));
    if !runs {
        skips::tell(test, "this machine does not run programs for i386");
        return;
    }
    for mut kit in kits(test) {
        let results = graded(&mut kit, &["server-s/4"], dir.path());
        let printed = printed(&results);
        assert!(printed.contains("| alive\n  | denied"), "{printed}");
    }
}

#[test]
fn numbers_of_x32_are_denied_too() {
    let test = "numbers_of_x32_are_denied_too";
    if !has_python(test) {
        return;
    }
    let text = "import ctypes, sys\nlibc = ctypes.CDLL(None, use_errno=True)\n\
                for number in (250, 1 << 30 | 250, 1 << 30 | 425):\n\
                \x20   libc.syscall(number, 0, -3, 0)\n\
                \x20   print('errno', ctypes.get_errno(), 'of', number, file=sys.stderr)\nsys.exit(1)\n";
    for mut kit in kits(test) {
        let dir = shared_directory(&std::env::temp_dir());
        python(dir.path(), text);
        let results = graded(&mut kit, &["server-s/4"], dir.path());
        let printed = printed(&results);
        assert_eq!(printed.matches("errno 1 of").count(), 3, "{printed}");
    }
}

#[test]
fn an_interrupted_kit_without_namespaces_leaves_no_process() {
    let test = "an_interrupted_kit_without_namespaces_leaves_no_process";
    if !run(&mut without_mount_namespaces(&Command::new("true"))).status.success() {
        skips::tell(test, "no user namespaces");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let word = format!("{}.{}", 1000 + fastrand::u32(..1000), fastrand::u32(..));
    let escapes = format!("setsid env -i sleep {word} & exec sleep {word}");
    script(&dir.path().join("attacker/server-s"), &escapes);
    let mut kit = kit();
    kit.args(["--handshake", "confirm", "--filter", "server-s/4", "--subject"]);
    kit.arg(dir.path().join("attacker"));
    let mut kit = Process::spawn(without_mount_namespaces(&kit), NO_OWNER, Input::Null).unwrap();
    wait_for("the programs did not start", || running(&word) == 2 && has_escaped(&word));
    kit.signal(Signal::INT).unwrap();
    assert_eq!(kit.wait(TIMEOUT).unwrap().status.code(), Some(130));
    wait_for("a process outlives the kit", || running(&word) == 0);
}

fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns whether a process whose command line contains `word` has an empty environment.
fn has_escaped(word: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let is_one = |path: &Path| {
        let has = |text: &[u8]| String::from_utf8_lossy(text).contains(word);
        fs::read(path.join("cmdline")).is_ok_and(|text| has(&text) && text.starts_with(b"sleep"))
            && fs::read(path.join("environ")).is_ok_and(|text| text.is_empty())
    };
    processes.map(|entry| entry.path()).any(|path| is_one(&path))
}

#[test]
fn programs_have_unix_sockets_of_their_own() {
    let test = "programs_have_unix_sockets_of_their_own";
    if !has_python(test) {
        return;
    }
    let text = "import multiprocessing, socket, sys\n\
                if __name__ == '__main__':\n\
                \x20   pair = socket.socketpair()\n\
                \x20   numbers = multiprocessing.Manager().list([41])\n\
                \x20   numbers.append(42)\n\
                \x20   print('numbers', list(numbers), file=sys.stderr)\n\
                \x20   sys.exit(1)\n";
    for mut kit in kits(test) {
        let dir = shared_directory(&std::env::temp_dir());
        python(dir.path(), text);
        let printed = printed(&graded(&mut kit, &["server-s/4"], dir.path()));
        assert!(printed.contains("numbers [41, 42]"), "{printed}");
    }
}
