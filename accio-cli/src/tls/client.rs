//! A client's TLS flags and what they amount to.

use std::path::PathBuf;
use std::sync::Arc;

use accio_proto::tls::{ALPN, Pin, PinnedServer};
use clap::builder::FalseyValueParser;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};

use super::TlsVersion;
use super::files;
use super::identity::{self, Identity};
use crate::Failure;

/// The flags, to be flattened into a client's arguments.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct ClientTlsFlags {
    /// Encrypt, and verify the server's name by the authorities that this system trusts
    ///
    /// With TLS the file ends with close_notify, and the server's close_notify confirms it: no
    /// network can forge either.
    #[arg(long, env = "ACCIO_TLS", hide_env = true, value_parser = FalseyValueParser::new())]
    pub tls: bool,
    /// Encrypt, and accept the server with this public key only, as it prints it (repeatable)
    ///
    /// curl's format: sha256// and base64. Names and dates of the certificate mean nothing then.
    #[arg(
        long,
        value_name = "PIN",
        conflicts_with = "tls_ca",
        value_delimiter = ',',
        env = "ACCIO_TLS_PIN",
        hide_env = true
    )]
    pub tls_pin: Vec<Pin>,
    /// Encrypt, and verify the server's name by these authorities (PEM)
    #[arg(long, value_name = "FILE", env = "ACCIO_TLS_CA", hide_env = true)]
    pub tls_ca: Option<PathBuf>,
    /// Authenticate with this key and certificate (one PEM file), created on first use
    ///
    /// Without FILE it is client.pem in the state directory ($XDG_STATE_HOME/accio or
    /// ~/.local/state/accio). When it is created, the line for the server's --tls-clients is
    /// printed.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
          env = "ACCIO_TLS_IDENTITY", hide_env = true)]
    pub tls_identity: Option<Option<PathBuf>>,
    /// Lowest version of TLS: 1.2 or 1.3
    #[arg(long, value_name = "VERSION", default_value_t, env = "ACCIO_TLS_MIN", hide_env = true)]
    pub tls_min: TlsVersion,
}

impl ClientTlsFlags {
    /// Whether TLS is asked for.
    pub fn is_on(&self) -> bool {
        let verifies = !self.tls_pin.is_empty() || self.tls_ca.is_some();
        self.tls || verifies || self.tls_identity.is_some()
    }

    /// Reads the files, and creates the client's own key where it is needed; nothing without TLS.
    ///
    /// # Errors
    ///
    /// A file that cannot be used, or is not for its owner alone; no trusted authorities.
    pub fn load(&self) -> Result<Option<Arc<ClientConfig>>, Failure> {
        if !self.is_on() {
            return Ok(None);
        }
        let provider = Arc::new(default_provider());
        let failed = |error: rustls::Error| Failure::new("cannot set up TLS", error);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.tls_min.versions())
            .map_err(failed)?;
        let builder = if self.tls_pin.is_empty() {
            builder.with_root_certificates(match &self.tls_ca {
                Some(path) => files::authorities(path)?,
                None => system_authorities()?,
            })
        } else {
            let verifier = PinnedServer::new(self.tls_pin.iter().copied(), &provider);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        };
        let mut config = match self.identity()? {
            None => builder.with_no_client_auth(),
            Some(Identity { pair, path, .. }) => builder
                .with_client_auth_cert(pair.chain, pair.key)
                .map_err(|error| files::unreadable(&path, error))?,
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        // One connection carries one file, so that nothing is ever resumed.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Some(Arc::new(config)))
    }

    /// The client's own key, if there is to be one. Prints what the server's operator needs when it
    /// is new.
    fn identity(&self) -> Result<Option<Identity>, Failure> {
        let Some(path) = &self.tls_identity else { return Ok(None) };
        let path = match path {
            None => identity::default_path("client.pem")?,
            Some(path) => path.clone(),
        };
        let identity = identity::read_or_create(&path, "Accio client")?;
        if identity.is_new {
            crate::say(format_args!(
                "created {:?}; the server's operator adds this line to --tls-clients:",
                identity.path
            ));
            crate::say(format_args!("{} {}", identity.pin, suggested_name()));
        }
        Ok(Some(identity))
    }
}

/// A name for this client, which the operator may change: user@host.
fn suggested_name() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "user".into());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = format!("{user}@{host}");
    name.chars().filter(|letter| !letter.is_control()).collect()
}

/// The authorities that this system trusts.
fn system_authorities() -> Result<RootCertStore, Failure> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or("none found".into(), ToString::to_string);
        return Err(Failure::new("cannot load the authorities that this system trusts", why)
            .with_advice("use --tls-pin, or --tls-ca with a file"));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        tls: ClientTlsFlags,
        host: String,
    }

    fn parse(line: &str) -> Result<ClientTlsFlags, clap::Error> {
        Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.tls)
    }

    #[test]
    fn each_flag_but_the_version_asks_for_tls() {
        assert!(!parse("client host --tls-min 1.2").unwrap().is_on());
        let pin = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        for flag in ["--tls", &format!("--tls-pin {pin}"), "--tls-ca ca.pem", "--tls-identity"] {
            assert!(parse(&format!("client {flag} host")).unwrap().is_on(), "{flag}");
        }
        assert!(parse(&format!("client host --tls-pin {pin} --tls-ca ca.pem")).is_err());
        assert!(parse("client host --tls-pin sha256//short").is_err());
        assert!(parse("client host --tls-min 1.1").is_err());
    }

    #[test]
    fn an_identity_may_have_a_file() {
        assert_eq!(parse("client --tls-identity host").unwrap().tls_identity, Some(None));
        let named = parse("client --tls-identity=key.pem host").unwrap();
        assert_eq!(named.tls_identity, Some(Some("key.pem".into())));
        assert_eq!(parse("client host").unwrap().tls_identity, None);
    }
}
