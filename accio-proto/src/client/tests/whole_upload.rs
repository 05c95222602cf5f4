//! Tests of the time limit for a whole upload.

use super::*;

/// Sends with a time limit for the whole upload; no other limit expires.
fn limited(limit: Duration, port: u16, source: impl Into<Source<'static>>) -> ClientError {
    let client = builder().transfer_timeout(limit).build().unwrap();
    let start = Instant::now();
    let error = client.send("127.0.0.1", port, source).unwrap_err();
    let took = start.elapsed();
    assert!((limit..limit + SLACK).contains(&took), "{took:?}");
    assert!(error.is_transient() && !error.is_local());
    assert_eq!(error.code(), "transfer-timeout");
    error
}

#[test]
fn transfer_timeout_applies_in_each_phase() {
    let silent = Peer::new(saw_reset);
    let error = limited(SHORT, silent.port, &b"x"[..]);
    assert_eq!(error.to_string(), "not complete within 300ms, after at most 0 bytes");
    assert!(error.peer().is_some() && silent.end());

    let stuck = Peer::new(|mut stream| {
        greet(&mut stream, Dialect::Accio);
        thread::sleep(SHORT * 3);
        saw_reset(stream)
    });
    assert!(matches!(
        limited(SHORT, stuck.port, sparse(64 << 20)),
        ClientError::TransferTimeout { sent: 1.., .. }
    ));
    assert!(stuck.end());

    let never_confirms = Peer::new(|mut stream| {
        greet(&mut stream, Dialect::Accio);
        assert_eq!(rest(&mut stream).unwrap(), b"all");
        thread::sleep(SHORT * 3);
    });
    assert!(matches!(
        limited(SHORT, never_confirms.port, &b"all"[..]),
        ClientError::TransferTimeout { sent: 3, .. }
    ));
    never_confirms.end();
}

#[test]
fn transfer_timeout_ends_an_active_transfer() {
    let peer = Peer::new(|mut stream| {
        greet(&mut stream, Dialect::Accio);
        saw_reset(stream)
    });
    let rate = NonZeroU64::new(100_000).unwrap();
    let client = builder().transfer_timeout(SHORT).rate_limit(rate).build().unwrap();
    let start = Instant::now();
    let error = client.send("127.0.0.1", peer.port, sparse(10 << 20)).unwrap_err();
    assert!(matches!(error, ClientError::TransferTimeout { .. }), "{error}");
    assert!(start.elapsed() < SHORT + SLACK);
    assert!(peer.end());
}

#[test]
fn an_upload_within_the_transfer_timeout_succeeds() {
    let peer = good(Dialect::Confirm);
    let client = builder().dialect(Dialect::Confirm).transfer_timeout(BOUND).build().unwrap();
    assert!(client.send("127.0.0.1", peer.port, &b"content"[..]).unwrap().confirmed);
    assert_eq!(peer.end(), b"content");
    assert!(builder().transfer_timeout(Duration::ZERO).build().is_err());
}
