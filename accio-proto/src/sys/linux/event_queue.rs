//! The event queue: one epoll instance and its alarm.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::socket::Interest;
use crate::sys::retry;

/// An epoll instance whose entries are all one-shot: an event is handed to one waiter, and the
/// entry sleeps until it is armed again.
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

    /// Stops to watch a descriptor, before it is closed: else the close may wait. A waiter that is
    /// just looking at it holds a reference to its file, and the kernel puts a last reference down
    /// only when that waiter is next given an event: the peer would not hear of the end until then.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        // Not there at all is as good; nothing else can go wrong.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Adds a descriptor that wakes every waiter for as long as it is readable.
    pub(crate) fn add_broadcast(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), EventFlags::IN)?)
    }

    /// Waits for one event and returns its token. One at a time: whoever takes an event may be
    /// held up by a slow disk, and must not hold up other events with it.
    pub(crate) fn wait(&self) -> io::Result<u64> {
        let mut event = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        loop {
            if retry(|| epoll::wait(&self.epoll, &mut event[..], None))? > 0 {
                return Ok(event[0].data.u64());
            }
        }
    }
}

fn one_shot(interest: Interest) -> EventFlags {
    let flags = match interest {
        Interest::Read => EventFlags::IN | EventFlags::RDHUP,
        Interest::ReadWrite => EventFlags::IN | EventFlags::RDHUP | EventFlags::OUT,
    };
    flags | EventFlags::ONESHOT
}

/// A descriptor that becomes readable at a set time of the monotonic clock.
#[derive(Debug)]
pub(crate) struct Alarm(OwnedFd);

impl Alarm {
    pub(crate) fn new() -> io::Result<Alarm> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Alarm(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// Goes off after `delay` from now, replacing any earlier setting; with `None`, never.
    pub(crate) fn set(&self, delay: Option<Duration>) -> io::Result<()> {
        let none = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = delay.map_or(none, |delay| Timespec {
            tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
            // All zero would switch the alarm off.
            tv_nsec: if delay.is_zero() { 1 } else { delay.subsec_nanos().into() },
        });
        let setting = Itimerspec { it_interval: none, it_value };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &setting)?;
        Ok(())
    }
}

impl AsFd for Alarm {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}
