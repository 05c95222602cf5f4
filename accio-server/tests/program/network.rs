//! Stores behind a network, tested with servers installed on this machine. Where a server is
//! missing, its test prints that it is skipped.

use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

use accio_harness::process::{Input, NO_OWNER, Process};
use accio_harness::{payload, tools};

use super::harness::{Place, Server, connect, finish, free_port, program, until, upload};
use super::usage::fails;

const STOP: Duration = Duration::from_secs(10);

/// The server of a store, killed when dropped.
struct Store {
    _process: Process,
    port: u16,
}

impl Store {
    /// Starts the command for a free port; `None` if the program is not installed.
    fn start(name: &str, command: impl Fn(u16) -> Command) -> Option<Self> {
        if tools::find(name).is_none() {
            let _ = writeln!(io::stderr(), "skipped: {name} is not installed");
            return None;
        }
        let port = free_port();
        let process = Process::spawn(command(port), NO_OWNER, Input::Null).unwrap();
        let store = Store { _process: process, port };
        until(name, || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        Some(store)
    }
}

fn receiver(address: &str, flags: &[&str]) -> Command {
    let mut command = program();
    command.arg(free_port().to_string()).arg(address);
    command.args(["--bind", "127.0.0.1", "--node", "here"]).args(flags);
    command
}

/// Largest file that fits into one request to a store without multipart uploads.
const WHOLE: usize = 8 << 20;

#[test]
fn webdav_accepts_files_that_fit_into_one_request() {
    let place = Place::new();
    let directory = place.path("dav");
    std::fs::create_dir(&directory).unwrap();
    let served = directory.clone();
    let Some(store) = Store::start("rclone", move |port| {
        let mut command = Command::new("rclone");
        command.args(["serve", "webdav", "--addr", &format!("127.0.0.1:{port}")]);
        // A file put directly into the served directory must be visible immediately.
        command.args(["--dir-cache-time", "0s"]).arg(&served);
        command
    }) else {
        return;
    };
    let address = format!("http://127.0.0.1:{}/in", store.port);
    let read = |id: u64| std::fs::read(directory.join(format!("in/here/{id}.file"))).ok();
    let whole = payload::bytes(1, WHOLE);

    let server = Server::spawn(receiver(&address, &[]));
    upload(server.address(), b"small").unwrap();
    finish(connect(server.address()).unwrap()).unwrap();
    upload(server.address(), &whole).unwrap();
    upload(server.address(), &[&whole[..], b"!"].concat()).unwrap_err();
    server.line("this store does not support uploads in parts");
    until("all are there", || read(4).is_some());
    assert_eq!(read(1).unwrap(), b"small");
    assert_eq!(read(2).unwrap(), b"");
    assert!(read(3).unwrap() == whole);
    assert_eq!(read(4).unwrap(), b"ERROR");
    std::fs::write(directory.join("in/here/5.file"), "another's").unwrap();
    upload(server.address(), b"ours").unwrap_err();
    server.line("5.file exists already");
    assert_eq!(read(5).unwrap(), b"another's");
    server.stop(STOP);

    let port = free_port().to_string();
    let error = fails(1, &[&port, &address, "--bind", "127.0.0.1", "--node", "here", "-q"]);
    assert!(error.contains("here/5.file exist: use --ids-from-store"), "{error}");
    let server = Server::spawn(receiver(&address, &["--ids-from-store"]));
    upload(server.address(), b"next").unwrap();
    assert_eq!(read(6).unwrap(), b"next");
    server.stop(STOP);
}
