//! Tests of the handshake, before the first byte of content.

use super::*;

#[test]
fn sends_nothing_before_the_handshake_is_complete() {
    for dialect in [Dialect::Accio, Dialect::Confirm] {
        let peer = Peer::new(move |mut stream| {
            stream.set_nodelay(true).unwrap();
            let drip = |stream: &mut TcpStream| {
                for byte in GREETING {
                    expect_silence(stream);
                    stream.write_all(&[*byte]).unwrap();
                }
            };
            drip(&mut stream);
            if dialect == Dialect::Confirm {
                expect(&mut stream, FIRST_CONFIRMATION);
                drip(&mut stream);
                expect(&mut stream, SECOND_CONFIRMATION);
            }
            rest(&mut stream).unwrap()
        });
        let client = builder().dialect(dialect).build().unwrap();
        client.send("127.0.0.1", peer.port, file(b"content")).unwrap();
        assert_eq!(peer.end(), b"content");
    }
}

#[test]
fn a_wrong_greeting_fails_at_once() {
    for (dialect, wire, good) in [
        (Dialect::Accio, &b"HTTP/1.1 400\r\n"[..], 0),
        (Dialect::Accio, b"accio\n", 5),
        (Dialect::Confirm, b"accio\r\naccia", 4),
    ] {
        let peer = Peer::new(move |mut stream| {
            stream.write_all(wire).unwrap();
            rest(&mut stream)
        });
        let start = Instant::now();
        let client = builder().dialect(dialect).build().unwrap();
        let error = client.send("127.0.0.1", peer.port, file(b"x")).unwrap_err();
        let ClientError::Handshake { cause: HandshakeError::Mismatch { got, .. }, .. } = &error
        else {
            panic!("{error:?}")
        };
        assert_eq!(got.len(), good + 1);
        assert_eq!(error.code(), "handshake");
        assert!(start.elapsed() < SLACK);
        assert_eq!(peer.end().unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[test]
fn silent_and_dripping_servers_hit_the_same_deadline() {
    for drip in [false, true] {
        let peer = Peer::new(move |mut stream| {
            for byte in GREETING.iter().filter(|_| drip) {
                thread::sleep(SHORT / 3);
                if stream.write_all(&[*byte]).is_err() {
                    return true;
                }
            }
            saw_reset(stream)
        });
        let start = Instant::now();
        let client = builder().handshake_timeout(SHORT).build().unwrap();
        let error = client.send("127.0.0.1", peer.port, file(b"x")).unwrap_err();
        let took = start.elapsed();
        assert!(matches!(error, ClientError::HandshakeTimeout { .. }), "{error:?}");
        assert!((SHORT..SHORT + SLACK).contains(&took), "{took:?}");
        assert_eq!(error.code(), "handshake-timeout");
        assert!(peer.end(), "the server sees a reset");
    }
}

#[test]
fn a_close_or_reset_during_the_handshake_fails() {
    let peer = Peer::new(|mut stream| stream.write_all(&GREETING[..3]).unwrap());
    let error = client().send("127.0.0.1", peer.port, file(b"x")).unwrap_err();
    assert!(error.to_string().ends_with(r#"closed after 3 of 7 bytes of "accio\r\n""#), "{error}");
    peer.end();

    let peer = Peer::new(reset);
    let error = client().send("127.0.0.1", peer.port, file(b"x")).unwrap_err();
    assert!(matches!(error, ClientError::HandshakeBroken { .. }), "{error:?}");
    assert_eq!(error.code(), "handshake-broken");
    peer.end();
}
