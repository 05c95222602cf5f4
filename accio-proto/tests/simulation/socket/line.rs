//! The connection as the network and the kernel see it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use accio_proto::Socket;

#[cfg(feature = "tls")]
use super::secure::Client;
use crate::connection::{Log, LogEntry};
use crate::plan::{Arrival, Plan, Random};

/// A type without values, because this build has no TLS.
#[cfg(not(feature = "tls"))]
pub(super) enum Client {}

/// Virtual time in nanoseconds, shared by everything that takes time.
pub(crate) type Clock = Arc<Mutex<u64>>;

pub(crate) fn time(clock: &Clock) -> u64 {
    *clock.lock().unwrap()
}

/// The connection as the network sees it, also accessible to the test.
pub(crate) struct Line {
    pub(super) clock: Clock,
    log: Log,
    random: Random,
    /// Bytes that have not arrived yet, each with the time of its arrival.
    pub(super) script: VecDeque<(u64, Arrival)>,
    pub(super) queue: VecDeque<u8>,
    fin: bool,
    /// The error that the next call reports.
    error: Option<io::ErrorKind>,
    /// Whether a reset has closed both directions.
    dead: bool,
    /// Number of sends that find no room.
    pub(super) full: u32,
    pub(super) slices: usize,
    /// The other end of a connection with TLS.
    pub(super) client: Option<Client>,
    /// Bytes that the client has received; with TLS, they are decrypted.
    pub(crate) sent: Vec<u8>,
    pub(crate) reported: Reported,
    /// How the server ended the connection.
    pub(crate) end: Option<End>,
}

/// Events that the socket has reported to the session.
#[derive(Default)]
pub(crate) struct Reported {
    pub(crate) bytes: usize,
    /// When the last receive call found nothing.
    pub(crate) nothing: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
}

impl Line {
    pub(crate) fn new(plan: &Plan, clock: &Clock, log: &Log) -> Self {
        Line {
            clock: Arc::clone(clock),
            log: Arc::clone(log),
            random: Random::new(plan.salt),
            script: plan.arrivals.clone().into(),
            queue: VecDeque::new(),
            fin: false,
            error: None,
            dead: false,
            full: plan.full,
            slices: plan.slices,
            client: None,
            sent: Vec::new(),
            reported: Reported::default(),
            end: None,
        }
    }

    /// Delivers the bytes that have arrived by now.
    fn deliver(&mut self) {
        let now = time(&self.clock);
        while self.script.front().is_some_and(|(at, _)| *at <= now) {
            let (_, arrival) = self.script.pop_front().unwrap();
            match arrival {
                Arrival::Bytes(bytes) => {
                    let bytes = self.encrypt(bytes);
                    self.queue.extend(bytes);
                }
                Arrival::Fin => {
                    let close_notify = self.close_notify();
                    self.queue.extend(close_notify);
                    self.fin = true;
                }
                Arrival::Reset => self.reset(),
                #[cfg(feature = "tls")]
                Arrival::Cut { bytes, reset } => {
                    let mut records = self.encrypt(bytes);
                    records.extend(self.close_notify());
                    let whole = records.len() as u64;
                    records.truncate(self.random.below(whole.max(1)) as usize);
                    self.queue.extend(records);
                    if reset { self.reset() } else { self.fin = true }
                }
            }
        }
    }

    fn reset(&mut self) {
        let broken = io::ErrorKind::BrokenPipe;
        self.error = Some(if self.fin { broken } else { io::ErrorKind::ConnectionReset });
        self.dead = true;
        self.script.clear();
    }

    #[cfg(feature = "tls")]
    fn encrypt(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        self.client.as_mut().map_or(bytes.clone(), |client| client.encrypt(&bytes))
    }

    #[cfg(not(feature = "tls"))]
    fn encrypt(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    /// Returns the client's close_notify; without TLS there is none.
    #[cfg(feature = "tls")]
    fn close_notify(&mut self) -> Vec<u8> {
        self.client.as_mut().map(Client::close_notify).unwrap_or_default()
    }

    #[cfg(not(feature = "tls"))]
    fn close_notify(&mut self) -> Vec<u8> {
        Vec::new()
    }

    /// Hands bytes to the client.
    fn arrive(&mut self, bytes: &[u8]) {
        #[cfg(feature = "tls")]
        if let Some(client) = &mut self.client {
            return client.receive(bytes, &mut self.sent);
        }
        self.sent.extend_from_slice(bytes);
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.client.is_some()
    }

    /// Returns whether the client has received the server's close_notify.
    #[cfg(feature = "tls")]
    pub(crate) fn is_confirmed(&self) -> bool {
        self.client.as_ref().is_some_and(Client::is_closed)
    }

    /// Records a result that the session gets from a connection with TLS.
    #[cfg(feature = "tls")]
    pub(super) fn record(&mut self, result: &io::Result<usize>) {
        let entry = match result.as_ref().map_err(io::Error::kind) {
            Ok(0) => LogEntry::Fin,
            Ok(count) => return self.reported.bytes += count,
            Err(io::ErrorKind::WouldBlock) => {
                return self.reported.nothing = Some(time(&self.clock));
            }
            Err(io::ErrorKind::UnexpectedEof) => LogEntry::Truncated,
            Err(io::ErrorKind::ConnectionReset) => LogEntry::Reset,
            Err(io::ErrorKind::BrokenPipe) => return,
            Err(kind) => panic!("{kind}"),
        };
        self.log.lock().unwrap().push(entry);
    }

    /// Records an end that the session gets from a connection without TLS.
    fn log(&self, entry: LogEntry) {
        if !self.is_secure() {
            self.log.lock().unwrap().push(entry);
        }
    }

    /// Returns whether the kernel knows about the peer's end, whether reported or not.
    pub(crate) fn is_over(&self) -> bool {
        self.fin || self.dead
    }

    /// Returns whether sent bytes cannot arrive any more.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Returns whether a receive call would return anything.
    pub(crate) fn is_readable(&mut self) -> bool {
        self.deliver();
        !self.queue.is_empty() || self.fin || self.dead
    }

    pub(crate) fn next_arrival(&self) -> Option<u64> {
        self.script.front().map(|(at, _)| *at)
    }

    /// Returns the result of polling the socket. Finding nothing counts as a final check.
    fn has_input(&mut self) -> bool {
        self.tick();
        let has_input = self.is_readable();
        if !has_input {
            self.reported.nothing = Some(time(&self.clock));
        }
        has_input
    }

    /// Each call takes a little time, in which more may arrive.
    fn tick(&mut self) {
        let pause = if self.random.one_in(8) { self.random.below(2_000_000) } else { 100 };
        *self.clock.lock().unwrap() += pause;
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tick();
        self.deliver();
        if !self.queue.is_empty() {
            let most = buffer.len().min(self.queue.len());
            let count = if self.slices == 0 { most } else { most.min(self.slices) };
            let (front, back) = self.queue.as_slices();
            let first = front.len().min(count);
            buffer[..first].copy_from_slice(&front[..first]);
            buffer[first..count].copy_from_slice(&back[..count - first]);
            self.queue.drain(..count);
            if !self.is_secure() {
                self.reported.bytes += count;
            }
            return Ok(count);
        }
        if self.fin {
            self.log(LogEntry::Fin);
            return Ok(0);
        }
        if let Some(error) = self.error.take() {
            self.log(LogEntry::Reset);
            return Err(error.into());
        }
        if self.dead {
            // As on Linux, the error was reported before, so the end now looks like a FIN.
            return Ok(0);
        }
        self.reported.nothing = Some(time(&self.clock));
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        assert!(!bytes.is_empty(), "nothing to send");
        self.tick();
        self.deliver();
        if let Some(error) = self.error.take() {
            if error == io::ErrorKind::ConnectionReset {
                self.log(LogEntry::Reset);
            }
            return Err(error.into());
        }
        if self.dead {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.full > 0 {
            self.full -= 1;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = match self.slices {
            0 => bytes.len(),
            _ => self.random.below(bytes.len() as u64) as usize + 1,
        };
        self.arrive(&bytes[..count]);
        Ok(count)
    }
}

/// The connection as a socket of the kernel.
pub(crate) struct LineSocket(pub(super) Rc<RefCell<Line>>);

impl Socket for LineSocket {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().receive(buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().send(bytes)
    }

    fn has_input(&self) -> bool {
        self.0.borrow_mut().has_input()
    }

    fn close(self) {
        self.0.borrow_mut().end = Some(End::Fin);
    }
}

impl Drop for LineSocket {
    fn drop(&mut self) {
        self.0.borrow_mut().end.get_or_insert(End::Reset);
    }
}
