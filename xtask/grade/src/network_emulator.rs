//! An emulated network in user space: latency, jitter, bandwidth, tiny slices, stalls shaped like
//! retransmission time-outs, resets. Bytes cannot be lost here without corrupting the stream; what
//! loss does to a program is to make it wait and to give it odd pieces, and that is what this does.
//!
//! Everything is drawn from a seed, by the position in the stream and never by the time at which
//! bytes come, so that the same seed gives the same pieces and the same stalls.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use accio_harness::verdict::Verdict;

/// Bytes on the way in one direction, in pieces of [`PIECE`].
const ON_THE_WAY: usize = 64;
const PIECE: usize = 16 << 10;

/// The delays and losses of a network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Profile {
    /// How long each byte takes, in one direction.
    pub(crate) latency: Duration,
    /// How much longer some take.
    pub(crate) jitter: Duration,
    /// Bytes a second.
    pub(crate) bandwidth: u64,
    /// How many bytes from the start come in pieces of a few bytes.
    pub(crate) tiny: u64,
    /// About how far stalls are apart, in bytes.
    pub(crate) stall_every: u64,
    /// The longest stall.
    pub(crate) longest_stall: Duration,
    /// The position at which both sides get a reset.
    pub(crate) reset_at: Option<u64>,
}

impl Profile {
    /// A poor line: what "emulated delay and loss" means where no packet can be dropped.
    pub(crate) const POOR: Profile = Profile {
        latency: Duration::from_millis(15),
        jitter: Duration::from_millis(10),
        bandwidth: 24 << 20,
        tiny: 3_000,
        stall_every: 6 << 20,
        // Four time-outs in a row; far below the ten seconds of an idle time-out.
        longest_stall: Duration::from_millis(1_600),
        reset_at: None,
    };
    /// Delay alone, for in front of a line that really loses packets.
    pub(crate) const FAR: Profile = Profile { stall_every: u64::MAX, ..Profile::POOR };
}

/// A running proxy; connections end with it.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    streams: Mutex<Vec<Weak<TcpStream>>>,
}

impl Proxy {
    /// Takes connections at `host` and carries them to `target`.
    pub(crate) fn start(
        host: IpAddr,
        target: SocketAddr,
        profile: Profile,
        seed: u64,
    ) -> Verdict<Proxy> {
        let listener = TcpListener::bind((host, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        thread::spawn(move || {
            for (number, near) in (0..).zip(listener.incoming()) {
                if for_thread.stop.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(near) = near {
                    let shared = Arc::clone(&for_thread);
                    let seed = seed.wrapping_add(number * 2);
                    thread::spawn(move || carry(near, target, profile, seed, &shared));
                }
            }
        });
        Ok(Proxy { address, shared })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the listener, which then ends.
        let host = if self.address.ip().is_unspecified() {
            [127, 0, 0, 1].into()
        } else {
            self.address.ip()
        };
        let _ = TcpStream::connect_timeout(&(host, self.address.port()).into(), PATIENCE);
        let streams = self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        for stream in streams.iter().filter_map(Weak::upgrade) {
            // It may have ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// For a connection to the target.
const PATIENCE: Duration = Duration::from_secs(5);

fn carry(near: TcpStream, target: SocketAddr, profile: Profile, seed: u64, shared: &Shared) {
    let Ok(far) = TcpStream::connect_timeout(&target, PATIENCE) else {
        // The client sees the same as without a server.
        let _ = SockRef::from(&near).set_linger(Some(Duration::ZERO));
        return;
    };
    let (near, far) = (Arc::new(near), Arc::new(far));
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_write_timeout(Some(Duration::from_secs(60)));
        let mut streams = shared.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|stream| stream.strong_count() > 0);
        // No handle of its own: a reset takes effect when the last handle closes.
        streams.push(Arc::downgrade(stream));
    }
    let broken = AtomicBool::new(false);
    let there = Direction { from: &near, to: &far, broken: &broken };
    let back = Direction { from: &far, to: &near, broken: &broken };
    // The server's bytes are not a file: they are only delayed.
    let late = Profile { reset_at: None, stall_every: u64::MAX, ..profile };
    thread::scope(|scope| {
        scope.spawn(|| there.run(profile, seed));
        scope.spawn(|| back.run(late, seed + 1));
    });
}

/// Bytes, and when they are due; none of them is the end.
type Piece = (Instant, Vec<u8>);

/// One direction of a connection.
struct Direction<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    /// Whether both directions have ended by a reset.
    broken: &'a AtomicBool,
}

impl Direction<'_> {
    fn run(&self, profile: Profile, seed: u64) {
        thread::scope(|scope| {
            // Within: the other end sees it go when we return.
            let (send, pieces) = mpsc::sync_channel::<Piece>(ON_THE_WAY);
            scope.spawn(move || self.deliver(pieces, profile, seed));
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

    fn deliver(&self, pieces: mpsc::Receiver<Piece>, profile: Profile, seed: u64) {
        let mut plan = Schedule::new(profile, seed);
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
                let (length, pause) = plan.next(rest.len());
                thread::sleep(pause);
                if length == 0 || to.write_all(&rest[..length]).is_err() {
                    return self.reset();
                }
                rest = &rest[length..];
            }
        }
    }

    /// Both ends learn that the connection is no more, once both directions have noticed.
    fn reset(&self) {
        self.broken.store(true, Ordering::Relaxed);
        for stream in [self.from, self.to] {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            let _ = stream.shutdown(Shutdown::Read);
        }
    }
}

/// Where the stream is cut and where it stalls, by position alone.
struct Schedule {
    random: fastrand::Rng,
    profile: Profile,
    position: u64,
    /// The end of the piece begun.
    cut: u64,
    stall: u64,
}

impl Schedule {
    fn new(profile: Profile, seed: u64) -> Schedule {
        let mut random = fastrand::Rng::with_seed(seed);
        let stall = distance(&mut random, profile.stall_every);
        Schedule { random, profile, position: 0, cut: 0, stall }
    }

    /// How many of the next `available` bytes come together, and after what pause; none: a reset.
    fn next(&mut self, available: usize) -> (usize, Duration) {
        let mut pause = Duration::ZERO;
        if self.profile.reset_at == Some(self.position) {
            return (0, pause);
        }
        if self.position >= self.cut {
            let tiny = self.position < self.profile.tiny;
            let length =
                if tiny { self.random.u64(1..=120) } else { self.random.u64(1..=64 << 10) };
            self.cut = self.position + length;
            pause = self.profile.jitter.mul_f64(self.random.f64().powi(4));
        }
        if self.position >= self.stall {
            // 200 ms, 400 ms and so on: a lost packet's retransmission, lost again at times.
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

    fn plan(seed: u64, pieces: usize) -> Vec<(usize, Duration)> {
        let mut plan = Schedule::new(Profile::POOR, seed);
        let mut taken = Vec::new();
        let mut rest = 4 << 20;
        while rest > 0 {
            let (length, pause) = plan.next(pieces.min(rest));
            rest -= length;
            taken.push((length, pause));
        }
        taken
    }

    #[test]
    fn a_seed_gives_the_same_cuts_and_stalls_however_bytes_come() {
        assert_eq!(plan(1, PIECE), plan(1, PIECE));
        assert_ne!(plan(1, PIECE), plan(2, PIECE));
        let total = |pieces: &[(usize, Duration)]| pieces.iter().map(|(_, pause)| *pause).sum();
        let (whole, part): (Duration, Duration) =
            (total(&plan(7, usize::MAX)), total(&plan(7, 999)));
        assert_eq!(whole, part);
    }

    #[test]
    fn bytes_arrive_as_they_were_and_ends_too() {
        let listener = Listener::bind().unwrap();
        let fast = Profile { stall_every: u64::MAX, ..Profile::POOR };
        let proxy = Proxy::start([127, 0, 0, 1].into(), listener.address(), fast, 3).unwrap();
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
    fn a_reset_comes_at_its_place() {
        let listener = Listener::bind().unwrap();
        let profile = Profile { reset_at: Some(50_000), stall_every: u64::MAX, ..Profile::POOR };
        let proxy = Proxy::start([127, 0, 0, 1].into(), listener.address(), profile, 3).unwrap();
        let mut client = Peer::connect(proxy.address()).unwrap();
        let mut server = listener.accept().unwrap();
        client.send(&[7; 60_000]).unwrap();
        let (received, end) = server.receive_all(SOON).unwrap();
        assert_eq!((received.len(), end), (50_000, End::Reset));
        assert_eq!(client.end(SOON).unwrap().0, End::Reset);
    }
}
