//! Reads keys, certificates and lists of clients.

use std::fmt::Display;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use accio_proto::os_error_text;

use crate::Failure;

/// A certificate with its chain, and its private key.
#[derive(Debug)]
pub(super) struct KeyPair {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

/// Maximum number of bytes read from a file; bundles of authorities have a few hundred kilobytes.
const FILE_MAX: u64 = 8 << 20;

/// A file that the program reads, and the flag that names it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    /// `None` for a file in the state directory.
    flag: Option<&'static str>,
    path: &'a Path,
}

impl<'a> Source<'a> {
    /// Returns the file at `path`, given as the value of `flag`.
    pub(super) fn of_flag(flag: &'static str, path: &'a Path) -> Self {
        Source { flag: Some(flag), path }
    }

    /// Returns a file that no flag names.
    #[cfg(any(test, feature = "tls-server"))]
    pub(super) fn own(path: &'a Path) -> Self {
        Source { flag: None, path }
    }

    pub(super) fn path(self) -> &'a Path {
        self.path
    }

    /// Returns the failure to use this file.
    pub(super) fn unusable(self, why: impl Display) -> Failure {
        let flag = self.flag.map(|flag| format!("{flag} ")).unwrap_or_default();
        Failure::new(format_args!("cannot use {flag}{:?}", self.path), why)
    }
}

/// Reads a file.
pub(super) fn read(source: Source<'_>) -> Result<Vec<u8>, Failure> {
    let (file, _) = open(source)?;
    read_open(source, file)
}

/// Reads a file that must be secret. Like sshd, rejects a file that belongs neither to this user nor
/// to root, that all users may read, or that the group may read unless the file belongs to root.
pub(super) fn read_secret(source: Source<'_>) -> Result<Vec<u8>, Failure> {
    let (file, metadata) = open(source)?;
    let (user, owner) = (rustix::process::geteuid().as_raw(), metadata.uid());
    if owner != user && owner != 0 {
        return Err(source
            .unusable(format_args!("its owner, the user {owner}, may read it"))
            .with_advice(format_args!("use a file of the user {user} or of root")));
    }
    let forbidden = if owner == user { 0o077 } else { 0o007 };
    if metadata.mode() & forbidden != 0 {
        let (mode, path) = (metadata.mode() & 0o777, source.path);
        return Err(source
            .unusable(format_args!("others may read it (mode {mode:03o})"))
            .with_advice(format_args!("chmod 600 {path:?}")));
    }
    read_open(source, file)
}

/// Opens a regular file. Opening a pipe would wait for its other end, so it must not block.
fn open(source: Source<'_>) -> Result<(File, Metadata), Failure> {
    let failed = |error| source.unusable(os_error_text(&error));
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(source.path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false => Err(source.unusable("it is not a regular file")),
    }
}

fn read_open(source: Source<'_>, file: File) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| source.unusable(os_error_text(&error)))?;
    match bytes.len() as u64 > FILE_MAX {
        true => Err(source.unusable("it is larger than 8 MiB")),
        false => Ok(bytes),
    }
}

/// Reads certificates in PEM; at least one is required.
pub(super) fn certificates(source: Source<'_>) -> Result<Vec<CertificateDer<'static>>, Failure> {
    certificates_in(source, &read(source)?)
}

/// Reads a private key in PEM from a secret file.
#[cfg(any(test, feature = "tls-server"))]
pub(super) fn key(source: Source<'_>) -> Result<PrivateKeyDer<'static>, Failure> {
    key_in(source, &read_secret(source)?)
}

/// Reads a private key and its certificate in PEM from one secret file.
pub(super) fn key_pair(source: Source<'_>) -> Result<KeyPair, Failure> {
    let bytes = read_secret(source)?;
    Ok(KeyPair { chain: certificates_in(source, &bytes)?, key: key_in(source, &bytes)? })
}

/// Reads certificates of authorities in PEM; at least one valid one is required.
pub(super) fn authorities(source: Source<'_>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(source)? {
        roots.add(certificate).map_err(|error| source.unusable(error))?;
    }
    Ok(roots)
}

fn certificates_in(
    source: Source<'_>,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let certificates = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(source.unusable("it has no certificate in PEM format"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => {
            Err(source.unusable(format_args!("it is not in PEM format: {}", pem_reason(&error))))
        }
    }
}

fn key_in(source: Source<'_>, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Failure> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => source.unusable("it has no private key in PEM format"),
        error => source
            .unusable(format_args!("it has no private key in PEM format: {}", pem_reason(&error))),
    })
}

/// Returns the text of an error; that of the library contains lines as lists of numbers.
fn pem_reason(error: &pem::Error) -> String {
    match error {
        pem::Error::IllegalSectionStart { .. } => "a BEGIN line is malformed".to_owned(),
        pem::Error::MissingSectionEnd { .. } => "an END line is missing".to_owned(),
        pem::Error::Base64Decode(_) => "it contains invalid base64".to_owned(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn rejects_a_key_that_others_may_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        fs::write(&path, "no key").unwrap();
        for (mode, refused) in [
            (0o644, true),
            (0o640, true),
            (0o604, true),
            (0o601, true),
            (0o600, false),
            (0o400, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let text = key(Source::own(&path)).unwrap_err().to_string();
            assert_eq!(text.contains("others may read it"), refused, "{text}");
            assert!(refused || text.contains("no private key in PEM format"), "{text}");
        }
    }

    #[test]
    fn rejects_a_key_of_another_user() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        fs::write(&path, "no key").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        // Only root may give a file away.
        if std::os::unix::fs::chown(&path, Some(12_345), None).is_ok() {
            let text = key(Source::of_flag("--tls-key", &path)).unwrap_err().to_string();
            assert!(text.starts_with("cannot use --tls-key"), "{text}");
            assert!(text.contains("its owner, the user 12345, may read it"), "{text}");
        }
    }

    // rustix creates no pipes with a name on macOS.
    #[cfg(target_os = "linux")]
    #[test]
    fn rejects_a_pipe_without_waiting_for_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        for path in [&path, dir.path()] {
            let text = read(Source::of_flag("--tls-cert", path)).unwrap_err().to_string();
            assert!(text.ends_with("it is not a regular file"), "{text}");
            let text = key(Source::of_flag("--tls-key", path)).unwrap_err().to_string();
            assert!(text.ends_with("it is not a regular file"), "{text}");
        }
    }

    #[test]
    fn rejects_files_without_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        assert!(certificates(Source::own(&path)).unwrap_err().to_string().contains("no such file"));
        for bad in [
            "",
            "garbage",
            "-----BEGIN NOTHING",
            "-----BEGIN CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        ] {
            fs::write(&path, bad).unwrap();
            let text = certificates(Source::own(&path)).unwrap_err().to_string();
            assert!(text.contains("in PEM format") && !text.contains("[45"), "{text}");
            assert!(authorities(Source::own(&path)).is_err(), "{bad:?}");
        }
    }
}
