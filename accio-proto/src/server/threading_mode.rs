//! The threading modes of a server.

use super::reactor;
use crate::limits;

/// The way a server distributes its connections among threads. Clients see no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum Threading {
    /// A few workers wait on one event queue and handle its events. The default on Linux, which has
    /// such a queue. On other systems, [`PerSession`](Threading::PerSession) is always used.
    Reactor,
    /// Each connection has a thread, up to the connection limit. The default for sinks whose calls
    /// [block](crate::FileSink::blocks), and on systems without the event queue.
    ///
    /// If the system refuses a thread, the server logs that, and connections wait in the backlog
    /// without a greeting until another connection ends or a later attempt succeeds; the server
    /// tries ten times a second.
    PerSession,
    /// The program brings a runtime, such as tokio, and calls the server's
    /// [`Driver`](crate::driver::Driver): see [`Server::into_driver`](crate::Server::into_driver).
    /// A connection takes up to five descriptors: its socket, a duplicate in the runtime's event
    /// queue, its file, and a pipe. With a digest, it takes one more.
    Runtime,
}

impl Threading {
    /// Returns the mode to use, given the mode that the program requested, if any.
    pub(super) fn choose(asked: Option<Threading>, sink_blocks: bool) -> Threading {
        match asked {
            Some(Threading::Runtime) => Threading::Runtime,
            _ if !reactor::IS_AVAILABLE => Threading::PerSession,
            Some(threading) => threading,
            None if sink_blocks => Threading::PerSession,
            None => Threading::Reactor,
        }
    }

    /// Returns the maximum number of descriptors that a connection needs; `reads_back` says whether
    /// content is read back from its file. Only a runtime's connections count with a pipe.
    pub(super) fn descriptors(self, reads_back: bool) -> u64 {
        let others = match self {
            // Socket and file.
            Threading::Reactor | Threading::PerSession => 2,
            // And a duplicate of the socket in the runtime's event queue, and a pipe, because each
            // connection may have a turn at the same time.
            Threading::Runtime => 5,
        };
        others + u64::from(reads_back)
    }

    /// Returns the default for the maximum number of connections.
    pub(super) fn default_max(self) -> usize {
        match self {
            Threading::Reactor | Threading::Runtime => limits::MAX_CONNECTIONS,
            Threading::PerSession => limits::MAX_THREADS,
        }
    }
}
