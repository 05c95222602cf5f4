//! A scripted connection.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::SockRef;

use super::dialect::{Dialect, FIRST, GREETING, SECOND};
use super::end::End;
use crate::timeline::{self, Recorder, What};
use crate::verdict::{Stop, Verdict, ensure, is_shortage};
use crate::{os_error_text, payload};

/// Time limit for reactions that should be immediate, on a busy machine.
pub const SOON: Duration = Duration::from_secs(8);

/// One end of a connection, controlled by a scenario.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    recorder: Option<Recorder>,
}

impl Peer {
    /// Connects to a server on this machine.
    pub fn connect(address: SocketAddr) -> Verdict<Peer> {
        let stream = TcpStream::connect_timeout(&address, SOON).map_err(|error| {
            if is_shortage(&error) {
                let why = os_error_text(&error);
                return Stop::Trouble(format!("cannot connect to {address}: {why}"));
            }
            Stop::system_error(format!("a connection to {address}"), &error)
        })?;
        Peer::new(stream)
    }

    pub(super) fn new(stream: TcpStream) -> Verdict<Peer> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Peer { stream, recorder: Recorder::new() })
    }

    /// Returns the socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Converts it to the socket.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Sends all of `bytes`.
    pub fn send(&mut self, bytes: &[u8]) -> Verdict {
        self.stream.write_all(bytes).map_err(|error| {
            Stop::system_error(format!("{} to be accepted", payload::summarize(bytes)), &error)
        })?;
        if let Some(recorder) = &self.recorder {
            recorder.sent(bytes);
        }
        Ok(())
    }

    /// Returns a fault unless it soon receives exactly `expected`.
    pub fn expect(&mut self, expected: &[u8]) -> Verdict {
        let received = self.receive(expected.len(), SOON)?;
        ensure(received == expected, payload::describe(expected), || payload::describe(&received))
    }

    /// Receives until there are `count` bytes, the peer ends the connection, or `limit` has passed.
    pub fn receive(&mut self, count: usize, limit: Duration) -> Verdict<Vec<u8>> {
        let until = Instant::now() + limit;
        let mut received = vec![0; count];
        let mut filled = 0;
        while filled < count {
            match self.read_until(&mut received[filled..], until)? {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(_) => break,
            }
        }
        received.truncate(filled);
        Ok(received)
    }

    /// Receives until there are `count` bytes, the peer ends the connection, or `limit` has passed;
    /// returns the bytes and how the connection ended, if it did.
    pub fn receive_or_end(&mut self, count: usize, limit: Duration) -> Verdict<(Vec<u8>, End)> {
        let until = Instant::now() + limit;
        let mut received = vec![0; count];
        let (mut filled, mut end) = (0, End::Open);
        while filled < count {
            match self.read_until(&mut received[filled..], until)? {
                Ok(0) => end = End::Fin,
                Ok(more) => {
                    filled += more;
                    continue;
                }
                Err(how) => end = how,
            }
            break;
        }
        received.truncate(filled);
        Ok((received, end))
    }

    /// Reads until the connection ends or more than `most` bytes have been received; returns how it
    /// ended and the number of bytes.
    pub fn end_within(&mut self, limit: Duration, most: u64) -> Verdict<(End, u64)> {
        let until = Instant::now() + limit;
        let mut buffer = vec![0; 1 << 16];
        let mut count = 0;
        while count <= most {
            match self.read_until(&mut buffer, until)? {
                Ok(0) => return Ok((End::Fin, count)),
                Ok(more) => count += more as u64,
                Err(end) => return Ok((end, count)),
            }
        }
        Ok((End::Open, count))
    }

    /// Returns a fault if it receives anything, including the end of the connection, within `time`.
    pub fn expect_silence(&mut self, time: Duration) -> Verdict {
        let mut buffer = [0; 64];
        let actual = match self.read_until(&mut buffer, Instant::now() + time)? {
            Err(End::Open) => return Ok(()),
            Ok(0) => End::Fin.to_string(),
            Err(end) => end.to_string(),
            Ok(count) => payload::describe(&buffer[..count]),
        };
        Err(Stop::fault(format!("nothing for {:.1} s", time.as_secs_f64()), actual))
    }

    /// Reads until the connection ends; returns how it ended and the number of bytes.
    pub fn end(&mut self, limit: Duration) -> Verdict<(End, u64)> {
        self.end_within(limit, u64::MAX)
    }

    /// Reads until the connection ends; returns all bytes and how it ended.
    pub fn receive_all(&mut self, limit: Duration) -> Verdict<(Vec<u8>, End)> {
        let until = Instant::now() + limit;
        let (mut received, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            match self.read_until(&mut buffer, until)? {
                Ok(0) => return Ok((received, End::Fin)),
                Ok(more) => received.extend_from_slice(&buffer[..more]),
                Err(end) => return Ok((received, end)),
            }
        }
    }

    /// Returns a fault unless the other side soon ends the connection in this way.
    pub fn expect_end(&mut self, expected: End) -> Verdict {
        let (end, _) = self.end(SOON)?;
        ensure(end == expected, format!("the connection to end with {expected}"), || {
            end.to_string()
        })
    }

    /// Sends FIN.
    pub fn fin(&mut self) -> Verdict {
        let closed = self.stream.shutdown(std::net::Shutdown::Write);
        if let Some(recorder) = &self.recorder {
            recorder.add(What::Closed);
        }
        closed.map_err(|error| Stop::system_error("a connection to close", &error))
    }

    /// Resets the connection.
    pub fn reset(self) -> Verdict {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))?;
        Ok(())
    }

    /// Performs the client's part of the handshake.
    pub fn greet_as_client(&mut self, dialect: Dialect) -> Verdict {
        match dialect {
            Dialect::Direct => Ok(()),
            Dialect::Accio => self.expect(GREETING),
            Dialect::Confirm => {
                self.expect(GREETING)?;
                self.send(FIRST)?;
                self.expect(GREETING)?;
                self.send(SECOND)
            }
        }
    }

    /// Performs the server's part of the handshake.
    pub fn greet_as_server(&mut self, dialect: Dialect) -> Verdict {
        match dialect {
            Dialect::Direct => Ok(()),
            Dialect::Accio => self.send(GREETING),
            Dialect::Confirm => {
                self.send(GREETING)?;
                self.expect(FIRST)?;
                self.send(GREETING)?;
                self.expect(SECOND)
            }
        }
    }

    /// Sends all of `content`, then FIN, and waits for the server's FIN.
    pub fn complete(mut self, content: &[u8]) -> Verdict {
        self.send(content)?;
        self.fin()?;
        let (end, count) = self.end(SOON)?;
        end.expect_fin(0, count)
    }

    /// Performs a complete transfer in the dialect `confirm`.
    pub fn complete_confirm(mut self, content: &[u8]) -> Verdict {
        self.greet_as_client(Dialect::Confirm)?;
        self.complete(content)
    }

    /// Reads once; returns the number of bytes, or how the connection ended.
    fn read_until(&mut self, buffer: &mut [u8], until: Instant) -> Verdict<Result<usize, End>> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Err(End::Open));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(buffer) {
                Ok(count) => {
                    if let Some(recorder) = &self.recorder {
                        recorder.received(&buffer[..count]);
                    }
                    return Ok(Ok(count));
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted
                    | io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut => {}
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                        if let Some(recorder) = &self.recorder {
                            recorder.add(What::Ended(End::Reset));
                        }
                        return Ok(Err(End::Reset));
                    }
                    _ => return Err(error.into()),
                },
            }
        }
    }
}

/// Waits until all connections have ended, discarding received bytes; returns how and when each
/// ended.
pub fn ends(peers: &[Peer], limit: Duration) -> Verdict<Vec<(End, Instant)>> {
    let until = Instant::now() + limit;
    let mut ends: Vec<Option<(End, Instant)>> = vec![None; peers.len()];
    let mut buffer = vec![0; 1 << 16];
    loop {
        let open: Vec<usize> = (0..peers.len()).filter(|index| ends[*index].is_none()).collect();
        let left = until.saturating_duration_since(Instant::now());
        if open.is_empty() || left.is_zero() {
            break;
        }
        let mut descriptors: Vec<PollFd<'_>> =
            open.iter().map(|index| PollFd::new(&peers[*index].stream, PollFlags::IN)).collect();
        // The limits used here fit into a `Timespec`.
        let timeout = Timespec::try_from(left).ok();
        match rustix::event::poll(&mut descriptors, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let at = Instant::now();
        for (index, descriptor) in open.into_iter().zip(&descriptors) {
            if descriptor.revents().is_empty() {
                continue;
            }
            // The socket is readable, so this does not block.
            match (&peers[index].stream).read(&mut buffer) {
                Ok(0) => ends[index] = Some((End::Fin, at)),
                Ok(_) => {}
                Err(_) => ends[index] = Some((End::Reset, at)),
            }
        }
    }
    let at = Instant::now();
    Ok(ends.into_iter().map(|end| end.unwrap_or((End::Open, at))).collect())
}

/// Runs `work` for all `items` at once, in a thread each, and returns the first failure.
pub fn side_by_side<T: Send>(
    items: impl IntoIterator<Item = T>,
    work: impl Fn(T) -> Verdict + Sync,
) -> Verdict {
    thread::scope(|scope| {
        let work = &work;
        let mut threads = Vec::new();
        for item in items {
            // There may be hundreds of threads, and each needs little stack.
            let thread = thread::Builder::new().stack_size(256 << 10);
            let timeline = timeline::current();
            threads.push(thread.spawn_scoped(scope, move || {
                timeline::join(timeline);
                work(item)
            })?);
        }
        let mut outcome = Ok(());
        for thread in threads {
            let ended = thread
                .join()
                .unwrap_or_else(|_| Err(Stop::Trouble("a scenario's thread panicked".into())));
            outcome = outcome.and(ended);
        }
        outcome
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Listener;

    #[test]
    fn both_sides_complete_a_transfer_in_every_dialect() {
        for dialect in Dialect::ALL {
            let listener = Listener::bind().unwrap();
            let client = thread::spawn({
                let address = listener.address();
                move || {
                    let mut client = Peer::connect(address).unwrap();
                    client.greet_as_client(dialect).unwrap();
                    client.complete(b"content").unwrap();
                }
            });
            let mut server = listener.accept().unwrap();
            server.greet_as_server(dialect).unwrap();
            assert_eq!(server.receive_all(SOON).unwrap(), (b"content".to_vec(), End::Fin));
            drop(server);
            client.join().unwrap();
        }
    }

    #[test]
    fn detects_silence_resets_and_unexpected_bytes() {
        let listener = Listener::bind().unwrap();
        let client = Peer::connect(listener.address()).unwrap();
        let mut server = listener.accept().unwrap();
        server.expect_silence(Duration::from_millis(30)).unwrap();
        client.reset().unwrap();
        assert!(matches!(server.expect_silence(SOON), Err(Stop::Fault(_))));

        let mut client = Peer::connect(listener.address()).unwrap();
        let mut server = listener.accept().unwrap();
        client.send(b"acciX\r\n").unwrap();
        let Err(Stop::Fault(fault)) = server.expect(GREETING) else { panic!("unlike") };
        assert_eq!(fault.actual, r#"7 bytes "acciX\r\n""#);
        client.reset().unwrap();
        assert_eq!(ends(&[server], SOON).unwrap()[0].0, End::Reset);
    }

    #[test]
    fn side_by_side_returns_the_first_fault() {
        side_by_side(0..3, |_| Ok(())).unwrap();
        let outcome = side_by_side(0..3, |n| ensure(n != 1, "not 1", || n.to_string()));
        assert!(matches!(outcome, Err(Stop::Fault(fault)) if fault.actual == "1"));
    }
}
