//! A server's life in virtual time: what comes next, and what every session has to come to.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use accio_proto::handshake::HandshakeError;
use accio_proto::{
    Abort, Closing, Copier, Dialect, Ended, Expiry, FastPaths, FileSink, Interest, ServerDialect,
    Session, SessionLimits, Turn,
};

use crate::oracle;
use crate::plan::{Arrival, IDLE, Op, Plan, Random, Run, Wants};
use crate::sink::{Disk, Kept, SimFile, SimSink};
use crate::socket::{Clock, End, Line, SimSocket, time};

/// The history of one connection, in order: events of its socket and of its sink.
pub(crate) type Log = Arc<Mutex<Vec<Happening>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happening {
    Fin,
    Reset,
    Opened,
    Failed(Op),
    Stopped,
}

/// Over how long a rate is measured, in nanoseconds: spelled out again, as the limits say.
const WINDOW: u64 = 10_000_000_000;

type SimSession = Session<SimSocket, SimFile>;
type SimClosing = Closing<SimSocket, SimFile>;
type SimEnded = Ended<SimSocket, SimFile>;

/// How the threads of a server share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// One thread does everything for its session.
    PerSession,
    /// A front thread enforces limits, workers move content, committers finish.
    Reactor,
    /// The same, with commits in groups.
    Groups,
}

/// One connection of a run.
struct Connection {
    id: u64,
    plan: Plan,
    wire: Vec<u8>,
    line: Rc<RefCell<Line>>,
    log: Log,
    stage: Stage,
    /// When it was accepted, by our own record.
    began: u64,
    /// When the last byte was taken, by our own record.
    heard: u64,
    /// When bytes were taken, and how many in all by then.
    taken: Vec<(u64, usize)>,
}

impl Connection {
    /// That it ended for being late, at a deadline that was handled at `called`, must be so.
    fn check_late(&self, why: &Abort, limits: &SessionLimits, called: u64, moved: bool) {
        let silent = called >= self.heard + IDLE && !moved;
        match why {
            Abort::Idle(_) => {
                assert!(silent, "idle before the deadline");
                let nothing = self.line.borrow().told.nothing;
                assert!(nothing >= Some(called), "idle without a last look");
            }
            Abort::TooLong(_) => {
                let most = limits.max_duration.unwrap().as_nanos() as u64;
                assert!(called >= self.began + most && !silent, "long before the deadline");
            }
            Abort::TooSlow { got, min_rate } => {
                assert_eq!(Some(*min_rate), limits.min_rate);
                assert!(*got < min_rate * 10 && !moved && !silent, "not slow: {got} bytes");
                assert!(called >= self.began + WINDOW, "slow before the window is over");
                let all = self.taken.last().map_or(0, |(_, all)| *all);
                let earlier = self.taken.iter().rev().find(|(at, _)| at + WINDOW <= called);
                let lately = all - earlier.map_or(0, |(_, all)| *all);
                assert!(lately as u64 <= *got, "{lately} bytes within the window");
            }
            _ => unreachable!("{why}"),
        }
    }
}

enum Stage {
    ToCome,
    Live(Box<SimSession>),
    /// It waits for a committer.
    Closing(Box<SimClosing>),
    Over,
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
    connections: Vec<Connection>,
    stop: Option<u64>,
    last_id: u64,
    ends: Ends,
}

/// How many sessions ended in which way, by [`Abort::code`]; `kept` are those that did well.
pub(crate) type Ends = BTreeMap<&'static str, u64>;

impl World {
    pub(crate) fn new(mut random: Random, null: &Arc<File>) -> Self {
        let Run { dialect, limits, plans, stop } = Run::draw(&mut random);
        let modes = [Mode::PerSession, Mode::Reactor, Mode::Groups];
        let mode = modes[random.below(modes.len() as u64) as usize];
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
            stop,
            last_id: 0,
            ends: Ends::new(),
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_nanos(time(&self.clock))
    }

    /// Runs it to its end and says how its sessions ended.
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
                    if let Stage::Live(session) = std::mem::replace(stage, Stage::Over) {
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

    /// Chooses one of the events that are due, or lets time pass up to the first that will be;
    /// sometimes more time, for a server can be late, and sometimes an event without a cause.
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
                Stage::Over => {}
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
                // Readiness without a cause.
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
        let socket = SimSocket { id: connection.id, line: Rc::clone(&connection.line), disk };
        let mut session = Session::begin(connection.id, socket, self.dialect, now);
        *self.clock.lock().unwrap() += 1;
        match session.greet() {
            Turn::Waiting => self.wait(index, session),
            Turn::Ended(result) => self.close(index, session.close(result)),
        }
    }

    /// The front thread looks at a session whose deadline may have come.
    fn enforce(&mut self, index: usize) {
        let (called, now, limits) = (time(&self.clock), self.now(), self.limits);
        let stage = &mut self.connections[index].stage;
        let Stage::Live(mut session) = std::mem::replace(stage, Stage::Over) else { return };
        let deadline = session.deadline(&limits);
        let bytes = self.connections[index].line.borrow().told.bytes;
        let expiry = session.check_deadline(&limits, now);
        let connection = &mut self.connections[index];
        assert_eq!(connection.line.borrow().told.bytes, bytes, "the front moves no content");
        match expiry {
            Expiry::Later(at) => {
                assert!(at > now, "a deadline was let pass");
                assert!(session.deadline(&limits) >= deadline, "a deadline came nearer");
                connection.stage = Stage::Live(session);
            }
            Expiry::Expired(why) => {
                assert!(deadline <= now, "ended before the deadline");
                connection.check_late(&why, &limits, called, false);
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
        match std::mem::replace(&mut self.connections[index].stage, Stage::Over) {
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
        let before = self.connections[index].line.borrow().told.bytes;
        // A worker looks at the limits too, once the deadline has come.
        let is_timeout = matches!(event, Event::Timeout(_))
            || (self.mode != Mode::PerSession && deadline <= now);
        let turn = if is_timeout {
            session.handle_timeout(&self.sink, &mut self.copier, &limits, now)
        } else {
            session.handle_ready(&self.sink, &mut self.copier, &limits, now)
        };
        let connection = &mut self.connections[index];
        let got = connection.line.borrow().told.bytes;
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
                    // As the reactor does: time that the sink took is not the peer's silence.
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
                    connection.check_late(why, &limits, called, moved);
                }
                self.close(index, session.close(result));
            }
        }
    }

    /// Checks a session that goes on.
    fn wait(&mut self, index: usize, session: SimSession) {
        let connection = &mut self.connections[index];
        let line = connection.line.borrow();
        let got = &connection.wire[..line.told.bytes.min(64)];
        let greetings = oracle::expect(self.dialect, got);
        assert!(greetings.sent.starts_with(&line.sent), "sent {:?}", line.sent.escape_ascii());
        if session.interest() == Interest::Read && !line.is_over() {
            assert!(greetings.allows(&line.sent), "nothing waits to be sent, so all of it was");
        }
        drop(line);
        let latest = session.deadline(&self.limits).duration_since(self.start).as_nanos() as u64;
        assert!(latest <= connection.heard + IDLE, "silence may go on for too long");
        if let Some(most) = self.limits.max_duration {
            assert!(latest <= connection.began + most.as_nanos() as u64, "it may take too long");
        }
        if self.limits.min_rate.is_some() {
            assert!(latest <= time(&self.clock) + WINDOW, "it may be slow for too long");
        }
        assert_eq!(session.id(), connection.id);
        connection.stage = Stage::Live(Box::new(session));
    }

    fn stop_all(&mut self) {
        for index in 0..self.connections.len() {
            let stage = &mut self.connections[index].stage;
            match std::mem::replace(stage, Stage::Over) {
                Stage::Live(session) => {
                    self.connections[index].log.lock().unwrap().push(Happening::Stopped);
                    self.close(index, session.abort(Abort::Shutdown));
                }
                stage @ Stage::Closing(_) => self.connections[index].stage = stage,
                Stage::ToCome | Stage::Over => {}
            }
        }
        for index in 0..self.connections.len() {
            if let Stage::Closing(_) = self.connections[index].stage {
                if self.random.one_in(4) {
                    self.abandon(index);
                } else {
                    self.finish(index);
                }
            }
        }
    }

    /// The thread that has the session is stuck: the stop leaves the marker without it, and what
    /// the thread does later must not touch that.
    fn abandon(&mut self, index: usize) {
        let closing = self.take_closing(index).expect("it waits for a committer");
        let (id, is_complete) = (closing.id(), closing.is_complete());
        let marked = self.sink.mark(id).is_ok();
        let kept = |world: &World| world.sink.0.lock().unwrap().kept(id).cloned();
        assert_eq!(kept(self), marked.then_some(Kept::Marker));
        let line = Rc::clone(&self.connections[index].line);
        if is_complete && self.random.one_in(2) {
            // It comes back in the middle of a group.
            let all = Closing::finish_all(vec![closing], &self.sink, &|_| false);
            assert!(matches!(all[..], [None]), "it has no result");
        } else {
            drop(closing);
        }
        assert_eq!(kept(self), marked.then_some(Kept::Marker), "the marker was replaced");
        assert_eq!(line.borrow().end, Some(End::Reset));
        *self.ends.entry("abandoned").or_default() += 1;
    }

    fn end(&mut self, index: usize, ended: SimEnded) {
        let connection = &mut self.connections[index];
        connection.stage = Stage::Over;
        let code = ended.result.as_ref().map_or_else(Abort::code, |()| "kept");
        *self.ends.entry(code).or_default() += 1;
        let line = Rc::clone(&connection.line);
        assert_eq!(line.borrow().end, None, "the peer is told last");
        let Ended { id, dialect, bytes, result, unmarked, socket, .. } = ended;
        assert_eq!(id, connection.id);
        socket.release(result.is_ok());
        let end = if result.is_ok() { End::Fin } else { End::Reset };
        assert_eq!(line.borrow().end, Some(end));

        let disk = self.sink.0.lock().unwrap();
        let verdict = judge(self.dialect, self.limits.max_size, connection, &line.borrow());
        match (&verdict.due, &result) {
            (Due::Kept(spoken, content), Ok(())) => {
                assert_eq!((dialect, bytes), (Some(*spoken), content.len() as u64));
                assert!(unmarked.is_none());
                let line = line.borrow();
                if connection.plan.full == 0 && !line.is_dead() {
                    let due = oracle::expect(self.dialect, &connection.wire);
                    assert!(due.allows(&line.sent), "there was room for all greetings");
                }
                let Some(Kept::Complete(kept)) = disk.kept(id) else { panic!("nothing is kept") };
                assert_eq!(kept.bytes.len() as u64 + kept.counted, bytes);
                assert!(kept.counted == 0 || connection.plan.wants == Wants::Count);
                assert!(kept.bytes == content[..kept.bytes.len()], "other bytes than were sent");
            }
            (Due::Error(why), Err(error)) => {
                let same = match error {
                    Abort::Idle(_) | Abort::TooLong(_) | Abort::TooSlow { .. } => "late",
                    Abort::TooLarge(_) => "large",
                    Abort::Reset(_) => "reset",
                    Abort::Handshake(_) => "handshake",
                    Abort::Sink { action, .. } => action,
                    Abort::Shutdown => "stopped",
                    _ => "?",
                };
                assert_eq!(same, *why, "{error}");
                let marked = disk.kept(id) == Some(&Kept::Marker);
                assert_eq!(marked, verdict.marked, "the marker, or the sink refused it too");
                assert_eq!(unmarked.is_none(), marked);
                assert!(!disk.is_complete(id));
            }
            (Due::Kept(..), result) => panic!("to be kept, but it ended as {result:?}"),
            (Due::Error(why), result) => panic!("{why} was due, but it ended as {result:?}"),
        }
    }
}

/// Required result of a session.
struct Verdict<'a> {
    due: Due<'a>,
    /// Whether the sink took the error marker.
    marked: bool,
}

enum Due<'a> {
    Kept(Dialect, &'a [u8]),
    Error(&'static str),
}

/// The oracle: complete if and only if FIN was the first end and the sink took all of it; every
/// other first happening has its own error.
fn judge<'a>(
    dialect: ServerDialect,
    max_size: Option<u64>,
    connection: &'a Connection,
    line: &Line,
) -> Verdict<'a> {
    let log = connection.log.lock().unwrap();
    let got = &connection.wire[..line.told.bytes];
    let fin = log.iter().position(|happening| *happening == Happening::Fin);
    let strict = dialect == ServerDialect::Only(Dialect::Confirm);
    let broken = match oracle::broken(got) {
        Some(HandshakeError::Mismatch { .. }) => strict,
        Some(_) => strict && fin.is_some(),
        None => false,
    };
    let content = has_content(dialect, got);
    let size = match oracle::expect(dialect, got).established {
        Ok((_, bytes)) if content || fin.is_some() => bytes.len() as u64,
        _ => 0,
    };
    let cause = log.iter().position(|h| !matches!(h, Happening::Opened | Happening::Fin));
    let (why, cause) = match cause.map(|cause| log[cause]) {
        _ if broken => ("handshake", fin),
        Some(Happening::Failed(Op::Open)) if content || fin.is_some() => ("open", cause),
        Some(Happening::Failed(Op::Write)) => ("write", cause),
        // What is too large was written; how it ended does not matter any more.
        _ if max_size.is_some_and(|max_size| size > max_size) => {
            ("large", log.iter().position(|happening| *happening == Happening::Opened))
        }
        Some(Happening::Failed(Op::Commit)) => ("commit", cause),
        Some(Happening::Stopped) => ("stopped", cause),
        Some(Happening::Reset) => {
            assert_eq!(connection.plan.first_end(), Some(&Arrival::Reset));
            ("reset", cause)
        }
        // The file is open if there was anything to put into it.
        _ if fin.is_none() => ("late", content.then_some(0)),
        _ => {
            assert_eq!(connection.plan.first_end(), Some(&Arrival::Fin));
            assert_eq!(got, connection.wire, "a FIN comes after all bytes");
            let (spoken, content) = oracle::expect(dialect, got).established.unwrap();
            return Verdict { due: Due::Kept(spoken, content), marked: false };
        }
    };
    // The marker goes to the file that is open, and if that fails to a fresh one.
    let after = &log[cause.map_or(0, |cause| cause + 1)..];
    assert_ne!(after, [Happening::Failed(Op::Abort)], "no second try to keep the marker");
    let marked = !matches!(after.last(), Some(Happening::Failed(_)));
    Verdict { due: Due::Error(why), marked }
}

/// Whether some of the bytes are content for certain, whatever comes next.
fn has_content(dialect: ServerDialect, got: &[u8]) -> bool {
    const CONFIRMATIONS: &[u8] = b"confirm-accio\r\nconfirm-accio-again\r\n\r\n";
    match dialect {
        ServerDialect::Only(Dialect::Direct | Dialect::Accio) => !got.is_empty(),
        _ => !CONFIRMATIONS.starts_with(got),
    }
}
