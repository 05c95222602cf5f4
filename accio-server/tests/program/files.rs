//! File numbers, modes of files, and listen addresses.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::harness::{Place, Server, command, json_lines, program, upload};

const SOON: Duration = Duration::from_secs(2);

#[test]
fn keep_continues_after_the_highest_number() {
    let place = Place::new();
    fs::create_dir(place.path("received")).unwrap();
    for name in ["7.file", "12.file", "007.file", "99.txt"] {
        fs::write(place.path("received").join(name), "old").unwrap();
    }
    let server = Server::start(&place, &["--existing", "keep"]);
    server.line("keeping files up to 12.file; the next is 13.file");
    upload(server.address(), b"new").unwrap();
    server.stop(SOON);
    assert_eq!(place.read(13).unwrap(), b"new");
    assert_eq!(place.read(12).unwrap(), b"old");
}

#[test]
fn keep_never_replaces_a_file_that_appears_later() {
    let place = Place::new();
    let journal = place.text("log/journal");
    let server = Server::start(&place, &["--existing", "keep", "--journal", &journal]);
    fs::write(place.path("received/1.file"), "foreign").unwrap();
    upload(server.address(), b"new").unwrap_err();
    upload(server.address(), b"next").unwrap();
    server.line("connection 1: ERROR: cannot commit the file: file exists");
    server.stop(SOON);
    assert_eq!(place.read(1).unwrap(), b"foreign");
    assert_eq!(place.read(2).unwrap(), b"next");
    let lines = json_lines(&place.path("log/journal"));
    assert_eq!(lines[0]["reason"], "exists");
    assert_eq!(lines[0]["unmarked"], "file exists");
    assert_eq!(lines[1]["outcome"], "complete");
}

#[test]
fn replaces_by_default_and_numbers_from_any_start() {
    let place = Place::new();
    fs::create_dir(place.path("received")).unwrap();
    fs::write(place.path("received/100.file"), "old").unwrap();
    let server = Server::start(&place, &["--ids-from", "100"]);
    upload(server.address(), b"new").unwrap();
    server.stop(SOON);
    assert_eq!(place.read(100).unwrap(), b"new");

    let server = Server::start(&place, &["--ids-from", "1000", "--existing", "keep"]);
    server.line("keeping files up to 100.file; the next is 1000.file");
    upload(server.address(), b"far").unwrap();
    server.stop(SOON);
    assert_eq!(place.read(1000).unwrap(), b"far");
}

#[test]
fn sets_the_exact_mode_regardless_of_the_umask() {
    for umask in ["077", "000"] {
        let place = Place::new();
        let mut command = command("sh");
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(program().get_program());
        let server = Server::start_as(command, &place, &["--mode", "604", "--bind", "127.0.0.1"]);
        upload(server.address(), b"content").unwrap();
        server.stop(SOON);
        let metadata = fs::metadata(place.path("received/1.file")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o604);
    }
}

#[test]
fn numbers_connections_to_several_addresses_together() {
    for binds in [["127.0.0.1", "127.0.0.2", "::1"], ["0.0.0.0", "::", ""]] {
        let place = Place::new();
        let flags: Vec<_> = binds
            .iter()
            .filter(|bind| !bind.is_empty())
            .flat_map(|bind| ["--bind", *bind])
            .collect();
        let server = Server::start_as(program(), &place, &flags);
        let port = server.address().port();
        for (address, content) in [("127.0.0.1", b"a"), ("127.0.0.2", b"b"), ("::1", b"c")] {
            upload(SocketAddr::new(address.parse().unwrap(), port), content).unwrap();
        }
        server.stop(SOON);
        assert_eq!([1, 2, 3].map(|id| place.read(id).unwrap()), [b"a", b"b", b"c"]);
    }
}
