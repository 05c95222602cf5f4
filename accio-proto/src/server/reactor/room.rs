//! The sink's last answer to the question whether it has room for another file.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::tuning::server::ACCEPT_RETRY;

/// How long the front thread waits for an answer before it uses the last one. A disk that does not
/// respond must not delay greetings.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);

/// How long the front thread continues to accept after the sink had room, while the next answer is
/// pending. On a busy server, which asks all the time, accepting therefore never pauses.
const OVERLAP: Duration = ACCEPT_RETRY.saturating_mul(2);

/// The last answer, and the time of the pending question.
///
/// The front thread never asks the sink itself, because that may block.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    answer: Option<(bool, Instant)>,
    asked: Option<Instant>,
}

/// The front thread's next step for a waiting connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether to pass the question to a committer.
    pub(super) ask: bool,
    pub(super) room: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// An answer is expected; check again when it arrives, or at this time.
    Soon(Instant),
}

impl Room {
    pub(super) fn look(&self, now: Instant) -> Verdict {
        let mut state = self.lock();
        let age = state.answer.map(|(_, at)| now.saturating_duration_since(at));
        let ask = state.asked.is_none() && age.is_none_or(|age| age >= ACCEPT_RETRY);
        if ask {
            state.asked = Some(now);
        }
        let patience = state.asked.map(|asked| asked + PATIENCE).filter(|until| now < *until);
        let is_recent = age.is_some_and(|age| age < OVERLAP);
        let room = match (state.answer, patience) {
            (Some((true, _)), _) if is_recent => Answer::Yes,
            (_, Some(until)) => Answer::Soon(until),
            // If there was no room, only a new answer can change that.
            (Some((false, _)), None) => Answer::No,
            (_, None) => Answer::Yes,
        };
        Verdict { ask, room }
    }

    /// Records the sink's answer.
    pub(super) fn answer(&self, has_room: bool, now: Instant) {
        *self.lock() = State { answer: Some((has_room, now)), asked: None };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment, so the state is consistent even if another thread panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ask: bool, room: Answer) -> Verdict {
        Verdict { ask, room }
    }

    #[test]
    fn uses_a_fresh_answer_and_renews_an_old_one() {
        let (room, start) = (Room::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(room.look(at(0)), verdict(true, Answer::Soon(at(20))));
        assert_eq!(room.look(at(5)), verdict(false, Answer::Soon(at(20))), "asked once");
        room.answer(true, at(6));
        assert_eq!(room.look(at(7)), verdict(false, Answer::Yes));
        assert_eq!(room.look(at(105)), verdict(false, Answer::Yes));
        // Accepting continues while the answer is renewed.
        assert_eq!(room.look(at(106)), verdict(true, Answer::Yes));
        assert_eq!(room.look(at(107)), verdict(false, Answer::Yes));
        room.answer(true, at(107));
        assert_eq!(room.look(at(108)), verdict(false, Answer::Yes));
        // By now the disk may be full.
        assert_eq!(room.look(at(9000)), verdict(true, Answer::Soon(at(9020))));
        room.answer(false, at(9001));
        assert_eq!(room.look(at(9002)), verdict(false, Answer::No));
        assert_eq!(room.look(at(9101)), verdict(true, Answer::Soon(at(9121))));
        assert_eq!(room.look(at(9121)), verdict(false, Answer::No));
        room.answer(true, at(9500));
        assert_eq!(room.look(at(9501)), verdict(false, Answer::Yes));
    }

    #[test]
    fn stops_waiting_for_a_sink_that_does_not_answer() {
        let (room, start) = (Room::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(room.look(at(0)), verdict(true, Answer::Soon(at(20))));
        assert_eq!(room.look(at(20)), verdict(false, Answer::Yes));
        assert_eq!(room.look(at(60_000)), verdict(false, Answer::Yes));
    }
}
