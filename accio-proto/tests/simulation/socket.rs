//! A simulated connection that behaves as on Linux: queued data precedes a reset, an error is
//! reported once, and the socket looks closed afterwards.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use accio_proto::Socket;

use crate::connection::{Log, LogEntry};
use crate::plan::{Arrival, Plan, Random};
use crate::sink::Disk;

/// Virtual time in nanoseconds, shared by everything that takes time.
pub(crate) type Clock = Arc<Mutex<u64>>;

pub(crate) fn time(clock: &Clock) -> u64 {
    *clock.lock().unwrap()
}

/// The connection as the network sees it, also accessible to the test.
pub(crate) struct Line {
    clock: Clock,
    log: Log,
    random: Random,
    /// Bytes that have not arrived yet, each with the time of its arrival.
    script: VecDeque<(u64, Arrival)>,
    queue: VecDeque<u8>,
    fin: bool,
    /// The error that the next call reports.
    error: Option<io::ErrorKind>,
    /// Whether a reset has closed both directions.
    dead: bool,
    /// Number of sends that find no room.
    full: u32,
    slices: usize,
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
                Arrival::Bytes(bytes) => self.queue.extend(bytes),
                Arrival::Fin => self.fin = true,
                Arrival::Reset => {
                    let broken = io::ErrorKind::BrokenPipe;
                    self.error =
                        Some(if self.fin { broken } else { io::ErrorKind::ConnectionReset });
                    self.dead = true;
                    self.script.clear();
                }
            }
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

    /// The result of polling the socket. Finding nothing counts as a final check.
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
            self.reported.bytes += count;
            return Ok(count);
        }
        if self.fin {
            self.log.lock().unwrap().push(LogEntry::Fin);
            return Ok(0);
        }
        if let Some(error) = self.error.take() {
            self.log.lock().unwrap().push(LogEntry::Reset);
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
                self.log.lock().unwrap().push(LogEntry::Reset);
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
        self.sent.extend_from_slice(&bytes[..count]);
        Ok(count)
    }
}

/// The session's side of the connection.
pub(crate) struct SimSocket {
    pub(crate) id: u64,
    pub(crate) line: Rc<RefCell<Line>>,
    pub(crate) disk: Arc<Mutex<Disk>>,
}

impl Socket for SimSocket {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.line.borrow_mut().receive(buffer)
    }

    fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        let count = self.line.borrow_mut().receive(scratch)?;
        scratch[..count.min(64)].fill(0xEE);
        Ok(count)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.borrow_mut().send(bytes)
    }

    fn has_input(&self) -> bool {
        self.line.borrow_mut().has_input()
    }

    fn close(self) {
        let id = self.id;
        assert!(self.disk.lock().unwrap().is_durable(id), "a FIN before file {id} is durable");
        self.line.borrow_mut().end = Some(End::Fin);
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.line.borrow_mut().end.get_or_insert(End::Reset);
    }
}
