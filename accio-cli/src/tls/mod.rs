//! TLS in the programs: flags, and files of keys and certificates.

#[cfg(feature = "tls-client")]
mod client;
mod files;
mod identity;
#[cfg(feature = "tls-server")]
mod server;

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "tls-client")]
pub use rustls::ClientConfig;
use rustls::SupportedProtocolVersion;

#[cfg(feature = "tls-client")]
pub use client::{BAD_AUTHORITIES, BAD_IDENTITY, ClientTlsFlags};
#[cfg(feature = "tls-server")]
pub use server::{ServerTlsFlags, TlsSettings};

/// The minimum TLS version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersion {
    /// 1.2
    V12,
    /// 1.3
    #[default]
    V13,
}

impl TlsVersion {
    /// Returns the enabled versions.
    fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        static V13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
        match self {
            TlsVersion::V12 => rustls::ALL_VERSIONS,
            TlsVersion::V13 => V13,
        }
    }
}

impl FromStr for TlsVersion {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "1.2" => Ok(TlsVersion::V12),
            "1.3" => Ok(TlsVersion::V13),
            _ => Err("use 1.2 or 1.3"),
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            TlsVersion::V12 => "1.2",
            TlsVersion::V13 => "1.3",
        })
    }
}
