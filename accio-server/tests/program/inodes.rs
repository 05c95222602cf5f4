//! A file system with free bytes but no free inode: connections wait for one.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use accio_harness::namespace;

use super::harness::{BOUND, Place, Server, command, finish, free_port, program, run, until};

const SECOND: Duration = Duration::from_secs(1);
/// The log line of a server that waits for a free inode.
const FULL: &str = "accepting no connections for now: no room for files";

/// Returns a server whose FILE-DIR is a file system with this many inodes, in a separate mount
/// namespace; `None` where that cannot be created.
fn start(place: &Place, inodes: u32, flags: &[&str]) -> Option<(Server, PathBuf)> {
    fs::create_dir(place.path("received")).unwrap();
    let unshare = || {
        let words = namespace::with_private_mounts();
        let mut command = command(words[0]);
        command.args(&words[1..]).args(["sh", "-c"]);
        command
    };
    let mount = format!("mount -t tmpfs -o size=64m,nr_inodes={inodes} tmpfs \"$0\"");
    let mut probe = unshare();
    probe.args([&mount, &place.dir()]);
    if !run(probe).is_ok_and(|output| output.status.success()) {
        let _ = writeln!(io::stderr(), "skipped: cannot mount in a namespace");
        return None;
    }
    let mut command = unshare();
    command.args([&format!("{mount} && exec \"$@\""), &place.dir()]).arg(program().get_program());
    command.args([&free_port().to_string(), &place.dir(), "--bind", "127.0.0.1"]).args(flags);
    let server = Server::spawn(command);
    let directory = format!("/proc/{}/root{}", server.pid(), place.dir());
    Some((server, directory.into()))
}

/// Connects and waits for the greeting, or until the server says that it accepts no connections.
fn greeted(server: &Server) -> (TcpStream, bool) {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut is_greeted = false;
    until("it is greeted or waits", || match stream.peek(&mut [0; 7]) {
        Ok(count) => {
            is_greeted = count == 7;
            is_greeted
        }
        // By the end of another test's child.
        Err(error) if error.kind() == ErrorKind::Interrupted => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "neither greeted nor waiting");
            server.count(FULL) > 0
        }
    });
    stream.set_read_timeout(Some(BOUND)).unwrap();
    if is_greeted {
        stream.read_exact(&mut [0; 7]).unwrap();
    }
    (stream, is_greeted)
}

fn count(directory: &PathBuf) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn connections_wait_for_a_free_inode_instead_of_failing() {
    for flags in [&["--min-free", "10M"][..], &["--min-free", "10M", "--durable"]] {
        let place = Place::new();
        let Some((server, directory)) = start(&place, 420, flags) else { return };
        let mut sent = 0;
        let mut waiting = loop {
            let (mut stream, is_greeted) = greeted(&server);
            if !is_greeted {
                break stream;
            }
            stream.write_all(b"content").unwrap();
            finish(stream).unwrap();
            sent += 1;
            assert!(sent < 420, "there are not so many inodes");
            // The check for room is at most a fifth of a second old.
            if sent > 400 {
                thread::sleep(Duration::from_millis(250));
            }
        };
        server.line(FULL);
        assert!(sent > 400, "{sent} uploads");
        assert_eq!(count(&directory), sent);
        for id in 1..=10 {
            fs::remove_file(directory.join(format!("{id}.file"))).unwrap();
        }
        waiting.read_exact(&mut [0; 7]).unwrap();
        waiting.write_all(b"content").unwrap();
        finish(waiting).unwrap();
        for id in 11..=sent + 1 {
            assert_eq!(fs::read(directory.join(format!("{id}.file"))).unwrap(), b"content", "{id}");
        }
        server.stop(SECOND);
    }
}
