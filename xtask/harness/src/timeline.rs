//! Records the bytes of a scenario's connections, to explain failures.

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::peer::End;

/// Maximum number of events kept.
const EVENTS: usize = 60;
/// Number of bytes kept of each event.
const START: usize = 40;
/// Shorter pieces are never joined, because how they were split may matter.
const SHORT: usize = 1024;

thread_local! {
    static CURRENT: RefCell<Option<Arc<Timeline>>> = const { RefCell::new(None) };
}

/// The events on the connections that the thread of a scenario opened.
#[derive(Debug)]
pub struct Timeline {
    began: Instant,
    connections: AtomicUsize,
    events: Mutex<Vec<Event>>,
}

/// An event on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The time since the start of the scenario.
    pub at: Duration,
    /// The number of the connection, from 1.
    pub connection: usize,
    /// The kind of the event.
    pub what: What,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It was opened.
    Opened,
    /// The scenario sent bytes: the first of them, and their number.
    Sent(Vec<u8>, usize),
    /// The scenario received bytes: the first of them, and their number.
    Received(Vec<u8>, usize),
    /// The scenario closed its side.
    Closed,
    /// The program under test ended the connection.
    Ended(End),
}

/// Records the events of one connection.
#[derive(Debug)]
pub(crate) struct Recorder {
    timeline: Arc<Timeline>,
    connection: usize,
}

/// Starts to record the connections that this thread opens.
pub fn start() -> Arc<Timeline> {
    let timeline = Arc::new(Timeline {
        began: Instant::now(),
        connections: AtomicUsize::new(0),
        events: Mutex::default(),
    });
    join(Some(Arc::clone(&timeline)));
    timeline
}

/// Returns what this thread records to.
pub(crate) fn current() -> Option<Arc<Timeline>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// Makes this thread record to the timeline of another one.
pub(crate) fn join(timeline: Option<Arc<Timeline>>) {
    CURRENT.with(|current| *current.borrow_mut() = timeline);
}

impl Timeline {
    /// Returns the events so far.
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, connection: usize, what: What) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let last = events.last_mut().filter(|last| last.connection == connection);
        if let (
            Some(What::Sent(_, before) | What::Received(_, before)),
            What::Sent(_, more) | What::Received(_, more),
        ) = (last.map(|last| &mut last.what).filter(|last| is_same(last, &what)), &what)
            && *before >= SHORT
            && *more >= SHORT
        {
            *before += more;
        } else if events.len() < EVENTS {
            events.push(Event { at: self.began.elapsed(), connection, what });
        }
    }
}

/// Returns whether both have the same direction.
fn is_same(one: &What, other: &What) -> bool {
    matches!(
        (one, other),
        (What::Sent(..), What::Sent(..)) | (What::Received(..), What::Received(..))
    )
}

impl Recorder {
    /// Returns a recorder for a new connection, if this thread records.
    pub(crate) fn new() -> Option<Recorder> {
        let timeline = current()?;
        let connection = timeline.connections.fetch_add(1, Ordering::Relaxed) + 1;
        timeline.add(connection, What::Opened);
        Some(Recorder { timeline, connection })
    }

    pub(crate) fn sent(&self, bytes: &[u8]) {
        self.add(What::Sent(bytes[..bytes.len().min(START)].to_vec(), bytes.len()));
    }

    pub(crate) fn received(&self, bytes: &[u8]) {
        self.add(match bytes.len() {
            0 => What::Ended(End::Fin),
            length => What::Received(bytes[..length.min(START)].to_vec(), length),
        });
    }

    pub(crate) fn add(&self, what: What) {
        self.timeline.add(self.connection, what);
    }
}

impl Event {
    /// Describes it in a line; `program` is the name of the program under test.
    pub fn line(&self, program: &str) -> String {
        let bytes = |start: &[u8], length: usize| {
            let dots = if length > start.len() { "…" } else { "" };
            let plural = if length == 1 { "" } else { "s" };
            format!("{length} byte{plural} \"{}{dots}\"", start.escape_ascii())
        };
        let what = match &self.what {
            What::Opened => "opened".to_owned(),
            What::Sent(start, length) => format!("kit → {program}: {}", bytes(start, *length)),
            What::Received(start, length) => format!("{program} → kit: {}", bytes(start, *length)),
            What::Closed => format!("kit → {program}: end of data"),
            What::Ended(End::Fin) => format!("{program} → kit: end of data"),
            What::Ended(_) => format!("{program} → kit: reset"),
        };
        format!("{:7.3} s  connection {}  {what}", self.at.as_secs_f64(), self.connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::{Listener, Peer, SOON};

    #[test]
    fn records_both_directions_of_a_connection() {
        let timeline = start();
        let listener = Listener::bind().unwrap();
        let mut near = Peer::connect(listener.address()).unwrap();
        let mut far = listener.accept().unwrap();
        near.send(b"accio\r\n").unwrap();
        far.receive(7, SOON).unwrap();
        near.fin().unwrap();
        far.end(SOON).unwrap();
        let lines: Vec<String> = timeline.events().iter().map(|one| one.line("client")).collect();
        let texts: Vec<&str> = lines.iter().filter_map(|line| line.get(11..)).collect();
        let expected = [
            "connection 1  opened",
            "connection 2  opened",
            "connection 1  kit → client: 7 bytes \"accio\\r\\n\"",
            "connection 2  client → kit: 7 bytes \"accio\\r\\n\"",
            "connection 1  kit → client: end of data",
            "connection 2  client → kit: end of data",
        ];
        assert_eq!(texts, expected);
    }
}
