//! Waiting for a few descriptors at once.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::interest::Interest;

/// A descriptor to wait for, which then reports whether it is ready.
pub(crate) type Watched<'fd> = PollFd<'fd>;

/// Watches for bytes, an end or an error to read.
pub(crate) fn readable(fd: &impl AsFd) -> Watched<'_> {
    watched(fd, Interest::Read)
}

/// Watches for the events of `interest`.
pub(crate) fn watched(fd: &impl AsFd, interest: Interest) -> Watched<'_> {
    let flags = match interest {
        Interest::Read => PollFlags::IN,
        Interest::ReadWrite => PollFlags::IN | PollFlags::OUT,
    };
    PollFd::new(fd, flags)
}

/// Returns whether the last [`wait`] found the descriptor ready.
#[cfg(any(feature = "server", test))]
pub(crate) fn is_ready(fd: &Watched<'_>) -> bool {
    !fd.revents().is_empty()
}

/// Waits until a descriptor is ready or the deadline has passed, and returns the number of ready
/// descriptors.
///
/// It never returns 0 before the deadline, regardless of the resolution of the system's clock.
pub(crate) fn wait(fds: &mut [Watched<'_>], deadline: Option<Instant>) -> io::Result<usize> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match poll(fds, left.map(timespec).as_ref()) {
            // A signal interrupted the call; the deadline stays.
            Err(Errno::INTR) => {}
            Ok(0) if left.is_none_or(|left| !left.is_zero()) => {}
            ready => return Ok(ready?),
        }
    }
}

/// Returns whether the descriptor has bytes, an end or an error now.
pub(crate) fn has_input(fd: &impl AsFd) -> bool {
    let mut fds = [readable(fd)];
    // If the call fails, reading the descriptor reports the error.
    !matches!(wait(&mut fds, Some(Instant::now())), Ok(0))
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn waits_until_the_deadline_or_until_ready() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut fds = [readable(&socket)];
        let started = Instant::now();
        let limit = Duration::from_micros(20_500);
        assert_eq!(wait(&mut fds, Some(started + limit)).unwrap(), 0);
        assert!(started.elapsed() >= limit);
        // A deadline in the past still checks the descriptors.
        assert_eq!(wait(&mut fds, Some(started)).unwrap(), 0);
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        assert_eq!(wait(&mut fds, Some(Instant::now() + Duration::from_secs(20))).unwrap(), 1);
        assert_eq!(wait(&mut fds, None).unwrap(), 1);
        assert!(is_ready(&fds[0]));
    }
}
