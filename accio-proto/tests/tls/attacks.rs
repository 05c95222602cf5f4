//! Hostile peers. None of them may cause a complete file, a panic, unbounded memory or an endless
//! call.

use std::io::{self, ErrorKind};

use accio_proto::Socket;
use accio_proto::tls::HandshakeFailure;

use crate::ends::receive;
use crate::pair::{Identity, Network, Peer, Secured};
use crate::pair::{SERVER, client_config, network, pair, server, server_config, shake};

/// Passes these bytes to a server instead of a handshake.
fn sent(bytes: &[u8]) -> (Secured, Network, Result<bool, HandshakeFailure>) {
    let network = network();
    let mut server = server(&network, &server_config(None));
    network.borrow_mut().to_server.extend(bytes);
    let result = server.handshake();
    (server, network, result)
}

fn code(bytes: &[u8]) -> &'static str {
    sent(bytes).2.expect_err("no handshake").code()
}

/// Returns a record with bytes of a handshake.
fn record(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[22, 3, 1], &length[..], content].concat()
}

#[test]
fn recognizes_a_peer_without_tls_by_its_first_byte() {
    for bytes in [&b"confirm-accio\r\n"[..], b"GET / HTTP/1.1\r\n", b"\0", b"\xff", b"S"] {
        let (_, _, result) = sent(bytes);
        let failure = result.unwrap_err();
        assert_eq!(failure.code(), "tls-plain");
        assert!(matches!(&failure, HandshakeFailure::NotTls(first) if first == bytes), "{failure}");
    }
}

#[test]
fn rejects_oversized_records() {
    // Before the handshake.
    assert_eq!(code(&[22, 3, 1, 0xff, 0xff, 1, 0]), "tls-invalid");
    // After the handshake, the record is rejected because of its header.
    let (mut server, _, network) = pair();
    network.borrow_mut().to_server.extend([23, 3, 3, 0x48, 0x01]);
    assert_eq!(receive(&mut server).1.unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn rejects_an_endless_handshake() {
    // One message that claims to be endless, in full records.
    let mut flood = record(&[&[1, 0xff, 0xff, 0xff][..], &[0; 16_000]].concat());
    flood.extend(record(&[0; 16_000]).repeat(20));
    assert_eq!(code(&flood), "tls-invalid");
    // One message just below the limit of rustls, in tiny records.
    let mut flood = record(&[1, 0, 0xff, 0xf0]);
    flood.extend(record(&[0]).repeat(60_000));
    let (_, _, result) = sent(&flood);
    let failure = result.unwrap_err();
    assert!(["tls-invalid", "tls-too-long"].contains(&failure.code()), "{failure}");
    // Only change_cipher_spec messages, which TLS 1.3 ignores.
    assert_eq!(code(&[20, 3, 3, 0, 1, 1].repeat(60_000)), "tls-invalid");
    // Only alerts that are warnings.
    assert_eq!(code(&[21, 3, 3, 0, 2, 1, 90].repeat(60_000)), "tls-invalid");
}

#[test]
fn rejects_endless_empty_handshake_records() {
    let (server, network, result) = sent(&record(&[]).repeat(100_000));
    assert!(result.is_err(), "{result:?}");
    drop(server);
    assert!(network.borrow().to_client.len() < 1000);
}

#[test]
fn rejects_endless_key_updates() {
    let (mut server, mut peer, network) = pair();
    let mut updates = 0;
    let refused = loop {
        peer.tls.refresh_traffic_keys().unwrap();
        let mut record = Vec::new();
        peer.tls.write_tls(&mut record).unwrap();
        network.borrow_mut().to_server.extend(&record);
        updates += 1;
        match receive(&mut server).1.unwrap_err() {
            error if error.kind() == ErrorKind::WouldBlock => {}
            error => break error,
        }
        assert!(updates < 1000, "the server takes any number of key updates");
    };
    assert_eq!(refused.kind(), ErrorKind::InvalidData);
    assert!(network.borrow().to_client.len() < 10_000);
}

#[test]
fn accepts_key_updates_between_content() {
    let (mut server, mut peer, network) = pair();
    for round in 0..10 {
        peer.tls.refresh_traffic_keys().unwrap();
        let mut records = Vec::new();
        peer.tls.write_tls(&mut records).unwrap();
        records.extend(peer.encrypt(&[round; 100]));
        network.borrow_mut().to_server.extend(&records);
        assert_eq!(receive(&mut server).0, [round; 100]);
        // The server has replied with a new key of its own.
        assert_eq!(server.send(b"x").unwrap(), 1);
        assert_eq!(peer.received(), (b"x".to_vec(), false));
    }
}

#[test]
fn changed_bytes_are_an_error_and_never_content() {
    for at in 0..100 + 22 {
        let (mut server, mut peer, network) = pair();
        let mut records = peer.encrypt(&[7; 100]);
        records.extend(peer.close_notify());
        records[at] ^= 1;
        network.borrow_mut().to_server.extend(&records);
        let (content, result) = receive(&mut server);
        match result.map_err(|error| error.kind()) {
            // The type and version in the header are not authenticated and have no effect.
            Ok(()) => assert!(at < 3 && content == [7; 100], "{at}"),
            // With a larger length, the server waits for bytes that never arrive.
            Err(ErrorKind::WouldBlock) => assert!(at == 3 && content.is_empty(), "{at}"),
            Err(kind) => assert!(kind == ErrorKind::InvalidData && content.is_empty(), "{at}"),
        }
    }
}

#[test]
fn repeated_or_reordered_records_are_an_error() {
    for order in [[0, 0, 1], [1, 0, 0]] {
        let (mut server, mut peer, network) = pair();
        let records = [peer.encrypt(b"one"), peer.encrypt(b"two")];
        for index in order {
            network.borrow_mut().to_server.extend(&records[index]);
        }
        let (content, result) = receive(&mut server);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidData);
        assert!(content.is_empty() || content == b"one");
    }
}

#[test]
fn accepts_a_large_certificate_but_no_chain_above_64_kib() {
    let identity = Identity::of_size(60_000);
    for (copies, is_fine) in [(1, true), (2, false)] {
        let clients = format!("{} large", identity.pin()).parse().unwrap();
        let network = network();
        let mut server = server(&network, &server_config(Some(clients)));
        let identity = identity.repeat(copies);
        let mut peer = Peer::new(&network, client_config(SERVER.pin(), Some(&identity)));
        let shaken = shake(&mut server, &mut peer);
        let code = shaken.err().map(|failure| failure.code());
        assert_eq!(code, (!is_fine).then_some("tls-invalid"), "{copies} of 60 kB");
    }
}

#[test]
fn a_receive_call_without_content_returns() {
    /// Sends a record one byte at a time, forever.
    #[derive(Debug)]
    struct Trickle(u64);
    impl Socket for Trickle {
        fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            assert!(self.0 < 1 << 20, "the call does not end");
            buffer[0] = [22, 3, 1, 0, 0][(self.0 - 1) as usize % 5];
            Ok(1)
        }
        fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn close(self) {}
    }
    let config = server_config(None);
    let mut server = accio_proto::tls::TlsSocket::new(Trickle(0), config).unwrap();
    assert!(server.handshake().is_err());
}
