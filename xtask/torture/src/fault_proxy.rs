//! A proxy for one connection at a time, that handles it as it is told.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::SockRef;

/// The faults of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// The largest piece passed on at once, each way.
    pub(crate) slice: usize,
    /// Now and then: a pause.
    pub(crate) pause: Duration,
    /// In this share of the pieces, of 256.
    pub(crate) pauses: u8,
    /// How it ends.
    pub(crate) end: End,
    /// The seed of pauses.
    pub(crate) seed: u64,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As its two ends want.
    Natural,
    /// FIN to the server after so many bytes of the client's, whatever more there is.
    HalfClose(usize),
    /// A reset to both after so many bytes of the client's.
    Reset(usize),
    /// All that the client sends, its FIN, and a reset at once.
    ResetAfterFin,
}

/// The bytes passed on to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Bytes of the client's.
    pub(crate) bytes: usize,
    /// Whether FIN followed them.
    pub(crate) fin: bool,
}

/// A proxy's listening end.
#[derive(Debug)]
pub(crate) struct Proxy {
    listener: TcpListener,
    server: SocketAddr,
}

/// The longest a connection may take.
const LIMIT: Duration = Duration::from_secs(30);

impl Proxy {
    pub(crate) fn new(server: SocketAddr) -> io::Result<Proxy> {
        Ok(Proxy { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, server })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Handles the next connection; what its server was given.
    pub(crate) fn handle(&self, plan: &Script) -> io::Result<Passed> {
        let (client, _) = self.listener.accept()?;
        let server = TcpStream::connect(self.server)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            // Dropped early, both ends see a reset.
            SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
        }
        let mut random = fastrand::Rng::with_seed(plan.seed);
        let mut up = Direction::default();
        let mut down = Direction::default();
        let mut passed = Passed::default();
        let until = Instant::now() + LIMIT;
        loop {
            if Instant::now() > until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "a proxied connection hangs"));
            }
            let limit = match plan.end {
                End::HalfClose(at) | End::Reset(at) => at - passed.bytes.min(at),
                End::Natural | End::ResetAfterFin => usize::MAX,
            };
            if !passed.fin && limit == 0 {
                if matches!(plan.end, End::HalfClose(_)) {
                    let shut = server.shutdown(Shutdown::Write);
                    passed.fin = shut.is_ok();
                    // The server ends it; the client must not think that is for its file.
                    drop(client);
                    drain(&server, until)?;
                }
                return Ok(passed);
            }
            let mut progress = false;
            match up.pump(&client, &server, plan.slice.min(limit)) {
                Ok(Pumped::Bytes(count)) => (passed.bytes += count, progress = true).1,
                Ok(Pumped::End) => {
                    server.shutdown(Shutdown::Write)?;
                    (passed.fin, progress) = (true, true);
                    if plan.end == End::ResetAfterFin {
                        return Ok(passed);
                    }
                }
                Ok(Pumped::Nothing) => {}
                // One end is gone: so is the other.
                Err(_) => return Ok(passed),
            }
            match down.pump(&server, &client, plan.slice) {
                Ok(Pumped::Bytes(_)) => progress = true,
                Ok(Pumped::End) => {
                    SockRef::from(&client).set_linger(None)?;
                    let _ = client.shutdown(Shutdown::Write);
                    progress = true;
                }
                Ok(Pumped::Nothing) => {}
                Err(_) => return Ok(passed),
            }
            if up.ended && down.ended {
                SockRef::from(&server).set_linger(None)?;
                return Ok(passed);
            }
            if progress {
                if random.u8(..) < plan.pauses {
                    thread::sleep(plan.pause.mul_f64(random.f64()));
                }
            } else {
                wait(&client, &server, &up, &down)?;
            }
        }
    }
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    ended: bool,
}

enum Pumped {
    Bytes(usize),
    End,
    Nothing,
}

impl Direction {
    fn pump(
        &mut self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        most: usize,
    ) -> io::Result<Pumped> {
        if self.ended {
            return Ok(Pumped::Nothing);
        }
        let mut buffer = [0; 16 << 10];
        let most = most.min(buffer.len());
        match from.read(&mut buffer[..most]) {
            Ok(0) => {
                self.ended = true;
                Ok(Pumped::End)
            }
            Ok(count) => {
                // Small pieces against large buffers: it rarely has to wait.
                let mut rest = &buffer[..count];
                let until = Instant::now() + LIMIT;
                while !rest.is_empty() {
                    match to.write(rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(error)
                            if error.kind() == io::ErrorKind::WouldBlock
                                && Instant::now() < until =>
                        {
                            thread::sleep(Duration::from_millis(1));
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok(Pumped::Bytes(count))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Pumped::Nothing),
            Err(error) => Err(error),
        }
    }
}

fn wait(
    client: &TcpStream,
    server: &TcpStream,
    up: &Direction,
    down: &Direction,
) -> io::Result<()> {
    let flags = |ended: bool| if ended { PollFlags::empty() } else { PollFlags::IN };
    let mut descriptors =
        [PollFd::new(client, flags(up.ended)), PollFd::new(server, flags(down.ended))];
    let timeout = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    match rustix::event::poll(&mut descriptors, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the server's end, so that what it made of the file is decided.
fn drain(mut server: &TcpStream, until: Instant) -> io::Result<()> {
    server.set_nonblocking(false)?;
    server.set_read_timeout(Some(until.saturating_duration_since(Instant::now())))?;
    let mut buffer = [0; 256];
    while server.read(&mut buffer)? > 0 {}
    SockRef::from(server).set_linger(None)
}
