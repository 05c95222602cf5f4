//! Settings of a running server.

use super::acknowledgement::Acknowledgement;
use super::admission::Admission;
use super::outcome::Outcome;
use super::review::Review;
#[cfg(feature = "tls")]
use super::tls_handshake::{FailedHandshake, Identities};
use crate::dialect::ServerDialect;
#[cfg(feature = "digest")]
use crate::digest::DigestAlgorithm;
use crate::session::SessionLimits;

/// Called for every finished connection.
pub(super) type Observer = Box<dyn Fn(&Outcome) + Send + Sync>;

/// Records every finished connection, and decides when its peer is notified.
pub(super) type Recorder = Box<dyn Fn(Outcome, Acknowledgement) + Send + Sync>;

/// Decides on every complete file before it is named.
pub(super) type Reviewer = Box<dyn Fn(Review) + Send + Sync>;

/// Called for every failed TLS handshake.
#[cfg(feature = "tls")]
pub(super) type HandshakeObserver = Box<dyn Fn(&FailedHandshake) + Send + Sync>;

/// The settings that are used while serving.
pub(super) struct Config {
    pub(super) dialect: ServerDialect,
    pub(super) limits: SessionLimits,
    pub(super) max_connections: usize,
    /// Maximum number of pipes of all threads together.
    pub(super) max_pipes: usize,
    pub(super) admission: Admission,
    pub(super) proxy_protocol: bool,
    pub(super) first_id: u64,
    pub(super) local_addresses: bool,
    #[cfg(feature = "digest")]
    pub(super) digest: Option<DigestAlgorithm>,
    pub(super) on_outcome: Observer,
    pub(super) recorder: Option<Recorder>,
    pub(super) reviewer: Option<Reviewer>,
    #[cfg(feature = "tls")]
    pub(super) identities: Identities,
    #[cfg(feature = "tls")]
    pub(super) on_handshake_failure: HandshakeObserver,
}
