//! The table of connections in service, addressed by token; a connection is parked here or owned by
//! a thread.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// Number of slots allocated at a time. Slots are never freed, so the table never moves.
const CHUNK: usize = 256;

/// A table of values that are either parked or owned by one thread.
///
/// A slot holds one value after another. A key identifies one of these values, so that an event for
/// an earlier value never reaches a later one. `I` is a description of the value that stays in the
/// slot while a thread owns the value.
#[derive(Debug)]
pub(super) struct Slots<T, I> {
    chunks: Box<[Chunk<T, I>]>,
    free: Mutex<Free>,
}

#[derive(Debug)]
struct Free {
    /// Slots that were used before; the last one freed is reused first.
    indices: Vec<u32>,
    /// Index of the first slot that was never used.
    fresh: u32,
}

/// A part of the table, allocated when its first slot is needed.
type Chunk<T, I> = OnceLock<Box<[Mutex<Slot<T, I>>]>>;

#[derive(Debug)]
struct Slot<T, I> {
    generation: u32,
    /// Whether the deadline queue has an entry for this slot. There is at most one, and it may
    /// outlive the value.
    queued: bool,
    info: Option<I>,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Free,
    /// A thread owns the value.
    Out,
    Parked(T),
    /// A thread is making the result visible: the file, or the error marker.
    Claimed,
    /// The server is stopping and has ended the connection without waiting for its thread.
    Abandoned,
}

/// Identifies one value of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: u32,
    generation: u32,
}

impl Key {
    /// Returns the token of the value's events.
    pub(super) fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_token(token: u64) -> Key {
        // Both halves fit by construction.
        Key { index: token as u32, generation: (token >> 32) as u32 }
    }
}

/// The result of handling a due deadline.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due<T, D, R> {
    /// No value is parked; the next one that is parked queues a new deadline.
    Nothing,
    /// The deadline has moved to this time and must be queued again.
    Later(D),
    /// The deadline has passed, with this reason. The caller now owns the value.
    Now(Key, T, R),
}

/// A value that could not be parked, which the caller still owns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unparked<T, E> {
    /// The event queue returned an error.
    Refused(T, E),
    /// The server has ended the connection already; drop the value.
    Abandoned(T),
}

impl<T, I: Copy> Slots<T, I> {
    /// Creates a table for at most `limit` values.
    pub(super) fn new(limit: usize) -> Self {
        let chunks = (0..limit.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect();
        Slots { chunks, free: Mutex::new(Free { indices: Vec::new(), fresh: 0 }) }
    }

    /// Reserves a slot for a value that the caller owns; returns `None` if the table is full.
    pub(super) fn reserve(&self, info: Option<I>) -> Option<Key> {
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
        (slot.state, slot.info) = (State::Out, info);
        Some(Key { index, generation: slot.generation })
    }

    /// Adds the description of a value that had none.
    pub(super) fn describe(&self, key: Key, info: I) {
        self.slot(key.index).info = Some(info);
    }

    /// Parks the value, and calls `arm` before any thread can take it. Returns whether the caller
    /// must queue a deadline for the slot.
    ///
    /// # Errors
    ///
    /// Returns the value to the caller if it cannot be parked.
    pub(super) fn park<E>(
        &self,
        key: Key,
        value: T,
        arm: impl FnOnce(&T) -> Result<(), E>,
    ) -> Result<bool, Unparked<T, E>> {
        let mut slot = self.slot(key.index);
        if let State::Abandoned = slot.state {
            return Err(Unparked::Abandoned(value));
        }
        if let Err(error) = arm(&value) {
            return Err(Unparked::Refused(value, error));
        }
        slot.state = State::Parked(value);
        Ok(!std::mem::replace(&mut slot.queued, true))
    }

    /// Takes the value out, if it is still in the slot and parked.
    pub(super) fn take(&self, key: Key) -> Option<T> {
        let mut slot = self.slot(key.index);
        if slot.generation != key.generation {
            return None;
        }
        slot.take()
    }

    /// Handles the deadline of slot `index`: calls `check`, which returns a later deadline, or a
    /// reason to take the value out.
    pub(super) fn take_due<D, R>(
        &self,
        index: u32,
        check: impl FnOnce(&mut T) -> Result<D, R>,
    ) -> Due<T, D, R> {
        let mut slot = self.slot(index);
        let checked = match &mut slot.state {
            State::Parked(value) => check(value),
            _ => {
                slot.queued = false;
                return Due::Nothing;
            }
        };
        match checked {
            Ok(later) => Due::Later(later),
            Err(reason) => {
                slot.queued = false;
                let key = Key { index, generation: slot.generation };
                slot.take().map_or(Due::Nothing, |value| Due::Now(key, value, reason))
            }
        }
    }

    /// Claims the result of a value that the caller owns: from now on it cannot be
    /// [abandoned](Slots::abandon). Returns false if it was abandoned or released already.
    pub(super) fn claim(&self, key: Key) -> bool {
        let mut slot = self.slot(key.index);
        match slot.state {
            _ if slot.generation != key.generation => false,
            State::Abandoned => false,
            _ => {
                slot.state = State::Claimed;
                true
            }
        }
    }

    /// Ends the value of slot `index` although a thread owns it, because the thread may be stuck.
    /// Returns the description, unless no thread owns a value, its result is claimed, or it has no
    /// description: then its thread still has to end it.
    pub(super) fn abandon(&self, index: u32) -> Option<I> {
        let mut slot = self.slot(index);
        if !matches!(slot.state, State::Out) {
            return None;
        }
        let info = slot.info?;
        slot.state = State::Abandoned;
        Some(info)
    }

    /// Frees the slot of a value that the caller has dropped. Returns false if it was released already.
    pub(super) fn release(&self, key: Key) -> bool {
        {
            let mut slot = self.slot(key.index);
            if slot.generation != key.generation {
                return false;
            }
            slot.generation = slot.generation.wrapping_add(1);
            slot.state = State::Free;
        }
        lock(&self.free).indices.push(key.index);
        true
    }

    /// Returns the number of slots that were ever used.
    pub(super) fn used(&self) -> u32 {
        lock(&self.free).fresh
    }

    /// Takes the value parked in slot `index`, if any.
    pub(super) fn evict(&self, index: u32) -> Option<(Key, T)> {
        let mut slot = self.slot(index);
        let key = Key { index, generation: slot.generation };
        slot.take().map(|value| (key, value))
    }

    /// Calls `look` with the value, if it is still there and parked. It must not block.
    pub(super) fn with<R>(&self, key: Key, look: impl FnOnce(&T) -> R) -> Option<R> {
        let slot = self.slot(key.index);
        match &slot.state {
            State::Parked(value) if slot.generation == key.generation => Some(look(value)),
            _ => None,
        }
    }

    fn slot(&self, index: u32) -> MutexGuard<'_, Slot<T, I>> {
        let index = index as usize;
        let chunk = self.chunks[index / CHUNK].get_or_init(|| {
            let vacant = || Slot { generation: 0, queued: false, info: None, state: State::Free };
            (0..CHUNK).map(|_| Mutex::new(vacant())).collect()
        });
        lock(&chunk[index % CHUNK])
    }
}

impl<T, I> Slot<T, I> {
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

/// Every change under these locks is a few assignments, so the state is consistent even if another
/// thread panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn park(slots: &Slots<&'static str, u64>, value: &'static str) -> (Key, bool) {
        let key = slots.reserve(Some(7)).unwrap();
        let queue = slots.park(key, value, |_| Ok::<_, ()>(())).unwrap();
        (key, queue)
    }

    #[test]
    fn a_stale_key_does_not_reach_the_next_value() {
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

    /// A panic may make a thread end a value that it has released before.
    #[test]
    fn a_stale_key_neither_claims_nor_frees_the_next_value() {
        let slots = Slots::new(1);
        let (first, _) = park(&slots, "first");
        assert_eq!(slots.take(first), Some("first"));
        assert!(slots.claim(first) && slots.release(first));
        let (second, _) = park(&slots, "second");
        assert_eq!(first.index, second.index);
        assert!(!slots.claim(first));
        assert!(!slots.release(first));
        assert_eq!(slots.take(second), Some("second"));
        assert_ne!(slots.reserve(None).unwrap().index, second.index, "it is not free");
    }

    #[test]
    fn the_table_grows_to_its_limit() {
        let slots = Slots::<(), u64>::new(2 * CHUNK);
        let keys: Vec<_> = (0..2 * CHUNK).map(|_| slots.reserve(None).unwrap()).collect();
        assert_eq!(slots.reserve(None), None);
        slots.release(keys[300]);
        assert_eq!(slots.reserve(None).unwrap().index, 300);
    }

    #[test]
    fn a_slot_has_at_most_one_queue_entry() {
        let slots = Slots::new(1);
        let (first, queue) = park(&slots, "first");
        assert!(queue);
        assert_eq!(slots.take(first), Some("first"));
        slots.release(first);
        let (second, queue) = park(&slots, "second");
        assert!(!queue, "the entry of the first value serves the second");
        assert_eq!(slots.take_due(0, |_| Ok::<_, ()>(7)), Due::Later(7));
        assert_eq!(slots.take_due(0, |_| Err::<(), _>(3)), Due::Now(second, "second", 3));
        assert_eq!(slots.take_due(0, |_| Err::<(), _>(3)), Due::Nothing);
        assert_eq!(slots.park(second, "second", |_| Ok::<_, ()>(())), Ok(true));
    }

    #[test]
    fn a_failed_arm_returns_the_value() {
        let slots = Slots::<_, u64>::new(1);
        let key = slots.reserve(None).unwrap();
        let parked = slots.park(key, "value", |_| Err("full"));
        assert_eq!(parked, Err(Unparked::Refused("value", "full")));
        assert_eq!(slots.take(key), None);
        assert_eq!(slots.evict(0), None);
    }

    #[test]
    fn a_result_is_either_claimed_or_abandoned() {
        let slots = Slots::new(2);
        let (first, _) = park(&slots, "first");
        assert_eq!(slots.abandon(first.index), None, "it is parked: evict it");
        slots.take(first);
        assert_eq!(slots.abandon(first.index), Some(7));
        assert!(!slots.claim(first));
        let parked = slots.park(first, "first", |_| Ok::<_, ()>(()));
        assert_eq!(parked, Err(Unparked::Abandoned("first")));
        assert_eq!(slots.abandon(first.index), None, "once");

        let (second, _) = park(&slots, "second");
        slots.take(second);
        assert!(slots.claim(second));
        assert_eq!(slots.abandon(second.index), None);
        slots.release(second);
        assert_eq!(slots.abandon(second.index), None);
    }

    #[test]
    fn a_value_without_a_description_is_not_abandoned() {
        let slots = Slots::<&str, u64>::new(1);
        let key = slots.reserve(None).unwrap();
        assert_eq!(slots.abandon(key.index), None);
        slots.describe(key, 7);
        assert_eq!(slots.park(key, "value", |_| Ok::<_, ()>(())), Ok(true), "its thread has it");
    }
}
