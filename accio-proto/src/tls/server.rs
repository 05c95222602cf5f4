//! The TLS settings of a server.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;

use super::certificate_name;

/// The TLS settings of a server, including how it identifies its clients.
#[derive(Clone)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    identify: Arc<Identify>,
}

/// Returns the identity of a client, given its certificate chain, which is verified and not empty.
type Identify = dyn Fn(&[CertificateDer<'static>]) -> Option<String> + Send + Sync;

impl ServerTls {
    /// Creates settings from a rustls configuration. A client with a certificate is identified by
    /// [`certificate_name`].
    ///
    /// Disables early data, because an attacker could replay a recorded file.
    pub fn new(config: impl Into<Arc<ServerConfig>>) -> Self {
        let mut config = config.into();
        if config.max_early_data_size > 0 {
            Arc::make_mut(&mut config).max_early_data_size = 0;
        }
        let identify = |chain: &[CertificateDer<'static>]| chain.first().and_then(certificate_name);
        ServerTls { config, identify: Arc::new(identify) }
    }

    /// Sets the function that identifies clients by their certificate chain, which is verified and
    /// not empty. The result becomes the [identity](crate::Connection::identity) of the outcome.
    #[must_use]
    pub fn identify(
        self,
        identify: impl Fn(&[CertificateDer<'static>]) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        ServerTls { identify: Arc::new(identify), ..self }
    }

    /// Returns the rustls configuration.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Returns the identity of a client that presented this chain.
    pub(crate) fn name(&self, chain: Option<&[CertificateDer<'static>]>) -> Option<Arc<str>> {
        let chain = chain.filter(|chain| !chain.is_empty())?;
        (self.identify)(chain).map(Arc::from)
    }
}

impl From<ServerConfig> for ServerTls {
    fn from(config: ServerConfig) -> Self {
        ServerTls::new(config)
    }
}

impl From<Arc<ServerConfig>> for ServerTls {
    fn from(config: Arc<ServerConfig>) -> Self {
        ServerTls::new(config)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("config", &self.config).finish_non_exhaustive()
    }
}
