//! Some containers, and qemu, refuse socket diagnosis. The kit then reads the tables in `/proc`.

use std::collections::BTreeMap;
use std::thread;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::{grade, set, submit};

/// Makes `socket(AF_NETLINK, …, NETLINK_SOCK_DIAG)` fail in this thread and its child processes.
fn refuse_socket_diagnosis() {
    const SOCK_DIAG: u64 = 4;
    let equals = |index, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap()
    };
    let netlink = equals(0, u64::from(libc::AF_NETLINK as u32));
    let rule = SeccompRule::new(vec![netlink, equals(2, SOCK_DIAG)]).unwrap();
    let rules = BTreeMap::from([(libc::SYS_socket, vec![rule])]);
    let refused = SeccompAction::Errno(libc::EPROTONOSUPPORT as u32);
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
}

#[test]
fn grades_without_socket_diagnosis() {
    let class = tempfile::tempdir().unwrap();
    let cases = [
        ("client", "none", "6 7 8 split", ""),
        ("server", "none", "4 6", ""),
        ("server", "closes-early", "4 6", "6"),
        ("server-s", "none", "4 6 8", ""),
    ];
    let mut filters = Vec::new();
    for (program, fault, checks, _) in cases {
        submit(class.path(), &format!("{program}.{fault}"), &[program], "confirm", fault);
        for check in checks.split(' ') {
            filters.extend(["--filter".to_owned(), format!("{program}/{check}")]);
        }
    }
    let filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let (graded, _) = thread::scope(|scope| {
        let run = || {
            refuse_socket_diagnosis();
            grade(class.path(), "confirm", &filters)
        };
        scope.spawn(run).join().unwrap()
    });
    for (program, fault, _, expected) in cases {
        let name = format!("{program}.{fault}");
        let (_, failed) = graded.iter().find(|(other, _)| *other == name).unwrap();
        assert_eq!(*failed, set(expected), "{name}");
    }
}
