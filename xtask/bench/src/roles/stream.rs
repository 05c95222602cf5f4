//! A connection of a load generator, with or without TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use accio_proto::tls::{ALPN, PinnedServer};
use anyhow::Result;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

pub(super) struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

/// Returns the TLS settings of a client that trusts one key, the same for every server.
pub(super) fn tls_config(pin: &str) -> Result<Arc<ClientConfig>> {
    let provider = Arc::new(default_provider());
    let verifier = PinnedServer::new([pin.parse()?], &provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec(), b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

impl Stream {
    pub(super) fn new(tcp: TcpStream, config: Option<Arc<ClientConfig>>) -> Result<Stream> {
        let connect = |config| -> Result<Box<ClientConnection>> {
            let name = ServerName::try_from("receiver.example")?;
            Ok(Box::new(ClientConnection::new(config, name)?))
        };
        Ok(Stream { tcp, tls: config.map(connect).transpose()? })
    }

    /// Ends the content: with TLS by close_notify and FIN, without by FIN.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            // The content is small enough for the send buffer, and so is this.
            while tls.wants_write() {
                tls.write_tls(&mut self.tcp)?;
            }
        }
        self.tcp.shutdown(Shutdown::Write)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.tcp).read(buffer),
            None => self.tcp.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.tcp).write(bytes),
            None => self.tcp.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
