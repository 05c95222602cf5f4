//! A TLS server's socket and a client, connected in memory. The client is rustls's buffered one,
//! which shares no code with the socket under test.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use accio_proto::Socket;
use accio_proto::tls::{
    ALPN, HandshakeFailure, KnownClients, ListedClients, Pin, PinnedServer, TlsSocket,
};
use rcgen::{CertificateParams, CertifiedKey, CustomExtension, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, ServerConfig};

/// How a side of the connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

/// The network between the two sides.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) to_server: VecDeque<u8>,
    pub(crate) to_client: VecDeque<u8>,
    pub(crate) client_end: Option<End>,
    pub(crate) server_end: Option<End>,
    /// Maximum number of bytes per receive call of the server.
    pub(crate) slice: usize,
    /// Capacity of the server's send buffer in bytes.
    pub(crate) room: usize,
    /// Number of send calls of the server that sent something.
    pub(crate) sends: usize,
    /// Whether a call of the server has reported the reset; the kernel reports it once.
    reported: bool,
}

pub(crate) type Network = Rc<RefCell<Wire>>;

pub(crate) fn network() -> Network {
    Rc::new(RefCell::new(Wire {
        to_server: VecDeque::new(),
        to_client: VecDeque::new(),
        client_end: None,
        server_end: None,
        slice: usize::MAX,
        room: usize::MAX,
        sends: 0,
        reported: false,
    }))
}

/// The server's socket, which behaves like one of the kernel.
#[derive(Debug)]
pub(crate) struct ServerEnd(pub(crate) Network);

impl Socket for ServerEnd {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        let count = buffer.len().min(wire.to_server.len()).min(wire.slice);
        if count > 0 {
            for (to, from) in buffer.iter_mut().zip(wire.to_server.drain(..count)) {
                *to = from;
            }
            return Ok(count);
        }
        let reported = wire.reported;
        match wire.client_end {
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(End::Reset) if !reported => {
                wire.reported = true;
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Some(_) => Ok(0),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut wire = self.0.borrow_mut();
        if wire.client_end == Some(End::Reset) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let count = bytes.len().min(wire.room.saturating_sub(wire.to_client.len()));
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        wire.sends += 1;
        wire.to_client.extend(&bytes[..count]);
        Ok(count)
    }

    fn close(self) {
        self.0.borrow_mut().server_end = Some(End::Fin);
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        self.0.borrow_mut().server_end.get_or_insert(End::Reset);
    }
}

/// The client.
pub(crate) struct Peer {
    pub(crate) tls: ClientConnection,
    network: Network,
}

impl Peer {
    pub(crate) fn new(network: &Network, config: ClientConfig) -> Self {
        let name = ServerName::try_from("receiver.example").unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        Peer { tls, network: Rc::clone(network) }
    }

    /// Reads the server's bytes and sends pending ones.
    pub(crate) fn pump(&mut self) -> Result<(), rustls::Error> {
        let mut wire = self.network.borrow_mut();
        let arrived: Vec<u8> = wire.to_client.drain(..).collect();
        let mut arrived = &arrived[..];
        let mut result = Ok(());
        while !arrived.is_empty() && result.is_ok() {
            self.tls.read_tls(&mut arrived).unwrap();
            result = self.tls.process_new_packets().map(drop);
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut wire.to_server).unwrap();
        }
        result
    }

    /// Encrypts content and returns its records.
    pub(crate) fn encrypt(&mut self, content: &[u8]) -> Vec<u8> {
        let mut records = Vec::new();
        for chunk in content.chunks(16 << 10) {
            self.tls.writer().write_all(chunk).unwrap();
            while self.tls.wants_write() {
                self.tls.write_tls(&mut records).unwrap();
            }
        }
        records
    }

    /// Returns the record of a close_notify.
    pub(crate) fn close_notify(&mut self) -> Vec<u8> {
        let mut record = Vec::new();
        self.tls.send_close_notify();
        self.tls.write_tls(&mut record).unwrap();
        record
    }

    /// Returns the server's content, and whether its close_notify has arrived.
    pub(crate) fn received(&mut self) -> (Vec<u8>, bool) {
        self.pump().unwrap();
        let mut content = Vec::new();
        match io::copy(&mut self.tls.reader(), &mut content) {
            Ok(_) => (content, true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (content, false),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    key: Vec<u8>,
    /// How often the certificate is repeated in the chain.
    copies: usize,
}

impl Identity {
    pub(crate) fn of(params: CertificateParams) -> Identity {
        let signing_key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&signing_key).unwrap();
        let CertifiedKey { cert, signing_key } = CertifiedKey { cert, signing_key };
        Identity { certificate: cert.into(), key: signing_key.serialize_der(), copies: 1 }
    }

    pub(crate) fn repeat(&self, copies: usize) -> Identity {
        Identity { copies, ..self.clone() }
    }

    /// Creates a certificate with an extension of this size.
    pub(crate) fn of_size(size: usize) -> Identity {
        let mut params = CertificateParams::default();
        let extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![4; size]);
        params.custom_extensions = vec![extension];
        Identity::of(params)
    }

    pub(crate) fn pin(&self) -> Pin {
        Pin::of(&self.certificate).unwrap()
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.clone()).unwrap()
    }
}

pub(crate) static SERVER: LazyLock<Identity> =
    LazyLock::new(|| Identity::of(CertificateParams::default()));

static SERVER_CONFIG: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| server_config(None));

/// Returns the settings of a server, which accepts any client or listed ones only.
pub(crate) fn server_config(clients: Option<KnownClients>) -> Arc<ServerConfig> {
    server_config_with(Arc::new(default_provider()), clients)
}

/// Returns the settings of a server with this cryptography.
pub(crate) fn server_config_with(
    provider: Arc<CryptoProvider>,
    clients: Option<KnownClients>,
) -> Arc<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder
            .with_client_cert_verifier(Arc::new(ListedClients::new(Arc::new(clients), &provider))),
    };
    let mut config =
        builder.with_single_cert(vec![SERVER.certificate.clone()], SERVER.key()).unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// Returns the settings of a client that trusts one server key, optionally with a key of its own.
pub(crate) fn client_config(pin: Pin, identity: Option<&Identity>) -> ClientConfig {
    let provider = Arc::new(default_provider());
    let verifier = PinnedServer::new([pin], &provider);
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(
                vec![identity.certificate.clone(); identity.copies],
                identity.key(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

pub(crate) type Secured = TlsSocket<ServerEnd>;

/// Returns a server's socket before its handshake.
pub(crate) fn server(network: &Network, config: &Arc<ServerConfig>) -> Secured {
    TlsSocket::new(ServerEnd(Rc::clone(network)), Arc::clone(config)).unwrap()
}

/// Completes the handshake, or returns the server's error.
pub(crate) fn shake(server: &mut Secured, peer: &mut Peer) -> Result<(), HandshakeFailure> {
    for _ in 0..200 {
        // If the client rejects the server, it sends an alert.
        let _ = peer.pump();
        if server.handshake()? && !peer.tls.is_handshaking() {
            return Ok(());
        }
    }
    panic!("the handshake does not end");
}

/// Returns a connection whose handshake is complete.
pub(crate) fn pair() -> (Secured, Peer, Network) {
    let network = network();
    let mut server = server(&network, &SERVER_CONFIG);
    let mut peer = Peer::new(&network, client_config(SERVER.pin(), None));
    shake(&mut server, &mut peer).unwrap();
    assert!(network.borrow().to_server.is_empty());
    (server, peer, network)
}
