//! The addresses that the server listens on, and those that it reports.

use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::time::Duration;

use accio_harness::namespace;
use accio_harness::verdict::Stop;

use super::harness::{Place, Server, connect, finish, json_lines, program, until, upload};

const SOON: Duration = Duration::from_secs(2);

#[test]
fn listens_on_all_interfaces_over_ipv4_and_ipv6_by_default() {
    let place = Place::new();
    let server = Server::start_as(program(), &place, &[]);
    let port = server.address().port();
    let listening = server.line("listening on ");
    upload(SocketAddr::new("127.0.0.1".parse().unwrap(), port), b"four").unwrap();
    if TcpListener::bind("[::1]:0").is_ok() {
        assert_eq!(listening, format!("listening on 0.0.0.0:{port}, [::]:{port}"));
        upload(SocketAddr::new("::1".parse().unwrap(), port), b"six").unwrap();
    } else {
        assert_eq!(listening, format!("listening on 0.0.0.0:{port}"));
        let _ = writeln!(std::io::stderr(), "skipped: this machine has no IPv6");
    }
    server.stop(SOON);
}

/// The address and the interface inside the namespace of [`in_namespace`].
const LINK_LOCAL: (Ipv6Addr, &str) = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), "lo");

/// Runs the named test again in a network namespace whose loopback interface has a link-local
/// address, so that the test does not depend on the machine's interfaces. Returns the interface's
/// index inside the namespace, and `None` outside.
fn in_namespace(test: &str) -> Option<u32> {
    let set_up =
        "ip link set lo up && ip address add fe80::1/64 dev lo nodad && mount -t sysfs sysfs /sys";
    match namespace::rerun(&format!("addresses::{test}"), set_up) {
        Ok(true) => {
            let number = std::fs::read_to_string("/sys/class/net/lo/ifindex").unwrap();
            Some(number.trim().parse().unwrap())
        }
        Ok(false) => None,
        Err(Stop::Skip(why)) => {
            let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
            None
        }
        Err(stop) => panic!("{stop}"),
    }
}

#[test]
fn keeps_the_zone_of_a_link_local_address() {
    let Some(number) = in_namespace("keeps_the_zone_of_a_link_local_address") else { return };
    let (ip, name) = LINK_LOCAL;
    let place = Place::new();
    let script = place.script("hook", "echo \"$ACCIO_PEER\" >\"$0.out\"");
    let journal = place.text("log/journal");
    let bind = format!("{ip}%{name}");
    let flags = ["--bind", &bind, "--on-commit", &script, "--journal", &journal];
    let server = Server::start_as(program(), &place, &flags);
    let address = SocketAddrV6::new(ip, server.address().port(), 0, number);
    assert_eq!(server.address(), address.into());
    let mut stream = connect(address.into()).unwrap();
    let own = stream.local_addr().unwrap().port();
    stream.write_all(b"content").unwrap();
    finish(stream).unwrap();
    let peer = format!("[{ip}%{name}]:{own}");
    until("the command ran", || std::fs::read_to_string(place.path("hook.out")).is_ok());
    until("its output", || {
        std::fs::read_to_string(place.path("hook.out")).unwrap().trim_end() == peer
    });
    server.stop(SOON);
    assert_eq!(json_lines(&place.path("log/journal"))[0]["peer"], peer);
}

#[cfg(feature = "metrics")]
#[test]
fn serves_metrics_on_a_link_local_address() {
    let Some(number) = in_namespace("serves_metrics_on_a_link_local_address") else { return };
    let (ip, name) = LINK_LOCAL;
    let place = Place::new();
    let port = super::harness::free_port();
    let server = Server::start(&place, &["--metrics", &format!("[{ip}%{name}]:{port}")]);
    let address = SocketAddrV6::new(ip, port, 0, number);
    until("metrics", || std::net::TcpStream::connect(address).is_ok());
    server.stop(SOON);
}

#[test]
fn rejects_a_zone_that_the_machine_does_not_have() {
    for (flag, value) in [("--bind", "fe80::1%nope0"), ("--bind", "::1%lo")] {
        let line = super::usage::fails(2, &["5000", "d", flag, value]);
        assert!(line.contains(value), "{line}");
    }
    assert!(!std::path::Path::new("d").exists());
}
