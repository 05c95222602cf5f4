//! Files in a store: a directory as `file://`, which uses the same code as network stores.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use accio_harness::{payload, tools};

use super::harness::{
    Place, Server, command, connect, finish, free_port, program, run, until, upload,
};
use super::usage::fails;

const STOP: Duration = Duration::from_secs(10);

fn address(place: &Place) -> String {
    format!("file://{}/in", place.text("store"))
}

fn start(place: &Place, flags: &[&str]) -> Server {
    std::fs::create_dir_all(place.path("store")).unwrap();
    let mut command = program();
    command.arg(free_port().to_string()).arg(address(place));
    command.args(["--bind", "127.0.0.1", "--node", "here"]).args(flags);
    Server::spawn(command)
}

fn object(place: &Place, name: &str) -> PathBuf {
    place.path("store").join("in/here").join(name)
}

fn read(place: &Place, id: u64) -> Option<Vec<u8>> {
    std::fs::read(object(place, &format!("{id}.file"))).ok()
}

#[test]
fn stores_complete_empty_and_marked_objects() {
    let place = Place::new();
    let server = start(&place, &[]);
    // Larger than one part.
    let large = payload::bytes(1, 20 << 20);
    upload(server.address(), b"small").unwrap();
    upload(server.address(), &large).unwrap();
    finish(connect(server.address()).unwrap()).unwrap();
    let mut failed = connect(server.address()).unwrap();
    failed.write_all(&large[..10 << 20]).unwrap();
    // With this option, closing the socket sends a reset.
    socket2::SockRef::from(&failed).set_linger(Some(Duration::ZERO)).unwrap();
    drop(failed);
    until("the reset is marked", || read(&place, 4).is_some());
    assert_eq!(read(&place, 1).unwrap(), b"small");
    assert!(read(&place, 2).unwrap() == large);
    assert_eq!(read(&place, 3).unwrap(), b"");
    assert_eq!(read(&place, 4).unwrap(), b"ERROR");
    server.stop(STOP);
    assert_eq!(std::fs::read_dir(object(&place, ".")).unwrap().count(), 4);
}

#[test]
fn a_restart_needs_a_flag_to_continue_and_removes_orphans() {
    let place = Place::new();
    let mut server = start(&place, &[]);
    upload(server.address(), b"first").unwrap();
    let mut stream = connect(server.address()).unwrap();
    std::io::Write::write_all(&mut stream, &vec![7; 20 << 20]).unwrap();
    let staged = || {
        let names = std::fs::read_dir(object(&place, ".")).unwrap();
        names.filter(|name| name.as_ref().unwrap().path().to_str().unwrap().contains('#')).count()
    };
    until("an upload in parts is under way", || staged() == 1);
    server.signal(Signal::KILL);
    server.wait();
    assert_eq!(staged(), 1);

    let server = start(&place, &["--ids-from-store", "-v"]);
    assert_eq!(staged(), 0);
    server.line("removed 1 unfinished uploads of an earlier run");
    upload(server.address(), b"second").unwrap();
    assert_eq!(read(&place, 1).unwrap(), b"first");
    assert_eq!(read(&place, 2).unwrap(), b"second");
    server.stop(STOP);

    let address = address(&place);
    let port = free_port().to_string();
    let error = fails(1, &[&port, &address, "--bind", "127.0.0.1", "--node", "here"]);
    assert!(error.contains("here/2.file exist: use --ids-from-store"), "{error}");
}

#[test]
fn refuses_to_start_after_the_largest_number() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("store/in/here")).unwrap();
    std::fs::write(object(&place, &format!("{}.file", u64::MAX)), "").unwrap();
    let (port, address) = (free_port().to_string(), address(&place));
    let error = fails(1, &[&port, &address, "--node", "here", "--ids-from-store"]);
    assert!(error.contains("its highest number is the largest possible"), "{error}");
}

#[test]
fn never_overwrites_an_existing_object() {
    let place = Place::new();
    let server = start(&place, &[]);
    std::fs::create_dir_all(place.path("store/in/here")).unwrap();
    std::fs::write(object(&place, "1.file"), "another's").unwrap();
    upload(server.address(), b"ours").unwrap_err();
    server.line("in/here/1.file exists already: does another receiver write as \"here\"?");
    assert_eq!(read(&place, 1).unwrap(), b"another's");
    server.stop(STOP);
}

#[test]
fn rejects_flags_for_directories_and_invalid_addresses() {
    let place = Place::new();
    let address = address(&place);
    let port = free_port().to_string();
    for flags in [
        &["--on-commit", "true"][..],
        &["--accept-if", "true"],
        &["--existing", "keep"],
        &["--min-free", "1"],
    ] {
        let error = fails(2, &[&[&*port, &*address], flags].concat());
        assert!(error.contains("applies to directories"), "{error}");
    }
    let error = fails(1, &[&port, "ftp://host/x"]);
    assert!(error.contains("not s3://, gs://, az://"), "{error}");
    fails(2, &[&port, &address, "--node", "a/b"]);
    fails(2, &[&port, &address, "--store-memory", "1M"]);
}

#[test]
fn without_threads_the_server_ends_with_an_error() {
    let place = Place::new();
    if let Err(why) = tools::require_tracing() {
        let _ = writeln!(std::io::stderr(), "skipped: {why}");
        return;
    }
    let mut traced = command("strace");
    traced.args(["-f", "-qq", "-o", &place.text("log/trace"), "-e", "inject=clone3:error=EAGAIN"]);
    traced.arg(program().get_program()).arg(free_port().to_string()).arg(address(&place));
    let output = run(traced).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("ERROR: cannot start a thread: "), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}
