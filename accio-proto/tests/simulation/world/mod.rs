//! A server in virtual time: selects the next event, and checks the result of every session.

mod checks;
mod stopping;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[cfg(feature = "digest")]
use accio_proto::DigestAlgorithm;
use accio_proto::{
    Abort, Closing, Connection as Description, Copier, Expiry, FastPaths, Interest, ServerDialect,
    Session, SessionLimits, Turn,
};

use crate::connection::{Connection, Log, SimClosing, SimSession, Stage};
use crate::plan::{IDLE, Random, Run};
use crate::sink::{Disk, SimSink};
use crate::socket::{Clock, Line, SimSocket, time};

/// The way in which the threads of a server share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One thread does all work of its session.
    PerSession,
    /// A front thread enforces limits, workers move content, committers finish.
    Reactor,
    /// Like `Reactor`, with commits in groups.
    Groups,
}

/// Next action of a server for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Begin(usize),
    Ready(usize),
    Timeout(usize),
    /// A committer is free.
    Finish(usize),
    Stop,
}

/// One run.
pub(crate) struct World {
    random: Random,
    mode: Mode,
    dialect: ServerDialect,
    limits: SessionLimits,
    start: Instant,
    clock: Clock,
    sink: SimSink,
    copier: Copier,
    #[cfg(feature = "digest")]
    digest: Option<DigestAlgorithm>,
    #[cfg(feature = "tls")]
    is_secure: bool,
    connections: Vec<Connection>,
    stop: Option<u64>,
    last_id: u64,
    ends: Ends,
}

/// Number of sessions by the way they ended, as in [`Abort::code`]; `kept` are the complete ones.
pub(crate) type Ends = BTreeMap<&'static str, u64>;

impl World {
    pub(crate) fn new(mut random: Random, null: &Arc<File>) -> Self {
        let Run { dialect, limits, plans, stop } = Run::draw(&mut random);
        let modes = [Mode::PerSession, Mode::Reactor, Mode::Groups];
        let mode = modes[random.below(modes.len() as u64) as usize];
        #[cfg(feature = "digest")]
        let digest = match random.below(3) {
            0 => None,
            index => Some(DigestAlgorithm::ALL[index as usize - 1]),
        };
        let clock = Clock::default();
        let sink = SimSink(Arc::new(Mutex::new(Disk::new(&clock, null))));
        let connections = plans.into_iter().map(|plan| {
            let log = Log::default();
            Connection {
                id: 0,
                wire: plan.wire(),
                line: Rc::new(RefCell::new(Line::new(&plan, &clock, &log))),
                log,
                plan,
                stage: Stage::ToCome,
                began: 0,
                heard: 0,
                taken: Vec::new(),
            }
        });
        World {
            connections: connections.collect(),
            random,
            mode,
            dialect,
            limits,
            start: Instant::now(),
            clock,
            sink,
            copier: Copier::new(Arc::new(FastPaths::default())),
            #[cfg(feature = "digest")]
            digest,
            #[cfg(feature = "tls")]
            is_secure: false,
            stop,
            last_id: 0,
            ends: Ends::new(),
        }
    }

    /// Makes all connections use TLS, and cuts some of them.
    #[cfg(feature = "tls")]
    pub(crate) fn secured(mut self) -> Self {
        self.is_secure = true;
        for connection in &mut self.connections {
            connection.plan.cut(&mut self.random);
            let line = Line::new(&connection.plan, &self.clock, &connection.log);
            connection.line = Rc::new(RefCell::new(line));
            connection.wire = connection.plan.wire();
        }
        self
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_nanos(time(&self.clock))
    }

    /// Runs to the end and returns how its sessions ended.
    pub(crate) fn run(mut self) -> Ends {
        let mut turns = 0;
        while let Some(event) = self.next_event() {
            turns += 1;
            assert!(turns < 1_000_000, "the run does not end");
            match event {
                Event::Begin(index) => self.begin(index),
                Event::Stop => {
                    self.stop_all();
                    break;
                }
                Event::Timeout(index) if self.mode != Mode::PerSession => self.enforce(index),
                Event::Ready(index) | Event::Timeout(index) => {
                    let stage = &mut self.connections[index].stage;
                    if let Stage::Live(session) = std::mem::replace(stage, Stage::Finished) {
                        self.serve(index, *session, event);
                    }
                }
                Event::Finish(index) => self.finish(index),
            }
        }
        let disk = self.sink.0.lock().unwrap();
        assert!(self.connections.iter().all(|c| !matches!(c.stage, Stage::Closing(_))));
        let kept = (1..=self.last_id).filter(|id| disk.is_complete(*id)).count() as u64;
        assert_eq!(kept, self.ends.get("kept").copied().unwrap_or(0));
        assert_eq!(self.last_id, self.ends.values().sum::<u64>(), "every session ends once");
        drop(disk);
        self.ends
    }

    /// Selects one of the events that are due, or advances the time to the first one that will be;
    /// sometimes by more, because a server can be late, and sometimes selects an event without a
    /// cause.
    fn next_event(&mut self) -> Option<Event> {
        let now = time(&self.clock);
        let mut events: Vec<(u64, Event)> = Vec::new();
        for (index, connection) in self.connections.iter().enumerate() {
            match &connection.stage {
                Stage::ToCome => events.push((connection.plan.begins, Event::Begin(index))),
                Stage::Live(session) => {
                    let mut line = connection.line.borrow_mut();
                    let ready = match session.interest() {
                        _ if line.is_readable() => Some(now),
                        Interest::ReadWrite => Some(now + 1_000_000),
                        Interest::Read => line.next_arrival(),
                    };
                    events.extend(ready.map(|at| (at, Event::Ready(index))));
                    let deadline = (session.deadline(&self.limits) - self.start).as_nanos() as u64;
                    events.push((deadline, Event::Timeout(index)));
                }
                Stage::Closing(_) => events.push((now, Event::Finish(index))),
                Stage::Finished => {}
            }
        }
        let first = events.iter().map(|(at, _)| *at).min()?;
        events.extend(self.stop.map(|at| (at, Event::Stop)));
        let mut due = now.max(first.min(self.stop.unwrap_or(u64::MAX)));
        if self.random.one_in(16) {
            due += self.random.below(2 * IDLE);
        }
        *self.clock.lock().unwrap() = due;
        let whim = self.random.one_in(16);
        let live: Vec<Event> = events
            .iter()
            .filter(|(at, event)| *at <= due || (whim && matches!(event, Event::Timeout(_))))
            .map(|(_, event)| match event {
                // The socket is reported ready without a cause.
                Event::Timeout(index) if whim && self.random.one_in(2) => Event::Ready(*index),
                event => *event,
            })
            .collect();
        Some(live[self.random.below(live.len() as u64) as usize])
    }

    fn begin(&mut self, index: usize) {
        self.last_id += 1;
        let now = self.now();
        let connection = &mut self.connections[index];
        connection.id = self.last_id;
        connection.heard = time(&self.clock);
        connection.began = connection.heard;
        let disk = Arc::clone(&self.sink.0);
        disk.lock().unwrap().prepare(connection.id, &connection.plan, &connection.log);
        #[cfg(feature = "tls")]
        let socket = match self.is_secure {
            true => SimSocket::secured(connection.id, &connection.line, disk),
            false => SimSocket::new(connection.id, &connection.line, disk),
        };
        #[cfg(not(feature = "tls"))]
        let socket = SimSocket::new(connection.id, &connection.line, disk);
        let mut session =
            Session::begin(Description::new(connection.id), socket, self.dialect, now);
        #[cfg(feature = "digest")]
        if let Some(algorithm) = self.digest {
            session = session.digest(algorithm);
        }
        *self.clock.lock().unwrap() += 1;
        match session.greet() {
            Turn::Waiting => self.wait(index, session),
            Turn::Ended(result) => self.close(index, session.close(result)),
        }
    }

    /// The front thread checks a session whose deadline may have passed.
    fn enforce(&mut self, index: usize) {
        let (called, now, limits) = (time(&self.clock), self.now(), self.limits);
        let stage = &mut self.connections[index].stage;
        let Stage::Live(mut session) = std::mem::replace(stage, Stage::Finished) else { return };
        let deadline = session.deadline(&limits);
        let bytes = self.connections[index].line.borrow().reported.bytes;
        let expiry = session.check_deadline(&limits, now);
        let connection = &mut self.connections[index];
        assert_eq!(connection.line.borrow().reported.bytes, bytes, "the front moves no content");
        match expiry {
            Expiry::Later(at) => {
                assert!(at > now, "a deadline was let pass");
                assert!(session.deadline(&limits) >= deadline, "a deadline came nearer");
                connection.stage = Stage::Live(session);
            }
            Expiry::Expired(why) => {
                assert!(deadline <= now, "ended before the deadline");
                connection.check_late(&why, &limits, called, 0);
                self.close(index, session.abort(why));
            }
        }
    }

    /// A session has ended: its thread finishes it, or passes it on to a committer.
    fn close(&mut self, index: usize, closing: SimClosing) {
        let is_inline = match self.mode {
            Mode::PerSession => true,
            Mode::Reactor => closing.is_complete() && self.random.one_in(2),
            Mode::Groups => false,
        };
        if is_inline {
            let ended = closing.finish(&self.sink);
            self.end(index, ended);
        } else {
            self.connections[index].stage = Stage::Closing(Box::new(closing));
        }
    }

    /// A committer takes a session, or a group of complete ones.
    fn finish(&mut self, index: usize) {
        let closing = self.take_closing(index).expect("it waits for a committer");
        if self.mode != Mode::Groups || !closing.is_complete() {
            let ended = closing.finish(&self.sink);
            return self.end(index, ended);
        }
        let (mut members, mut group) = (vec![index], vec![closing]);
        for other in 0..self.connections.len() {
            let is_complete =
                matches!(&self.connections[other].stage, Stage::Closing(c) if c.is_complete());
            if is_complete && !self.random.one_in(4) {
                members.push(other);
                group.extend(self.take_closing(other));
            }
        }
        let all = Closing::finish_all(group, &self.sink, &|_| true);
        for (index, ended) in members.into_iter().zip(all) {
            self.end(index, ended.expect("it was claimed"));
        }
    }

    fn take_closing(&mut self, index: usize) -> Option<SimClosing> {
        match std::mem::replace(&mut self.connections[index].stage, Stage::Finished) {
            Stage::Closing(closing) => Some(*closing),
            stage => {
                self.connections[index].stage = stage;
                None
            }
        }
    }

    fn serve(&mut self, index: usize, mut session: SimSession, event: Event) {
        let called = time(&self.clock);
        let now = self.now();
        let limits = self.limits;
        let deadline = session.deadline(&limits);
        let before = self.connections[index].line.borrow().reported.bytes;
        // Once the deadline has passed, a worker checks the limits, too.
        let is_timeout = matches!(event, Event::Timeout(_))
            || (self.mode != Mode::PerSession && deadline <= now);
        let turn = if is_timeout {
            session.handle_timeout(&self.sink, &mut self.copier, &limits, now)
        } else {
            session.handle_ready(&self.sink, &mut self.copier, &limits, now)
        };
        let connection = &mut self.connections[index];
        let got = connection.line.borrow().reported.bytes;
        let moved = got > before;
        if moved {
            connection.taken.push((called, got));
        }
        match turn {
            Turn::Waiting => {
                let next = session.deadline(&limits);
                assert!(next > now || !is_timeout, "a deadline was let pass");
                assert!(next >= deadline, "a deadline came nearer");
                assert_eq!(session.heard() == now, moved, "heard is when the last byte came");
                if moved {
                    // Like in the reactor, time spent in the sink is not idle time of the peer.
                    connection.heard = time(&self.clock);
                    session.resume(now, self.start + Duration::from_nanos(connection.heard));
                    *self.clock.lock().unwrap() += 1;
                }
                self.wait(index, session);
            }
            Turn::Ended(result) => {
                if let Err(why @ (Abort::Idle(_) | Abort::TooLong(_) | Abort::TooSlow { .. })) =
                    &result
                {
                    assert!(is_timeout, "{why}");
                    connection.check_late(why, &limits, called, got - before);
                }
                self.close(index, session.close(result));
            }
        }
    }
}
