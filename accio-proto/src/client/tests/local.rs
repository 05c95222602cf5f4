//! Tests of failures that the client's own machine causes.

use std::net::SocketAddr;

use rustix::io::Errno;

use super::*;

fn connect_error(failures: &[Errno]) -> ClientError {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 9));
    let failures = failures.iter().map(|errno| (address, io::Error::from(*errno))).collect();
    ClientError::Connect { host: "h".into(), port: 9, failures }
}

#[test]
fn a_lack_of_descriptors_memory_or_ports_is_local_and_transient() {
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL] {
        let error = connect_error(&[errno, errno]);
        assert_eq!((error.code(), error.is_local(), error.is_transient()), ("local", true, true));
        let error = ClientError::Local { what: "open a socket", cause: errno.into() };
        assert_eq!((error.code(), error.is_local(), error.is_transient()), ("local", true, true));
    }
    for errno in [Errno::INVAL, Errno::PERM, Errno::ACCESS] {
        let error = connect_error(&[errno]);
        assert_eq!((error.code(), error.is_local(), error.is_transient()), ("local", true, false));
    }
    for failures in [&[Errno::CONNREFUSED][..], &[Errno::MFILE, Errno::CONNREFUSED], &[]] {
        let error = connect_error(failures);
        assert_eq!(
            (error.code(), error.is_local(), error.is_transient()),
            ("connect", false, true)
        );
        assert!(error.local_cause().is_none());
    }
}

#[test]
fn a_link_local_address_without_its_zone_is_a_local_failure() {
    let error = client().send("fe80::1", 9, &b""[..]).unwrap_err();
    assert_eq!(error.code(), "local", "{error}");
    assert_eq!(error.to_string(), "connect to fe80::1 port 9: invalid argument");
}

#[test]
fn keeps_the_zone_with_and_without_brackets() {
    for host in ["fe80::1%lo", "[fe80::1%lo]", "[fe80::1%1]"] {
        let addresses = client().settings.resolve(host, 80, Instant::now() + BOUND).unwrap();
        let [SocketAddr::V6(address)] = addresses[..] else { panic!("{addresses:?}") };
        assert_eq!((address.ip().to_string().as_str(), address.port()), ("fe80::1", 80));
        assert_eq!(address.scope_id(), 1, "the loopback interface");
    }
    for host in ["[fe80::1%]", "[localhost]", "[fe80::1%no-such-interface]"] {
        let error = client().settings.resolve(host, 80, Instant::now() + BOUND).unwrap_err();
        assert!(matches!(error, ClientError::Resolve { .. }), "{error}");
    }
}

#[test]
fn a_source_address_without_a_free_port_is_reported_as_in_use() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _holder = TcpListener::bind(taken).unwrap();
    let client = builder().source_address(taken).build().unwrap();
    let error = client.send("127.0.0.1", 9, &b""[..]).unwrap_err();
    assert_eq!(error.to_string(), format!("source address {taken}: address already in use"));
    assert_eq!((error.code(), error.is_transient()), ("source-address", false));
}
