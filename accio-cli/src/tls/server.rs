//! The TLS flags of a server, and the settings that result from them.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use accio_proto::tls::{ALPN, KnownClients, ListedClients, OutOfDate, Pin, ServerTls, check_dates};
use accio_proto::{FileSink, ServerBuilder};
use clap::builder::FalseyValueParser;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;

use super::TlsVersion;
use super::files::{self, KeyPair, Source};
use super::identity;
use crate::{Failure, USAGE, count};

/// The TLS flags, to be flattened into a server's arguments.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct ServerTlsFlags {
    /// Encrypt with the server's own key, which is created on first use
    ///
    /// The key and its self-signed certificate are stored as server.pem in the state directory
    /// ($STATE_DIRECTORY, $XDG_STATE_HOME/accio or ~/.local/state/accio). The server prints the pin
    /// of the key for the clients. With TLS, the client's close_notify ends a file: a connection
    /// that ends in another way leaves ERROR. Clients without TLS are refused.
    #[arg(long, env = "ACCIO_TLS", value_parser = FalseyValueParser::new())]
    pub tls: bool,
    /// Encrypt with this certificate chain (PEM); SIGHUP reloads it
    #[arg(long, value_name = "FILE", requires = "tls_key", env = "ACCIO_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert (PEM), readable only by its owner
    #[arg(long, value_name = "FILE", requires = "tls_cert", env = "ACCIO_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Accept only the clients listed in this file; SIGHUP reloads it
    ///
    /// A line has a pin and a name, as printed by `accio-client --tls-identity`: "sha256//47DE…
    /// alice". Lines that begin with # are ignored. The name is the identity in the journal and for
    /// --on-commit.
    #[arg(long, value_name = "FILE", env = "ACCIO_TLS_CLIENTS")]
    pub tls_clients: Option<PathBuf>,
    /// Accept only clients with a certificate of this authority (PEM)
    ///
    /// The identity is the first DNS name, URI or common name of the client's certificate. SIGHUP
    /// reloads the file.
    #[arg(long, value_name = "FILE", conflicts_with = "tls_clients", env = "ACCIO_TLS_CLIENT_CA")]
    pub tls_client_ca: Option<PathBuf>,
    /// Maximum number of concurrent connections per client identity
    #[arg(long, value_name = "N", value_parser = count::<NonZeroU32>, env = "ACCIO_MAX_PER_CLIENT")]
    pub max_per_client: Option<NonZeroU32>,
    /// Minimum TLS version: 1.2 or 1.3
    #[arg(long, value_name = "VERSION", default_value_t, env = "ACCIO_TLS_MIN")]
    pub tls_min: TlsVersion,
}

/// The settings that result from the flags.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// The library's settings.
    pub tls: ServerTls,
    /// The pin of the server's key.
    pub pin: Pin,
    /// The server's certificate.
    pub certificate: CertificateDer<'static>,
    /// Why the certificate is not valid now, if so. Clients that trust the pin accept it anyway.
    pub out_of_date: Option<OutOfDate>,
    /// The file of the server's own key, unless it has a certificate from a file.
    pub own_key: Option<PathBuf>,
    /// Whether that key has just been created.
    pub is_new: bool,
}

impl ServerTlsFlags {
    /// Returns whether any flag enables TLS.
    pub fn is_on(&self) -> bool {
        self.tls || self.tls_cert.is_some()
    }

    /// Checks the flags without reading any file.
    ///
    /// # Errors
    ///
    /// Returns an error if a flag requires TLS or identities that are off.
    pub fn check(&self) -> Result<(), Failure> {
        if !self.is_on() {
            let flags = [
                ("--tls-clients", self.tls_clients.is_some()),
                ("--tls-client-ca", self.tls_client_ca.is_some()),
                ("--max-per-client", self.max_per_client.is_some()),
            ];
            return match flags.into_iter().find(|(_, is_given)| *is_given) {
                Some((flag, _)) => {
                    Err(Failure::new(flag, "it needs --tls or --tls-cert").with_code(USAGE))
                }
                None => Ok(()),
            };
        }
        if self.max_per_client.is_some() && !self.names_clients() {
            let why = "clients have no identity without --tls-clients or --tls-client-ca";
            return Err(Failure::new("--max-per-client", why).with_code(USAGE));
        }
        Ok(())
    }

    /// Reads the files, and creates the server's own key if necessary; returns `None` without TLS.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`check`](Self::check), and an error if a file cannot be used or is
    /// readable by other users, or if the key does not belong to the certificate.
    pub fn load(&self) -> Result<Option<TlsSettings>, Failure> {
        self.check()?;
        if !self.is_on() {
            return Ok(None);
        }
        let (pair, own_key, is_new) = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => {
                let chain = files::certificates(Source::of_flag("--tls-cert", cert))?;
                let key = files::key(Source::of_flag("--tls-key", key))?;
                (KeyPair { chain, key }, None, false)
            }
            _ => {
                let path = identity::default_path("server.pem")?;
                let own = identity::read_or_create(Source::own(&path), "Accio server")?;
                (own.pair, Some(own.path), own.is_new)
            }
        };
        let cert = match (&self.tls_cert, &own_key) {
            (Some(cert), None) => Source::of_flag("--tls-cert", cert),
            (_, own_key) => Source::own(own_key.as_deref().unwrap_or(Path::new("server.pem"))),
        };
        let pin = Pin::of(&pair.chain[0]).map_err(|error| cert.unusable(error))?;
        let certificate = pair.chain[0].clone();
        let out_of_date = check_dates(&certificate, UnixTime::now()).err();
        let tls = self.settings(pair, cert)?;
        Ok(Some(TlsSettings { tls, pin, certificate, out_of_date, own_key, is_new }))
    }

    /// Applies the settings to a server's builder.
    pub fn apply<K: FileSink>(
        &self,
        builder: ServerBuilder<K>,
        settings: &TlsSettings,
    ) -> ServerBuilder<K> {
        let builder = builder.tls(settings.tls.clone());
        match self.max_per_client {
            Some(max) => builder.max_per_identity(max),
            None => builder,
        }
    }

    /// Returns the files that SIGHUP reads again.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.tls_cert, &self.tls_key, &self.tls_clients, &self.tls_client_ca]
            .into_iter()
            .filter_map(|path| path.as_deref())
    }

    /// Returns the command that sends a file to this server.
    pub fn client_command(&self, host: &str, port: u16, settings: &TlsSettings) -> String {
        let identity = if self.names_clients() { " --tls-identity" } else { "" };
        format!("accio-client {host} {port} FILE --tls-pin {}{identity}", settings.pin)
    }

    fn names_clients(&self) -> bool {
        self.tls_clients.is_some() || self.tls_client_ca.is_some()
    }

    fn settings(&self, pair: KeyPair, cert: Source<'_>) -> Result<ServerTls, Failure> {
        let provider = Arc::new(default_provider());
        let failed = |error: rustls::Error| Failure::new("cannot set up TLS", error);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.tls_min.versions())
            .map_err(failed)?;
        let mut known = None;
        let builder = if let Some(path) = &self.tls_clients {
            let source = Source::of_flag("--tls-clients", path);
            let text = String::from_utf8(files::read(source)?)
                .map_err(|_| source.unusable("it is not text in UTF-8"))?;
            let clients: KnownClients = text.parse().map_err(|error| {
                let advice = "each line needs a pin and a name, as in \"sha256//47DE… alice\"";
                source.unusable(error).with_advice(advice)
            })?;
            if clients.is_empty() {
                log::warn!("{path:?} is an empty list: no client may connect");
            }
            let clients = Arc::new(clients);
            known = Some(Arc::clone(&clients));
            builder.with_client_cert_verifier(Arc::new(ListedClients::new(clients, &provider)))
        } else if let Some(path) = &self.tls_client_ca {
            let source = Source::of_flag("--tls-client-ca", path);
            let roots = Arc::new(files::authorities(source)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| source.unusable(error))?)
        } else {
            builder.with_no_client_auth()
        };
        let mut config =
            builder.with_single_cert(pair.chain, pair.key).map_err(|error| cert.unusable(error))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Each connection carries one file, so a ticket for resumption would only cost time.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        let tls = ServerTls::new(config);
        Ok(match known {
            None => tls,
            Some(known) => tls.identify(move |chain| {
                let pin = Pin::of(&chain[0]).ok()?;
                known.name(&pin).map(|name| name.to_string())
            }),
        })
    }
}
