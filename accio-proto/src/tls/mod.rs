//! TLS for clients and servers, with rustls.
//!
//! The bytes of a connection are the same as without TLS, with one difference: the sender's
//! close_notify ends the file, and the receiver's close_notify confirms it. Neither can be forged
//! on the network. For both sides, a connection that ends without close_notify is an error
//! ([`Abort::Truncated`](crate::Abort::Truncated)).
//!
//! The configuration is that of rustls. Add [`ALPN`] to its `alpn_protocols`; versions, cipher
//! suites, keys and authorities are the caller's choice. Instead of an authority, a public key can
//! be trusted: see [`Pin`], [`PinnedServer`] and [`ListedClients`].

mod clients_file;
mod digest;
mod error;
mod identity;
mod pin;
#[cfg(feature = "server")]
mod server;
mod socket;
mod stream;
mod validity;
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
pub use validity::{OutOfDate, check_dates};
pub use verify::{ListedClients, PinnedServer};

/// The protocol's name in the TLS handshake (ALPN).
pub const ALPN: &[u8] = b"accio";
