//! The list of connections in service, for monitoring.
//!
//! A connection has an entry from the time it is numbered until it is reported. The thread that
//! owns the connection stores its progress in the entry after each turn, without a lock.

use std::net::SocketAddr;
#[cfg(feature = "tracing")]
use std::sync::atomic::AtomicBool;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::dialect::Dialect;
#[cfg(feature = "tracing")]
use crate::server::connection_span::ConnectionSpan;

/// A connection in service.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStatus {
    /// The number of the connection.
    pub id: u64,
    /// The client, where the system knows it.
    pub peer: Option<SocketAddr>,
    /// The client's identity, if it presented a certificate under TLS.
    pub identity: Option<Arc<str>>,
    /// The dialect of the client, once it is known.
    pub dialect: Option<Dialect>,
    /// Whether its content is still arriving.
    pub phase: Phase,
    /// Content bytes received so far, up to the end of the last turn.
    pub bytes: u64,
    /// Time since it was numbered.
    pub age: Duration,
    /// Time since its last byte, or since it was numbered.
    pub idle: Duration,
}

/// Stage of a connection in service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// The handshake is not complete: the dialect is unknown.
    Handshake,
    /// Content is arriving.
    Receiving,
    /// The transfer has ended: the file or the error marker is being stored.
    Finishing,
}

impl Phase {
    /// Returns the name of the phase, for other programs: `handshake`, `receiving` or `finishing`.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Handshake => "handshake",
            Phase::Receiving => "receiving",
            Phase::Finishing => "finishing",
        }
    }
}

/// Number of entries allocated at a time. Entries are never freed, so the table never moves.
const CHUNK: usize = 256;

/// The entries of all connections in service.
#[derive(Debug)]
pub(super) struct InProgress {
    /// The time from which the times in entries are measured.
    origin: Instant,
    chunks: Box<[OnceLock<Box<[Entry]>>]>,
    /// Entries that were used before; the last one freed is reused first.
    free: Mutex<Vec<u32>>,
    /// Index of the first entry that was never used. Changed only while `free` is locked.
    fresh: AtomicU32,
}

#[derive(Debug, Default)]
struct Entry {
    /// Locked at the beginning and the end of a connection, and while it is listed.
    connection: Mutex<Option<Description>>,
    bytes: AtomicU64,
    /// Time of the last byte, in microseconds since the origin.
    heard: AtomicU64,
    stage: AtomicU8,
    /// Whether the connection has a span, for the thread that owns the connection.
    #[cfg(feature = "tracing")]
    has_span: AtomicBool,
}

/// The constant properties of a connection.
#[derive(Debug)]
struct Description {
    connection: Connection,
    since: Instant,
    #[cfg(feature = "tracing")]
    span: Option<Arc<ConnectionSpan>>,
}

/// The entry of a connection; `None` if the table was full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(Option<u32>);

impl Place {
    /// Returns whether the connection had an entry.
    pub(super) fn is_listed(self) -> bool {
        self.0.is_some()
    }
}

impl InProgress {
    /// Creates a table for at most `limit` connections.
    pub(super) fn new(limit: usize) -> Self {
        InProgress {
            origin: Instant::now(),
            chunks: (0..limit.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect(),
            free: Mutex::default(),
            fresh: AtomicU32::new(0),
        }
    }

    /// Adds a connection, until [`leave`](InProgress::leave).
    pub(super) fn enter(&self, connection: Connection, now: Instant) -> Place {
        let Some(index) = self.vacant() else { return Place(None) };
        // Before the lock: a subscriber may list the connections.
        #[cfg(feature = "tracing")]
        let span = ConnectionSpan::new(&connection);
        let entry = self.entry(index);
        #[cfg(feature = "tracing")]
        entry.has_span.store(span.is_some(), Ordering::Relaxed);
        let mut description = lock(&entry.connection);
        entry.store(0, connection.dialect, self.micros(now));
        *description = Some(Description {
            #[cfg(feature = "tracing")]
            span,
            connection,
            since: now,
        });
        drop(description);
        Place(Some(index))
    }

    /// Stores the progress of a connection.
    pub(super) fn progress(
        &self,
        place: Place,
        bytes: u64,
        dialect: Option<Dialect>,
        heard: Instant,
    ) {
        if let Some(index) = place.0 {
            self.entry(index).store(bytes, dialect, self.micros(heard));
        }
    }

    /// Records that no more content will arrive.
    pub(super) fn finishing(&self, place: Place, bytes: u64, dialect: Option<Dialect>) {
        if let Some(index) = place.0 {
            let entry = self.entry(index);
            entry.bytes.store(bytes, Ordering::Relaxed);
            entry.stage.store(stage_of(dialect) | FINISHING, Ordering::Relaxed);
        }
    }

    /// Returns the description of connection `id`, with its dialect if that is known, unless the
    /// connection was removed.
    pub(super) fn describe(&self, place: Place, id: u64) -> Option<Connection> {
        let entry = self.entry(place.0?);
        let description = lock(&entry.connection);
        let connection = description.as_ref().map(|entered| &entered.connection);
        let mut connection = connection.filter(|connection| connection.id == id)?.clone();
        connection.dialect = stage(entry.stage.load(Ordering::Relaxed)).0;
        Some(connection)
    }

    /// Returns the span of the connection at this place, if it has one.
    #[cfg(feature = "tracing")]
    pub(super) fn span(&self, place: Place) -> Option<Arc<ConnectionSpan>> {
        let entry = self.entry(place.0?);
        if !entry.has_span.load(Ordering::Relaxed) {
            return None;
        }
        lock(&entry.connection).as_ref()?.span.clone()
    }

    /// Removes connection `id`; has no effect if it was removed already.
    pub(super) fn leave(&self, place: Place, id: u64) {
        let Some(index) = place.0 else { return };
        let left =
            lock(&self.entry(index).connection).take_if(|entered| entered.connection.id == id);
        if left.is_none() {
            return;
        }
        lock(&self.free).push(index);
        // The locks are free: its span may be closed now, by a subscriber that lists the connections.
        drop(left);
    }

    /// Returns the connections, in no particular order, each with its state at the time the
    /// iterator reaches it.
    pub(super) fn iter(&self) -> impl Iterator<Item = ConnectionStatus> {
        let used = self.fresh.load(Ordering::Acquire);
        (0..used).filter_map(|index| self.status(index))
    }

    fn status(&self, index: u32) -> Option<ConnectionStatus> {
        let entry = self.entry(index);
        // Locked while the progress is read, so that all values belong to the same connection.
        let connection = lock(&entry.connection);
        let Description { connection, since, .. } = connection.as_ref()?;
        let now = Instant::now();
        let heard = Duration::from_micros(entry.heard.load(Ordering::Relaxed));
        let (dialect, phase) = stage(entry.stage.load(Ordering::Relaxed));
        Some(ConnectionStatus {
            id: connection.id,
            peer: connection.peer,
            identity: connection.identity.clone(),
            dialect,
            phase,
            bytes: entry.bytes.load(Ordering::Relaxed),
            age: now.saturating_duration_since(*since),
            idle: now.saturating_duration_since(self.origin + heard),
        })
    }

    /// Returns the index of an entry that is not in use.
    fn vacant(&self) -> Option<u32> {
        let mut free = lock(&self.free);
        if let Some(index) = free.pop() {
            return Some(index);
        }
        let fresh = self.fresh.load(Ordering::Relaxed);
        if fresh as usize >= self.chunks.len() * CHUNK {
            return None;
        }
        self.fresh.store(fresh + 1, Ordering::Release);
        Some(fresh)
    }

    fn entry(&self, index: u32) -> &Entry {
        let index = index as usize;
        let chunk = self.chunks[index / CHUNK]
            .get_or_init(|| (0..CHUNK).map(|_| Entry::default()).collect());
        &chunk[index % CHUNK]
    }

    fn micros(&self, time: Instant) -> u64 {
        // Enough for half a million years.
        time.saturating_duration_since(self.origin).as_micros() as u64
    }
}

impl Entry {
    fn store(&self, bytes: u64, dialect: Option<Dialect>, heard: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.heard.store(heard, Ordering::Relaxed);
        self.stage.store(stage_of(dialect), Ordering::Relaxed);
    }
}

/// The bit of a stage that means [`Phase::Finishing`]; the other bits are the dialect.
const FINISHING: u8 = 0x80;

fn stage_of(dialect: Option<Dialect>) -> u8 {
    match dialect {
        None => 0,
        Some(Dialect::Direct) => 1,
        Some(Dialect::Accio) => 2,
        Some(Dialect::Confirm) => 3,
    }
}

fn stage(stage: u8) -> (Option<Dialect>, Phase) {
    let dialect = match stage & !FINISHING {
        1 => Some(Dialect::Direct),
        2 => Some(Dialect::Accio),
        3 => Some(Dialect::Confirm),
        _ => None,
    };
    let phase = match dialect {
        _ if stage & FINISHING != 0 => Phase::Finishing,
        None => Phase::Handshake,
        Some(_) => Phase::Receiving,
    };
    (dialect, phase)
}

/// Every change under these locks is one assignment, so the state is consistent even if another
/// thread panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(table: &InProgress) -> Vec<u64> {
        let mut ids: Vec<_> = table.iter().map(|connection| connection.id).collect();
        ids.sort_unstable();
        ids
    }

    #[test]
    fn an_entry_shows_the_progress_of_its_connection_only() {
        let table = InProgress::new(1);
        let now = Instant::now();
        let first =
            table.enter(Connection { identity: Some("ada".into()), ..Connection::new(1) }, now);
        let status = table.iter().next().unwrap();
        assert_eq!((status.id, status.bytes, status.phase), (1, 0, Phase::Handshake));
        assert_eq!(status.identity.as_deref(), Some("ada"));
        table.progress(first, 5, Some(Dialect::Accio), Instant::now());
        let status = table.iter().next().unwrap();
        assert_eq!((status.dialect, status.bytes), (Some(Dialect::Accio), 5));
        assert_eq!(status.phase, Phase::Receiving);
        table.finishing(first, 6, Some(Dialect::Accio));
        let status = table.iter().next().unwrap();
        assert_eq!((status.bytes, status.phase), (6, Phase::Finishing));
        assert_eq!(table.describe(first, 1).unwrap().dialect, Some(Dialect::Accio));
        assert_eq!(table.describe(first, 2), None);
        table.leave(first, 1);
        assert_eq!(table.iter().next(), None);
        assert_eq!(table.describe(first, 1), None);

        let direct = Connection { dialect: Some(Dialect::Direct), ..Connection::new(2) };
        let second = table.enter(direct, Instant::now());
        let status = table.iter().next().unwrap();
        assert_eq!((status.id, status.bytes, status.identity), (2, 0, None));
        table.leave(first, 1);
        assert_eq!(ids(&table), [2], "an entry belongs to one connection");
        table.leave(second, 2);
    }

    /// A thread that moves content does not wait for the threads that read the entries.
    #[test]
    fn stores_progress_without_a_lock() {
        let table = Arc::new(InProgress::new(1));
        let place = table.enter(Connection::new(1), Instant::now());
        let (connection, free) = (lock(&table.entry(0).connection), lock(&table.free));
        let (done, is_done) = std::sync::mpsc::channel();
        let other = Arc::clone(&table);
        std::thread::spawn(move || {
            other.progress(place, 5, Some(Dialect::Accio), Instant::now());
            other.finishing(place, 6, Some(Dialect::Accio));
            let _ = done.send(());
        });
        assert_eq!(is_done.recv_timeout(Duration::from_secs(10)), Ok(()));
        drop((connection, free));
        assert_eq!(table.iter().next().unwrap().bytes, 6);
    }

    #[test]
    fn measures_idle_time_and_age() {
        let table = InProgress::new(1);
        let start = Instant::now();
        let place = table.enter(Connection::new(1), start);
        std::thread::sleep(Duration::from_millis(20));
        let heard = Instant::now();
        table.progress(place, 1, None, heard);
        std::thread::sleep(Duration::from_millis(5));
        let status = table.iter().next().unwrap();
        assert!(status.age >= Duration::from_millis(25), "{status:?}");
        assert!(status.idle >= Duration::from_millis(5), "{status:?}");
        assert!(status.age >= status.idle + Duration::from_millis(19), "{status:?}");
    }

    #[test]
    fn lists_connections_up_to_its_limit() {
        let table = InProgress::new(2 * CHUNK);
        let now = Instant::now();
        let enter = |id| table.enter(Connection::new(id), now);
        let places: Vec<_> = (0..2 * CHUNK as u64).map(enter).collect();
        assert!(!places.contains(&Place(None)));
        assert_eq!(enter(9000), Place(None));
        table.progress(Place(None), 1, None, now);
        table.finishing(Place(None), 1, None);
        table.leave(Place(None), 9000);
        assert_eq!(table.iter().count(), 2 * CHUNK);
        table.leave(places[300], 300);
        assert_eq!(enter(9001), places[300]);
    }
}
