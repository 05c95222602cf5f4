//! Exact texts of help and errors, and exit codes.

use std::process::Output;

use super::harness::{Place, Server, command, program, run, upload};

fn run_with(arguments: &[&str]) -> Output {
    let mut command = program();
    command.args(arguments);
    run(command).unwrap()
}

/// Runs the server, which must fail with this code and a single line; returns the line.
pub(crate) fn fails(code: i32, arguments: &[&str]) -> String {
    let output = run_with(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.starts_with("ERROR: ") && text.lines().count() == 1, "{text}");
    text
}

#[cfg(feature = "metrics")]
fn stdout(arguments: &[&str]) -> String {
    let output = run_with(arguments);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    String::from_utf8(output.stdout).unwrap()
}

// Without the feature, a flag is missing.
#[cfg(feature = "metrics")]
#[test]
fn help() {
    let short = stdout(&["-h"]);
    assert!(!short.contains(&format!("\n{:30}", "")), "a flag has a second line: {short}");
    snapbox::assert_data_eq!(short, snapbox::file!["../snapshots/help-short.txt"].raw());
    let mut long = stdout(&["--help"]);
    if cfg!(feature = "store-core") {
        // Flags for stores are in a section of their own; the rest does not change.
        let start = long.find("Object stores:\n").unwrap();
        let end = long.find("Limits:\n").unwrap();
        let stores: String = long.drain(start..end).collect();
        snapbox::assert_data_eq!(stores, snapbox::file!["../snapshots/help-stores.txt"].raw());
    }
    snapbox::assert_data_eq!(long, snapbox::file!["../snapshots/help-long.txt"].raw());
}

#[cfg(not(feature = "store"))]
#[test]
fn a_store_address_needs_the_store_feature() {
    let output = run_with(&["5000", "s3://bucket/secret"]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("ERROR: ") && error.contains("--features store\n"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn errors() {
    let cases: &[&[&str]] = &[
        &[],
        &["5000"],
        &["5000", "d", "more"],
        &["0", "d"],
        &["5000", "d", "--no-such-flag"],
        &["5000", "d", "--bind", "localhost"],
        &["5000", "d", "--drain", "-1"],
        &["5000", "d", "--existing", "ask"],
        &["5000", "d", "--ids-from", "0"],
        &["5000", "d", "--mode", "rw-r-----"],
        &["5000", "d", "--on-commit", "''"],
        &["5000", "d", "--on-commit-jobs", "0"],
        &["5000", "d", "--max-size", "1.5X"],
        &["5000", "d", "--allow", "10.0.0.0/33"],
        &["5000", "d", "--handshake", "http"],
        &["5000", "d", "--sandbox", "strong"],
    ];
    let mut all = String::new();
    for arguments in cases {
        all += &format!("$ accio-server {}\n{}", arguments.join(" "), fails(2, arguments));
    }
    snapbox::assert_data_eq!(all, snapbox::file!["../snapshots/errors.txt"].raw());
    assert!(!std::path::Path::new("d").exists());
}

#[test]
fn follows_the_color_flag() {
    let error = |flags: &[&str], no_color: &str| {
        let mut command = program();
        command.args(["0", "d"]).args(flags).env("NO_COLOR", no_color);
        String::from_utf8(run(command).unwrap().stderr).unwrap()
    };
    assert!(error(&["--color", "always"], "").starts_with("\x1b["));
    for (flags, no_color) in [(&["--color", "never"][..], ""), (&[], "1"), (&[], "")] {
        assert!(error(flags, no_color).starts_with("ERROR: "));
    }
    for (color, coloured) in [("always", true), ("never", false)] {
        let place = Place::new();
        let script = place.script("hook", "exit 3");
        let server = Server::start(&place, &["-v", "--color", color, "--on-commit", &script]);
        upload(server.address(), b"content").unwrap();
        for line in [server.line("7 bytes from"), server.line("exit status: 3")] {
            assert_eq!(line.contains('\x1b'), coloured, "{line:?}");
        }
        server.stop(std::time::Duration::from_secs(2));
    }
}

#[test]
fn reads_flags_from_the_environment() {
    let place = Place::new();
    let mut command = program();
    command
        .env("ACCIO_BIND", "127.0.0.1,::1")
        .env("ACCIO_IDS_FROM", "7")
        .env("ACCIO_DURABLE", "1")
        .env("ACCIO_MAX_SIZE", "1K")
        .env("ACCIO_MODE", "600");
    let server = Server::start_as(command, &place, &["--mode", "640"]);
    upload(server.address(), &[b'x'; 1025]).unwrap_err();
    upload(server.address(), b"content").unwrap();
    upload(std::net::SocketAddr::new("::1".parse().unwrap(), server.address().port()), b"six")
        .unwrap();
    server.stop(std::time::Duration::from_secs(2));
    assert_eq!([7, 8, 9].map(|id| place.read(id).unwrap()), [&b"ERROR"[..], b"content", b"six"]);
    // The command line takes precedence over the environment.
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(place.path("received/8.file")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o640);

    let mut command = program();
    command.args(["5000", "d"]).env("ACCIO_MODE", "999");
    let output = run(command).unwrap();
    assert_eq!(output.status.code(), Some(2));
    let output = String::from_utf8(output.stderr).unwrap();
    assert!(output.contains("--mode") && output.contains("999"), "{output}");
}

#[test]
fn does_not_take_a_misspelled_flag_for_the_port() {
    let line = fails(2, &["--max-sise", "1G", "5000", "d"]);
    assert!(line.contains("'--max-sise'") && line.contains("'--max-size'"), "{line}");
    let line = fails(2, &["-5", "d"]);
    assert!(line.contains("-5"), "{line}");
}

#[test]
fn warns_about_a_misspelled_variable() {
    let place = Place::new();
    let mut command = program();
    // The client has a flag for the second variable; the third is unrelated to Accio.
    command.env("ACCIO_MAXSIZE", "1K").env("ACCIO_JOBS", "3").env("ACCIONA", "x");
    let server = Server::start_as(command, &place, &["--bind", "127.0.0.1"]);
    let line = server.line("ACCIO_MAXSIZE");
    assert!(line.contains("WARN") && line.contains("did you mean ACCIO_MAX_SIZE?"), "{line}");
    assert_eq!(server.count("unknown variable"), 1);
    server.stop(std::time::Duration::from_secs(2));
}

#[test]
fn names_the_variable_with_an_invalid_value() {
    let error = |arguments: &[&str]| {
        let mut command = program();
        command.args(["5000", "d"]).args(arguments).env("ACCIO_MAX_SIZE", "huge");
        let output = run(command).unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let line = error(&[]);
    assert!(line.starts_with("ERROR: ACCIO_MAX_SIZE: invalid value 'huge'"), "{line}");
    // The command line takes precedence, and the error names it.
    let line = error(&["--max-size", "large"]);
    assert!(line.starts_with("ERROR: invalid value 'large'"), "{line}");
    let line = error(&["--ids-from", "x"]);
    assert!(!line.contains("ACCIO_MAX_SIZE:") || line.contains("huge"), "{line}");
}

#[test]
fn parses_units_of_sizes_and_times() {
    let place = Place::new();
    let flags = ["--max-size", "1.5K", "--timeout", "2500ms", "--drain", "2s", "--min-free", "1MB"];
    let server = Server::start(&place, &flags);
    upload(server.address(), &[b'x'; 1537]).unwrap_err();
    upload(server.address(), &[b'x'; 1536]).unwrap();
    server.stop(std::time::Duration::from_secs(2));
}

/// Runs the server with a file size limit of 0 and its stdout in a file; returns its exit code and
/// stderr.
fn run_without_file_size(place: &Place, arguments: &[&str]) -> (Option<i32>, String) {
    let mut shell = command("sh");
    shell.args(["-c", "ulimit -f 0; out=$1; shift; exec \"$0\" \"$@\" >\"$out\""]);
    shell.arg(program().get_program()).arg(place.path("out")).args(arguments);
    let output = run(shell).unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn exceeding_the_file_size_limit_is_an_error_not_a_silent_end() {
    let place = Place::new();
    let dir = place.dir();
    let (code, text) = run_without_file_size(&place, &["5000", &dir, "--bind", "127.0.0.1"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.starts_with("ERROR: cannot ") && text.contains("file too large"), "{text}");

    std::fs::write(place.path("log/journal"), "").unwrap();
    let journal = place.text("log/journal");
    let (code, text) = run_without_file_size(&place, &["--verify", &journal, &dir]);
    assert_eq!(code, Some(2), "{text}");
    assert_eq!(text, "ERROR: cannot print to stdout: file too large\n");
}

#[test]
fn errors_say_what_to_do() {
    let place = Place::new();
    let dir = place.dir();
    let file = place.text("photo.jpg");
    std::fs::write(&file, "").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port().to_string();
    let port = super::harness::free_port().to_string();
    let cases: &[(i32, &[&str], &str)] = &[
        (2, &["--workers", "100000"], "too large: the maximum is 1024"),
        (2, &["--max-per-ip", "18446744073709551615"], "too large: the maximum is 4294967295"),
        (2, &["--on-commit-jobs", "2"], "--on-commit <COMMAND>"),
        (2, &["--on-commit-queue", "2"], "--on-commit <COMMAND>"),
        (2, &["--on-commit", "no-such-program"], "give the path of an executable file"),
        (1, &["--bind", "192.0.2.99"], "; use an address of this machine"),
    ];
    for (code, flags, expected) in cases {
        let line = fails(*code, &[&[port.as_str(), &dir], *flags].concat());
        assert!(line.contains(expected), "{flags:?}: {line}");
    }
    let line = fails(1, &[&taken, &dir, "--bind", "127.0.0.1"]);
    assert!(line.contains("; choose another port, or stop the program"), "{line}");
    let line = fails(1, &[&port, &file]);
    assert!(line.contains("; give the path of a directory"), "{line}");
}

#[cfg(target_os = "linux")]
#[test]
fn rejects_flags_of_a_command_without_the_command() {
    for flags in [["--accept-jobs", "2"], ["--accept-timeout", "2"]] {
        let line = fails(2, &[&["5000", "d"], &flags[..]].concat());
        assert!(line.contains("--accept-if <COMMAND>"), "{line}");
    }
    let line = fails(2, &["5000", "d", "--accept-if", "true", "--mode", "200"]);
    assert!(line.contains("; use a mode that lets the owner read"), "{line}");
}

#[cfg(feature = "metrics")]
#[test]
fn rejects_flags_of_metrics_without_metrics() {
    for flags in [&["--metrics-only"][..], &["--metrics-name", "x"]] {
        let line = fails(2, &[&["5000", "d"], flags].concat());
        assert!(line.ends_with(": it needs --metrics\n"), "{line}");
    }
}
