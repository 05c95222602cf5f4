//! How a server shares its connections out among threads.

use super::reactor;
use crate::limits;

/// How a server shares its connections out among threads. What connections see is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Threading {
    /// A few workers wait on one event queue and serve whatever comes: the default where the
    /// system has the queue, which is Linux. Elsewhere [`PerSession`](Threading::PerSession)
    /// serves, whatever is asked for.
    Reactor,
    /// Each connection has a thread, up to the connection limit: the default for sinks whose calls
    /// [block](crate::FileSink::blocks), and on systems without the queue.
    ///
    /// When the system refuses a thread, that is said in the log, and connections wait in the
    /// backlog, neither refused nor greeted, until a connection ends or the next attempt succeeds,
    /// ten of which are made a second.
    PerSession,
}

impl Threading {
    /// What to use, when `asked` is what the program wants, if it does.
    pub(super) fn choose(asked: Option<Threading>, sink_blocks: bool) -> Threading {
        if !reactor::IS_AVAILABLE {
            return Threading::PerSession;
        }
        match asked {
            Some(threading) => threading,
            None if sink_blocks => Threading::PerSession,
            None => Threading::Reactor,
        }
    }

    /// How many connections are served at once unless anything is said.
    pub(super) fn default_max(self) -> usize {
        match self {
            Threading::Reactor => limits::MAX_CONNECTIONS,
            Threading::PerSession => limits::MAX_THREADS,
        }
    }
}
