//! One connection of a run, and what is recorded of it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use accio_proto::{Abort, Closing, Ended, Session, SessionLimits};

use crate::plan::{IDLE, Op, Plan};
use crate::sink::SimFile;
use crate::socket::{Line, SimSocket};

/// The history of one connection, in order: events of its socket and its sink.
pub(crate) type Log = Arc<Mutex<Vec<LogEntry>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogEntry {
    /// The client's end of the file: FIN or, with TLS, close_notify.
    Fin,
    Reset,
    /// A FIN without close_notify.
    #[cfg(feature = "tls")]
    Truncated,
    Opened,
    Failed(Op),
    Stopped,
}

/// The window of the minimum rate, in nanoseconds; repeated here independently of the library.
pub(crate) const WINDOW: u64 = 10_000_000_000;

/// The number of bytes that may have filled the window of a peer that waits for the server.
const LATE: usize = 64 << 10;

pub(crate) type SimSession = Session<SimSocket, SimFile>;
pub(crate) type SimClosing = Closing<SimSocket, SimFile>;
pub(crate) type SimEnded = Ended<SimSocket, SimFile>;

/// One connection of a run.
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) plan: Plan,
    pub(crate) wire: Vec<u8>,
    pub(crate) line: Rc<RefCell<Line>>,
    pub(crate) log: Log,
    pub(crate) stage: Stage,
    /// When it was accepted, as recorded by the test.
    pub(crate) began: u64,
    /// When its last byte was received, as recorded by the test.
    pub(crate) heard: u64,
    /// When bytes were received, and the total number by then.
    pub(crate) taken: Vec<(u64, usize)>,
}

impl Connection {
    /// Checks that a session that ended for a time limit, at a deadline handled at `called`, had
    /// exceeded it. `moved` is the number of bytes that were received now.
    pub(crate) fn check_late(
        &self,
        why: &Abort,
        limits: &SessionLimits,
        called: u64,
        moved: usize,
    ) {
        let is_late = moved >= LATE;
        let moved = moved > 0;
        let silent = called >= self.heard + IDLE && !moved;
        match why {
            Abort::Idle(_) => {
                assert!(silent, "idle before the deadline");
                let nothing = self.line.borrow().reported.nothing;
                assert!(nothing >= Some(called), "idle without a last look");
            }
            Abort::TooLong(_) => {
                let most = limits.max_duration.unwrap().as_nanos() as u64;
                assert!(called >= self.began + most && !silent, "long before the deadline");
            }
            Abort::TooSlow { got, min_rate } => {
                assert_eq!(Some(*min_rate), limits.min_rate);
                assert!(*got < min_rate * 10 && !silent, "not slow: {got} bytes");
                assert!(!is_late, "the peer had no room to send more");
                assert!(called >= self.began + WINDOW, "slow before the window is over");
                let all = self.taken.last().map_or(0, |(_, all)| *all);
                let earlier = self.taken.iter().rev().find(|(at, _)| at + WINDOW <= called);
                let lately = all - earlier.map_or(0, |(_, all)| *all);
                assert!(lately as u64 <= *got, "{lately} bytes within the window");
            }
            _ => unreachable!("{why}"),
        }
    }
}

pub(crate) enum Stage {
    ToCome,
    Live(Box<SimSession>),
    /// It waits for a committer.
    Closing(Box<SimClosing>),
    Finished,
}
