//! Tests of listening sockets.

use super::*;

#[test]
fn serves_on_a_socket_that_listens_already() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let sink = MemorySink::new();
    let outcomes = Arc::new(Outcomes::default());
    // A client that connects before the server runs is served too.
    let mut early = TcpStream::connect(address).unwrap();
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    let builder = observed(builder(sink.clone()), &outcomes);
    let server = run(builder.listen(socket).unwrap(), outcomes);
    assert_eq!(server.address, address);
    greeted(&mut early);
    early.write_all(b"early").unwrap();
    drop(early);
    upload(&server, b"late");
    server.outcomes.wait(2);
    assert_eq!(sink.get(1), Some(Stored::Complete(b"early".to_vec())));
    assert_eq!(sink.get(2), Some(Stored::Complete(b"late".to_vec())));
}

#[test]
fn listens_on_ipv6_and_on_all_interfaces_over_both() {
    let sink = MemorySink::new();
    match TcpListener::bind("[::1]:0") {
        Ok(_) => {}
        Err(error) => {
            eprintln!("skipped: no IPv6 here: {error}");
            return;
        }
    }
    let server = start_at(builder(sink.clone()), "[::1]:0");
    upload(&server, b"six");
    assert!(server.outcomes.wait(1)[&1].peer.unwrap().is_ipv6());
    assert_eq!(sink.get(1), Some(Stored::Complete(b"six".to_vec())));

    let mut server = start_at(builder(MemorySink::new()), "[::]:0");
    server.address.set_ip("127.0.0.1".parse().unwrap());
    upload(&server, b"four");
    server.address.set_ip("::1".parse().unwrap());
    upload(&server, b"six");
    server.outcomes.wait(2);
}
