//! Tests with shells as children.

use std::thread;

use super::*;

fn shell(script: &str) -> Process {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Process::spawn(command, usize::MAX, Input::Null).unwrap()
}

#[test]
fn captures_output_and_exit_status() {
    let mut process = shell("echo out; echo err >&2; exit 3");
    let exit = process.wait(Duration::from_secs(10)).unwrap();
    assert_eq!(exit.status.code(), Some(3));
    assert_eq!(process.stdout().text(), "out\n");
    assert_eq!(process.stderr().text(), "err\n");
    assert_eq!(process.command(), "sh -c 'echo out; echo err >&2; exit 3'");
}

#[test]
fn limits_the_kept_output_without_blocking_the_process() {
    let mut process = shell("head -c 3000000 /dev/zero");
    process.wait(Duration::from_secs(10)).unwrap();
    assert!(process.stdout().text().ends_with("… and 1951424 more bytes"));
}

#[test]
fn waits_have_a_limit_and_dropping_kills_descendants() {
    let mut process = shell("sleep 1000 & echo $!; wait");
    let descendant: i32 =
        process.stdout().line(0, Duration::from_secs(5)).unwrap().parse().unwrap();
    let Err(Stop::Fault(fault)) = process.wait(Duration::from_millis(50)) else {
        panic!("it should still be running")
    };
    assert_eq!(fault.expected, "sh to end within 0.1 s");
    drop(process);
    let pid = Pid::from_raw(descendant).unwrap();
    let gone = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        // A killed process stays a zombie until its new parent waits for it.
        rustix::process::test_kill_process(pid).is_err()
            || fs::read_to_string(format!("/proc/{descendant}/stat"))
                .is_ok_and(|stat| stat.contains(") Z "))
    });
    assert!(gone);
}

#[test]
fn waits_for_complete_lines() {
    let process = shell("printf 'a\\nb'; sleep 0.1; printf 'c\\n'; sleep 100");
    assert_eq!(process.stdout().line(1, Duration::from_secs(5)).as_deref(), Some("bc"));
    assert_eq!(process.stdout().line(2, Duration::from_millis(20)), None);
}
