//! Compares slots and deadlines with a simple model, in virtual time, under random events.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::deadlines::Deadlines;
use super::slots::{Due, Key, Slots};

const LIMIT: usize = 256;
const IDLE: Duration = Duration::from_secs(10);

/// SplitMix64.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) as usize % bound
    }
}

/// A value with the number of its connection and the time its peer last sent data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    number: u64,
    heard: Instant,
}

#[derive(Debug)]
struct Place {
    key: Key,
    entry: Entry,
    parked: bool,
}

/// The table and the queue under test, and the model of their content.
struct World {
    slots: Slots<Entry, u64>,
    deadlines: Deadlines,
    places: BTreeMap<u32, Place>,
    /// Keys whose values are gone.
    stale: Vec<Key>,
    /// Number of entries in the deadline queue per slot.
    queued: BTreeMap<u32, u32>,
    now: Instant,
    last: u64,
}

impl World {
    fn any(&self, random: &mut Random, parked: bool) -> Option<u32> {
        let fit: Vec<u32> = self
            .places
            .iter()
            .filter(|(_, place)| place.parked == parked)
            .map(|(i, _)| *i)
            .collect();
        (!fit.is_empty()).then(|| fit[random.below(fit.len())])
    }

    fn reserve(&mut self) {
        let key = self.slots.reserve(Some(self.last + 1));
        assert_eq!(key.is_none(), self.places.len() == LIMIT, "full exactly at the limit");
        let Some(key) = key else { return };
        self.last += 1;
        let entry = Entry { number: self.last, heard: self.now };
        assert!(!self.stale.contains(&key), "a key is never given out twice");
        let earlier = self.places.insert(key.index, Place { key, entry, parked: false });
        assert!(earlier.is_none(), "a slot has one value");
    }

    fn park(&mut self, index: u32) {
        let place = self.places.get_mut(&index).unwrap();
        let queue = self.slots.park(place.key, place.entry, |_| Ok::<_, ()>(())).unwrap();
        place.parked = true;
        if queue {
            self.push(place_deadline(&self.places[&index]), index);
        }
    }

    fn push(&mut self, deadline: Instant, index: u32) {
        self.deadlines.push(deadline, index);
        let entries = self.queued.entry(index).or_insert(0);
        *entries += 1;
        assert_eq!(*entries, 1, "one entry of the queue per slot");
    }

    /// Simulates an event for the key.
    fn take(&mut self, index: u32, hears: bool) {
        let place = self.places.get_mut(&index).unwrap();
        let expected = place.parked.then_some(place.entry);
        assert_eq!(self.slots.take(Key::from_token(place.key.token())), expected);
        place.parked = false;
        if hears {
            place.entry.heard = self.now;
        }
    }

    fn release(&mut self, index: u32) {
        let place = self.places.remove(&index).unwrap();
        self.slots.release(place.key);
        self.stale.push(place.key);
    }

    /// Handles all deadlines that are due.
    fn handle_alarm(&mut self) {
        let now = self.now;
        while let Some(index) = self.deadlines.pop_due(now) {
            *self.queued.get_mut(&index).unwrap() -= 1;
            let check = |entry: &mut Entry| match entry.heard + IDLE {
                deadline if deadline > now => Ok(deadline),
                _ => Err("idle"),
            };
            let parked = self.places.get(&index).filter(|place| place.parked);
            match self.slots.take_due(index, check) {
                Due::Nothing => assert!(parked.is_none()),
                Due::Later(deadline) => {
                    assert_eq!(deadline, place_deadline(parked.unwrap()));
                    assert!(deadline > now);
                    self.push(deadline, index);
                }
                Due::Now(key, entry, _) => {
                    let place = parked.unwrap();
                    assert_eq!((key, entry), (place.key, place.entry));
                    assert!(place_deadline(place) <= now, "never early");
                    self.places.get_mut(&index).unwrap().parked = false;
                    self.release(index);
                }
            }
        }
        for place in self.places.values().filter(|place| place.parked) {
            assert!(place_deadline(place) > now, "never missed");
            assert_eq!(self.queued.get(&place.key.index), Some(&1), "never forgotten");
        }
    }
}

fn place_deadline(place: &Place) -> Instant {
    place.entry.heard + IDLE
}

#[test]
fn slots_and_deadlines_behave_like_a_simple_map() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let mut world = World {
            slots: Slots::new(LIMIT),
            deadlines: Deadlines::default(),
            places: BTreeMap::new(),
            stale: Vec::new(),
            queued: BTreeMap::new(),
            now: Instant::now(),
            last: 0,
        };
        // In some runs few slots are in use, so that they are reused often; other runs fill the
        // table.
        let eager = [1, 2, 8][seed as usize % 3];
        for _ in 0..2000 {
            match random.below(6 + eager) {
                0 => {
                    world.now += Duration::from_millis(random.below(4000) as u64);
                    world.handle_alarm();
                }
                1 | 2 => {
                    if let Some(index) = world.any(&mut random, true) {
                        let hears = random.below(3) > 0;
                        world.take(index, hears);
                    }
                }
                3 => {
                    if let Some(index) = world.any(&mut random, false) {
                        world.take(index, false);
                        world.release(index);
                    }
                }
                4 => {
                    if !world.stale.is_empty() {
                        let key = world.stale[random.below(world.stale.len())];
                        assert_eq!(world.slots.take(key), None, "a stale event");
                    }
                }
                5 => {
                    if let Some(index) = world.any(&mut random, false) {
                        world.park(index);
                    }
                }
                _ => {
                    world.reserve();
                    if let Some(index) = world.any(&mut random, false) {
                        world.park(index);
                    }
                }
            }
        }
        world.now += 3 * IDLE;
        world.handle_alarm();
        assert!(world.places.values().all(|place| !place.parked));
    }
}
