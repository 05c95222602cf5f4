//! How the descriptors of the process are divided among connections, pipes and everything else.

use super::threading_mode::Threading;
use crate::program_log as log;
use crate::sys::process;
use crate::tuning::server::{
    RESERVED_DESCRIPTORS, RESERVED_PIPES, RESERVED_PIPES_SHARE, UNKNOWN_DESCRIPTOR_LIMIT,
};

/// Number of descriptors of a pipe.
const PIPE: u64 = 2;

/// The descriptors of the process. Each accepted connection can open its file, because pipes, which
/// are only faster, get nothing that it needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptors {
    /// Maximum number of open descriptors.
    limit: u64,
    /// Number of descriptors for everything except connections and pipes.
    reserved: u64,
    /// Number of descriptors that a connection needs.
    each: u64,
    /// Number of pipes that connections leave room for.
    pipes: u64,
    /// Whether the descriptors of a connection include a pipe.
    includes_pipe: bool,
}

impl Descriptors {
    /// Reads the limit of the process. `reads_back` says whether content is read back from its file.
    pub(super) fn of_process(threading: Threading, reads_back: bool) -> Self {
        let limit = process::descriptor_limit().unwrap_or_else(|error| {
            log::debug!("cannot read the descriptor limit: {error}");
            Some(UNKNOWN_DESCRIPTOR_LIMIT)
        });
        Descriptors::new(limit.unwrap_or(u64::MAX), threading, reads_back)
    }

    fn new(limit: u64, threading: Threading, reads_back: bool) -> Self {
        let includes_pipe = threading == Threading::Runtime;
        // A small limit is for a small server.
        let (least, most) = RESERVED_DESCRIPTORS;
        let reserved = (32 + limit / 8).clamp(least, most);
        let pipes = match includes_pipe {
            true => 0,
            false => RESERVED_PIPES.min(limit / RESERVED_PIPES_SHARE / PIPE),
        };
        Descriptors {
            limit,
            reserved,
            each: threading.descriptors(reads_back),
            pipes,
            includes_pipe,
        }
    }

    /// Returns the number of descriptors that a connection needs.
    pub(super) fn each(&self) -> u64 {
        self.each
    }

    /// Returns the maximum number of connections, at least one.
    pub(super) fn max_connections(&self) -> usize {
        let connections = self.available().saturating_sub(PIPE * self.pipes) / self.each;
        usize::try_from(connections).unwrap_or(usize::MAX).max(1)
    }

    /// Returns the maximum number of pipes of all threads together, next to this number of
    /// connections.
    pub(super) fn max_pipes(&self, connections: usize) -> usize {
        let needed = self.each.saturating_mul(connections as u64);
        let more = self.available().saturating_sub(needed) / PIPE;
        let included = if self.includes_pipe { connections } else { 0 };
        usize::try_from(more).unwrap_or(usize::MAX).saturating_add(included)
    }

    fn available(&self) -> u64 {
        self.limit.saturating_sub(self.reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_pipes_share_the_descriptors() {
        let of = |limit, threading, reads_back| {
            let descriptors = Descriptors::new(limit, threading, reads_back);
            let connections = descriptors.max_connections();
            (connections, descriptors.max_pipes(connections))
        };
        for threading in [Threading::Reactor, Threading::PerSession] {
            assert_eq!(of(1024, threading, false), (432, 32));
            assert_eq!(of(1024, threading, true), (288, 32));
            assert_eq!(of(200, threading, false), (62, 6));
            assert_eq!(of(20_000, threading, false), (9888, 64));
            assert_eq!(of(64, threading, false), (1, 0), "there is always a connection");
        }
        assert_eq!(of(1024, Threading::Runtime, false), (185, 186));
        assert_eq!(of(1024, Threading::Runtime, true), (154, 156));
        assert!(of(u64::MAX, Threading::Reactor, false).0 > 1 << 31);
    }

    #[test]
    fn pipes_get_what_fewer_connections_leave() {
        let descriptors = Descriptors::new(1024, Threading::Reactor, false);
        assert_eq!(descriptors.max_pipes(432), 32);
        assert_eq!(descriptors.max_pipes(100), 364);
        assert_eq!(descriptors.max_pipes(1000), 0);
    }

    /// Whatever the limit is, connections and pipes leave the reserve.
    #[test]
    fn the_reserve_is_never_used() {
        for limit in RESERVED_DESCRIPTORS.0 + 3..5000 {
            for reads_back in [false, true] {
                let descriptors = Descriptors::new(limit, Threading::Reactor, reads_back);
                let max = descriptors.max_connections();
                for connections in [1, max / 2, max] {
                    let pipes = descriptors.max_pipes(connections) as u64;
                    let used = descriptors.each() * connections as u64 + 2 * pipes;
                    assert!(used + descriptors.reserved <= limit, "{limit}: {used}");
                }
            }
        }
    }
}
