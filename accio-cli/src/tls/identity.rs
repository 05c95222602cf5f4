//! The program's own key and self-signed certificate, created on first use.

use std::fs::{self, DirBuilder, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use accio_proto::tls::Pin;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DistinguishedName, DnType};

use super::files::{self, KeyPair, Source};
use accio_proto::os_error_text;

use crate::Failure;

/// The program's own key.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) pair: KeyPair,
    // A server computes the pin from its settings.
    #[cfg_attr(not(feature = "tls-client"), allow(dead_code))]
    pub(super) pin: Pin,
    pub(super) path: PathBuf,
    /// Whether the key was created by this call.
    pub(super) is_new: bool,
}

/// Reads the key and certificate in `source`, or creates them for `name`.
pub(super) fn read_or_create(source: Source<'_>, name: &str) -> Result<Identity, Failure> {
    let path = source.path();
    let is_new = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, name)?,
        _ => false,
    };
    let pair = files::key_pair(source)?;
    let pin = Pin::of(&pair.chain[0]).map_err(|error| source.unusable(error))?;
    Ok(Identity { pair, pin, path: path.to_owned(), is_new })
}

/// Returns the path of the program's own key in its state directory: systemd's, or the user's.
pub(super) fn default_path(file: &str) -> Result<PathBuf, Failure> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    // The variable may contain several directories, separated by colons.
    let first = |value: std::ffi::OsString| {
        value.to_str().and_then(|value| value.split(':').next()).map(PathBuf::from)
    };
    let directory = variable("STATE_DIRECTORY")
        .and_then(first)
        .or_else(|| variable("XDG_STATE_HOME").map(|state| PathBuf::from(state).join("accio")))
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".local/state/accio")));
    let directory = directory.filter(|directory| directory.is_absolute()).ok_or_else(|| {
        Failure::new("no state directory for a key", "neither XDG_STATE_HOME nor HOME is set")
    })?;
    Ok(directory.join(file))
}

/// Creates a key and certificate; returns false if another process was faster.
fn create(path: &Path, name: &str) -> Result<bool, Failure> {
    let failed = |error: io::Error| {
        Failure::new(format_args!("cannot create the key {path:?}"), os_error_text(&error))
    };
    let text = generate(name).map_err(|error| failed(io::Error::other(error)))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    // The file gets its name when it is complete, without replacing another file.
    let random = RandomState::new().build_hasher().finish();
    let draft = path.with_extension(format!("new-{random:016x}"));
    write(&draft, &text).map_err(failed)?;
    let linked = fs::hard_link(&draft, path);
    let _ = fs::remove_file(&draft);
    match linked {
        Ok(()) => {
            // Sync the directory, so that the key survives a power loss: the clients trust it.
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Generates a key (ECDSA, P-256) and its certificate, in PEM. The certificate never expires,
/// because clients trust the key.
fn generate(name: &str) -> Result<String, rcgen::Error> {
    let key = rcgen::KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.self_signed(&key)?;
    Ok(pem("PRIVATE KEY", &key.serialize_der()) + &pem("CERTIFICATE", certificate.der()))
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = &*base64;
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn creates_a_key_once_readable_only_by_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/accio/server.pem");
        let first = read_or_create(Source::own(&path), "Accio server").unwrap();
        assert!(first.is_new);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let again = read_or_create(Source::own(&path), "Accio server").unwrap();
        assert_eq!((again.is_new, again.pin), (false, first.pin));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn concurrent_processes_agree_on_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let pins: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| read_or_create(Source::own(&path), "x").unwrap().pin))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(pins.iter().all(|pin| *pin == pins[0]));
        assert!(!create(&path, "x").unwrap(), "an existing key is never replaced");
        assert_eq!(read_or_create(Source::own(&path), "x").unwrap().pin, pins[0]);
    }

    #[test]
    fn does_not_follow_a_dangling_link() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &path).unwrap();
        assert!(read_or_create(Source::own(&path), "x").is_err());
        assert!(!dir.path().join("nowhere").exists());
    }
}
