//! Content that arrives together with the end of the handshake.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::pair::{SERVER, client_config};
use crate::server::{Report, RunningServer, both, open};

#[test]
fn content_in_the_same_segment_as_the_handshake_is_received_at_once() {
    both(|threading| {
        let idle = Duration::from_secs(60);
        let server = RunningServer::new(threading, open(), |builder| builder.idle_timeout(idle));
        let mut stream = server.connect();
        let name = ServerName::try_from("receiver.example").unwrap();
        let config = client_config(SERVER.pin(), None);
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        client.write_tls(&mut stream).unwrap();
        while client.is_handshaking() {
            client.read_tls(&mut stream).unwrap();
            client.process_new_packets().unwrap();
        }
        // The last message of the handshake is not sent yet.
        client.writer().write_all(b"content").unwrap();
        client.send_close_notify();
        let mut last = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut last).unwrap();
        }
        let sent = Instant::now();
        stream.write_all(&last).unwrap();
        assert_eq!(server.report(), Report::Outcome(1, "kept", None));
        assert!(sent.elapsed() < idle / 2);
        // The greeting and close_notify.
        assert!(stream.read_to_end(&mut Vec::new()).unwrap() > 7);
    });
}
