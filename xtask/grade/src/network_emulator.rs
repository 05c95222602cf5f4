//! A proxy that emulates a network: latency, jitter, bandwidth, segments, stalls like those of
//! retransmission timeouts, and resets. It cannot lose bytes without corrupting the stream. But to
//! a program, lost packets look like delays and odd slices, and these are emulated.
//!
//! Slices and stalls follow a fixed plan by the position in the stream, not by the time at which
//! bytes arrive, so that they are the same in each run. At the ends of the confirmations the proxy
//! waits until the server has read everything: whether they arrive together with what follows must
//! not depend on chance.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use accio_harness::context::wait_until;
use accio_harness::verdict::Verdict;

/// Maximum number of reads in flight in one direction, of up to [`PIECE`] bytes each.
const IN_FLIGHT: usize = 64;
const PIECE: usize = 16 << 10;
/// Maximum number of segments in a slice.
const MOST_SEGMENTS: u64 = 44;

/// The properties of an emulated network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Profile {
    /// Delay of each byte, in one direction.
    pub(crate) latency: Duration,
    /// Maximum additional delay of a slice.
    pub(crate) jitter: Duration,
    /// Bytes per second.
    pub(crate) bandwidth: u64,
    /// Length of a segment: slices contain a number of whole segments.
    pub(crate) segment: u64,
    /// Average distance of stalls, in bytes.
    pub(crate) stall_every: u64,
    /// Maximum duration of a stall.
    pub(crate) longest_stall: Duration,
    /// The position in the stream at which both sides get a reset.
    pub(crate) reset_at: Option<u64>,
}

impl Profile {
    /// A poor network: emulates delay and loss where packets cannot be dropped.
    pub(crate) const POOR: Profile = Profile {
        latency: Duration::from_millis(15),
        jitter: Duration::from_millis(10),
        bandwidth: 24 << 20,
        segment: 1_460,
        stall_every: 6 << 20,
        // Four retransmission timeouts in a row; far below the idle timeout of ten seconds.
        longest_stall: Duration::from_millis(1_600),
        reset_at: None,
    };
    /// No delays: only the pauses at the ends of the confirmations.
    pub(crate) const DIRECT: Profile = Profile {
        latency: Duration::ZERO,
        jitter: Duration::ZERO,
        bandwidth: u64::MAX,
        segment: u64::MAX,
        stall_every: u64::MAX,
        longest_stall: Duration::ZERO,
        reset_at: None,
    };
}

/// Determines the slices and stalls of all emulated networks.
const PLAN: u64 = 1;
/// How long to wait until the server has read what was sent before a pause.
const PAUSE: Duration = Duration::from_secs(3);

/// Positions in the client's stream at which to wait until the server has read all bytes.
#[derive(Clone)]
pub(crate) struct Pauses {
    /// The positions, in ascending order.
    pub(crate) positions: Vec<u64>,
    /// Whether the server has read all bytes of the connection from this address.
    pub(crate) is_read: Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>,
}

impl Pauses {
    /// No pauses.
    pub(crate) fn none() -> Pauses {
        Pauses { positions: Vec::new(), is_read: Arc::new(|_| true) }
    }

    /// Returns the first position after `position`.
    fn next(&self, position: u64) -> u64 {
        self.positions.iter().copied().find(|at| *at > position).unwrap_or(u64::MAX)
    }
}

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

    /// Returns its address.
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
        let _ = stream.set_nodelay(true);
        let _ = stream.set_write_timeout(Some(Duration::from_secs(60)));
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
                let position = schedule.position;
                let until = pauses.next(position);
                let available = usize::try_from(until - position).unwrap_or(usize::MAX);
                let (length, pause) = schedule.next(rest.len().min(available));
                thread::sleep(pause);
                if length == 0 || to.write_all(&rest[..length]).is_err() {
                    return self.reset();
                }
                rest = &rest[length..];
                if schedule.position == until {
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

/// Decides where the stream is sliced and where it stalls, by position only.
struct Schedule {
    random: fastrand::Rng,
    profile: Profile,
    position: u64,
    /// The end of the current slice.
    cut: u64,
    stall: u64,
}

impl Schedule {
    fn new(profile: Profile, seed: u64) -> Schedule {
        let mut random = fastrand::Rng::with_seed(seed);
        let stall = distance(&mut random, profile.stall_every);
        Schedule { random, profile, position: 0, cut: 0, stall }
    }

    /// Returns how many of the next `available` bytes to send at once (0 for a reset) and the pause
    /// before them.
    fn next(&mut self, available: usize) -> (usize, Duration) {
        let mut pause = Duration::ZERO;
        if self.profile.reset_at == Some(self.position) {
            return (0, pause);
        }
        if self.position >= self.cut {
            let segments = self.random.u64(1..=MOST_SEGMENTS);
            self.cut = self.position.saturating_add(self.profile.segment.saturating_mul(segments));
            pause = self.profile.jitter.mul_f64(self.random.f64().powi(4));
        }
        if self.position >= self.stall {
            // 200 ms, 400 ms and so on: retransmissions that may be lost again.
            let doublings = [0, 0, 0, 1, 1, 2, 3][self.random.usize(..7)];
            let stall = Duration::from_millis(200 << doublings);
            pause += stall.min(self.profile.longest_stall);
            self.stall =
                self.position.saturating_add(distance(&mut self.random, self.profile.stall_every));
        }
        let mut end = self.cut.min(self.stall.max(self.position + 1));
        if let Some(reset) = self.profile.reset_at.filter(|reset| *reset > self.position) {
            end = end.min(reset);
        }
        let length = usize::try_from(end - self.position).unwrap_or(available).min(available);
        self.position += length as u64;
        (length, pause)
    }
}

fn distance(random: &mut fastrand::Rng, mean: u64) -> u64 {
    if mean == u64::MAX { mean } else { random.u64(mean / 4..=mean * 7 / 4) }
}

#[cfg(test)]
mod tests {
    use super::*;

    use accio_harness::payload;
    use accio_harness::peer::{End, Listener, Peer, SOON};

    fn slices(seed: u64, pieces: usize) -> Vec<(usize, Duration)> {
        let mut schedule = Schedule::new(Profile::POOR, seed);
        let mut taken = Vec::new();
        let mut rest = 4 << 20;
        while rest > 0 {
            let (length, pause) = schedule.next(pieces.min(rest));
            rest -= length;
            taken.push((length, pause));
        }
        taken
    }

    #[test]
    fn slices_and_stalls_depend_on_the_seed_whatever_the_reads() {
        assert_eq!(slices(1, PIECE), slices(1, PIECE));
        assert_ne!(slices(1, PIECE), slices(2, PIECE));
        let total = |pieces: &[(usize, Duration)]| pieces.iter().map(|(_, pause)| *pause).sum();
        let (whole, part): (Duration, Duration) =
            (total(&slices(7, usize::MAX)), total(&slices(7, 999)));
        assert_eq!(whole, part);
    }

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
                let (received, _) = server.receive_or_end(60, Duration::from_millis(300)).unwrap();
                assert_eq!(received.len(), length);
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
