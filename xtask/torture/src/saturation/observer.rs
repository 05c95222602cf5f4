//! Measures the time limits of silent clients and the greetings of probes, which connect at regular
//! intervals. One thread does all of it.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::process::setpriority_process;

use super::senders::connect;
use accio_harness::peer::GREETING;
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
    shortest: Duration,
    longest: Duration,
    lateness: Duration,
}

impl Observed {
    /// Returns the number of greetings.
    pub(crate) fn greetings(&self) -> usize {
        self.greetings.len()
    }

    /// Returns a percentile of the times from connecting to the greeting.
    pub(crate) fn greeting(&self, percent: usize) -> Duration {
        self.greetings.get(self.greetings.len() * percent / 100).copied().unwrap_or(Duration::MAX)
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

/// A silent client or a probe.
struct Client {
    stream: Option<TcpStream>,
    is_silent: bool,
    connected: Instant,
    received: usize,
    greeted: Option<Instant>,
}

struct Observer {
    address: SocketAddr,
    queue: OwnedFd,
    clients: Vec<Client>,
    /// The number of silent clients that have not been disconnected.
    open: usize,
    observed: Observed,
}

/// Opens `silent` connections and waits until the server has disconnected them all. Meanwhile,
/// probes connect at regular intervals.
pub(crate) fn observe(address: SocketAddr, silent: usize, timeout: u64) -> Verdict<Observed> {
    // Without the privilege, the thread keeps its normal priority.
    let _ = setpriority_process(None, NICE);
    let observed = Observed {
        greetings: Vec::new(),
        shortest: Duration::MAX,
        longest: Duration::ZERO,
        lateness: Duration::ZERO,
    };
    let queue = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut observer = Observer { address, queue, clients: Vec::new(), open: silent, observed };
    let began = Instant::now();
    let (mut next_silent, mut next_probe, mut begun) = (began, began, 0);
    let until = began + Duration::from_secs(timeout) + EXTRA_TIME;
    while observer.open > 0 {
        let now = Instant::now();
        while begun < silent && next_silent <= now {
            observer.begin(true)?;
            (begun, next_silent) = (begun + 1, next_silent + SILENT_INTERVAL);
        }
        if next_probe <= now {
            observer.begin(false)?;
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
    Ok(observer.observed)
}

impl Observer {
    fn begin(&mut self, is_silent: bool) -> Verdict {
        let connected = Instant::now();
        let stream = connect(self.address)?;
        let data = EventData::new_u64(self.clients.len() as u64);
        epoll::add(&self.queue, &stream, data, EventFlags::IN | EventFlags::RDHUP)?;
        let stream = Some(stream);
        self.clients.push(Client { stream, is_silent, connected, received: 0, greeted: None });
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
        if count == 0 {
            let late = now.saturating_duration_since(next);
            self.observed.lateness = self.observed.lateness.max(late);
        }
        events[..count].iter().try_for_each(|event| self.handle(event.data.u64() as usize, now))
    }

    fn handle(&mut self, index: usize, now: Instant) -> Verdict {
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
                    self.observed.greetings.push(now - client.connected);
                    if !client.is_silent {
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
