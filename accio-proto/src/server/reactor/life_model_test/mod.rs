//! Simulates connections from accept to end, with random interleavings of the reactor's threads.
//! Slots, deadlines, places and lanes are the real ones; sockets, files and the threads' steps are
//! a model. The power may be lost after each step, so the guarantees about the disk are checked
//! after each.

mod commits;
mod reviews;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::deadlines::Deadlines;
use super::lane::Lane;
use super::model_test::Random;
use super::places::Places;
use super::slots::{Due, Key, Slots, Unparked};
use commits::Group;

const PLACES: usize = 100;
const IDLE: Duration = Duration::from_secs(10);

/// A session: its number, and the time its peer last sent data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Session {
    id: u64,
    heard: Instant,
    /// Whether its complete file is under review, so that no limit applies.
    is_reviewed: bool,
}

/// The result of a connection as its peer, the recorder and the disk see it.
#[derive(Debug, Default, Clone, Copy)]
struct Fate {
    data_synced: bool,
    named: Option<Named>,
    name_synced: bool,
    reports: u32,
    notified: Option<Notified>,
    /// Whether the file was accepted, if it must be reviewed.
    accepted: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Named {
    File,
    Marker,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notified {
    Fin,
    Reset,
}

/// A thread in the middle of its work, which continues with its next step.
enum Thread {
    /// A worker that owns a connection.
    Turn(Key, Session),
    /// A committer with a group.
    Group(Group),
    /// A committer that writes an error marker.
    Marker(Key, u64),
    /// A committer whose marker is written; the report is next.
    Marked(Key, u64),
    /// A new committer that ends a connection owned by a stuck thread.
    Abandon(u64),
    /// A committer that drops a discarded file.
    Discard,
}

struct World {
    random: Random,
    slots: Slots<Session, u64>,
    deadlines: Deadlines,
    places: Places,
    markers: Lane<(Key, u64)>,
    commits: Lane<(Key, u64)>,
    discards: Lane<()>,
    threads: Vec<Thread>,
    /// Keys of parked connections, as recorded by the model.
    parked: Vec<(Key, u64)>,
    /// Files that the reviewer has.
    reviews: Vec<(Key, u64)>,
    /// The numbers in the commit lane, oldest first.
    queued: Vec<u64>,
    fates: BTreeMap<u64, Fate>,
    /// The connections whose fate has changed since the last check.
    changed: Vec<u64>,
    /// Number of connections whose peer has not been notified.
    taken: usize,
    now: Instant,
    last: u64,
    unreported: usize,
    stopping: bool,
    abandoned: bool,
    largest_group: usize,
    lone_groups: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        World {
            random: Random(seed),
            slots: Slots::new(PLACES),
            deadlines: Deadlines::default(),
            places: Places::new(PLACES),
            markers: Lane::new(4),
            commits: Lane::new(2),
            discards: Lane::new(1),
            threads: Vec::new(),
            parked: Vec::new(),
            reviews: Vec::new(),
            queued: Vec::new(),
            fates: BTreeMap::new(),
            changed: Vec::new(),
            taken: 0,
            now: Instant::now(),
            last: 0,
            unreported: 0,
            stopping: false,
            abandoned: false,
            largest_group: 0,
            lone_groups: 0,
        }
    }

    fn fate(&mut self, id: u64) -> &mut Fate {
        self.changed.push(id);
        self.fates.get_mut(&id).unwrap()
    }

    /// A worker or the front thread accepts and greets a connection.
    fn accept(&mut self) {
        if self.stopping || !self.places.take() {
            return;
        }
        self.last += 1;
        self.unreported += 1;
        self.taken += 1;
        self.fates.insert(self.last, Fate::default());
        let key = self.slots.reserve(Some(self.last)).expect("a place comes with a slot");
        self.park(key, Session { id: self.last, heard: self.now, is_reviewed: false });
    }

    fn park(&mut self, key: Key, session: Session) {
        match self.slots.park(key, session, |_| Ok::<_, ()>(())) {
            Ok(queue) => {
                self.parked.push((key, session.id));
                if queue {
                    self.deadlines.push(session.heard + IDLE, key.index);
                }
                if self.stopping
                    && let Some(session) = self.take(key)
                {
                    self.push_marker(key, session.id);
                }
            }
            Err(Unparked::Abandoned(_)) => {}
            Err(Unparked::Refused(..)) => unreachable!("the model refuses nothing"),
        }
    }

    fn take(&mut self, key: Key) -> Option<Session> {
        let session = self.slots.take(key);
        self.parked.retain(|(parked, _)| *parked != key);
        session
    }

    /// Content arrives at one of the connections, or a stale event.
    fn arrive(&mut self) {
        if self.parked.is_empty() {
            return;
        }
        let (key, id) = self.parked[self.random.below(self.parked.len())];
        let session = self.take(key).expect("parked and not taken");
        assert_eq!((session.id, self.slots.take(key)), (id, None), "one thread has it");
        self.threads.push(Thread::Turn(key, session));
    }

    /// The front thread enforces time limits.
    fn enforce(&mut self) {
        self.now += Duration::from_millis(self.random.below(4000) as u64);
        let now = self.now;
        while let Some(index) = self.deadlines.pop_due(now) {
            let due = self.slots.take_due(index, |session| match session.heard + IDLE {
                _ if session.is_reviewed => Ok(now + IDLE),
                later if later > now => Ok(later),
                _ => Err(()),
            });
            match due {
                Due::Nothing => {}
                Due::Later(later) => drop(self.deadlines.push(later, index)),
                Due::Now(key, session, ()) => {
                    self.parked.retain(|(parked, _)| *parked != key);
                    self.push_marker(key, session.id);
                }
            }
        }
    }

    fn push_marker(&mut self, key: Key, id: u64) {
        self.markers.push((key, id), || Ok(())).expect("open until all is reported");
    }

    /// One of the threads takes its next step.
    fn go_on(&mut self) {
        if self.threads.is_empty() {
            return;
        }
        let index = self.random.below(self.threads.len());
        let next = match self.threads.swap_remove(index) {
            Thread::Turn(key, session) => self.take_turn(key, session),
            Thread::Group(group) => self.advance(group),
            Thread::Marker(key, id) => self.slots.claim(key).then(|| {
                self.name(id, Named::Marker);
                Thread::Marked(key, id)
            }),
            Thread::Marked(key, id) => {
                self.report(id);
                self.release(key, id, Notified::Reset);
                // After shutdown, the thread that has the file drops it.
                let _ = self.discards.push((), || Ok(()));
                None
            }
            Thread::Abandon(id) => {
                self.name(id, Named::Marker);
                self.report(id);
                self.notify(id, Notified::Reset);
                None
            }
            Thread::Discard => None,
        };
        self.threads.extend(next);
    }

    /// A turn has ended: the connection waits for more, or has ended.
    fn take_turn(&mut self, key: Key, session: Session) -> Option<Thread> {
        match self.random.below(4) {
            0 | 1 => self.park(key, Session { heard: self.now, ..session }),
            2 => self.push_marker(key, session.id),
            _ if self.random.below(3) == 0 => self.start_review(key, session),
            // The worker commits the file itself.
            _ if !self.threads.iter().any(|thread| matches!(thread, Thread::Group(_))) => {
                self.lone_groups += 1;
                return Some(Thread::Group(Group::new(vec![(key, session.id)])));
            }
            _ => self.push_commit(key, session.id),
        }
        None
    }

    fn name(&mut self, id: u64, name: Named) {
        let before = self.fate(id).named.replace(name);
        assert_eq!(before, None, "connection {id} has {name:?} and had another result");
    }

    fn report(&mut self, id: u64) {
        self.fate(id).reports += 1;
        self.unreported -= 1;
    }

    /// Notifies the peer, and frees slot and place.
    fn release(&mut self, key: Key, id: u64, notified: Notified) {
        self.slots.release(key);
        self.places.leave();
        assert_eq!(self.slots.take(key), None, "a late event");
        self.notify(id, notified);
    }

    fn notify(&mut self, id: u64, notified: Notified) {
        self.taken -= 1;
        assert_eq!(self.fate(id).notified.replace(notified), None, "notified twice");
    }

    /// The front thread stops the server; later it ends connections that other threads still own.
    fn stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            for index in 0..self.slots.used() {
                if let Some((key, session)) = self.slots.evict(index) {
                    self.parked.retain(|(parked, _)| *parked != key);
                    self.push_marker(key, session.id);
                }
            }
            assert!(self.parked.is_empty(), "all that was parked is evicted");
        } else if !self.abandoned {
            self.abandoned = true;
            for index in 0..self.slots.used() {
                self.threads.extend(self.slots.abandon(index).map(Thread::Abandon));
            }
        }
    }

    /// Checks the conditions that must hold after each step.
    fn check(&mut self) {
        assert!(self.abandoned || self.places.taken() == self.taken, "a place per connection");
        assert!(self.taken >= self.unreported, "reported before it is notified");
        for id in std::mem::take(&mut self.changed) {
            let fate = &self.fates[&id];
            let is_durable =
                fate.data_synced && fate.named == Some(Named::File) && fate.name_synced;
            assert!(fate.notified != Some(Notified::Fin) || is_durable, "{id} confirmed: {fate:?}");
            assert!(fate.named != Some(Named::File) || fate.data_synced, "{id}: {fate:?}");
            let is_accepted = fate.accepted.unwrap_or(true);
            assert!(fate.named != Some(Named::File) || is_accepted, "{id} not accepted: {fate:?}");
            let is_marked = fate.named == Some(Named::Marker);
            assert!(fate.notified != Some(Notified::Reset) || is_marked, "{id} reset: {fate:?}");
            assert!(fate.reports <= 1 && (fate.notified.is_none() || fate.reports == 1));
        }
    }

    fn step(&mut self, stops: bool) {
        match self.random.below(12) {
            0..3 => self.accept(),
            3 | 4 => self.arrive(),
            5 => self.commit_next(),
            6 if self.random.below(2) == 0 => self.decide(),
            6 if self.random.below(8) == 0 => self.enforce(),
            7 if stops && self.random.below(8) == 0 => self.stop(),
            _ => self.go_on(),
        }
        self.check();
    }
}

#[test]
fn every_connection_has_one_result_and_a_confirmed_one_is_durable() {
    let (mut largest_group, mut lone_groups, mut files, mut markers) = (0, 0, 0, 0);
    let (mut accepted, mut rejected) = (0, 0);
    for seed in 0..60 {
        let mut world = World::new(seed);
        (0..1500).for_each(|_| world.step(false));
        // The threads continue during the stop, and stuck threads return after it.
        (0..1000).for_each(|_| world.step(true));
        while !world.abandoned {
            world.stop();
        }
        let is_idle = |world: &World| {
            let lanes_are_empty = world.markers.is_empty() && world.commits.is_empty();
            world.threads.is_empty() && lanes_are_empty && world.discards.is_empty()
        };
        while !is_idle(&world) {
            world.commit_next();
            world.go_on();
            world.check();
        }
        while !world.reviews.is_empty() {
            world.decide();
            world.check();
        }
        assert!(is_idle(&world), "a decision after the stop has no effect");
        assert_eq!(world.unreported, 0);
        assert!(world.fates.values().all(|fate| fate.notified.is_some() && fate.named.is_some()));
        world.commits.close();
        assert!(!world.commits.take(1, &mut Vec::new()), "nothing is left in a lane");
        largest_group = largest_group.max(world.largest_group);
        lone_groups += world.lone_groups;
        let count = |named| world.fates.values().filter(|fate| fate.named == Some(named)).count();
        files += count(Named::File);
        markers += count(Named::Marker);
        let decided = |accepted| world.fates.values().filter(|f| f.accepted == accepted).count();
        accepted += decided(Some(true));
        rejected += decided(Some(false));
    }
    // A model in which nothing happens proves nothing.
    assert!(largest_group > 4 && lone_groups > 100, "{largest_group} {lone_groups}");
    assert!(files > 500 && markers > 500, "{files} {markers}");
    assert!(accepted > 100 && rejected > 100, "{accepted} {rejected}");
}
