//! Checks of the directory before the server listens: files of earlier runs, other servers, and
//! calls that fail or have no effect. strace injects the faults.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use accio_harness::tools;

use super::harness::{Place, Server, command, connect, free_port, program, run, upload};

const SOON: Duration = Duration::from_secs(2);

/// Returns the server under strace, which injects `faults`; `None` where strace is missing or not
/// allowed to trace.
fn faulty(umask: &str, faults: &[&str]) -> Option<Command> {
    if let Err(why) = tools::require_tracing() {
        let _ = writeln!(std::io::stderr(), "skipped: {why}");
        return None;
    }
    let mut command = command("sh");
    command.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]);
    // With -D, the server itself is the child, so that it can be ended.
    command.args(["strace", "-D", "-f", "-o", "/dev/null"]);
    for fault in faults {
        command.args(["-e", &format!("inject={fault}")]);
    }
    command.arg(program().get_program());
    Some(command)
}

/// Runs a server that must refuse to start, and returns its error.
fn refused(mut command: Command, place: &Place, flags: &[&str]) -> String {
    command.args([&free_port().to_string(), &place.dir(), "--bind", "127.0.0.1"]).args(flags);
    let output = run(command).unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let errors = text.lines().filter(|line| line.starts_with("ERROR: ")).count();
    assert_eq!(errors, 1, "{text}");
    assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 0, "it leaves nothing");
    text
}

#[test]
fn warns_about_files_that_will_be_replaced() {
    let place = Place::new();
    fs::create_dir(place.path("received")).unwrap();
    for name in ["1.file", "2.file", "9.file", "other"] {
        fs::write(place.path("received").join(name), "old").unwrap();
    }
    let server = Server::start(&place, &[]);
    let line = server.line("--existing keep");
    assert!(line.starts_with("3 files of earlier runs in "), "{line}");
    server.stop(SOON);
    let server = Server::start(&place, &["--ids-from", "3"]);
    server.line("1 file of earlier runs in ");
    server.stop(SOON);
    for flags in [&["--ids-from", "10"][..], &["--existing", "keep"]] {
        let server = Server::start(&place, flags);
        assert_eq!(server.count("will be replaced"), 0);
        server.stop(SOON);
    }
}

#[test]
fn rejects_a_directory_in_use_unless_both_servers_keep() {
    let place = Place::new();
    let server = Server::start(&place, &[]);
    for flags in [&[][..], &["--existing", "keep"]] {
        let line = refused(program(), &place, flags);
        assert!(line.contains("another server uses it; stop that server"), "{line}");
        assert!(line.contains("--existing keep") && line.contains("--ids-from"), "{line}");
    }
    server.stop(SOON);

    let keep = ["--existing", "keep"];
    let first = Server::start(&place, &keep);
    refused(program(), &place, &[]);
    assert_eq!(first.count("another server uses"), 0);
    let second = Server::start(&place, &[&keep[..], &["--ids-from", "100"]].concat());
    let line = second.line("another server uses");
    assert!(line.contains("--ids-from"), "{line}");
    upload(first.address(), b"one").unwrap();
    upload(second.address(), b"two").unwrap();
    assert_eq!(place.read(1).unwrap(), b"one");
    assert_eq!(place.read(100).unwrap(), b"two");
    first.stop(SOON);
    second.stop(SOON);
    // A lock ends with its process, even if that is killed.
    drop(Server::start(&place, &[]));
    Server::start(&place, &[]).stop(SOON);
}

#[cfg(feature = "tls")]
#[test]
fn rejects_flags_that_need_tls_before_it_touches_the_directory() {
    let place = Place::new();
    for flags in [["--tls-clients", "list"], ["--max-per-client", "1"]] {
        let mut command = program();
        command.args([&free_port().to_string(), &place.dir()]).args(flags);
        let output = run(command).unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!place.path("received").exists(), "{flags:?}");
    }
}

#[test]
fn rejects_a_mode_without_effect() {
    let Some(command) = faulty("077", &["fchmod:retval=0"]) else { return };
    let place = Place::new();
    let line = refused(command, &place, &["--mode", "640"]);
    assert!(line.contains("files have mode 600, not 640"), "{line}");
    assert!(line.contains("the file system is ") && line.contains("--mode"), "{line}");
}

#[test]
fn rejects_durable_if_names_cannot_be_synced() {
    for is_there in [true, false] {
        let Some(command) = faulty("022", &["fsync:error=EINVAL"]) else { return };
        let place = Place::new();
        if is_there {
            fs::create_dir(place.path("received")).unwrap();
        }
        let line = refused(command, &place, &["--durable"]);
        assert!(line.contains("invalid argument"), "{line}");
        assert!(line.contains("the file system is "), "{line}");
        assert!(line.contains("remove --durable"), "{line}");
    }
}

#[test]
fn falls_back_to_other_calls_where_some_fail() {
    for (faults, keep) in [
        // Unnamed files cannot be linked.
        (&["linkat:error=EPERM"][..], false),
        (&["linkat:error=EACCES"], true),
        (&["linkat:error=EXDEV"], false),
        (&["linkat:error=EMLINK"], true),
        // Neither links nor renames without replacement work.
        (&["linkat:error=EPERM", "renameat2:error=EINVAL"], true),
        (&["linkat:error=ENOSYS", "renameat2:error=ENOSYS"], true),
    ] {
        let Some(mut command) = faulty("022", faults) else { return };
        let place = Place::new();
        let existing = if keep { "keep" } else { "replace" };
        command.args([&free_port().to_string(), &place.dir(), "--bind", "127.0.0.1"]);
        command.args(["--existing", existing, "--timeout", "1", "--sandbox", "off"]);
        let server = Server::spawn(command);
        assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 0, "{faults:?}");
        upload(server.address(), b"the first")
            .unwrap_or_else(|error| panic!("{faults:?}: {error}"));
        assert_eq!(place.read(1).unwrap(), b"the first", "{faults:?}");
        let silent = connect(server.address()).unwrap();
        super::harness::until("the marker", || place.read(2).is_some_and(|text| text == b"ERROR"));
        drop(silent);
        fs::write(place.path("received/3.file"), "another's").unwrap();
        let third = upload(server.address(), b"the third");
        assert_eq!(third.is_err(), keep, "{faults:?}");
        let content: &[u8] = if keep { b"another's" } else { b"the third" };
        assert_eq!(place.read(3).unwrap(), content, "{faults:?}");
        assert_eq!(fs::read_dir(place.dir()).unwrap().count(), 3, "{faults:?}");
        server.stop(SOON);
    }
}

#[test]
fn a_file_never_has_more_than_its_final_permissions() {
    // Any call that sets the permissions after the file was created is delayed by half a second.
    let Some(mut command) = faulty("000", &["fchmod:delay_enter=500000"]) else { return };
    let place = Place::new();
    command.args([&free_port().to_string(), &place.dir(), "--bind", "127.0.0.1"]);
    command.args(["--mode", "600", "--without", "tmpfile", "--sandbox", "off"]);
    let server = Server::spawn(command);
    let mut stream = connect(server.address()).unwrap();
    stream.write_all(b"content").unwrap();
    let mut modes = std::collections::BTreeSet::new();
    let end = std::time::Instant::now() + Duration::from_millis(1500);
    while std::time::Instant::now() < end {
        for entry in fs::read_dir(place.dir()).unwrap().flatten() {
            modes.extend(entry.metadata().map(|found| found.permissions().mode() & 0o777));
        }
    }
    assert_eq!(modes.into_iter().collect::<Vec<_>>(), [0o600]);
    super::harness::finish(stream).unwrap();
    server.stop(SOON);
    let metadata = fs::metadata(place.path("received/1.file")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[test]
fn uploads_despite_planted_hidden_names() {
    for flags in [&[][..], &["--without", "tmpfile"]] {
        let place = Place::new();
        fs::create_dir(place.path("received")).unwrap();
        fs::write(place.path("received/1.file"), "old").unwrap();
        let server = Server::start(&place, flags);
        let pid = server.pid();
        for count in 0..100 {
            let planted = format!("received/.1.file.{pid}-{count}");
            std::os::unix::fs::symlink("/nowhere", place.path(&planted)).unwrap();
        }
        upload(server.address(), b"new").unwrap();
        assert_eq!(place.read(1).unwrap(), b"new");
        server.stop(SOON);
    }
}

#[test]
fn a_file_that_begins_like_a_confirmation_survives_a_client_that_closes_at_once() {
    let place = Place::new();
    let server = Server::start(&place, &[]);
    let content = [&b"confirm-accio\r\n"[..], &vec![b'x'; 3 << 20]].concat();
    for id in 1..=5 {
        let mut stream = connect(server.address()).unwrap();
        stream.write_all(&content).unwrap();
        // Unread bytes would turn the close into a reset.
        drop(stream);
        super::harness::until("the file", || place.read(id).is_some());
        assert!(place.read(id).unwrap() == content, "{id}.file");
    }
    server.stop(SOON);
}

#[test]
fn logs_a_removed_directory_once() {
    let place = Place::new();
    let server = Server::start(&place, &[]);
    upload(server.address(), b"content").unwrap();
    fs::remove_dir_all(place.dir()).unwrap();
    fs::create_dir(place.dir()).unwrap();
    for _ in 0..5 {
        upload(server.address(), b"content").unwrap_err();
    }
    let line = server.line("cannot keep files in ");
    assert!(line.contains("ERROR") && line.contains("was removed"), "{line}");
    assert!(line.contains("restart the server"), "{line}");
    assert_eq!(server.count("cannot keep files in "), 1);
    server.stop(SOON);
}
