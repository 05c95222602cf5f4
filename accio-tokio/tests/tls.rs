//! Tests of TLS on tokio: a server and a client, each with a key of its own.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::time::Duration;

use accio_proto::tls::{ALPN, Pin, PinnedServer, ServerTls};
use accio_proto::{ClientError, MemorySink, Server, Stored};
use accio_tokio::{Client, Serving, serve_with};
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Maximum duration of any wait in these tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a server that stores files in memory, and the pin of its key.
async fn start(files: &MemorySink) -> (Serving, Pin) {
    let key = KeyPair::generate().unwrap();
    let certificate: CertificateDer<'static> =
        CertificateParams::default().self_signed(&key).unwrap().into();
    let pin = Pin::of(&certificate).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth();
    let mut config = config.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let builder = Server::builder(files.clone()).tls(ServerTls::new(config));
    (serve_with([listener], builder).unwrap(), pin)
}

/// Returns a client that trusts only the server with this key.
fn client(pin: Pin) -> Client {
    let provider = Arc::new(default_provider());
    let verifier = PinnedServer::new([pin], &provider);
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    accio_proto::Client::builder().tls(config).build().unwrap().into()
}

#[tokio::test]
async fn sends_and_receives_files_of_every_size() {
    let files = MemorySink::new();
    let (server, pin) = start(&files).await;
    let (client, port) = (client(pin), server.local_addr().port());
    for (id, length) in (1..).zip([0, 1, 16_384, 16_385, (5 << 20) + 7]) {
        let content: Vec<u8> = (0..length).map(|index: usize| (index % 251) as u8).collect();
        let sent = client.send("127.0.0.1", port, &content[..]);
        assert!(timeout(PATIENCE, sent).await.unwrap().unwrap().confirmed);
        assert!(files.get(id) == Some(Stored::Complete(content)), "{length} bytes");
    }
    timeout(PATIENCE, server.stop()).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_client_rejects_a_server_with_another_key() {
    let files = MemorySink::new();
    let (server, _) = start(&files).await;
    let (other, pin) = start(&files).await;
    let port = server.local_addr().port();
    let client = client(pin);
    let sent = client.send("127.0.0.1", port, &b"secret"[..]);
    let error = timeout(PATIENCE, sent).await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Tls { .. }), "{error}");
    drop((server, other));
    assert_eq!(files.get(1), None);
}

/// The connection has no number, because its handshake failed.
#[tokio::test]
async fn the_server_resets_a_client_without_tls() {
    let files = MemorySink::new();
    let (server, _) = start(&files).await;
    let handle = server.handle();
    let mut stream = TcpStream::connect(server.local_addr()).await.unwrap();
    stream.write_all(b"not a handshake of TLS").await.unwrap();
    let mut answer = Vec::new();
    // The server may send an alert first.
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap_err();
    timeout(PATIENCE, server.stop()).await.unwrap().unwrap();
    assert_eq!((handle.stats().refused, handle.stats().accepted), (1, 0));
    assert_eq!(files.get(1), None);
}
