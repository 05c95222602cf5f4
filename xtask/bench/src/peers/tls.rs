//! The key of the servers with TLS, and the settings that make them comparable.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use accio_harness::process::{AtDrop, Process};
use anyhow::{Result, bail};

/// The only cipher suite of nginx and curl, as OpenSSL names it: the one that rustls prefers.
pub(super) const CIPHER_SUITE: &str = "TLS_AES_256_GCM_SHA384";

/// The only key exchange of nginx and curl: the one that rustls prefers.
pub(super) const CURVE: &str = "X25519";

/// How long accio-server may take to create a key.
const LIMIT: Duration = Duration::from_secs(10);

/// A key and its certificate, in one file, and its pin.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) pem: PathBuf,
    pub(crate) pin: String,
}

/// Lets `server`, an accio-server, create a key (ECDSA with P-256) in the directory `state`.
pub(crate) fn create_identity(server: Command, state: &Path) -> Result<Identity> {
    let log = state.join("log");
    let mut command = server;
    command.env("STATE_DIRECTORY", state).arg(accio_harness::ports::free()?.to_string());
    command.arg(state).args(["--tls", "--bind", "127.0.0.1"]).stdin(Stdio::null());
    let mut process = Process::spawn_logged(command, Some(&log), AtDrop::Terminate)?;
    let end = Instant::now() + LIMIT;
    loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let (lines, _) = text.rsplit_once('\n').unwrap_or_default();
        if let Some(pin) = lines.split_whitespace().find(|word| word.starts_with("sha256//")) {
            let pin = pin.to_owned();
            process.stop()?;
            return Ok(Identity { pem: state.join("server.pem"), pin });
        }
        if Instant::now() > end || process.has_ended()? {
            bail!("accio-server printed no pin: {text}");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Adds the settings of nginx's `server` block.
pub(super) fn nginx(identity: &Identity) -> String {
    let pem = identity.pem.display();
    format!(
        "ssl_certificate {pem}; ssl_certificate_key {pem}; ssl_protocols TLSv1.3;\n\
         ssl_ecdh_curve {CURVE}; ssl_conf_command Ciphersuites {CIPHER_SUITE};\n\
         ssl_session_tickets off; ssl_session_cache none;\n"
    )
}

/// Adds the flags of curl.
pub(super) fn curl(command: &mut Command, identity: &Identity) {
    command.args(["--tlsv1.3", "--tls13-ciphers", CIPHER_SUITE, "--curves", CURVE, "--http1.1"]);
    command.args(["--insecure", "--pinnedpubkey", &identity.pin]);
}
