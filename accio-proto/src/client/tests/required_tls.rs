//! Tests of a client without TLS whose server requires it.

use super::*;

/// The alert of a server that requires TLS, for a client without it.
const NOT_TLS: &[u8] = &[21, 3, 3, 0, 2, 2, 10];

fn is_tls_required(error: &ClientError) -> bool {
    matches!(error, ClientError::Tls { cause: TlsFailure::Required, .. })
}

#[test]
fn a_server_that_requires_tls_is_named_even_after_the_whole_file_was_sent() {
    let client = builder().dialect(Dialect::Direct).build().unwrap();
    let peer = Peer::new(move |mut stream| {
        assert_eq!(rest(&mut stream).unwrap(), b"small");
        stream.write_all(NOT_TLS).unwrap();
        reset(stream);
    });
    let error = client.send("127.0.0.1", peer.port, file(b"small")).unwrap_err();
    assert!(is_tls_required(&error), "{error:?}");
    peer.end();
}

#[test]
fn a_server_that_requires_tls_is_named_although_the_reset_was_reported_to_another_call() {
    let (ask, asked) = mpsc::channel();
    let (told, tell) = mpsc::channel();
    let peer = Peer::new(move |mut stream| {
        asked.recv_timeout(BOUND).unwrap();
        stream.write_all(NOT_TLS).unwrap();
        reset(stream);
        told.send(()).unwrap();
    });
    let client = builder().dialect(Dialect::Direct).build().unwrap();
    let mut connection = connect(&client, peer.port);
    block(connection.greet()).unwrap();
    // Only now, because a connection that is reset already cannot be set up.
    ask.send(()).unwrap();
    tell.recv_timeout(BOUND).unwrap();
    peer.end();
    connection.check_open().unwrap();
    assert!(connection.stream.take_error().unwrap().is_some());
    let error = connection.check_open().unwrap_err();
    assert!(is_tls_required(&error), "{error:?}");
}
