//! TLS on a client's connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;

use super::connection::Connection;
use super::error::ClientError;
use super::event::ClientEvent;
use super::secured::{Counted, Secured};
use super::settings::Settings;
use super::tls_failure::TlsFailure;
use super::transport::Transport;
use crate::program_log as log;
use crate::tls::{HandshakeFailure, TlsStream};

impl Settings {
    /// Returns the name that the certificate of the server must have, if TLS is used.
    pub(super) fn server_name(
        &self,
        host: &str,
    ) -> Result<Option<ServerName<'static>>, ClientError> {
        if self.tls.is_none() {
            return Ok(None);
        }
        let name = server_name(host).ok_or_else(|| ClientError::TlsName { host: host.to_owned() });
        name.map(Some)
    }
}

impl Connection<'_> {
    /// Performs the TLS handshake, if TLS is used.
    pub(super) async fn secure(
        &mut self,
        name: Option<ServerName<'static>>,
    ) -> Result<(), ClientError> {
        let (Some(config), Some(name)) = (&self.settings.tls, name) else { return Ok(()) };
        let (peer, after) = (self.peer, self.settings.config.handshake_timeout);
        let failed = |cause| ClientError::Tls { peer, end_sent: false, cause };
        let started = Instant::now();
        let connection = UnbufferedClientConnection::new(Arc::clone(config), name)
            .map_err(|error| failed(HandshakeFailure::from(error).into()))?;
        let mut stream = TlsStream::new(connection);
        let mut written = 0;
        loop {
            let socket = &mut Counted(&self.stream, &mut written);
            if stream.handshake(socket).map_err(|failure| failed(failure.into()))? {
                break;
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failed(TlsFailure::Late(after)));
            }
            self.wait(stream.wants_write(), left)
                .await
                .map_err(|error| failed(TlsFailure::Lost(error)))?;
        }
        log::debug!(
            "TLS handshake with {peer} complete: {:?}, {:?}",
            stream.state().protocol_version(),
            stream.state().negotiated_cipher_suite(),
        );
        self.transport = Transport::Tls(Box::new(Secured::new(stream)));
        self.settings.report(|| ClientEvent::Secured { peer, took: started.elapsed() });
        Ok(())
    }
}

/// Returns the host as a certificate names it: without the brackets of an IPv6 address and without
/// its zone.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let address = literal.split_once('%').map_or(literal, |(address, _)| address);
    match address.parse::<IpAddr>() {
        Ok(ip) => Some(ServerName::IpAddress(ip.into())),
        Err(_) => ServerName::try_from(host).ok().map(|name| name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn converts_hosts_to_names_in_certificates() {
        for (host, name) in [
            ("receiver.example", "receiver.example"),
            ("192.0.2.7", "192.0.2.7"),
            ("::1", "::1"),
            ("[fe80::1%eth0]", "fe80::1"),
        ] {
            assert_eq!(server_name(host).unwrap().to_str(), name);
        }
        for bad in ["", "a b", "ä", "-", "a..b"] {
            assert_eq!(server_name(bad), None, "{bad:?}");
        }
    }
}
