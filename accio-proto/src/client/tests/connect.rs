//! Tests of connecting: addresses, families, time limits, the probe.

use super::*;
use crate::client::connect::connect_error;

#[test]
fn connects_to_names_and_ipv6_addresses() {
    for (listen, host) in [("127.0.0.1:0", "localhost"), ("[::1]:0", "::1"), ("[::1]:0", "[::1]")] {
        let peer = Peer::at(listen, |mut stream| {
            greet(&mut stream, Dialect::Accio);
            rest(&mut stream).unwrap()
        });
        client().send(host, peer.port, &b"hello"[..]).unwrap();
        assert_eq!(peer.end(), b"hello");
    }
}

#[test]
fn reports_a_refused_connection() {
    let port = {
        // Bound but not listening: the connection is refused, and no other process can take the
        // port.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let error = client().send("127.0.0.1", port, file(b"x")).unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            format!("connect to 127.0.0.1 port {port}: connection refused")
        );
        assert_eq!((error.code(), error.is_local()), ("connect", false));
        port
    };
    let error = client().send("localhost", port, file(b"x")).unwrap_err();
    assert!(error.to_string().ends_with(": connection refused"), "{error}");
}

/// The error of such a connection is sometimes found while the client still waits to be connected.
#[test]
fn a_reset_after_the_connection_was_accepted_is_no_failure_to_connect() {
    let peer: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let other = "[::1]:9".parse().unwrap();
    for (dialect, code) in [(Dialect::Accio, "handshake-broken"), (Dialect::Direct, "reset")] {
        let failures = vec![
            (other, io::ErrorKind::ConnectionRefused.into()),
            (peer, io::ErrorKind::ConnectionReset.into()),
        ];
        let limit = Duration::from_secs(10);
        let error = connect_error(dialect, "h", 9, limit, failures);
        assert_eq!((error.code(), error.peer()), (code, Some(peer)), "{error}");
    }
}

#[test]
fn times_out_on_an_address_that_never_answers() {
    // A listener whose backlog is full drops further SYNs.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let listener = listener.unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let waiting: Vec<_> =
        (0..3).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(50))).collect();
    assert!(waiting.last().unwrap().is_err(), "the backlog is full");

    let start = Instant::now();
    let client = builder().connect_timeout(SHORT).build().unwrap();
    let error = client.send("127.0.0.1", address.port(), file(b"x")).unwrap_err();
    assert!(matches!(error, ClientError::ConnectTimeout { .. }), "{error:?}");
    // The connecting poll counts in milliseconds, and rounds down.
    let least = SHORT - Duration::from_millis(2);
    assert!((least..SHORT + SLACK).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(error.code(), "connect-timeout");
    assert!(error.to_string().ends_with("no answer within 300ms"), "{error}");
}

#[test]
fn reports_an_unknown_host_in_time() {
    let start = Instant::now();
    let client = builder().connect_timeout(SHORT * 3).build().unwrap();
    let error = client.send("does-not-exist.invalid", 9, file(b"x")).unwrap_err();
    assert!(start.elapsed() < SHORT * 3 + SLACK);
    match &error {
        ClientError::Resolve { .. } => assert_eq!(error.code(), "resolve"),
        ClientError::ResolveTimeout { .. } => assert_eq!(error.code(), "resolve-timeout"),
        _ => panic!("{error:?}"),
    }
    assert!(error.to_string().starts_with(r#"resolve "does-not-exist.invalid": "#), "{error}");

    for host in ["", "nul\0nul", "two words"] {
        let error = client.send(host, 9, file(b"x")).unwrap_err();
        assert!(error.to_string().starts_with(&format!("resolve {host:?}: ")), "{error}");
    }
}

#[test]
fn family_and_source_address_select_among_the_addresses() {
    for family in [Family::Any, Family::Ipv4] {
        let peer = good(Dialect::Accio);
        let client = builder().family(family).build().unwrap();
        let sent = client.send("127.0.0.1", peer.port, &b""[..]).unwrap();
        assert!(family.has(sent.peer.ip()));
        peer.end();
    }
    for (builder, why) in [
        (builder().family(Family::Ipv6), "IPv6"),
        (builder().source_address((Ipv6Addr::LOCALHOST, 0)), "IPv6"),
    ] {
        let error = builder.build().unwrap().send("127.0.0.1", 9, &b""[..]).unwrap_err();
        assert_eq!(error.to_string(), format!(r#"resolve "127.0.0.1": it has no {why} address"#));
        assert!(matches!(error, ClientError::NoAddress { family: Family::Ipv6, .. }));
    }

    let source: IpAddr = "127.0.0.9".parse().unwrap();
    let peer = Peer::new(|mut stream| {
        greet(&mut stream, Dialect::Accio);
        stream.peer_addr().unwrap().ip()
    });
    let client = builder().source_address((source, 0)).build().unwrap();
    // The peer closes without reading to the end; the test only checks the source address.
    let _ = client.send("127.0.0.1", peer.port, &b""[..]);
    assert_eq!(peer.end(), source);

    // A documentation address, which no machine has.
    let foreign: IpAddr = "203.0.113.7".parse().unwrap();
    let client = builder().source_address((foreign, 0)).build().unwrap();
    let error = client.send("127.0.0.1", 9, &b""[..]).unwrap_err();
    let expected = "source address 203.0.113.7: cannot assign requested address";
    assert_eq!((error.to_string().as_str(), error.code()), (expected, "source-address"));
    assert!(error.is_local() && !error.is_transient());
}

#[test]
fn probe_reports_received_bytes_and_sends_none() {
    // Longer than a busy machine may delay the first byte of the peer.
    let quiet = SHORT * 4;
    for (wire, stays, finding) in [
        (&b"accio\r\n"[..], true, Finding::Greets),
        (b"", true, Finding::Silent),
        (b"acc", true, Finding::Stops),
        (b"acc", false, Finding::Hangs),
        (b"", false, Finding::Hangs),
        (b"accio\r\n", false, Finding::Hangs),
        (b"accio\r\naccio\r\n", true, Finding::Foreign),
        (b"220 \x1b[2J ready\r\n", true, Finding::Foreign),
        (&[b'x'; 5000], true, Finding::Foreign),
    ] {
        let peer = Peer::new(move |mut stream| {
            if stays {
                stream.write_all(wire).unwrap();
            } else {
                // Sent in one segment with the FIN.
                rustix::net::send(&stream, wire, rustix::net::SendFlags::MORE).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            }
            let mut sent = Vec::new();
            let end = stream.read_to_end(&mut sent).map_err(|error| error.kind());
            (sent, end)
        });
        let client = builder().handshake_timeout(quiet).build().unwrap();
        let start = Instant::now();
        let probe = client.probe("127.0.0.1", peer.port).unwrap();
        assert!(start.elapsed() < quiet + SLACK);
        assert_eq!(probe.addresses.len(), 1);
        let [AddressProbe { address, result: Ok(heard), .. }] = &probe.probed[..] else {
            panic!("{probe:?}")
        };
        assert_eq!((address.port(), heard.finding), (peer.port, finding), "{heard:?}");
        assert_eq!(heard.bytes, wire[..wire.len().min(limits::PROBE_BYTES)]);
        assert_eq!(heard.spoke_after.is_some(), !wire.is_empty());
        assert_eq!(peer.end(), (vec![], Err(ErrorKind::ConnectionReset)), "{finding:?}");
    }
}

#[test]
fn probe_tries_both_families() {
    let v4 = Peer::at("127.0.0.1:0", |mut stream| {
        greet(&mut stream, Dialect::Accio);
        saw_reset(stream)
    });
    // localhost has an IPv4 address on every machine; only that one is listened on.
    let client = builder().handshake_timeout(SHORT).build().unwrap();
    let probe = client.probe("localhost", v4.port).unwrap();
    for probed in &probe.probed {
        match &probed.result {
            Ok(heard) => assert!(probed.address.is_ipv4() && heard.finding == Finding::Greets),
            Err(error) => {
                assert!(probed.address.is_ipv6());
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            }
        }
    }
    assert!(probe.probed.iter().any(|probed| probed.result.is_ok()));
    assert!(v4.end());
}

#[test]
fn rejects_time_limits_out_of_range() {
    for (name, builder) in [
        ("connect_timeout", Client::builder().connect_timeout(Duration::ZERO)),
        ("handshake_timeout", Client::builder().handshake_timeout(Duration::MAX)),
        ("stall_timeout", Client::builder().stall_timeout(Duration::ZERO)),
        (
            "confirm_timeout",
            Client::builder().confirm_timeout(limits::MAX_TIMEOUT + Duration::from_nanos(1)),
        ),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
        assert_eq!((error.code(), error.is_local()), ("limit", true));
    }
    assert!(Client::builder().stall_timeout(limits::MAX_TIMEOUT).build().is_ok());
}
