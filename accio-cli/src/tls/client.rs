//! The TLS flags of a client, and the settings that result from them.

use std::path::PathBuf;
use std::sync::Arc;

use accio_proto::tls::{ALPN, Pin, PinnedServer};
use clap::builder::FalseyValueParser;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};

use super::TlsVersion;
use super::files::{self, Source};
use super::identity::{self, Identity};
use crate::Failure;

/// The exit code for a key or certificate of the client that cannot be used, as in curl.
pub const BAD_IDENTITY: u8 = 58;

/// The exit code for authorities that cannot be used, as in curl.
pub const BAD_AUTHORITIES: u8 = 77;

/// The TLS flags, to be flattened into a client's arguments.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "TLS")]
pub struct ClientTlsFlags {
    /// Encrypt; verify the server's name against the system's authorities
    ///
    /// With TLS, the client's close_notify ends the file and the server's close_notify confirms it.
    /// Neither can be forged by the network.
    #[arg(long, env = "ACCIO_TLS", value_parser = FalseyValueParser::new())]
    pub tls: bool,
    /// Encrypt; accept only the server with this public key (repeatable)
    ///
    /// The server prints its PIN at startup, in curl's format: sha256// and base64. The names and
    /// dates in the certificate are not checked.
    #[arg(
        long,
        value_name = "PIN",
        conflicts_with = "tls_ca",
        value_delimiter = ',',
        env = "ACCIO_TLS_PIN"
    )]
    pub tls_pin: Vec<Pin>,
    /// Encrypt; verify the server's name against these authorities (PEM)
    #[arg(long, value_name = "FILE", env = "ACCIO_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// Authenticate with this key and certificate; created on first use
    ///
    /// FILE contains both in PEM. Without FILE, it is client.pem in the state directory
    /// ($XDG_STATE_HOME/accio or ~/.local/state/accio). When the key is created, the client prints
    /// the line for the server's --tls-clients.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true,
          env = "ACCIO_TLS_IDENTITY")]
    pub tls_identity: Option<Option<PathBuf>>,
    /// Minimum TLS version: 1.2 or 1.3
    #[arg(long, value_name = "VERSION", default_value_t, env = "ACCIO_TLS_MIN")]
    pub tls_min: TlsVersion,
}

impl ClientTlsFlags {
    /// Returns whether any flag enables TLS.
    pub fn is_on(&self) -> bool {
        let verifies = !self.tls_pin.is_empty() || self.tls_ca.is_some();
        self.tls || verifies || self.tls_identity.is_some()
    }

    /// Reads the files, and creates the client's own key if necessary; returns `None` without TLS.
    ///
    /// # Errors
    ///
    /// Returns an error if a file cannot be used or is readable by other users, or if the system
    /// has no trusted authorities.
    pub fn load(&self) -> Result<Option<Arc<ClientConfig>>, Failure> {
        if !self.is_on() {
            return Ok(None);
        }
        let provider = Arc::new(default_provider());
        let failed = |error: rustls::Error| {
            Failure::new("cannot set up TLS", error).with_code(BAD_AUTHORITIES)
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(self.tls_min.versions())
            .map_err(failed)?;
        let builder = if self.tls_pin.is_empty() {
            builder.with_root_certificates(match &self.tls_ca {
                Some(path) => {
                    files::authorities(Source::of_flag("--tls-ca", path)).map_err(|failure| {
                        let advice = "use a file with certificates in PEM format, or --tls-pin";
                        failure.with_code(BAD_AUTHORITIES).with_advice(advice)
                    })?
                }
                None => system_authorities()?,
            })
        } else {
            let verifier = PinnedServer::new(self.tls_pin.iter().copied(), &provider);
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        };
        let bad_identity = |failure: Failure| {
            let advice = "if the file does not exist, the client creates it with a new key";
            failure.with_code(BAD_IDENTITY).with_advice(advice)
        };
        let mut config = match self.identity().map_err(bad_identity)? {
            None => builder.with_no_client_auth(),
            Some(Identity { pair, path, .. }) => {
                builder.with_client_auth_cert(pair.chain, pair.key).map_err(|error| {
                    bad_identity(Source::of_flag("--tls-identity", &path).unusable(error))
                })?
            }
        };
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Each connection carries one file, so sessions are never resumed.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Some(Arc::new(config)))
    }

    /// Returns the client's own key, if it has one. If the key is new, prints the line that the
    /// server's operator needs.
    fn identity(&self) -> Result<Option<Identity>, Failure> {
        let Some(path) = &self.tls_identity else { return Ok(None) };
        let path = match path {
            None => identity::default_path("client.pem")?,
            Some(path) => path.clone(),
        };
        let source = Source::of_flag("--tls-identity", &path);
        let identity = identity::read_or_create(source, "Accio client")?;
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

/// Returns a name for this client, user@host, which the operator may change.
fn suggested_name() -> String {
    let user = std::env::var("USER").unwrap_or_else(|_| "user".into());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = format!("{user}@{host}");
    name.chars().filter(|letter| !letter.is_control()).collect()
}

/// Returns the authorities that this system trusts.
fn system_authorities() -> Result<RootCertStore, Failure> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or("none found".into(), ToString::to_string);
        return Err(Failure::new("cannot load the authorities that this system trusts", why)
            .with_code(BAD_AUTHORITIES)
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
    fn each_flag_except_the_version_enables_tls() {
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
    fn an_identity_can_name_a_file() {
        assert_eq!(parse("client --tls-identity host").unwrap().tls_identity, Some(None));
        let named = parse("client --tls-identity=key.pem host").unwrap();
        assert_eq!(named.tls_identity, Some(Some("key.pem".into())));
        assert_eq!(parse("client host").unwrap().tls_identity, None);
    }
}
