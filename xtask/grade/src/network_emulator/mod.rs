//! A proxy that emulates a network: latency, jitter, bandwidth, segments, stalls like those of
//! retransmission timeouts, and resets. It cannot lose bytes without corrupting the stream. But to
//! a program, lost packets look like delays and odd slices, and these are emulated.
//!
//! Slices and stalls follow a fixed plan by the position in the stream, not by the time at which
//! bytes arrive, so that they are the same in each run. At the ends of the confirmations the proxy
//! waits until the server has read everything: whether they arrive together with what follows must
//! not depend on chance.

mod profile;
mod schedule;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

pub(crate) use self::profile::{Pauses, Profile};
use self::schedule::Schedule;
use accio_harness::context::wait_until;
use accio_harness::verdict::Verdict;

/// Maximum number of reads in flight in one direction, of up to [`PIECE`] bytes each.
const IN_FLIGHT: usize = 64;
const PIECE: usize = 16 << 10;

/// Determines the slices and stalls of all emulated networks.
const PLAN: u64 = 1;
/// How long to wait until the server has read what was sent before a pause.
const PAUSE: Duration = Duration::from_secs(3);

/// A running network emulator. Dropping it ends its connections.
#[derive(Debug)]
pub(crate) struct NetworkEmulator {
    address: SocketAddr,
    shared: Arc<EmulatorState>,
}

#[derive(Debug, Default)]
struct EmulatorState {
    stop: AtomicBool,
    streams: Mutex<Vec<Weak<TcpStream>>>,
}

impl NetworkEmulator {
    /// Accepts connections at `host` and relays them to `target`.
    pub(crate) fn start(
        host: IpAddr,
        target: SocketAddr,
        profile: Profile,
        pauses: Pauses,
    ) -> Verdict<NetworkEmulator> {
        let listener = TcpListener::bind((host, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(EmulatorState::default());
        let for_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for (number, near) in (0..).zip(listener.incoming()) {
                if for_thread.stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(near) = near {
                    let shared = Arc::clone(&for_thread);
                    let seed = PLAN + number * 2;
                    let pauses = pauses.clone();
                    thread::spawn(move || relay(near, target, (profile, &pauses), seed, &shared));
                }
            }
        });
        Ok(NetworkEmulator { address, shared })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for NetworkEmulator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Connect to the listener, so that its thread wakes up and ends.
        let host = if self.address.ip().is_unspecified() {
            [127, 0, 0, 1].into()
        } else {
            self.address.ip()
        };
        let _ = TcpStream::connect_timeout(&(host, self.address.port()).into(), CONNECT_TIMEOUT);
        let streams = self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in streams.iter().filter_map(Weak::upgrade) {
            // The connection may have ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Time limit for connecting to the target.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

fn relay(
    near: TcpStream,
    target: SocketAddr,
    (profile, pauses): (Profile, &Pauses),
    seed: u64,
    shared: &EmulatorState,
) {
    let Ok(far) = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT) else {
        // The client sees a reset, as without a server.
        let _ = SockRef::from(&near).set_linger(Some(Duration::ZERO));
        return;
    };
    let (near, far) = (Arc::new(near), Arc::new(far));
    for stream in [&near, &far] {
        // A write has no timeout: the checks give up programs that read nothing.
        let _ = stream.set_nodelay(true);
        let mut streams = shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|stream| stream.strong_count() > 0);
        // A weak reference, because a reset takes effect when the last handle is closed.
        streams.push(Arc::downgrade(stream));
    }
    let broken = AtomicBool::new(false);
    let forward = Direction { from: &near, to: &far, broken: &broken };
    let back = Direction { from: &far, to: &near, broken: &broken };
    // The bytes from the server are only delayed.
    let delayed = Profile { reset_at: None, stall_every: u64::MAX, ..profile };
    thread::scope(|scope| {
        let none = Pauses::none();
        scope.spawn(|| forward.run(profile, pauses, seed));
        scope.spawn(move || back.run(delayed, &none, seed + 1));
    });
}

/// Bytes and the time to deliver them; no bytes mark the end of the stream.
type DelayedBytes = (Instant, Vec<u8>);

/// One direction of a connection.
struct Direction<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    /// Whether the connection was reset.
    broken: &'a AtomicBool,
}

impl Direction<'_> {
    fn run(&self, profile: Profile, pauses: &Pauses, seed: u64) {
        thread::scope(|scope| {
            // Created here, so that dropping the sender on return ends the other thread.
            let (send, pieces) = mpsc::sync_channel::<DelayedBytes>(IN_FLIGHT);
            scope.spawn(move || self.deliver(pieces, profile, pauses, seed));
            let mut buffer = vec![0; PIECE];
            let mut due = Instant::now();
            let mut from = self.from;
            loop {
                let count = match from.read(&mut buffer) {
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    Err(_) => return self.reset(),
                };
                let share = Duration::from_secs_f64(count as f64 / profile.bandwidth as f64);
                due = due.max(Instant::now()) + share;
                let piece = (due + profile.latency, buffer[..count].to_vec());
                if send.send(piece).is_err() || count == 0 {
                    return;
                }
            }
        });
    }

    fn deliver(
        &self,
        pieces: mpsc::Receiver<DelayedBytes>,
        profile: Profile,
        pauses: &Pauses,
        seed: u64,
    ) {
        let mut schedule = Schedule::new(profile, seed);
        let mut to = self.to;
        for (due, bytes) in pieces {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if bytes.is_empty() {
                if !self.broken.load(Ordering::Relaxed) {
                    let _ = to.shutdown(Shutdown::Write);
                }
                return;
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let position = schedule.position();
                let until = pauses.next(position);
                let available = usize::try_from(until - position).unwrap_or(usize::MAX);
                let (length, pause) = schedule.next(rest.len().min(available));
                thread::sleep(pause);
                if length == 0 || to.write_all(&rest[..length]).is_err() {
                    return self.reset();
                }
                rest = &rest[length..];
                if schedule.position() == until {
                    self.wait_for_reader(pauses);
                }
            }
        }
    }

    /// Waits until the receiver has read everything.
    fn wait_for_reader(&self, pauses: &Pauses) {
        if let Ok(address) = self.to.local_addr() {
            wait_until(PAUSE, || (pauses.is_read)(address));
        }
    }

    /// Resets both sides of the connection. It takes effect when both directions have ended.
    fn reset(&self) {
        self.broken.store(true, Ordering::Relaxed);
        for stream in [self.from, self.to] {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use accio_harness::payload;
    use accio_harness::peer::{End, Listener, Peer, SOON};

    #[test]
    fn relays_bytes_and_ends_unchanged() {
        let listener = Listener::bind().unwrap();
        let fast = Profile { stall_every: u64::MAX, ..Profile::POOR };
        let proxy =
            NetworkEmulator::start([127, 0, 0, 1].into(), listener.address(), fast, Pauses::none())
                .unwrap();
        let content = payload::bytes(1, 700_000);
        let mut client = Peer::connect(proxy.address()).unwrap();
        let mut server = listener.accept().unwrap();
        let began = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| {
                client.send(&content).unwrap();
                client.fin().unwrap();
            });
            let (received, end) = server.receive_all(SOON).unwrap();
            assert!(received == content && end == End::Fin);
        });
        assert!(began.elapsed() >= Duration::from_millis(30));
        server.send(b"back").unwrap();
        assert_eq!(client.receive(4, SOON).unwrap(), b"back");
        server.reset().unwrap();
        assert_eq!(client.end(SOON).unwrap().0, End::Reset);
    }

    #[test]
    fn separates_the_confirmations_from_the_content_even_if_sent_at_once() {
        let listener = Listener::bind().unwrap();
        let read = Arc::new(AtomicBool::new(false));
        let is_read = Arc::clone(&read);
        let pauses = Pauses {
            positions: vec![15, 38],
            is_read: Arc::new(move |_| is_read.swap(false, Ordering::Relaxed)),
        };
        let local = [127, 0, 0, 1].into();
        for profile in [Profile::DIRECT, Profile::POOR] {
            read.store(false, Ordering::Relaxed);
            let proxy =
                NetworkEmulator::start(local, listener.address(), profile, pauses.clone()).unwrap();
            let mut client = Peer::connect(proxy.address()).unwrap();
            let mut server = listener.accept().unwrap();
            client.send(&[7; 60]).unwrap();
            for length in [15, 23, 22] {
                assert_eq!(server.receive(length, SOON).unwrap().len(), length);
                server.expect_silence(Duration::from_millis(300)).unwrap();
                read.store(true, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn resets_at_the_given_position() {
        let listener = Listener::bind().unwrap();
        let profile = Profile { reset_at: Some(50_000), stall_every: u64::MAX, ..Profile::POOR };
        let none = Pauses::none();
        let proxy =
            NetworkEmulator::start([127, 0, 0, 1].into(), listener.address(), profile, none)
                .unwrap();
        let mut client = Peer::connect(proxy.address()).unwrap();
        let mut server = listener.accept().unwrap();
        client.send(&[7; 60_000]).unwrap();
        let (received, end) = server.receive_all(SOON).unwrap();
        assert_eq!((received.len(), end), (50_000, End::Reset));
        assert_eq!(client.end(SOON).unwrap().0, End::Reset);
    }
}
