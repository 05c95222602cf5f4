//! Connections with TLS: a client of rustls, which shares no code with the socket under test.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use accio_proto::tls::{ALPN, Pin, PinnedServer, TlsSocket};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig};

use super::line::{Line, LineSocket, Reported};

/// The client's end of a connection.
pub(super) struct Client {
    tls: ClientConnection,
    /// Whether the server's close_notify has arrived.
    is_closed: bool,
}

static CONFIGS: LazyLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let provider = Arc::new(default_provider());
    let versions = [&rustls::version::TLS13];

    let server = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let server = server.with_protocol_versions(&versions).unwrap().with_no_client_auth();
    let chain = vec![certificate.der().clone()];
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut server = server.with_single_cert(chain, private).unwrap();
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.send_tls13_tickets = 0;

    let verifier = PinnedServer::new([Pin::of(certificate.der()).unwrap()], &provider);
    let client = ClientConfig::builder_with_provider(provider);
    let client = client.with_protocol_versions(&versions).unwrap().dangerous();
    let client = client.with_custom_certificate_verifier(Arc::new(verifier));
    let mut client = client.with_no_client_auth();
    client.alpn_protocols = vec![ALPN.to_vec()];
    (Arc::new(server), Arc::new(client))
});

/// Completes the handshake, which takes no time and has no failures. The line is new.
pub(super) fn connect(line: &Rc<RefCell<Line>>, socket: LineSocket) -> TlsSocket<LineSocket> {
    let (server, client) = &*CONFIGS;
    let name = ServerName::try_from("receiver.example").unwrap();
    let tls = ClientConnection::new(Arc::clone(client), name).unwrap();
    let mut client = Client { tls, is_closed: false };
    let mut socket = TlsSocket::new(socket, Arc::clone(server)).unwrap();
    let disturbances = {
        let line = &mut *line.borrow_mut();
        let script = std::mem::take(&mut line.script);
        (script, std::mem::take(&mut line.full), std::mem::take(&mut line.slices))
    };
    let clock = Arc::clone(&line.borrow().clock);
    let now = *clock.lock().unwrap();
    for _ in 0..10 {
        let records = client.records();
        line.borrow_mut().queue.extend(records);
        let is_complete = socket.handshake().unwrap();
        let answer = std::mem::take(&mut line.borrow_mut().sent);
        client.receive(&answer, &mut Vec::new());
        if is_complete && !client.tls.is_handshaking() {
            break;
        }
    }
    assert!(!client.tls.is_handshaking(), "the handshake does not end");
    *clock.lock().unwrap() = now;
    let line = &mut *line.borrow_mut();
    (line.script, line.full, line.slices) = disturbances;
    line.client = Some(client);
    line.reported = Reported::default();
    socket
}

impl Client {
    /// Encrypts content and returns its records.
    pub(super) fn encrypt(&mut self, content: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        for chunk in content.chunks(16 << 10) {
            self.tls.writer().write_all(chunk).unwrap();
            records.extend(self.records());
        }
        records
    }

    /// Returns the record of a close_notify.
    pub(super) fn close_notify(&mut self) -> Vec<u8> {
        self.tls.send_close_notify();
        self.records()
    }

    /// Decrypts bytes of the server, and adds their content to `content`.
    pub(super) fn receive(&mut self, mut bytes: &[u8], content: &mut Vec<u8>) {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes).unwrap();
            self.tls.process_new_packets().unwrap();
        }
        match self.tls.reader().read_to_end(content) {
            Ok(_) => self.is_closed = true,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }
}
