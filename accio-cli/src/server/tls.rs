//! TLS of a running server: printing its pin, reloading its files.

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use accio_proto::{FileSink, ServerBuilder, ServerHandle, os_error_text};

use crate::tls::{ServerTlsFlags, TlsSettings};
use crate::{Failure, say};

/// The TLS settings of a running server.
#[derive(Debug)]
pub(super) struct Tls {
    flags: ServerTlsFlags,
    settings: TlsSettings,
    handle: OnceLock<ServerHandle>,
}

impl Tls {
    /// Loads the files named by the flags; returns `None` without TLS.
    pub(super) fn load(flags: &ServerTlsFlags) -> Result<Option<Arc<Tls>>, Failure> {
        let settings = flags.load()?;
        Ok(settings.map(|settings| {
            Arc::new(Tls { flags: flags.clone(), settings, handle: OnceLock::new() })
        }))
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
        match self.flags.load() {
            Ok(Some(settings)) => {
                handle.set_tls(settings.tls);
                log::info!("TLS files reloaded");
            }
            Ok(None) => {}
            Err(failure) => {
                log::error!("cannot reload the TLS files, continuing with the old ones: {failure}");
            }
        }
    }
}
