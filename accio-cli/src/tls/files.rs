//! Reads keys, certificates and lists of clients.

use std::fmt::Display;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = File::open(path).map_err(|error| unreadable(path, os_error_text(&error)))?;
    read_open(path, file)
}

/// Reads a file that must be secret. Like ssh, rejects a file that all users may read, or that the
/// group may read unless the file belongs to another user.
pub(super) fn read_secret(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = File::open(path).map_err(|error| unreadable(path, os_error_text(&error)))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, os_error_text(&error)))?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    let forbidden = if own { 0o077 } else { 0o007 };
    if metadata.mode() & forbidden != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(unreadable(path, format_args!("others may read it (mode {mode:03o})"))
            .with_advice(format_args!("chmod 600 {path:?}")));
    }
    read_open(path, file)
}

fn read_open(path: &Path, file: File) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(path, os_error_text(&error)))?;
    match bytes.len() as u64 > FILE_MAX {
        true => Err(unreadable(path, "it is larger than 8 MiB")),
        false => Ok(bytes),
    }
}

/// Reads certificates in PEM; at least one is required.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    certificates_in(path, &read(path)?)
}

/// Reads a private key in PEM from a secret file.
#[cfg(any(test, feature = "tls-server"))]
pub(super) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    key_in(path, &read_secret(path)?)
}

/// Reads a private key and its certificate in PEM from one secret file.
pub(super) fn key_pair(path: &Path) -> Result<KeyPair, Failure> {
    let bytes = read_secret(path)?;
    Ok(KeyPair { chain: certificates_in(path, &bytes)?, key: key_in(path, &bytes)? })
}

/// Reads certificates of authorities in PEM; at least one valid one is required.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| unreadable(path, error))?;
    }
    Ok(roots)
}

fn certificates_in(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let certificates = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(unreadable(path, "it has no certificate in PEM format"))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => {
            Err(unreadable(path, format_args!("it is not in PEM format: {}", pem_reason(&error))))
        }
    }
}

fn key_in(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, Failure> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => unreadable(path, "it has no private key in PEM format"),
        error => unreadable(
            path,
            format_args!("it has no private key in PEM format: {}", pem_reason(&error)),
        ),
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

/// Returns the failure to use a file.
pub(super) fn unreadable(path: &Path, why: impl Display) -> Failure {
    Failure::new(format_args!("cannot use {path:?}"), why)
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
            let text = key(&path).unwrap_err().to_string();
            assert_eq!(text.contains("others may read it"), refused, "{text}");
            assert!(refused || text.contains("no private key in PEM format"), "{text}");
        }
    }

    #[test]
    fn rejects_files_without_certificates() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        assert!(certificates(&path).unwrap_err().to_string().contains("no such file"));
        for bad in [
            "",
            "garbage",
            "-----BEGIN NOTHING",
            "-----BEGIN CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        ] {
            fs::write(&path, bad).unwrap();
            let text = certificates(&path).unwrap_err().to_string();
            assert!(text.contains("in PEM format") && !text.contains("[45"), "{text}");
            assert!(authorities(&path).is_err(), "{bad:?}");
        }
    }
}
