//! The properties of emulated networks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The properties of an emulated network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Profile {
    /// Delay of each byte, in one direction.
    pub(crate) latency: Duration,
    /// Maximum additional delay of a slice.
    pub(crate) jitter: Duration,
    /// Bytes per second.
    pub(crate) bandwidth: u64,
    /// Length of a segment: slices contain a number of whole segments.
    pub(crate) segment: u64,
    /// Average distance of stalls, in bytes.
    pub(crate) stall_every: u64,
    /// Maximum duration of a stall.
    pub(crate) longest_stall: Duration,
    /// The position in the stream at which both sides get a reset.
    pub(crate) reset_at: Option<u64>,
}

impl Profile {
    /// A poor network: emulates delay and loss where packets cannot be dropped.
    pub(crate) const POOR: Profile = Profile {
        latency: Duration::from_millis(15),
        jitter: Duration::from_millis(10),
        bandwidth: 24 << 20,
        segment: 1_460,
        stall_every: 6 << 20,
        // Four retransmission timeouts in a row; far below the idle timeout of ten seconds.
        longest_stall: Duration::from_millis(1_600),
        reset_at: None,
    };
    /// No delays: only the pauses at the ends of the confirmations.
    pub(crate) const DIRECT: Profile = Profile {
        latency: Duration::ZERO,
        jitter: Duration::ZERO,
        bandwidth: u64::MAX,
        segment: u64::MAX,
        stall_every: u64::MAX,
        longest_stall: Duration::ZERO,
        reset_at: None,
    };
}

/// Positions in the client's stream at which to wait until the server has read all bytes.
#[derive(Clone)]
pub(crate) struct Pauses {
    /// The positions, in ascending order.
    pub(crate) positions: Vec<u64>,
    /// Whether the server has read all bytes of the connection from this address.
    pub(crate) is_read: Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>,
}

impl Pauses {
    /// Returns no pauses.
    pub(crate) fn none() -> Pauses {
        Pauses { positions: Vec::new(), is_read: Arc::new(|_| true) }
    }

    /// Returns the first position after `position`.
    pub(super) fn next(&self, position: u64) -> u64 {
        self.positions.iter().copied().find(|at| *at > position).unwrap_or(u64::MAX)
    }
}
