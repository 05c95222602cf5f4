//! Waiting for a few descriptors at once.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, Timespec, poll};
use rustix::io::Errno;

/// Waits until one of the descriptors is ready, until `deadline` at most; how many are.
///
/// Never returns before the deadline with none, whatever the resolution of the system's clock.
pub(crate) fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<usize> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match poll(fds, left.map(timespec).as_ref()) {
            // A signal; what is left of the time counts on.
            Err(Errno::INTR) => {}
            Ok(0) if left.is_none_or(|left| !left.is_zero()) => {}
            ready => return Ok(ready?),
        }
    }
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

    use rustix::event::PollFlags;

    use super::*;

    #[test]
    fn it_waits_for_the_whole_time_and_no_longer_than_needed() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut fds = [PollFd::new(&socket, PollFlags::IN)];
        let started = Instant::now();
        let limit = Duration::from_micros(20_500);
        assert_eq!(wait(&mut fds, Some(started + limit)).unwrap(), 0);
        assert!(started.elapsed() >= limit);
        // A deadline in the past still looks.
        assert_eq!(wait(&mut fds, Some(started)).unwrap(), 0);
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        assert_eq!(wait(&mut fds, Some(Instant::now() + Duration::from_secs(20))).unwrap(), 1);
        assert_eq!(wait(&mut fds, None).unwrap(), 1);
        assert!(fds[0].revents().contains(PollFlags::IN));
    }
}
