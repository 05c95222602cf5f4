//! Measures the time limits of silent clients and the greetings of probes, which connect at regular
//! intervals. One thread does all of it.
//!
//! Each probe of the server is accompanied by one of a reference, a thread of this process that
//! only accepts and greets. Its greetings show how long the machine takes, whatever the server does.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::process::setpriority_process;

use super::senders::connect;
use accio_harness::peer::{GREETING, Listener};
use accio_harness::verdict::{Stop, Verdict, ensure};

/// The time between the connections of two silent clients.
const SILENT_INTERVAL: Duration = Duration::from_millis(1);

/// The time between the connections of two probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(10);

/// How long the observer waits for the silent clients to be disconnected, in addition to their idle
/// timeout.
const EXTRA_TIME: Duration = Duration::from_secs(10);

/// The nice value of the observing thread, if the user may lower it.
const NICE: i32 = -5;

/// The measured times.
#[derive(Debug)]
pub(crate) struct Observed {
    /// The times from connecting to the greeting, sorted.
    greetings: Vec<Duration>,
    /// The same for connections to the reference.
    reference: Vec<Duration>,
    shortest: Duration,
    longest: Duration,
    lateness: Duration,
}

impl Observed {
    /// Returns the number of greetings.
    pub(crate) fn greetings(&self) -> usize {
        self.greetings.len()
    }

    /// Returns a percentile of the times from connecting to the greeting, without the delays of the
    /// observing thread.
    pub(crate) fn greeting(&self, percent: usize) -> Duration {
        percentile(&self.greetings, percent)
    }

    /// Returns the same percentile for connections to the reference.
    pub(crate) fn reference(&self, percent: usize) -> Duration {
        percentile(&self.reference, percent)
    }

    /// Returns the shortest time from connecting to the disconnection of a silent client, and the
    /// longest time from its greeting to its disconnection.
    pub(crate) fn ends(&self) -> (Duration, Duration) {
        (self.shortest, self.longest)
    }

    /// Returns the longest delay with which the observing thread woke up.
    pub(crate) fn lateness(&self) -> Duration {
        self.lateness
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or(Duration::MAX)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClientKind {
    Silent,
    Probe,
    /// A probe of the reference.
    Reference,
}

struct Client {
    stream: Option<TcpStream>,
    kind: ClientKind,
    connected: Instant,
    received: usize,
    greeted: Option<Instant>,
}

struct Observer {
    address: SocketAddr,
    reference: SocketAddr,
    queue: OwnedFd,
    clients: Vec<Client>,
    /// The number of silent clients that have not been disconnected.
    open: usize,
    observed: Observed,
}

/// Opens `silent` connections and waits until the server has disconnected them all. Probes connect at
/// regular intervals during that time.
pub(crate) fn observe(address: SocketAddr, silent: usize, timeout: u64) -> Verdict<Observed> {
    let (listener, over) = (Listener::bind()?, AtomicBool::new(false));
    thread::scope(|scope| {
        // It starts first, and thus has the normal priority, as the server does.
        scope.spawn(|| greet_all(&listener, &over));
        let observed = observe_with(address, listener.address(), silent, timeout);
        over.store(true, Ordering::SeqCst);
        observed
    })
}

/// Accepts and greets connections until `over` is set.
fn greet_all(listener: &Listener, over: &AtomicBool) {
    while !over.load(Ordering::SeqCst) {
        if let Ok(Some(mut peer)) = listener.accept_within(Duration::from_millis(100)) {
            // The probe notices if it gets no greeting.
            let _ = peer.send(GREETING);
        }
    }
}

fn observe_with(
    address: SocketAddr,
    reference: SocketAddr,
    silent: usize,
    timeout: u64,
) -> Verdict<Observed> {
    // Without the privilege, the thread keeps its normal priority.
    let _ = setpriority_process(None, NICE);
    let observed = Observed {
        greetings: Vec::new(),
        reference: Vec::new(),
        shortest: Duration::MAX,
        longest: Duration::ZERO,
        lateness: Duration::ZERO,
    };
    let queue = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let clients = Vec::new();
    let mut observer = Observer { address, reference, queue, clients, open: silent, observed };
    let began = Instant::now();
    let (mut next_silent, mut next_probe, mut begun) = (began, began, 0);
    let until = began + Duration::from_secs(timeout) + EXTRA_TIME;
    while observer.open > 0 {
        let now = Instant::now();
        while begun < silent && next_silent <= now {
            observer.begin(ClientKind::Silent)?;
            (begun, next_silent) = (begun + 1, next_silent + SILENT_INTERVAL);
        }
        if next_probe <= now {
            observer.begin(ClientKind::Probe)?;
            observer.begin(ClientKind::Reference)?;
            next_probe = now + PROBE_INTERVAL;
        }
        if now >= until {
            return Err(Stop::fault(
                "the server to disconnect every silent client",
                format!("{} of {silent} are still connected", observer.open),
            ));
        }
        let next = if begun < silent { next_probe.min(next_silent) } else { next_probe };
        observer.wait(next)?;
    }
    observer.observed.greetings.sort();
    observer.observed.reference.sort();
    Ok(observer.observed)
}

impl Observer {
    fn begin(&mut self, kind: ClientKind) -> Verdict {
        let connected = Instant::now();
        let address = if kind == ClientKind::Reference { self.reference } else { self.address };
        let stream = connect(address)?;
        let data = EventData::new_u64(self.clients.len() as u64);
        epoll::add(&self.queue, &stream, data, EventFlags::IN | EventFlags::RDHUP)?;
        let stream = Some(stream);
        self.clients.push(Client { stream, kind, connected, received: 0, greeted: None });
        Ok(())
    }

    /// Waits for events until `next` at the latest, and records their times.
    fn wait(&mut self, next: Instant) -> Verdict {
        let left = next.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 64];
        let count = match epoll::wait(&self.queue, &mut events[..], Some(&timeout)) {
            Err(Errno::INTR) => return Ok(()),
            count => count?,
        };
        let now = Instant::now();
        // Whether or not there are events: this thread should have been running by `next`.
        let late = now.saturating_duration_since(next);
        self.observed.lateness = self.observed.lateness.max(late);
        let mut indices = events[..count].iter().map(|event| event.data.u64() as usize);
        indices.try_for_each(|index| self.handle(index, now, late))
    }

    /// Handles an event that this thread saw at `now`, but may have happened `late` before.
    fn handle(&mut self, index: usize, now: Instant, late: Duration) -> Verdict {
        let client = &mut self.clients[index];
        let Some(stream) = &mut client.stream else { return Ok(()) };
        let mut buffer = [0; 64];
        match stream.read(&mut buffer) {
            Ok(0) => {
                return Err(Stop::fault(
                    "the server to reset the connection of a silent client",
                    "FIN",
                ));
            }
            Ok(count) => {
                client.received += count;
                ensure(client.received <= GREETING.len(), "nothing but the greeting", || {
                    format!("{} bytes", client.received)
                })?;
                if client.received == GREETING.len() {
                    client.greeted = Some(now);
                    let took = now.saturating_duration_since(client.connected);
                    let took = took.saturating_sub(late);
                    match client.kind {
                        ClientKind::Reference => self.observed.reference.push(took),
                        ClientKind::Silent | ClientKind::Probe => {
                            self.observed.greetings.push(took);
                        }
                    }
                    if client.kind != ClientKind::Silent {
                        client.stream = None;
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                let Some(greeted) = client.greeted else {
                    return Err(Stop::fault("a greeting", error.to_string()));
                };
                let observed = &mut self.observed;
                observed.shortest = observed.shortest.min(now - client.connected);
                observed.longest = observed.longest.max(now - greeted);
                client.stream = None;
                self.open -= 1;
            }
        }
        Ok(())
    }
}
