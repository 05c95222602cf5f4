//! Namespaces for single tests of a crate.

use std::env;
use std::process::Command;

use super::commands::LIMIT;
use crate::process;
use crate::tools;
use crate::verdict::{Stop, Verdict, ensure};
use crate::wrapper;

/// The environment variable that tells the test program that it runs inside a namespace.
const INSIDE: &str = "IN_A_NETWORK_NAMESPACE";

/// Runs the test `name` of this test program again, in a network namespace that the shell command
/// `set_up` prepares. Returns true inside the namespace and false outside, where the test has
/// passed. Skips the test if this machine cannot create the namespace.
pub fn rerun(name: &str, set_up: &str) -> Verdict<bool> {
    if env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    let unshare = tools::require("unshare")?;
    let namespace = |script: &str| {
        let mut command = Command::new(&unshare);
        command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", script]);
        command
    };
    process::checked_output(namespace(set_up), b"", LIMIT).map_err(Stop::into_skip)?;
    let mut command = namespace(&format!("{set_up} && exec \"$0\" --exact \"$1\" --nocapture"));
    command.arg(env::current_exe()?).arg(name).env(INSIDE, "1");
    let output = process::output(command, b"", LIMIT)?;
    let text = String::from_utf8_lossy(&output.stdout);
    // A run in which the name matches no test succeeds, too.
    ensure(
        output.status.success() && text.contains("1 passed"),
        format!("{name} to pass"),
        || format!("{text}{}", String::from_utf8_lossy(&output.stderr)),
    )?;
    Ok(false)
}

/// Returns the command prefix that runs a command in a new mount namespace. Without root, a new
/// user namespace permits it to mount.
pub fn with_private_mounts() -> Vec<&'static str> {
    match rustix::process::geteuid().is_root() {
        true => vec!["unshare", "--mount"],
        false => vec!["unshare", "--user", "--map-root-user", "--mount"],
    }
}

/// Returns the command prefix that runs a command as process 1 of a new PID namespace, or a skip if
/// this machine cannot create one.
pub fn as_process_1() -> Verdict<[&'static str; 4]> {
    let words = ["unshare", "--pid", "--fork", "--kill-child"];
    let mut probe = Command::new(tools::require(words[0])?);
    probe.args(&words[1..]).arg("true");
    process::checked_output(probe, b"", LIMIT).map_err(Stop::into_skip)?;
    Ok(words)
}

/// Returns a command that runs `command` as root of a user namespace in which no mount namespace can be
/// created, as in many containers.
pub fn without_mount_namespaces(command: &Command) -> Command {
    let script = "echo 0 >/proc/sys/user/max_mnt_namespaces && exec \"$@\"";
    let mut outer = Command::new("unshare");
    outer.args(["--user", "--map-root-user", "sh", "-c", script, "sh"]);
    outer.arg(command.get_program()).args(command.get_args());
    wrapper::inherit(&mut outer, command);
    outer
}
