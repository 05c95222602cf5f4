//! A small HTTP/1.1 server: one thread, a bounded number of connections, one request each.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Maximum duration of a connection, from accept to close.
const PATIENCE: Duration = Duration::from_secs(2);

/// Maximum number of connections. A further connection replaces the oldest one that has not sent
/// its request yet: a client that sends its request immediately is answered, however many others
/// stay silent.
const CONNECTIONS: usize = 32;

/// Maximum size of a request's head in bytes.
const HEAD: usize = 8 << 10;

/// How long to stop accepting when the system has no descriptor left.
const RETRY: Duration = Duration::from_millis(100);

pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: &'static str,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Response {
    pub(super) fn plain(status: &'static str, body: impl Into<String>) -> Self {
        Response { status, content_type: PLAIN, body: body.into() }
    }
}

/// The pages of the server, by path.
pub(super) trait Site {
    /// Returns the page for a path, or `None` if the answer is not known yet. The server asks again
    /// when [`wake`](Site::wake) becomes readable.
    fn answer(&mut self, path: &str) -> Option<Response>;

    /// Returns a descriptor that becomes readable when an answer may be known.
    fn wake(&self) -> BorrowedFd<'_>;

    /// Returns when to ask again even if `wake` has not become readable.
    fn patience(&self) -> Option<Instant>;
}

struct Connection {
    stream: TcpStream,
    deadline: Instant,
    state: State,
}

enum State {
    /// The part of the request that has arrived.
    Asking(Vec<u8>),
    /// The request is complete, but the answer is not known yet.
    Waiting {
        path: String,
        is_head: bool,
    },
    Answering {
        answer: Vec<u8>,
        sent: usize,
    },
    /// The answer is sent. Further bytes from the client are read and dropped: closing a socket
    /// with unread bytes sends a reset, which might overtake the answer.
    Closing,
    Closed,
}

/// Serves requests until the process ends.
pub(super) fn serve(listener: &TcpListener, mut site: impl Site) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let mut connections: Vec<Connection> = Vec::new();
    let mut resting: Option<Instant> = None;
    loop {
        let now = Instant::now();
        resting = resting.filter(|end| *end > now);
        let deadlines = connections.iter().map(|connection| connection.deadline);
        let is_waiting = connections.iter().any(Connection::is_waiting);
        let patience = site.patience().filter(|_| is_waiting);
        let deadline = deadlines.chain(resting).chain(patience).min();
        let (wake, ready) = {
            let wake = site.wake();
            let mut fds = vec![PollFd::new(&wake, PollFlags::IN)];
            let accepting = if resting.is_none() { PollFlags::IN } else { PollFlags::empty() };
            fds.push(PollFd::new(listener, accepting));
            fds.extend(connections.iter().map(Connection::watched));
            wait(&mut fds, deadline)?;
            let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            (ready[0], ready)
        };
        if wake {
            // The descriptor is a counter; reading it resets it.
            let _ = rustix::io::read(site.wake(), &mut [0; 8]);
        }
        let now = Instant::now();
        let repeat = wake || patience.is_some_and(|end| end <= now);
        for (connection, ready) in connections.iter_mut().zip(&ready[2..]) {
            if *ready || (repeat && connection.is_waiting()) {
                connection.proceed(&mut site);
            }
        }
        connections.retain(|open| !matches!(open.state, State::Closed) && open.deadline > now);
        if ready[1] && !accept_all(listener, &mut connections, &mut site) {
            resting = Some(now + RETRY);
        }
    }
}

/// Accepts all waiting connections. Returns false if the system has no room for more.
fn accept_all(
    listener: &TcpListener,
    connections: &mut Vec<Connection>,
    site: &mut impl Site,
) -> bool {
    // The number per call is bounded, so that connections that are ready get their turn in between.
    for _ in 0..CONNECTIONS {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) => {
                log::debug!("cannot accept a request for metrics: {error}");
                return false;
            }
        };
        if stream.set_nonblocking(true).is_err() {
            continue;
        }
        if connections.len() >= CONNECTIONS {
            let asking = |open: &Connection| matches!(open.state, State::Asking(_));
            // Connections are in the order in which they were accepted.
            let oldest = connections.iter().position(asking).unwrap_or(0);
            connections.remove(oldest);
        }
        let deadline = Instant::now() + PATIENCE;
        let mut connection = Connection { stream, deadline, state: State::Asking(Vec::new()) };
        // Most requests have arrived already.
        connection.proceed(site);
        connections.push(connection);
    }
    true
}

impl Connection {
    fn watched(&self) -> PollFd<'_> {
        let events = match self.state {
            State::Asking(_) | State::Closing => PollFlags::IN,
            State::Answering { .. } => PollFlags::OUT,
            State::Waiting { .. } | State::Closed => PollFlags::empty(),
        };
        PollFd::new(&self.stream, events)
    }

    fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Makes as much progress as possible without waiting.
    fn proceed(&mut self, site: &mut impl Site) {
        loop {
            let state = std::mem::replace(&mut self.state, State::Closed);
            match self.step(state, site) {
                Ok(Step::Next(state)) => self.state = state,
                Ok(Step::Stay(state)) => return self.state = state,
                // The state remains `Closed`.
                Err(error) => return log::debug!("a request for metrics failed: {error}"),
            }
        }
    }

    fn step(&mut self, state: State, site: &mut impl Site) -> io::Result<Step> {
        let mut buffer = [0; 1024];
        match state {
            State::Asking(mut head) => {
                let Some(count) = available(self.stream.read(&mut buffer))? else {
                    return Ok(Step::Stay(State::Asking(head)));
                };
                head.extend_from_slice(&buffer[..count]);
                Ok(Step::Next(match parse(&head) {
                    Request::Path { path, is_head } => State::Waiting { path, is_head },
                    Request::Incomplete if count > 0 && head.len() < HEAD => State::Asking(head),
                    Request::OtherMethod => {
                        answer(&Response::plain("405 Method Not Allowed", "use GET\n"), false)
                    }
                    Request::Incomplete | Request::Invalid => {
                        answer(&Response::plain("400 Bad Request", "invalid request\n"), false)
                    }
                }))
            }
            State::Waiting { path, is_head } => Ok(match site.answer(&path) {
                Some(response) => Step::Next(answer(&response, is_head)),
                None => Step::Stay(State::Waiting { path, is_head }),
            }),
            State::Answering { answer, sent } if sent == answer.len() => {
                self.stream.shutdown(Shutdown::Write)?;
                Ok(Step::Next(State::Closing))
            }
            State::Answering { answer, sent } => {
                Ok(match available(self.stream.write(&answer[sent..]))? {
                    Some(count) => Step::Next(State::Answering { answer, sent: sent + count }),
                    None => Step::Stay(State::Answering { answer, sent }),
                })
            }
            State::Closing => Ok(match available(self.stream.read(&mut buffer))? {
                Some(0) => Step::Stay(State::Closed),
                Some(_) => Step::Next(State::Closing),
                None => Step::Stay(State::Closing),
            }),
            State::Closed => Ok(Step::Stay(State::Closed)),
        }
    }
}

enum Step {
    Next(State),
    /// The connection must wait.
    Stay(State),
}

enum Request {
    Path { path: String, is_head: bool },
    OtherMethod,
    Incomplete,
    Invalid,
}

fn parse(head: &[u8]) -> Request {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => Request::Incomplete,
        Ok(httparse::Status::Complete(_)) => match (request.method, request.path) {
            (Some(method @ ("GET" | "HEAD")), Some(path)) => {
                Request::Path { path: path.to_owned(), is_head: method == "HEAD" }
            }
            _ => Request::OtherMethod,
        },
        Err(_) => Request::Invalid,
    }
}

fn answer(response: &Response, is_head: bool) -> State {
    let Response { status, content_type, body } = response;
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    let body = if is_head { "" } else { body };
    State::Answering { answer: [head.as_bytes(), body.as_bytes()].concat(), sent: 0 }
}

/// Returns the result of a call, or `None` if the call would have blocked.
fn available(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(0)),
        Err(error) => Err(error),
    }
}

/// Waits until a descriptor is ready or `deadline` has passed.
fn wait(fds: &mut [PollFd<'_>], deadline: Option<Instant>) -> io::Result<()> {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    // The timeouts in this module are a few seconds, which always fit.
    let timeout = left.and_then(|left| Timespec::try_from(left).ok());
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Creates the descriptor that wakes the server.
pub(super) fn wake() -> io::Result<OwnedFd> {
    use rustix::event::{EventfdFlags, eventfd};
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}
