//! An event queue: an epoll instance.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use crate::interest::Interest;

/// An epoll instance. The entries of connections are one-shot: an event is delivered to one waiter,
/// and the entry is inactive until it is armed again.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: OwnedFd,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Poller> {
        Ok(Poller { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Starts to watch a descriptor, until it is [removed](Poller::remove).
    pub(crate) fn add(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), one_shot(interest))?)
    }

    /// Arms an entry again.
    pub(crate) fn arm(&self, fd: impl AsFd, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), one_shot(interest))?)
    }

    /// Removes a descriptor, which must happen before it is closed: a waiter that is examining the
    /// descriptor holds a reference to its file, and the kernel drops the last reference only when
    /// that waiter gets its next event. Until then the peer would not see the end of the
    /// connection.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        // This fails only if the descriptor is not in the queue, which is the desired result.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Adds a descriptor that is reported for as long as it is readable.
    pub(crate) fn add_level(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Waits for one event and returns its token; `None` after `timeout`. Takes one event at a
    /// time: a slow disk may block the thread that takes it, which must not delay other events.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<Option<u64>> {
        let mut event = Events::<1>::new();
        Ok(self.wait_many(&mut event, timeout)?.next())
    }

    /// Waits for events and returns their tokens; none after `timeout`.
    pub(crate) fn wait_many<'e, const N: usize>(
        &self,
        events: &'e mut Events<N>,
        timeout: Option<Duration>,
    ) -> io::Result<impl Iterator<Item = u64> + use<'e, N>> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let count = match epoll::wait(&self.epoll, &mut events.0[..], timeout.as_ref()) {
            // A signal interrupted the call; the caller checks the time again.
            Err(Errno::INTR) => 0,
            waited => waited?,
        };
        Ok(events.0[..count].iter().map(|event| event.data.u64()))
    }
}

/// Room for the events of one wait.
pub(crate) struct Events<const N: usize>([epoll::Event; N]);

impl<const N: usize> Events<N> {
    pub(crate) fn new() -> Self {
        let none = epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
        Events([none; N])
    }
}

fn one_shot(interest: Interest) -> EventFlags {
    let flags = match interest {
        Interest::Read => EventFlags::IN | EventFlags::RDHUP,
        Interest::ReadWrite => EventFlags::IN | EventFlags::RDHUP | EventFlags::OUT,
    };
    flags | EventFlags::ONESHOT
}
