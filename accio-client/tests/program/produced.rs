//! Content that is produced while it is sent: directories, and the output of commands.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::common::{Client, accept, code, events, listen, named, refusing, reset, serve, text};
use accio_harness::program::{BOUND, command, run};
use rustix::process::{Pid, Signal, kill_process};

/// Runs the client; returns its output and the upload as the server sees it: the content, or how it
/// was broken off.
fn receive(arguments: &[&str]) -> (std::process::Output, Result<Vec<u8>, ErrorKind>) {
    let (listener, port) = listen();
    let client = Client::start(&[&["127.0.0.1", &port], arguments].concat());
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    let mut content = Vec::new();
    let end = stream.read_to_end(&mut content).map_err(|error| error.kind());
    drop(stream);
    (client.finish(), end.map(|_| content))
}

#[test]
fn sends_a_directory_as_an_archive_that_tar_can_extract() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("photos");
    fs::create_dir_all(directory.join("sub")).unwrap();
    fs::write(directory.join("a"), "first").unwrap();
    fs::write(directory.join("sub/large"), vec![7; 3 << 20]).unwrap();
    std::os::unix::fs::symlink("a", directory.join("link")).unwrap();
    let (output, content) = receive(&[directory.to_str().unwrap()]);
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(text(&output.stderr).ends_with(", confirmed\n"), "{output:?}");
    let target = place.path().join("unpacked");
    fs::create_dir(&target).unwrap();
    fs::write(place.path().join("archive"), content.unwrap()).unwrap();
    let mut tar = command("tar");
    tar.args(["-xf", "../archive"]).current_dir(&target);
    assert!(run(tar).unwrap().status.success());
    assert_eq!(fs::read(target.join("photos/a")).unwrap(), b"first");
    assert_eq!(fs::read(target.join("photos/sub/large")).unwrap(), vec![7; 3 << 20]);
    assert_eq!(fs::read_link(target.join("photos/link")).unwrap().to_str(), Some("a"));
}

#[test]
fn resets_if_a_file_of_the_directory_cannot_be_read() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("a"), vec![7; 3 << 20]).unwrap();
    // A socket cannot be archived, not even by root.
    let _socket = std::os::unix::net::UnixListener::bind(place.path().join("b")).unwrap();
    let path = place.path().to_str().unwrap();
    let (output, content) = receive(&[path, "--json", "--retry", "3"]);
    assert_eq!(content, Err(ErrorKind::ConnectionReset));
    assert_eq!(code(&output), 26);
    let start = format!("ERROR: file {path:?}: {:?}: ", place.path().join("b"));
    assert!(text(&output.stderr).starts_with(&start), "{output:?}");
    assert_eq!(named(&events(&output), "failed")[0]["code"], "read");
    assert_eq!(text(&output.stderr).lines().count(), 1, "no retry would help");
}

#[test]
fn sends_the_output_of_a_successful_command() {
    let script = "printf first; sleep .2; printf second";
    let command = format!("sh -c '{script}'");
    let (output, content) = receive(&["--from-command", &command, "--json"]);
    assert_eq!((code(&output), content.unwrap()), (0, b"firstsecond".to_vec()), "{output:?}");
    let events = events(&output);
    assert_eq!(events[0]["command"], command.as_str());
    assert!(events[0].get("file").is_none(), "{events:?}");
    let start = format!("sent output of {command:?} to ");
    assert!(text(&output.stderr).starts_with(&start), "{output:?}");
}

#[test]
fn resets_if_the_command_fails() {
    for (command, why) in [
        ("sh -c 'head -c 100000 /dev/zero; exit 3'", "exit status: 3"),
        ("sh -c 'printf x; exec >&-; sleep .2; exit 3'", "exit status: 3"),
        ("sh -c 'printf x; kill -9 $$'", "signal: 9 (SIGKILL)"),
    ] {
        let (output, content) = receive(&["--from-command", command]);
        assert_eq!(content, Err(ErrorKind::ConnectionReset), "{command}");
        assert_eq!(code(&output), 26, "{output:?}");
        assert_eq!(text(&output.stderr), format!("ERROR: command {command:?}: {why}\n"));
    }
}

#[test]
fn does_not_connect_if_the_command_cannot_start() {
    let (listener, port) = listen();
    for (command, exit) in [("/no/such/program", 26), ("/etc/passwd", 26), ("", 2), ("sh 'open", 2)]
    {
        let output = Client::start(&["127.0.0.1", &port, "--from-command", command]).finish();
        assert_eq!(code(&output), exit, "{output:?}");
        assert!(text(&output.stderr).contains(&format!("{command:?}")), "{output:?}");
    }
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn ends_the_command_when_its_upload_fails() {
    let place = tempfile::tempdir().unwrap();
    let pid = place.path().join("pid");
    let script = place.path().join("script");
    fs::write(&script, "#!/bin/sh\necho $$ >\"$1\"\nprintf x\nexec sleep 100\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
    let command = format!("{} {}", script.to_str().unwrap(), pid.to_str().unwrap());
    let (listener, port) = listen();
    let client = Client::start(&["127.0.0.1", &port, "--from-command", &command]);
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    stream.read_exact(&mut [0; 1]).unwrap();
    reset(stream);
    let output = client.finish();
    assert_eq!(code(&output), 55, "{output:?}");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("the cause is its idle timeout, "), "{stderr}");
    let process = format!("/proc/{}", fs::read_to_string(&pid).unwrap().trim());
    assert!(!fs::exists(process).unwrap(), "the command still runs");
}

/// Returns whether a process with these arguments runs; one that has ended has none.
fn runs(arguments: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| line == (arguments.replace(' ', "\0") + "\0").as_bytes())
}

/// Returns whether this process, and so the programs that it starts, ignores a signal.
#[cfg(target_os = "linux")]
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0");
    u64::from_str_radix(mask.trim(), 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}

#[test]
#[cfg(target_os = "linux")]
fn ends_all_processes_of_the_command_on_failure_and_on_signals() {
    // The numbers of this process, so that no other test has the same command line.
    let ours = std::process::id();
    for (place, signal) in [None, Some(Signal::TERM), Some(Signal::INT)].into_iter().enumerate() {
        if signal.is_some_and(is_ignored) {
            eprintln!("skipped: {signal:?} is ignored here, as in a background job");
            continue;
        }
        let (piped, orphan) =
            (format!("sleep 102{place}.{ours}"), format!("sleep 103{place}.{ours}"));
        let command = format!("sh -c '(sh -c \"{orphan} &\"; echo x; {piped}) | cat'");
        let (listener, port) = listen();
        let limit = if signal.is_some() { "600" } else { "1" };
        let arguments = ["127.0.0.1", &port, "--max-time", limit, "--from-command", &command];
        let client = Client::start(&arguments);
        let mut stream = accept(&listener);
        stream.write_all(b"accio\r\n").unwrap();
        stream.read_exact(&mut [0; 1]).unwrap();
        if let Some(signal) = signal {
            let end = Instant::now() + BOUND;
            while !(runs(&piped) && runs(&orphan)) {
                assert!(Instant::now() < end, "the command does not start");
                thread::sleep(Duration::from_millis(5));
            }
            kill_process(client.0.pid(), signal).unwrap();
        }
        let output = client.finish();
        let by = output.status.signal();
        assert_eq!(by, signal.map(Signal::as_raw), "{output:?}");
        assert_eq!(output.status.code(), signal.is_none().then_some(28), "{output:?}");
        let end = Instant::now() + BOUND;
        while runs(&piped) || runs(&orphan) {
            assert!(Instant::now() < end, "a process of the command still runs");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(stream.read_to_end(&mut Vec::new()).is_err(), "the client resets");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn waits_for_the_writer_of_a_named_pipe_within_max_time() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("pipe");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let name = path.to_str().unwrap();
    let (port, serving) = serve(1);
    let output = Client::start(&["127.0.0.1", &port, name, "--max-time", "0.3"]).finish();
    assert_eq!(code(&output), 28, "{output:?}");
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("ERROR: file ") && stderr.contains("--max-time"), "{stderr}");
    // The server has seen no client yet.
    let client = Client::start(&["127.0.0.1", &port, name, "--max-time", "600"]);
    fs::write(&path, "content").unwrap();
    assert_eq!(code(&client.finish()), 0);
    assert_eq!(serving.join().unwrap(), [b"content"]);
}

#[test]
fn a_retry_produces_the_content_again() {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("a"), "content").unwrap();
    let directory = place.path().to_str().unwrap();
    for content in [&[directory][..], &["--from-command", "printf content"]] {
        let (listener, port) = listen();
        let arguments = [&["127.0.0.1", &port, "--retry", "1"], content].concat();
        let client = Client::start(&arguments);
        let mut stream = accept(&listener);
        stream.write_all(b"accio\r\n").unwrap();
        stream.read_exact(&mut [0; 7]).unwrap();
        reset(stream);
        let mut stream = accept(&listener);
        stream.write_all(b"accio\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        drop(stream);
        assert!(bytes.windows(7).any(|part| part == b"content"));
        assert_eq!(code(&client.finish()), 0);
    }
}

#[test]
fn waits_for_a_slow_command_while_watching_the_server() {
    let (port, serving) = serve(1);
    let start = Instant::now();
    let command = "sh -c 'printf x; exec >&-; sleep 1'";
    let output = Client::start(&["127.0.0.1", &port, "--from-command", command]).finish();
    assert_eq!(code(&output), 0, "{output:?}");
    assert!(start.elapsed() >= Duration::from_secs(1), "its status was not waited for");
    assert_eq!(serving.join().unwrap(), [b"x"]);

    let (listener, port) = listen();
    let client = Client::start(&["127.0.0.1", &port, "--from-command", "sleep 60"]);
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    thread::sleep(Duration::from_millis(100));
    reset(stream);
    let start = Instant::now();
    assert_eq!(code(&client.finish()), 55);
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// The client may replace a shell that has started other processes.
#[test]
#[cfg(target_os = "linux")]
fn kills_no_process_that_it_has_not_started() {
    let (_sockets, port) = refusing();
    let mut shell = command("sh");
    shell.args(["-c", "sleep 60 & echo $!; exec \"$0\" \"$@\" 2>&1"]);
    shell.arg(env!("CARGO_BIN_EXE_accio-client"));
    shell.args(["127.0.0.1", &port, "--from-command", "sleep 60"]).stdout(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    let mut pid = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    assert_eq!(shell.wait().unwrap().code(), Some(7));
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    // A killed process would still run for a moment, but not long.
    thread::sleep(Duration::from_millis(300));
    let state = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let killed = kill_process(pid, Signal::KILL);
    assert!(state.is_ok_and(|state| !state.contains(") Z ")) && killed == Ok(()));
}
