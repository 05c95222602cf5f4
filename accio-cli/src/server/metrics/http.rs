//! A small HTTP/1.1 server: one thread, a bounded number of connections, one request each.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use accio_proto::os_error_text;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::Failure;

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

const PLAIN: &str = "text/plain; charset=utf-8";

/// The content security policy of answers other than pages.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) status: &'static str,
    pub(super) content_type: &'static str,
    /// The content security policy.
    pub(super) policy: &'static str,
    pub(super) body: String,
}

impl Response {
    pub(super) fn plain(status: &'static str, body: impl Into<String>) -> Self {
        Response { status, content_type: PLAIN, policy: NOTHING, body: body.into() }
    }
}

/// A request for a page.
#[derive(Debug)]
pub(super) struct Request {
    /// The path with its query.
    pub(super) path: String,
    /// The host name or address that the client used for the server.
    pub(super) host: Option<String>,
    is_head: bool,
}

#[cfg(test)]
impl Request {
    pub(super) fn of(path: &str, host: Option<&str>) -> Request {
        Request { path: path.to_owned(), host: host.map(str::to_owned), is_head: false }
    }
}

/// The pages of the server, by path.
pub(super) trait Site {
    /// Returns the answer to a request, or `None` if the answer is not known yet. The server asks again
    /// when [`wake`](Site::wake) becomes readable.
    fn answer(&mut self, request: &Request) -> Option<Response>;

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
    Waiting(Request),
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
            // Reading resets a counter, and empties a pipe in one or more rounds.
            let _ = rustix::io::read(site.wake(), &mut [0; 512]);
        }
        let now = Instant::now();
        let repeat = wake || patience.is_some_and(|end| end <= now);
        for (connection, ready) in connections.iter_mut().zip(&ready[2..]) {
            if *ready && connection.is_waiting() {
                // Only a reset is reported while the answer is not known, and it is reported again
                // by every call.
                connection.state = State::Closed;
            } else if *ready || (repeat && connection.is_waiting()) {
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
            State::Waiting(_) | State::Closed => PollFlags::empty(),
        };
        PollFd::new(&self.stream, events)
    }

    fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting(_))
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
                    Parsed::Request(request) => State::Waiting(request),
                    Parsed::Incomplete if count > 0 && head.len() < HEAD => State::Asking(head),
                    Parsed::OtherMethod => {
                        answer(&Response::plain("405 Method Not Allowed", "use GET\n"), false)
                    }
                    Parsed::Incomplete | Parsed::Invalid => {
                        answer(&Response::plain("400 Bad Request", "invalid request\n"), false)
                    }
                }))
            }
            State::Waiting(request) => Ok(match site.answer(&request) {
                Some(response) => Step::Next(answer(&response, request.is_head)),
                None => Step::Stay(State::Waiting(request)),
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
                // One read at a time: a client that never stops sending must not keep the thread.
                Some(_) | None => Step::Stay(State::Closing),
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

enum Parsed {
    Request(Request),
    OtherMethod,
    Incomplete,
    Invalid,
}

fn parse(head: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => Parsed::Incomplete,
        Ok(httparse::Status::Complete(_)) => match (request.method, request.path) {
            (Some(method @ ("GET" | "HEAD")), Some(path)) => {
                let (path, is_head) = (path.to_owned(), method == "HEAD");
                let headers = request.headers.iter();
                let mut hosts = headers.filter(|header| header.name.eq_ignore_ascii_case("host"));
                let host =
                    hosts.next().map(|host| String::from_utf8_lossy(host.value).into_owned());
                match hosts.next() {
                    // It is unknown which of several headers a browser means.
                    Some(_) => Parsed::Invalid,
                    None => Parsed::Request(Request { path, host, is_head }),
                }
            }
            _ => Parsed::OtherMethod,
        },
        Err(_) => Parsed::Invalid,
    }
}

/// Headers of every answer: do not cache it, and use its declared type.
const HEADERS: &str = "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\
                       Referrer-Policy: no-referrer\r\n\
                       Cross-Origin-Resource-Policy: same-origin\r\nConnection: close\r\n";

fn answer(response: &Response, is_head: bool) -> State {
    let Response { status, content_type, policy, body } = response;
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Content-Security-Policy: {policy}\r\n{HEADERS}\r\n"
    );
    let body = if is_head { "" } else { body };
    State::Answering { answer: [head.as_bytes(), body.as_bytes()].concat(), sent: 0 }
}

/// Listens on the address of `--metrics`, or of another page named by `what`.
pub(super) fn bind(address: SocketAddr, what: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let failure = |error: io::Error| {
        Failure::new(format_args!("cannot serve {what} on {address}"), os_error_text(&error))
    };
    let listener = TcpListener::bind(address).map_err(failure)?;
    let address = listener.local_addr().map_err(failure)?;
    Ok((listener, address))
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
