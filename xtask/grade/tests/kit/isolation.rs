//! Programs that try to reach the kit, other submissions and the machine by other ways than files:
//! io_uring, tracing, sockets, shared memory, keyrings, descriptors of the caller, and texts that a
//! terminal interprets. Each runs in a kit of this user and, as root, also in a kit of another user.

use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use accio_harness::tools;
use serde_json::Value;
use tempfile::TempDir;

use crate::skips::{self, Skips};
use crate::{kit, run, script, submit};

const RINGS: &str = include_str!("attackers/rings.py");
const MESSAGES: &str = include_str!("attackers/messages.py");
const TRACING: &str = include_str!("attackers/tracing.py");

/// The user nobody on most systems.
const NOBODY: &str = "65534";

/// Returns a command for the kit of this user and one for the kit of another user, if this process
/// is root, as far as these can create sandboxes; prints which are left out.
pub(crate) fn kits(test: &str) -> Vec<Command> {
    let mut kits = vec![kit()];
    if rustix::process::geteuid().is_root() && tools::find("setpriv").is_some() {
        let mut unprivileged = Command::new("setpriv");
        unprivileged.args([
            &format!("--reuid={NOBODY}"),
            &format!("--regid={NOBODY}"),
            "--clear-groups",
        ]);
        unprivileged.arg(env!("CARGO_BIN_EXE_accio-grade")).env_remove("CARGO");
        kits.push(unprivileged);
    }
    kits.retain(|kit| {
        let mut probe = Command::new(kit.get_program());
        let output = run(probe.args(kit.get_args()).arg("__sandbox-probe"));
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            skips::tell(test, format!("{:?}: {why}", kit.get_program()));
        }
        output.status.success()
    });
    kits
}

pub(crate) fn has_python(test: &str) -> bool {
    let has = tools::find("python3").is_some() && cfg!(target_arch = "x86_64");
    if !has {
        skips::tell(test, "needs python3 on x86_64");
    }
    has
}

/// Returns a directory that other users can read.
pub(crate) fn shared_directory(parent: &Path) -> TempDir {
    let dir = tempfile::tempdir_in(parent).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

/// Grades checks of the submission `dir`, none of which may be skipped; returns its results.
pub(crate) fn graded(kit: &mut Command, checks: &[&str], dir: &Path) -> Value {
    kit.args(["--json", "--no-retry", "--network", "proxy", "--handshake", "confirm"]);
    for check in checks {
        kit.args(["--filter", check]);
    }
    let output = run(kit.arg("--subject").arg(dir).current_dir("/"));
    let results: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let submission = &results["submissions"][0];
    assert_eq!(skips::of("the submission", submission, &[]), Skips::default(), "{submission:#}");
    submission.clone()
}

/// Returns what the programs printed to stderr.
pub(crate) fn printed(results: &Value) -> String {
    let checks = results["checks"].as_array().unwrap();
    let lines = checks.iter().flat_map(|check| check["output"].as_array().into_iter().flatten());
    lines.map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

/// Writes a submission with a server-s in Python.
pub(crate) fn python(dir: &Path, text: &str) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("server-s.py"), text).unwrap();
}

#[test]
fn the_current_directory_can_be_graded() {
    for mut kit in kits("the_current_directory_can_be_graded") {
        // All of /tmp is hidden, so that the current directory there would not be hidden itself.
        let dir = shared_directory(Path::new(env!("CARGO_TARGET_TMPDIR")));
        submit(dir.path(), ".", &["server-s"], "confirm", "none");
        kit.args([".", "--filter", "server-s/4", "--handshake", "confirm", "--json", "--no-retry"]);
        let output = run(kit.current_dir(dir.path()));
        let results: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        assert_eq!(results["submissions"][0]["earned"], 5, "{results:#}");
    }
}

#[test]
fn rings_reach_no_file_and_no_address_outside() {
    let test = "rings_reach_no_file_and_no_address_outside";
    if !has_python(test) {
        return;
    }
    for mut kit in kits(test) {
        let dir = shared_directory(&std::env::temp_dir());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let outside = ["outside", "attacker/outside"].map(|name| dir.path().join(name));
        let text = RINGS
            .replace("@OUTSIDE@", &format!("{outside:?}"))
            .replace("@PORT@", &listener.local_addr().unwrap().port().to_string());
        python(&dir.path().join("attacker"), &text);
        // Permissions must not be what prevents it.
        for path in [dir.path().to_owned(), dir.path().join("attacker")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let results = graded(&mut kit, &["server-s/4"], &dir.path().join("attacker"));
        let printed = printed(&results);
        assert!(printed.contains("ring: denied: Operation not permitted"), "{printed}");
        assert!(outside.iter().all(|path| !path.exists()) && listener.accept().is_err());
    }
}

#[test]
fn submissions_leave_no_messages_for_others() {
    let test = "submissions_leave_no_messages_for_others";
    if !has_python(test) {
        return;
    }
    for kit in kits(test) {
        let dir = shared_directory(&std::env::temp_dir());
        let own = dir.path().join("attacker");
        let (word, key) = (format!("message-{}", fastrand::u32(..)), fastrand::u32(1..1 << 30));
        let directories: Vec<PathBuf> = ["/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run"]
            .map(PathBuf::from)
            .into_iter()
            .chain([own.clone(), dir.path().to_owned()])
            .collect();
        let text = MESSAGES
            .replace("@WORD@", &word)
            .replace("@KEY@", &key.to_string())
            .replace("@DIRECTORIES@", &format!("{directories:?}"));
        python(&own, &text);
        for path in [dir.path(), &own] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        // Like a login, it starts the kit with a keyring of the session.
        let mut login = Command::new("python3");
        login.args(["-c", LOGIN]).arg(kit.get_program()).args(kit.get_args());
        login.env_remove("CARGO");
        let checks = ["server-s/4", "server-s/5", "server-s/6"];
        let results = graded(&mut login, &checks, &own);
        let printed = printed(&results);
        assert!(printed.contains("looked") && !printed.contains("found"), "{printed}");
    }
}

/// Joins a new session keyring and executes the arguments.
const LOGIN: &str = "import ctypes, os, sys
ctypes.CDLL(None).syscall(250, 1, None)
os.execvp(sys.argv[1], sys.argv[1:])";

#[test]
fn other_processes_cannot_be_traced_read_or_ended() {
    let test = "other_processes_cannot_be_traced_read_or_ended";
    if !has_python(test) {
        return;
    }
    for mut kit in kits(test) {
        let dir = shared_directory(&std::env::temp_dir());
        python(dir.path(), TRACING);
        let printed = printed(&graded(&mut kit, &["server-s/4"], dir.path()));
        assert!(printed.contains("other ") && printed.contains("done"), "{printed}");
        assert!(!printed.contains("succeeded"), "{printed}");
    }
}

#[test]
fn sockets_of_services_cannot_be_reached() {
    let test = "sockets_of_services_cannot_be_reached";
    if !has_python(test) {
        return;
    }
    for mut kit in kits(test) {
        // This directory is not hidden, unlike those for temporary files.
        let dir = shared_directory(Path::new(env!("CARGO_TARGET_TMPDIR")));
        let path = dir.path().join("service");
        let service = UnixListener::bind(&path).unwrap();
        service.set_nonblocking(true).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let own = dir.path().join("attacker");
        let text = format!(
            "import socket, sys\n\
             outcome = socket.socket(socket.AF_UNIX).connect_ex({path:?})\n\
             print('outcome', outcome, file=sys.stderr)\nsys.exit(1)\n"
        );
        python(&own, &text);
        let printed = printed(&graded(&mut kit, &["server-s/4"], &own));
        assert!(printed.contains("outcome ") && !printed.contains("outcome 0"), "{printed}");
        assert!(service.accept().is_err(), "{printed}");
    }
}

#[test]
fn programs_have_no_descriptors_of_the_kits_caller() {
    for mut kit in kits("programs_have_no_descriptors_of_the_kits_caller") {
        let dir = shared_directory(&std::env::temp_dir());
        let (secrets, log) = (dir.path().join("secrets"), dir.path().join("log"));
        fs::create_dir(&secrets).unwrap();
        fs::write(secrets.join("secret"), "the secret").unwrap();
        fs::write(&log, "").unwrap();
        fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
        let text = "exec 2>&2; for fd in /proc/self/fd/*; do cat $fd/secret >&2; done; \
                    for fd in 3 4 5 6 7 8 9; do eval \"echo written >&$fd\"; done; \
                    echo done >&2; exit 1";
        script(&dir.path().join("attacker/server-s"), text);
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec 7<\"$0\" 8>>\"$1\"; shift; exec \"$@\""]);
        shell.arg(&secrets).arg(&log).arg(kit.get_program()).args(kit.get_args());
        kit = shell;
        let own = dir.path().join("attacker");
        let printed = printed(&graded(kit.env_remove("CARGO"), &["server-s/4"], &own));
        assert!(printed.contains("done") && !printed.contains("the secret"), "{printed}");
        assert_eq!(fs::read_to_string(&log).unwrap(), "", "{printed}");
    }
}

/// A text that clears a terminal, and one that turns around what follows.
const ESCAPES: &str = "\u{1b}[2J\u{202e}x";

#[test]
fn no_report_contains_what_a_terminal_interprets() {
    let dir = tempfile::tempdir().unwrap();
    let class = dir.path().join("class");
    let name = format!("a{ESCAPES}");
    submit(&class, &name, &["client"], "confirm", "none");
    let own = class.join(&name);
    fs::write(own.join(format!("{ESCAPES}.pyc")), "").unwrap();
    fs::create_dir(class.join(format!("empty{ESCAPES}"))).unwrap();
    script(&own.join("server-s"), &format!("echo '{ESCAPES}' >&2; echo '{ESCAPES}'; exit 1"));
    script(
        &own.join("server"),
        &format!(
            "touch \"$2/{ESCAPES}\"; exec '{}' server confirm late \"$@\"",
            env!("CARGO_BIN_EXE_faulty")
        ),
    );
    let checks = ["client/1", "server-s/4", "server-s/11", "server/14"];
    let filters: Vec<&str> = checks.iter().flat_map(|check| ["--filter", check]).collect();
    let files = ["--html", "p.html", "--csv", "p.csv", "--junit", "p.xml"];
    let of_class = run(kit()
        .args(["--no-retry", "--network", "proxy", "--handshake", "confirm"])
        .args(["--repository-points", "--submissions", "class", "--results", "results"])
        .args(&filters)
        .args(files)
        .current_dir(dir.path()));
    let of_one = run(kit()
        .args(["--no-retry", "--network", "proxy", "--handshake", "confirm"])
        .args(&filters)
        .args(["--gradescope", "p.json", "--classroom50", "c.json"])
        .arg(Path::new("class").join(&name))
        .current_dir(dir.path()));
    let of_none =
        run(kit().arg(Path::new("class").join(format!("empty{ESCAPES}"))).current_dir(dir.path()));
    assert_eq!(of_none.status.code(), Some(2), "{of_none:?}");
    let mut texts = Vec::new();
    for output in [&of_class, &of_one, &of_none] {
        texts.push(("stdout".to_owned(), output.stdout.clone()));
        texts.push(("stderr".to_owned(), output.stderr.clone()));
    }
    for entry in
        fs::read_dir(dir.path()).unwrap().chain(fs::read_dir(dir.path().join("results")).unwrap())
    {
        let path = entry.unwrap().path();
        texts.push((format!("name of {path:?}"), path.as_os_str().as_bytes().to_vec()));
        if path.is_file() {
            texts.push((path.display().to_string(), fs::read(&path).unwrap()));
        }
    }
    assert!(texts.len() > 15, "{texts:?}");
    for (name, text) in texts {
        let text = String::from_utf8_lossy(&text);
        let raw = |c: char| c == '\u{1b}' || c == '\u{202e}';
        let line = text.lines().find(|line| line.contains(raw));
        assert_eq!(line, None, "{name}");
    }
}
