//! Output: events, progress, colours.

use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use super::common::{Client, accept, code, events, file, full_pipe, listen, named, serve, text};
use serde_json::Value;

/// A server disconnects a client that sends nothing, so an upload must not wait for a pager or a
/// program that reads its output.
#[test]
fn an_unread_output_delays_no_upload() {
    let (port, serving) = serve(1);
    let (_file, path) = file(300_000);
    let (stdout, stdout_end, stdout_fill) = full_pipe();
    let (stderr, stderr_end, stderr_fill) = full_pipe();
    let flags = ["127.0.0.1", &port, &path, "--json", "-vv", "--progress", "plain"];
    let mut client = Client::with(&flags, |command| {
        command.stdout(stdout_end).stderr(stderr_end);
    });
    assert_eq!(serving.join().unwrap(), [vec![b'x'; 300_000]]);
    // All output arrives once it is read.
    let read = |mut reader: PipeReader| {
        thread::spawn(move || {
            let mut text = Vec::new();
            reader.read_to_end(&mut text).unwrap();
            text
        })
    };
    let (stdout, stderr) = (read(stdout), read(stderr));
    assert_eq!(client.wait().code(), Some(0));
    let stdout = text(&stdout.join().unwrap()[stdout_fill..]);
    assert!(stdout.lines().last().unwrap().contains("\"event\":\"confirmed\""), "{stdout}");
    let stderr = text(&stderr.join().unwrap()[stderr_fill..]);
    assert!(stderr.ends_with(", confirmed\n"), "{stderr}");
}

#[test]
fn prints_all_events_in_order() {
    let (port, serving) = serve(1);
    let (_file, path) = file(300_000);
    let flags = ["127.0.0.1", &port, &path, "--json", "-q", "--limit-rate", "1M"];
    let output = Client::start(&flags).finish();
    serving.join().unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let events = events(&output);
    let mut steps: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    steps.dedup();
    let without_progress: Vec<_> = steps.iter().filter(|step| **step != "progress").collect();
    assert_eq!(without_progress, [&"resolved", &"connected", &"greeted", &"sent", &"confirmed"]);
    for event in &events {
        assert_eq!((event["file"].as_str(), &event["number"]), (Some(&*path), &1.into()));
    }
    let progress = named(&events, "progress");
    assert!(progress.len() >= 2, "{progress:?}");
    assert_eq!(progress.last().unwrap()["acknowledged"], 300_000);
    assert_eq!(progress[0]["total"], 300_000);
    let confirmed = named(&events, "confirmed")[0];
    assert_eq!((&confirmed["bytes"], &confirmed["dialect"]), (&300_000.into(), &"accio".into()));
    assert!(confirmed["seconds"].as_f64().unwrap() > 0.2);
}

#[test]
fn a_failed_event_has_the_text_of_the_error_line() {
    let mut lines = Vec::new();
    for (server, flags) in [
        (None, &[][..]),
        (Some("HTTP/1.1 400\r\n"), &[]),
        #[cfg(feature = "tls")]
        (Some("accio\r\n"), &["--tls-pin=sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]),
    ] {
        let (listener, port) = listen();
        let start = ["127.0.0.1", &port, "/dev/null", "--json"];
        let arguments = [&start, flags].concat();
        let output = if let Some(greeting) = server {
            let client = Client::start(&arguments);
            let mut stream = accept(&listener);
            stream.write_all(greeting.as_bytes()).unwrap();
            let output = client.finish();
            drop(stream);
            output
        } else {
            drop(listener);
            Client::start(&arguments).finish()
        };
        let events = events(&output);
        let message = named(&events, "failed")[0]["message"].as_str().unwrap();
        let line = text(&output.stderr);
        assert_eq!(line, format!("ERROR: {message}\n"));
        lines.push(line);
    }
    assert!(lines.iter().all(|line| line.contains("; ")), "each has its advice: {lines:?}");
}

#[test]
fn a_closed_event_reader_does_not_stop_the_transfer() {
    let (port, serving) = serve(1);
    let (_file, path) = file(100);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let client = Client::with(&["127.0.0.1", &port, &path, "--json", "-q"], |command| {
        command.stdout(writer);
    });
    let mut client = client;
    let status = client.wait();
    let mut stderr = String::new();
    client.0.take_error().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(status.code(), Some(23));
    assert_eq!(stderr, "ERROR: standard output: broken pipe\n");
    assert_eq!(serving.join().unwrap()[0].len(), 100);
}

#[test]
fn plain_progress_prints_lines_and_quiet_prints_nothing() {
    let run = |flags: &[&str]| {
        let (port, serving) = serve(1);
        let (_file, path) = file(1_500_000);
        let start = ["127.0.0.1", &port, &path, "--limit-rate", "1M"];
        let output = Client::start(&[&start, flags].concat()).finish();
        serving.join().unwrap();
        assert!(code(&output) == 0 && output.stdout.is_empty(), "{output:?}");
        text(&output.stderr)
    };
    let plain = run(&["--progress", "plain"]);
    let lines: Vec<_> = plain.lines().collect();
    assert!(lines.len() >= 2, "{plain}");
    assert!(lines[0].contains("%, ") && lines[0].contains(" of 1.5 MB, "), "{plain}");
    assert_eq!(run(&["--progress=plain", "-q"]), "");
    let auto = run(&[]);
    assert!(auto.lines().count() == 1 && auto.starts_with("sent "), "{auto}");
}

/// Creates a terminal of 100 columns; returns both ends.
fn terminal() -> (File, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let name = ptsname(&near, Vec::new()).unwrap();
    let far = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let size = rustix::termios::Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&far, size).unwrap();
    (near.into(), far.into())
}

/// Runs the client on a terminal; returns the terminal's output and stdout.
fn on_terminal(arguments: &[&str]) -> (String, Vec<u8>) {
    let (mut near, far) = terminal();
    let client = Client::with(arguments, |command| {
        command.stderr(far).env("TERM", "xterm");
    });
    let reading = thread::spawn(move || {
        let mut shown = Vec::new();
        // Reading fails with EIO once the last process closes the far end.
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = near.read(&mut buffer) {
            shown.extend_from_slice(&buffer[..count]);
        }
        shown
    });
    let mut client = client;
    client.wait();
    let mut stdout = Vec::new();
    client.0.take_output().unwrap().read_to_end(&mut stdout).unwrap();
    (text(&reading.join().unwrap()), stdout)
}

#[test]
fn a_terminal_shows_acknowledged_bytes_in_a_bar_per_file() {
    let (listener, port) = listen();
    // More than the server reads, but less than all buffers hold: the client hands it to the kernel
    // at once.
    let serving = thread::spawn(move || {
        let mut streams: Vec<_> = (0..2).map(|_| accept(&listener)).collect();
        for stream in &mut streams {
            stream.write_all(b"accio\r\n").unwrap();
        }
        thread::sleep(Duration::from_millis(2500));
        for stream in &mut streams {
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let names = ["first", "second"].map(|name| directory.path().join(name));
    for name in &names {
        File::create(name).unwrap().set_len(20 << 20).unwrap();
    }
    let [first, second] = names.each_ref().map(|name| name.to_str().unwrap());
    let (shown, stdout) = on_terminal(&["127.0.0.1", &port, first, second, "--jobs=2", "--json"]);
    serving.join().unwrap();
    let events: Vec<Value> =
        text(&stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let size = |event: &Value, which: &str| match event[which].as_f64().unwrap() {
        bytes if bytes < 1e6 => format!("% {:.2} kB of ", bytes / 1e3),
        bytes => format!("% {:.2} MB of ", bytes / 1e6),
    };
    // Progress that stays the same for several reports while the server does not read is on the
    // screen.
    let progress = named(&events, "progress");
    let stuck: Vec<_> = progress
        .iter()
        .filter(|event| {
            let same = |other: &&&Value| {
                ["file", "acknowledged", "sent"].iter().all(|key| other[key] == event[key])
            };
            event["sent"] != event["total"] && progress.iter().filter(same).count() >= 4
        })
        .collect();
    assert!(!stuck.is_empty(), "{progress:?}");
    for event in stuck {
        assert!(event["acknowledged"].as_u64() < event["sent"].as_u64(), "{event}");
        assert!(shown.contains(&size(event, "acknowledged")), "{event}: {shown:?}");
        assert!(!shown.contains(&size(event, "sent")), "{event}: {shown:?}");
    }
    assert!(!shown.contains(" 0 B/s, "), "no time is left without a rate: {shown:?}");
    for name in [first, second] {
        assert!(shown.contains(&format!("{name} [")), "{shown:?}");
        assert!(shown.contains(&format!("sent {name} to ")), "{shown:?}");
    }
    assert!(shown.contains(" of 20.97 MB, ") && shown.contains(" left"), "{shown:?}");
}

#[test]
fn a_terminal_can_hide_progress_and_shows_errors_in_colour() {
    let (port, serving) = serve(2);
    let (_file, path) = file(1000);
    let (shown, _) = on_terminal(&["127.0.0.1", &port, &path, "--progress=none"]);
    assert!(shown.starts_with("sent ") && !shown.contains('\x1b'), "{shown:?}");
    let (shown, _) = on_terminal(&["127.0.0.1", &port, &path, "-q"]);
    assert_eq!(shown, "");
    serving.join().unwrap();

    let (shown, _) = on_terminal(&["h", "80", "/no/such"]);
    assert!(shown.starts_with("\x1b[1;31mERROR:\x1b[0m file "), "{shown:?}");
    for never in
        [&["h", "80", "/no/such", "--color=never"][..], &["h", "0", "f", "--color", "never"]]
    {
        let (shown, _) = on_terminal(never);
        assert!(shown.starts_with("ERROR: "), "{shown:?}");
    }
}

#[test]
fn color_follows_the_flag_then_the_environment() {
    let run = |arguments: &[&str], variables: &[(&str, &str)]| {
        let output = Client::with(arguments, |command| {
            command.envs(variables.iter().copied());
        })
        .finish();
        (text(&output.stdout), text(&output.stderr))
    };
    let coloured = |text: &str| text.contains('\x1b');
    let error = ["h", "0", "f"];
    assert!(!coloured(&run(&error, &[]).1));
    assert!(coloured(&run(&["h", "0", "f", "--color=always"], &[("NO_COLOR", "1")]).1));
    assert!(coloured(&run(&error, &[("ACCIO_COLOR", "always")]).1));
    assert!(!coloured(&run(&["h", "0", "f", "--color=never"], &[("ACCIO_COLOR", "always")]).1));
    assert!(coloured(&run(&["--help", "--color=always"], &[]).0));
    assert!(!coloured(&run(&["--help"], &[]).0));
}

#[test]
fn flags_take_precedence_over_variables() {
    let variable = |name: &str, value: &str, arguments: &[&str]| {
        let output = Client::with(arguments, |command| {
            command.env(name, value);
        })
        .finish();
        (code(&output), text(&output.stderr))
    };
    let (listener, port) = listen();
    let file = ["127.0.0.1", &port, "/dev/null"];
    let start = Instant::now();
    let (exit, _) = variable("ACCIO_TIMEOUT", "0.3", &file);
    assert!(exit == 28 && start.elapsed() < Duration::from_secs(5));
    let (exit, stderr) = variable("ACCIO_SOURCE", "203.0.113.7", &file);
    assert_eq!(exit, 45, "{stderr}");
    let (exit, stderr) = variable("ACCIO_TIMEOUT", "never", &file);
    assert!(exit == 2 && stderr.contains("'never'"), "{stderr}");
    for arguments in [&file[..], &["--probe", "127.0.0.1", &port]] {
        let (exit, stderr) = variable("ACCIO_FROM_COMMAND", "echo x", arguments);
        assert!(exit == 2 && stderr.starts_with("ERROR: ACCIO_FROM_COMMAND: "), "{stderr}");
    }
    let start = Instant::now();
    let (exit, _) =
        variable("ACCIO_TIMEOUT", "9", &["127.0.0.1", &port, "/dev/null", "--timeout=.3"]);
    assert!(exit == 28 && start.elapsed() < Duration::from_secs(5));
    drop(listener);
}

#[cfg(feature = "digest")]
#[test]
fn a_digest_is_in_the_last_line_and_in_the_last_event() {
    let digest = "sha256:41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3";
    let (port, serving) = serve(1);
    let (_file, path) = file(3);
    std::fs::write(&path, vec![b'a'; 1000]).unwrap();
    let flags = ["127.0.0.1", &port, &path, "--digest", "sha256", "--json"];
    let output = Client::start(&flags).finish();
    serving.join().unwrap();
    let line = text(&output.stderr);
    assert!(line.ends_with(&format!(", confirmed, {digest}\n")), "{line}");
    let events = events(&output);
    assert_eq!(named(&events, "confirmed")[0]["digest"], digest);
    // It may come from a variable, as the value of any flag.
    let (port, serving) = serve(1);
    let output = Client::with(&["127.0.0.1", &port, &path], |command| {
        command.env("ACCIO_DIGEST", "blake3");
    });
    let output = output.finish();
    serving.join().unwrap();
    assert!(text(&output.stderr).contains(", confirmed, blake3:"), "{output:?}");
    // Without it, nothing is different.
    let (port, serving) = serve(1);
    let output = Client::start(&["127.0.0.1", &port, &path]).finish();
    serving.join().unwrap();
    assert!(text(&output.stderr).ends_with("), confirmed\n"), "{output:?}");
}
