//! Tests of the end of connections, at the socket and in a session.

use std::io::{self, ErrorKind};

use accio_proto::Socket;

use crate::content;
use crate::pair::{End, Network, Peer, Secured, network, pair, server, server_config};
use crate::pair::{Identity, SERVER, client_config, shake};

/// Receives until the end, an error, or until nothing more arrives.
pub(crate) fn receive(server: &mut Secured) -> (Vec<u8>, io::Result<()>) {
    let mut content = Vec::new();
    let mut buffer = [0; 1000];
    loop {
        match server.recv(&mut buffer) {
            Ok(0) => return (content, Ok(())),
            Ok(count) => content.extend_from_slice(&buffer[..count]),
            Err(error) => return (content, Err(error)),
        }
    }
}

fn send(network: &Network, bytes: &[u8]) {
    network.borrow_mut().to_server.extend(bytes);
}

fn end(network: &Network, end: End) {
    network.borrow_mut().client_end = Some(end);
}

#[test]
fn the_handshake_is_sent_at_once() {
    let (_, _, network) = pair();
    assert_eq!(network.borrow().sends, 1);
}

#[test]
fn close_notify_ends_the_file_and_confirms_it() {
    for size in [0, 1, 16_383, 16_384, 16_385, 300_000] {
        let (mut server, mut peer, network) = pair();
        let content = content(size);
        send(&network, &peer.encrypt(&content));
        assert_eq!(server.send(b"accio\r\n").unwrap(), 7);
        let (got, result) = receive(&mut server);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(got == content, "{size} bytes");
        send(&network, &peer.close_notify());
        assert_eq!(receive(&mut server).1.map_err(|error| error.kind()), Ok(()));
        // The result stays the same, however often it is requested and whatever follows.
        end(&network, End::Reset);
        assert_eq!(server.recv(&mut [0; 9]).unwrap(), 0);
        network.borrow_mut().client_end = None;
        assert_eq!(peer.received(), (b"accio\r\n".to_vec(), false));
        server.close();
        assert_eq!(network.borrow().server_end, Some(End::Fin));
        assert_eq!(peer.received(), (Vec::new(), true));
    }
}

#[test]
fn a_dropped_socket_resets_and_confirms_nothing() {
    let (server, mut peer, network) = pair();
    drop(server);
    assert_eq!(network.borrow().server_end, Some(End::Reset));
    assert_eq!(peer.received(), (Vec::new(), false));
}

/// Cuts a connection after `cut` bytes of its records; returns the server's result.
fn cut(size: usize, cut: usize, how: End, slice: usize) -> (bool, ErrorKind) {
    let (mut server, mut peer, network) = pair();
    network.borrow_mut().slice = slice;
    let content = content(size);
    let mut records = peer.encrypt(&content);
    records.extend(peer.close_notify());
    assert!(cut < records.len());
    send(&network, &records[..cut]);
    end(&network, how);
    let (got, result) = receive(&mut server);
    let error = result.expect_err("a file that was cut short must not be complete");
    (content.starts_with(&got), error.kind())
}

#[test]
fn truncation_at_every_byte_of_a_small_file_is_an_error() {
    // One record of 100 bytes with 22 bytes of overhead, and one of 24 bytes for the close_notify.
    for at in 0..100 + 22 + 24 {
        assert_eq!(cut(100, at, End::Fin, usize::MAX), (true, ErrorKind::UnexpectedEof), "{at}");
        assert_eq!(cut(100, at, End::Reset, 7), (true, ErrorKind::ConnectionReset), "{at}");
    }
}

#[test]
fn truncation_around_every_record_boundary_is_an_error() {
    const RECORD: usize = 16_384 + 22;
    for boundary in (0..=12).map(|records| records * RECORD) {
        for at in boundary.saturating_sub(1)..=boundary + 1 {
            let end = cut(12 * 16_384, at, End::Fin, usize::MAX);
            assert_eq!(end, (true, ErrorKind::UnexpectedEof), "{at}");
        }
    }
}

#[test]
fn ignores_bytes_after_close_notify() {
    let (mut server, mut peer, network) = pair();
    let mut records = peer.encrypt(b"a whole file");
    records.extend(peer.close_notify());
    records.extend(b"\x17\x03\x03\x00\x20 neither TLS nor of the file");
    send(&network, &records);
    end(&network, End::Reset);
    let (got, result) = receive(&mut server);
    assert_eq!((&got[..], result.is_ok()), (&b"a whole file"[..], true));
}

#[test]
fn a_close_notify_ends_the_file() {
    let (mut server, mut peer, network) = pair();
    let mut records = peer.encrypt(b"the first half");
    records.extend(peer.close_notify());
    send(&network, &records);
    assert_eq!(receive(&mut server).0, b"the first half");
    send(&network, b"the other half in the clear");
    let (got, result) = receive(&mut server);
    assert_eq!((&got[..], result.is_ok()), (&b""[..], true));
}

#[test]
fn counted_and_received_content_have_the_same_length() {
    let (mut server, mut peer, network) = pair();
    let content = content(100_000);
    send(&network, &peer.encrypt(&content));
    let mut counted = 0;
    let mut scratch = vec![0; 30_000];
    while let Ok(count) = server.discard(&mut scratch) {
        counted += count;
    }
    assert_eq!(counted, content.len());
    assert!(scratch.iter().all(|byte| *byte == 0), "nothing is copied");
}

#[test]
fn has_buffered_is_true_until_buffered_content_is_received() {
    let (mut server, mut peer, network) = pair();
    assert!(!server.has_buffered());
    let mut records = peer.encrypt(&content(40_000));
    records.extend(peer.close_notify());
    let (first, last) = records.split_at(records.len() - 10);
    send(&network, first);
    let mut taken = 0;
    let mut buffer = [0; 1000];
    while taken < 40_000 {
        taken += server.recv(&mut buffer).unwrap();
        let is_left = server.has_buffered() || !network.borrow().to_server.is_empty();
        assert!(is_left || taken == 40_000, "{taken}");
    }
    assert!(!server.has_buffered(), "close_notify is incomplete");
    send(&network, last);
    assert!(!server.has_buffered(), "close_notify is still in the system's buffer");
    assert_eq!(server.recv(&mut buffer).unwrap(), 0);
    assert!(server.has_buffered(), "the socket has received close_notify");
}

#[test]
fn bytes_that_exceed_the_send_buffer_are_sent_later() {
    let network = network();
    let mut server = server(&network, &server_config(None));
    let mut peer = Peer::new(&network, client_config(SERVER.pin(), None));
    network.borrow_mut().room = 50;
    peer.pump().unwrap();
    assert!(!server.handshake().unwrap());
    assert!(server.wants_write(), "the server's first flight has more than 50 bytes");
    shake(&mut server, &mut peer).unwrap();
    assert!(!server.wants_write());
    network.borrow_mut().room = 3;
    assert_eq!(server.send(b"accio\r\n").unwrap(), 7);
    assert!(server.wants_write());
    let again = server.send(b"accio\r\n").unwrap_err();
    assert_eq!(again.kind(), ErrorKind::WouldBlock, "content without room is not encrypted");
    let mut greeting = Vec::new();
    while server.wants_write() {
        greeting.extend(peer.received().0);
        let nothing = server.recv(&mut [0; 10]).unwrap_err();
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
    }
    greeting.extend(peer.received().0);
    assert_eq!(greeting, b"accio\r\n");
}

#[test]
fn a_reset_after_close_notify_keeps_the_file() {
    let (mut server, mut peer, network) = pair();
    let mut records = peer.encrypt(b"content");
    records.extend(peer.close_notify());
    send(&network, &records);
    end(&network, End::Reset);
    assert_eq!(server.send(b"accio\r\n").unwrap_err().kind(), ErrorKind::BrokenPipe);
    assert!(!server.wants_write());
    let (got, result) = receive(&mut server);
    assert_eq!((&got[..], result.is_ok()), (&b"content"[..], true));
}

#[test]
fn identifies_known_clients_and_rejects_others() {
    let [alice, stranger] = [(), ()].map(|()| Identity::of(Default::default()));
    let clients = format!("{} alice", alice.pin()).parse().unwrap();
    let config = server_config(Some(clients));
    for (identity, code) in [
        (Some(&alice), None),
        (Some(&stranger), Some("tls-unknown-client")),
        (None, Some("tls-no-certificate")),
    ] {
        let network = network();
        let mut server = server(&network, &config);
        let mut peer = Peer::new(&network, client_config(SERVER.pin(), identity));
        let shaken = shake(&mut server, &mut peer);
        assert_eq!(shaken.as_ref().err().map(|failure| failure.code()), code);
        if let Err(failure) = shaken {
            let known = failure.to_string().contains(&stranger.pin().to_string());
            assert_eq!(known, identity.is_some(), "{failure}");
            assert!(peer.pump().is_err(), "the client is ended by an alert");
        } else {
            assert_eq!(server.peer_certificates().unwrap()[0], alice.certificate);
        }
    }
}

#[test]
fn a_client_rejects_a_server_with_another_key() {
    let network = network();
    let mut server = server(&network, &server_config(None));
    let other = Identity::of(Default::default());
    let mut peer = Peer::new(&network, client_config(other.pin(), None));
    let failure = shake(&mut server, &mut peer).unwrap_err();
    assert_eq!(failure.code(), "tls-refused", "{failure}");
}
