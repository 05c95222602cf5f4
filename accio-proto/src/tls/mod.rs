//! TLS on either side, with rustls.
//!
//! Accio's bytes are the same inside TLS, with one difference that no network can forge: the
//! sender's close_notify ends the file, and the receiver's is the receipt. A connection that ends
//! without one is an error on either side ([`Abort::Truncated`](crate::Abort::Truncated)).
//!
//! The configuration is rustls's own. Put [`ALPN`] into its `alpn_protocols`; versions, ciphers,
//! keys and authorities are up to the caller. A public key can take the place of an authority: see
//! [`Pin`], [`PinnedServer`] and [`ListedClients`].

mod clients_file;
mod digest;
mod error;
mod identity;
mod pin;
#[cfg(feature = "server")]
mod server;
mod socket;
mod stream;
mod verify;

pub use clients_file::{InvalidClients, KnownClients};
pub use error::HandshakeFailure;
#[cfg(feature = "client")]
pub(crate) use error::{error_of, invalid};
pub use identity::certificate_name;
pub use pin::{InvalidPin, Pin};
#[cfg(feature = "server")]
pub use server::ServerTls;
pub use socket::TlsSocket;
#[cfg(feature = "client")]
pub(crate) use stream::{Output, TlsStream};
pub use verify::{ListedClients, PinnedServer};

/// The protocol's name in the TLS handshake (ALPN).
pub const ALPN: &[u8] = b"accio";
