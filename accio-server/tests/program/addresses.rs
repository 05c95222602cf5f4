//! The addresses that the server listens on, and those that it reports.

use std::io::Write;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener};
use std::time::Duration;

use super::harness::{Place, Server, connect, finish, json_lines, program, until, upload};

const SOON: Duration = Duration::from_secs(2);

#[test]
fn by_default_all_interfaces_are_served_over_ipv4_and_ipv6() {
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

/// A link-local address of this machine, and its interface: number and name. What is sent to it from
/// here stays on the machine.
fn link_local() -> Option<(Ipv6Addr, u32, String)> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let ip = Ipv6Addr::from(u128::from_str_radix(words.next()?, 16).ok()?);
        let number = u32::from_str_radix(words.next()?, 16).ok()?;
        let name = words.nth(3)?;
        ip.is_unicast_link_local().then(|| (ip, number, name.to_owned()))
    })
}

#[test]
fn the_zone_of_a_link_local_address_is_kept() {
    let Some((ip, number, name)) = link_local() else {
        let _ = writeln!(std::io::stderr(), "skipped: this machine has no link-local address");
        return;
    };
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
fn metrics_are_served_on_a_link_local_address() {
    let Some((ip, number, name)) = link_local() else {
        let _ = writeln!(std::io::stderr(), "skipped: this machine has no link-local address");
        return;
    };
    let place = Place::new();
    let port = super::harness::free_port();
    let server = Server::start(&place, &["--metrics", &format!("[{ip}%{name}]:{port}")]);
    let address = SocketAddrV6::new(ip, port, 0, number);
    until("metrics", || std::net::TcpStream::connect(address).is_ok());
    server.stop(SOON);
}

#[test]
fn a_zone_that_the_machine_lacks_is_a_usage_error() {
    for (flag, value) in [("--bind", "fe80::1%nope0"), ("--bind", "::1%lo")] {
        let line = super::usage::fails(2, &["5000", "d", flag, value]);
        assert!(line.contains(value), "{line}");
    }
    assert!(!std::path::Path::new("d").exists());
}
