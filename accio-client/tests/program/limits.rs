//! Time limits, missing confirmations, and shortages of this machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Output, Stdio};
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::common::{Client, accept, code, events, fails, file, listen, named, serve, text};
use accio_harness::namespace;
use accio_harness::process::{AtDrop, Process};
use accio_harness::program::command;
use accio_harness::verdict::Stop;

/// Runs a client against a server that receives everything but never closes the connection.
fn unconfirmed(flags: &[&str]) -> Output {
    let (listener, port) = listen();
    let (_file, path) = file(1000);
    let start = ["127.0.0.1", &port, &path, "--timeout=1.5", "--connect-timeout=10", "--json"];
    let client = Client::start(&[&start, flags].concat());
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    let output = client.finish();
    drop(stream);
    output
}

#[test]
fn reports_a_missing_confirmation_as_a_note_or_an_error() {
    let output = unconfirmed(&[]);
    assert_eq!(code(&output), 0);
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("note: sent "), "{stderr}");
    assert!(stderr.ends_with("so it may not have kept the file\n"), "{stderr}");
    assert_eq!(named(&events(&output), "unconfirmed").len(), 1);
    assert!(named(&events(&output), "confirmed").is_empty());

    let output = unconfirmed(&["--require-confirmation", "--retry", "3"]);
    assert_eq!(code(&output), 28);
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("ERROR: file ") && stderr.lines().count() == 1, "{stderr}");
    assert!(stderr.contains(": not confirmed: 127.0.0.1:"), "{stderr}");
    let events = events(&output);
    let failed = named(&events, "failed")[0];
    assert_eq!((&failed["code"], &failed["exit"]), (&"unconfirmed".into(), &28.into()));
    assert_eq!(named(&events, "unconfirmed").len(), 1);

    let (port, serving) = serve(1);
    let output =
        Client::start(&["127.0.0.1", &port, "/dev/null", "--require-confirmation"]).finish();
    assert_eq!(code(&output), 0);
    serving.join().unwrap();
}

#[test]
fn max_time_limits_the_whole_upload() {
    let (listener, port) = listen();
    let (_file, path) = file(1 << 20);
    let arguments = ["127.0.0.1", &port, &path, "--max-time=2", "--limit-rate=1K", "--json", "-q"];
    let start = Instant::now();
    let client = Client::start(&arguments);
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    let end = stream.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    let output = client.finish();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(code(&output), 28);
    assert!(text(&output.stderr).contains(": not complete within 2s, after "), "{output:?}");
    assert_eq!(named(&events(&output), "failed")[0]["code"], "transfer-timeout");
    for bad in ["0", "-1", "soon"] {
        assert_eq!(fails(&["127.0.0.1", &port, &path, "--max-time", bad]).0, 2);
    }
}

/// Runs the client in a shell that first sets a limit on descriptors.
fn limited(limit: &str, arguments: &[&str]) -> Client {
    let mut shell = command("sh");
    shell.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]);
    shell.arg(env!("CARGO_BIN_EXE_accio-client")).args(arguments);
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    Client(Process::spawn_logged(shell, None, AtDrop::Kill).unwrap())
}

#[test]
fn raises_the_soft_limit_on_descriptors() {
    let count = 40;
    let (port, serving) = serve(count);
    let (_file, path) = file(10);
    let files = vec![path.as_str(); count];
    let arguments = [&["127.0.0.1", &port, "--jobs=40", "-q", "--timeout=30"], &files[..]].concat();
    let output = limited("-S -n 20", &arguments).finish();
    assert_eq!((code(&output), text(&output.stderr).as_str()), (0, ""));
    assert_eq!(serving.join().unwrap().len(), count);
}

#[test]
fn retries_after_running_out_of_descriptors() {
    // Enough descriptors to start and for one upload, but not for five at once.
    let (listener, port) = listen();
    let (_file, path) = file(10);
    let start = ["127.0.0.1", &port, "--jobs=5", "--json", "--timeout=20"];
    let files = vec![path.as_str(); 5];
    let client = limited("-n 9", &[&start[..], &files].concat());
    let (ended, client_ended) = mpsc::channel::<()>();
    let serving = thread::spawn(move || {
        let mut next = Some(accept(&listener));
        // Waits until the others have failed.
        thread::sleep(Duration::from_secs(1));
        while client_ended.try_recv() != Err(TryRecvError::Disconnected) {
            if let Some(mut stream) = next {
                stream.set_nonblocking(false).unwrap();
                stream.write_all(b"accio\r\n").unwrap();
                stream.read_to_end(&mut Vec::new()).unwrap();
            }
            next = listener.accept().ok().map(|(stream, _)| stream);
        }
    });
    let output = client.finish();
    drop(ended);
    serving.join().unwrap();
    assert_eq!(code(&output), 7, "{output:?}");
    let events = events(&output);
    let failed = named(&events, "failed");
    assert!(!failed.is_empty());
    for event in failed {
        assert_eq!(event["code"], "local", "{event}");
        let message = event["message"].as_str().unwrap();
        assert!(message.contains("too many open files; use fewer --jobs"), "{message}");
    }

    // The pipe to the command needs descriptors, too.
    let output = limited("-n 6", &["127.0.0.1", "9", "--json", "--from-command", "true"]).finish();
    assert_eq!(code(&output), 7, "{output:?}");
    assert!(text(&output.stderr).contains("too many open files"), "{output:?}");

    let output = limited("-n 4", &["127.0.0.1", "9", &path, "--retry=1"]).finish();
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("retry: ") && stderr.contains("too many open files"), "{stderr}");
    assert_eq!(code(&output), 7);
}

/// Runs the named test again in a network namespace with two ports for outgoing connections. Returns
/// whether this is the run inside it.
fn with_two_ports(test: &str) -> bool {
    let range = "/proc/sys/net/ipv4/ip_local_port_range";
    let set_up = format!("ip link set lo up && echo 40000 40001 >{range}");
    match namespace::rerun(test, &set_up) {
        Ok(is_inside) => is_inside,
        Err(Stop::Skip(why)) => {
            let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
            false
        }
        Err(stop) => panic!("{stop}"),
    }
}

#[test]
fn a_lack_of_ports_is_local_and_retried() {
    if !with_two_ports("limits::a_lack_of_ports_is_local_and_retried") {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:9000").unwrap();
    let taken: Vec<_> = (0..2).map(|_| TcpStream::connect("127.0.0.1:9000").unwrap()).collect();
    taken.iter().for_each(|_| drop(accept(&listener)));
    let arguments = ["127.0.0.1", "9000", "/dev/null", "--timeout=5", "--json"];
    let output = Client::start(&arguments).finish();
    assert_eq!(code(&output), 7, "{output:?}");
    assert_eq!(named(&events(&output), "failed")[0]["code"], "local");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("this machine has no free port"), "{stderr}");

    let mut client = Client::start(&[&arguments[..], &["--retry=20"]].concat());
    let mut line = String::new();
    BufReader::new(client.0.take_error().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("retry: "), "{line}");
    drop(taken);
    let mut stream = accept(&listener);
    stream.write_all(b"accio\r\n").unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    drop(stream);
    assert_eq!(client.wait().code(), Some(0));
}

#[test]
fn gives_matching_advice_for_local_errors() {
    let (exit, line) = fails(&["fe80::1", "9", "/dev/null"]);
    assert_eq!(exit, 7);
    assert!(
        line.ends_with(
            "invalid argument; a link-local address needs its interface, as in fe80::1%eth0\n"
        ),
        "{line}"
    );
    let (exit, line) = fails(&["::1", "9", "/dev/null", "--source", "fe80::1"]);
    assert_eq!(exit, 45);
    assert!(line.contains("a link-local address needs its interface"), "{line}");
}

#[test]
fn accepts_zones_in_host_and_source() {
    // The interface exists, but the address does not, so no packet leaves this machine.
    for host in ["[fe80::1%lo]", "fe80::1%lo"] {
        let (exit, line) = fails(&[host, "9", "/dev/null", "--timeout=2"]);
        assert!(exit == 7 || exit == 28, "{line}");
        assert!(!line.contains("invalid argument") && !line.contains("resolve"), "{line}");
    }
    let (exit, line) = fails(&["::1", "9", "/dev/null", "--source", "fe80::1%lo"]);
    assert_eq!(exit, 45, "{line}");
    assert!(line.contains("source address fe80::1%1: cannot assign requested address"), "{line}");
    let (exit, line) = fails(&["::1", "9", "/dev/null", "--source", "fe80::1%no-such"]);
    assert_eq!(exit, 2, "{line}");
    assert!(line.contains("no network interface \"no-such\""), "{line}");
}
