//! The plan of a run, derived from one seed.

use std::collections::VecDeque;
use std::time::Duration;

use accio_proto::{Dialect, ServerDialect, SessionLimits};

/// The idle timeout of every run, in nanoseconds.
pub(crate) const IDLE: u64 = 10_000_000_000;

const CONFIRMATIONS: &[u8] = b"confirm-accio\r\nconfirm-accio-again\r\n\r\n";

/// SplitMix64: a few lines that yield the same numbers on every machine. If there are bytes from a
/// fuzzer, they are used first, two per number.
#[derive(Clone)]
pub(crate) struct Random {
    state: u64,
    script: VecDeque<u8>,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random::scripted(seed, &[])
    }

    pub(crate) fn scripted(seed: u64, script: &[u8]) -> Self {
        Random { state: seed, script: script.iter().copied().collect() }
    }

    pub(crate) fn next(&mut self) -> u64 {
        if let Some(low) = self.script.pop_front() {
            let high = self.script.pop_front().unwrap_or(0);
            return u64::from(high) << 8 | u64::from(low);
        }
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrival {
    Bytes(Vec<u8>),
    Fin,
    /// Without a FIN before it, the transfer fails; after a FIN, it has no effect.
    Reset,
    /// Only some of the bytes that encrypt these and close_notify, then FIN or a reset.
    #[cfg(feature = "tls")]
    Cut {
        bytes: Vec<u8>,
        reset: bool,
    },
}

/// A call of the sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Open,
    Write,
    Commit,
    /// Writing the names of a commit to the disk, after the files got them.
    SyncNames,
    Abort,
}

/// Calls of one kind that fail: the `left` calls after the first `after` ones.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) op: Op,
    pub(crate) after: u32,
    pub(crate) left: u32,
}

/// The way in which the file accepts its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wants {
    Bytes,
    Descriptor,
    Count,
}

/// The plan of one connection.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) begins: u64,
    pub(crate) arrivals: Vec<(u64, Arrival)>,
    /// Number of sends that find no room at first.
    pub(crate) full: u32,
    /// Maximum number of bytes per receive call; 0 for no limit.
    pub(crate) slices: usize,
    pub(crate) wants: Wants,
    pub(crate) faults: Vec<Fault>,
    /// The sink call that takes long, and its duration.
    pub(crate) sink_stall: Option<(u32, u64)>,
    pub(crate) salt: u64,
}

/// The plan of a server with a few concurrent connections.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) dialect: ServerDialect,
    pub(crate) limits: SessionLimits,
    pub(crate) plans: Vec<Plan>,
    pub(crate) stop: Option<u64>,
}

impl Plan {
    /// Returns all bytes of the script, in order.
    pub(crate) fn wire(&self) -> Vec<u8> {
        let bytes = self.arrivals.iter().filter_map(|(_, arrival)| match arrival {
            Arrival::Bytes(bytes) => Some(&bytes[..]),
            #[cfg(feature = "tls")]
            Arrival::Cut { bytes, .. } => Some(&bytes[..]),
            Arrival::Fin | Arrival::Reset => None,
        });
        bytes.collect::<Vec<_>>().concat()
    }

    /// Returns the first FIN or reset in the script, if any.
    pub(crate) fn first_end(&self) -> Option<&Arrival> {
        self.arrivals.iter().map(|(_, arrival)| arrival).find(|a| !matches!(a, Arrival::Bytes(_)))
    }

    /// Cuts some of the connections that would end with FIN, at any byte of what they send last.
    #[cfg(feature = "tls")]
    pub(crate) fn cut(&mut self, random: &mut Random) {
        if self.first_end() != Some(&Arrival::Fin) || !random.one_in(3) {
            return;
        }
        self.arrivals.retain(|(_, arrival)| matches!(arrival, Arrival::Bytes(_)));
        let (at, bytes) = match self.arrivals.pop() {
            Some((at, Arrival::Bytes(bytes))) => (at, bytes),
            _ => (self.begins, Vec::new()),
        };
        self.arrivals.push((at, Arrival::Cut { bytes, reset: random.one_in(4) }));
    }

    fn draw(random: &mut Random) -> Plan {
        let begins = random.below(2) * random.below(4 * IDLE);
        let mut at = begins;
        let mut arrivals = Vec::new();
        let wire = draw_wire(random);
        let mut rest = &wire[..];
        let most = if wire.len() > 1000 { 200_000 } else { random.pick(&[1, 4, 40, 1000]) };
        while !rest.is_empty() {
            let (piece, later) = rest.split_at((random.below(most) as usize + 1).min(rest.len()));
            at += draw_gap(random);
            arrivals.push((at, Arrival::Bytes(piece.to_vec())));
            rest = later;
            if random.one_in(64) {
                break;
            }
        }
        let ends: &[&[Arrival]] =
            &[&[Arrival::Fin], &[Arrival::Reset], &[Arrival::Fin, Arrival::Reset], &[]];
        for end in ends[[0, 0, 0, 0, 1, 1, 2, 3][random.below(8) as usize]] {
            at += draw_gap(random);
            arrivals.push((at, end.clone()));
        }
        let faults = (0..random.pick(&[0, 0, 0, 1, 1, 2, 3])).map(|_| Fault {
            op: random.pick(&[Op::Open, Op::Write, Op::Commit, Op::SyncNames, Op::Abort]),
            after: random.pick(&[0, 0, 0, 1, 1, 2, 5]),
            left: random.pick(&[1, 1, 2, u32::MAX]),
        });
        let faults = faults.collect();
        let sink_stall = random
            .one_in(8)
            .then(|| (random.below(4) as u32 + 1, random.pick(&[IDLE / 2, IDLE, 2 * IDLE])));
        Plan {
            begins,
            arrivals,
            full: random.pick(&[0, 0, 0, 1, 3]),
            slices: random.pick(if wire.len() > 1000 {
                &[0, 0, 1000, 65_536]
            } else {
                &[0, 0, 0, 1, 7, 1000]
            }),
            wants: random.pick(&[Wants::Bytes, Wants::Bytes, Wants::Descriptor, Wants::Count]),
            faults,
            sink_stall,
            salt: random.next(),
        }
    }
}

impl Run {
    pub(crate) fn draw(random: &mut Random) -> Run {
        let dialect = random.pick(&[
            ServerDialect::Auto,
            ServerDialect::Auto,
            ServerDialect::Only(Dialect::Accio),
            ServerDialect::Only(Dialect::Confirm),
            ServerDialect::Only(Dialect::Direct),
        ]);
        let plans = (0..random.pick(&[1, 4, 16])).map(|_| Plan::draw(random)).collect();
        let stop = random.one_in(6).then(|| random.below(5 * IDLE));
        Run { dialect, limits: draw_limits(random), plans, stop }
    }
}

/// Returns the idle timeout and, in some runs, each of the other limits.
fn draw_limits(random: &mut Random) -> SessionLimits {
    let mut limits = SessionLimits::default();
    limits.idle_timeout = Duration::from_nanos(IDLE);
    if random.one_in(6) {
        // Within the bytes that a handshake holds back, about the size of most files, and of a
        // large file.
        limits.max_size = Some(random.pick(&[0, 1, 20, 37, 50, 65_536, 200_000]));
    }
    if random.one_in(6) {
        let most = random.pick(&[1_000_000, IDLE / 2, IDLE, 3 * IDLE]);
        limits.max_duration = Some(Duration::from_nanos(most));
    }
    if random.one_in(6) {
        limits.min_rate = Some(random.pick(&[1, 2, 5, 1_000]));
    }
    limits
}

/// Returns the bytes of a client: a correct handshake, a wrong one or none, then content that may
/// resemble a handshake.
fn draw_wire(random: &mut Random) -> Vec<u8> {
    let mut wire = Vec::new();
    match random.below(8) {
        0 | 1 => {}
        2..=4 => wire.extend_from_slice(CONFIRMATIONS),
        _ => {
            let length = random.below(CONFIRMATIONS.len() as u64 + 1) as usize;
            wire.extend_from_slice(&CONFIRMATIONS[..length]);
        }
    }
    let length = match random.below(256) {
        // Around the size of the first read, and beyond the size of a turn.
        0..=3 => 65_536 + random.below(3) as usize - 1,
        4 => 150_000 + random.below(200_000) as usize,
        5 if random.one_in(8) => (4 << 20) + random.below(300_000) as usize,
        6..=70 => 0,
        _ => random.below(60) as usize,
    };
    // Every eight bytes identify their plan, so that bytes of different plans never match.
    let mut tag = random.next();
    while wire.len() < length {
        wire.extend_from_slice(&tag.to_le_bytes());
        tag = tag.wrapping_add(1);
    }
    wire
}

fn draw_gap(random: &mut Random) -> u64 {
    match random.below(40) {
        0 => IDLE - 1,
        1 => IDLE,
        2 => IDLE + 1,
        3 => 2 * IDLE,
        4..=6 => random.below(IDLE),
        7..=16 => 0,
        _ => random.below(5_000_000),
    }
}
