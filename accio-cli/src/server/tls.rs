//! TLS of a running server: printing its pin, reloading its files.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use accio_proto::{FileSink, ServerBuilder, ServerHandle, os_error_text};
use rustls::pki_types::CertificateDer;

use crate::tls::{ServerTlsFlags, TlsSettings};
use crate::{Failure, say};

/// The TLS settings of a running server.
#[derive(Debug)]
pub(super) struct Tls {
    flags: ServerTlsFlags,
    settings: TlsSettings,
    /// The certificate in use.
    certificate: Mutex<CertificateDer<'static>>,
    handle: OnceLock<ServerHandle>,
}

impl Tls {
    /// Loads the files named by the flags; returns `None` without TLS.
    pub(super) fn load(flags: &ServerTlsFlags) -> Result<Option<Arc<Tls>>, Failure> {
        let Some(settings) = flags.load()? else { return Ok(None) };
        if let Some(why) = settings.out_of_date {
            log::warn!("clients without a pin refuse the certificate: {why}");
        }
        let certificate = Mutex::new(settings.certificate.clone());
        let (flags, handle) = (flags.clone(), OnceLock::new());
        Ok(Some(Arc::new(Tls { flags, settings, certificate, handle })))
    }

    /// Applies the TLS settings to `builder`.
    pub(super) fn configure<K: FileSink>(&self, builder: ServerBuilder<K>) -> ServerBuilder<K> {
        self.flags.apply(builder, &self.settings)
    }

    /// Opens the directories of the files that are reloaded, both those of links and those of their
    /// targets.
    pub(super) fn directories(&self) -> Result<Vec<OwnedFd>, Failure> {
        let mut directories: Vec<PathBuf> = Vec::new();
        // A reload reads the server's own key, too.
        let own_key = self.settings.own_key.as_deref();
        let own_key = own_key.filter(|_| self.flags.files().next().is_some());
        for path in self.flags.files().chain(own_key) {
            let resolved = std::fs::canonicalize(path).ok();
            for path in [Some(path), resolved.as_deref()].into_iter().flatten() {
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                directories.push(parent.unwrap_or(Path::new(".")).to_owned());
            }
        }
        directories.sort();
        directories.dedup();
        let open = |directory: &PathBuf| {
            File::open(directory).map(OwnedFd::from).map_err(|error| {
                Failure::new(format_args!("cannot use {directory:?}"), os_error_text(&error))
            })
        };
        directories.iter().map(open).collect()
    }

    /// Prints the command with which a client can send a file.
    pub(super) fn announce(&self, address: SocketAddr) {
        if let Some(path) = self.settings.own_key.as_ref().filter(|_| self.settings.is_new) {
            say(format_args!("created the key {path:?}"));
        }
        let command = |host: &str| self.flags.client_command(host, address.port(), &self.settings);
        match address.ip() {
            ip if ip.is_unspecified() => {
                // Clients may not be able to resolve the name.
                let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
                let command = command(&host);
                say(format_args!(
                    "send files with ({host:?} or this machine's address): {command}"
                ));
            }
            ip => say(format_args!("send files with: {}", command(&ip.to_string()))),
        }
    }

    /// Makes reloads take effect in this server.
    pub(super) fn serve(&self, handle: ServerHandle) {
        // This is set once, when the server has started.
        let _ = self.handle.set(handle);
    }

    /// Reads the files again. If they are invalid, the server continues with the old ones.
    pub(super) fn reload(&self) {
        let Some(handle) = self.handle.get() else { return };
        if self.flags.files().next().is_none() {
            return;
        }
        let loaded = self.flags.load().and_then(|settings| match settings {
            Some(settings) => self.check(&settings).map(|()| Some(settings)),
            None => Ok(None),
        });
        match loaded {
            Ok(Some(settings)) => {
                *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) =
                    settings.certificate;
                handle.set_tls(settings.tls);
                log::info!("TLS files reloaded");
            }
            Ok(None) => {}
            Err(failure) => {
                log::error!("cannot reload the TLS files, continuing with the old ones: {failure}");
            }
        }
    }

    /// Rejects another certificate than the one in use if clients without a pin would refuse it. The
    /// same one must not prevent a reload of the other files.
    fn check(&self, settings: &TlsSettings) -> Result<(), Failure> {
        let current = self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        match settings.out_of_date {
            Some(why) if settings.certificate != *current => {
                Err(Failure::new("the certificate is not valid", why)
                    .with_advice("renew it, then send SIGHUP again"))
            }
            Some(why) => {
                log::warn!("clients without a pin refuse the certificate: {why}");
                Ok(())
            }
            None => Ok(()),
        }
    }
}
