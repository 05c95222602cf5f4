//! The table of connections in service: who has which token, and who may touch it.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Slots are made this many at a time, and stay: the table never moves.
const CHUNK: usize = 256;

/// A table of values that are either parked or in a worker's hands.
///
/// A slot has one tenant after another; its key tells them apart, so that an event meant for one
/// never touches the next.
#[derive(Debug)]
pub(super) struct Slots<T> {
    chunks: Box<[Chunk<T>]>,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    /// Slots that had a tenant; the last one left is the next one used.
    indices: Vec<u32>,
    /// Slots from here on never had one.
    fresh: u32,
}

/// Made when its first slot is needed.
type Chunk<T> = OnceLock<Box<[Slot<T>]>>;

type Slot<T> = Mutex<Tenancy<T>>;

#[derive(Debug)]
struct Tenancy<T> {
    generation: u32,
    /// Whether the deadline queue has an entry for this slot. It has one at most, which outlives
    /// the tenant.
    queued: bool,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Free,
    /// A worker has the value.
    Out,
    Parked(T),
}

/// A tenant of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: u32,
    generation: u32,
}

impl Key {
    /// The token of the tenant's events.
    pub(super) fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_token(token: u64) -> Key {
        // Both halves fit by construction.
        Key { index: token as u32, generation: (token >> 32) as u32 }
    }
}

/// What became of a deadline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due<T, D> {
    /// Nobody is parked there; the next to park queues a new deadline.
    Nobody,
    /// The tenant's deadline moved meanwhile; it stays queued.
    Later(D),
    /// It is due: the value is out, in the caller's hands.
    Now(Key, T),
}

impl<T> Slots<T> {
    /// A table for at most `limit` values.
    pub(super) fn new(limit: usize) -> Self {
        let chunks = (0..limit.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect();
        Slots { chunks, free: Mutex::new(Free { indices: Vec::new(), fresh: 0 }) }
    }

    /// A slot for a value that the caller has; `None` when the table is full.
    pub(super) fn reserve(&self) -> Option<Key> {
        let index = {
            let mut free = lock(&self.free);
            match free.indices.pop() {
                Some(index) => index,
                None if (free.fresh as usize) < self.chunks.len() * CHUNK => {
                    free.fresh += 1;
                    free.fresh - 1
                }
                None => return None,
            }
        };
        let mut slot = self.slot(index);
        slot.state = State::Out;
        Some(Key { index, generation: slot.generation })
    }

    /// Parks the value and calls `arm` while nobody can take it; says whether the caller is to
    /// queue its deadline.
    ///
    /// # Errors
    ///
    /// What `arm` says, and the value, which is still out.
    pub(super) fn park<E>(
        &self,
        key: Key,
        value: T,
        arm: impl FnOnce(&T) -> Result<(), E>,
    ) -> Result<bool, (T, E)> {
        let mut slot = self.slot(key.index);
        if let Err(error) = arm(&value) {
            return Err((value, error));
        }
        slot.state = State::Parked(value);
        Ok(!std::mem::replace(&mut slot.queued, true))
    }

    /// Takes the value out, if this tenant is still there and parked.
    pub(super) fn take(&self, key: Key) -> Option<T> {
        let mut slot = self.slot(key.index);
        if slot.generation != key.generation {
            return None;
        }
        slot.take()
    }

    /// The deadline queued for slot `index` has come: takes the value out if it is due, which is
    /// when `later` has no other deadline for it.
    pub(super) fn take_due<D>(&self, index: u32, later: impl FnOnce(&T) -> Option<D>) -> Due<T, D> {
        let mut slot = self.slot(index);
        if let State::Parked(value) = &slot.state
            && let Some(deadline) = later(value)
        {
            return Due::Later(deadline);
        }
        slot.queued = false;
        let key = Key { index, generation: slot.generation };
        slot.take().map_or(Due::Nobody, |value| Due::Now(key, value))
    }

    /// Frees the slot of a value that is out and gone.
    pub(super) fn release(&self, key: Key) {
        {
            let mut slot = self.slot(key.index);
            slot.generation = slot.generation.wrapping_add(1);
            slot.state = State::Free;
        }
        lock(&self.free).indices.push(key.index);
    }

    /// How many slots ever had a tenant.
    pub(super) fn used(&self) -> u32 {
        lock(&self.free).fresh
    }

    /// Takes whatever is parked in slot `index`.
    pub(super) fn evict(&self, index: u32) -> Option<(Key, T)> {
        let mut slot = self.slot(index);
        let key = Key { index, generation: slot.generation };
        slot.take().map(|value| (key, value))
    }

    fn slot(&self, index: u32) -> MutexGuard<'_, Tenancy<T>> {
        let index = index as usize;
        let chunk = self.chunks[index / CHUNK].get_or_init(|| {
            let vacant = || Tenancy { generation: 0, queued: false, state: State::Free };
            (0..CHUNK).map(|_| Mutex::new(vacant())).collect()
        });
        lock(&chunk[index % CHUNK])
    }
}

impl<T> Tenancy<T> {
    fn take(&mut self) -> Option<T> {
        match std::mem::replace(&mut self.state, State::Out) {
            State::Parked(value) => Some(value),
            other => {
                self.state = other;
                None
            }
        }
    }
}

/// Every change under these locks is a few assignments, so a panic elsewhere leaves them whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn park(slots: &Slots<&'static str>, value: &'static str) -> (Key, bool) {
        let key = slots.reserve().unwrap();
        let queue = slots.park(key, value, |_| Ok::<_, ()>(())).unwrap();
        (key, queue)
    }

    #[test]
    fn a_stale_key_never_touches_the_next_tenant() {
        let slots = Slots::new(1);
        let (first, _) = park(&slots, "first");
        assert_eq!(slots.take(first), Some("first"));
        assert_eq!(slots.take(first), None);
        slots.release(first);
        let (second, _) = park(&slots, "second");
        assert_eq!(first.index, second.index);
        assert_eq!(slots.take(first), None);
        assert_eq!(slots.take(Key::from_token(second.token())), Some("second"));
    }

    #[test]
    fn the_table_grows_to_its_limit() {
        let slots = Slots::<()>::new(2 * CHUNK);
        let keys: Vec<_> = (0..2 * CHUNK).map(|_| slots.reserve().unwrap()).collect();
        assert_eq!(slots.reserve(), None);
        slots.release(keys[300]);
        assert_eq!(slots.reserve().unwrap().index, 300);
    }

    #[test]
    fn a_slot_has_one_queue_entry_whoever_lives_in_it() {
        let slots = Slots::new(1);
        let (first, queue) = park(&slots, "first");
        assert!(queue);
        assert_eq!(slots.take(first), Some("first"));
        slots.release(first);
        let (second, queue) = park(&slots, "second");
        assert!(!queue, "the first tenant's entry serves the second");
        assert_eq!(slots.take_due(0, |_| Some(7)), Due::Later(7));
        assert_eq!(slots.take_due(0, |_| None::<()>), Due::Now(second, "second"));
        assert_eq!(slots.take_due(0, |_| None::<()>), Due::Nobody);
        assert_eq!(slots.park(second, "second", |_| Ok::<_, ()>(())), Ok(true));
    }

    #[test]
    fn a_failed_arm_gives_the_value_back() {
        let slots = Slots::new(1);
        let key = slots.reserve().unwrap();
        assert_eq!(slots.park(key, "value", |_| Err("full")), Err(("value", "full")));
        assert_eq!(slots.take(key), None);
        assert_eq!(slots.evict(0), None);
    }
}
