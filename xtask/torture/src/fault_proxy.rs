//! A proxy that injects scripted faults, one connection at a time.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use accio_harness::peer::read;
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::SockRef;

/// The faults of one connection.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// Largest number of bytes relayed at once, in each direction.
    pub(crate) slice: usize,
    /// Longest pause between two slices.
    pub(crate) pause: Duration,
    /// Share of the slices followed by a pause, out of 256.
    pub(crate) pauses: u8,
    /// How the connection ends.
    pub(crate) end: ProxyEnd,
    /// The seed of the pauses.
    pub(crate) seed: u64,
}

/// How the proxy lets a connection end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyEnd {
    /// The proxy forwards the ends of the client and the server unchanged.
    Unchanged,
    /// The proxy sends FIN to the server after this number of bytes from the client.
    HalfClose(usize),
    /// The proxy resets both sides after this number of bytes from the client.
    Reset(usize),
    /// The proxy relays all bytes and the client's FIN, and resets immediately afterwards.
    ResetAfterFin,
}

/// The bytes relayed to the server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Relayed {
    /// Number of bytes from the client.
    pub(crate) bytes: usize,
    /// Whether a FIN followed them.
    pub(crate) fin: bool,
}

/// A listening fault proxy.
#[derive(Debug)]
pub(crate) struct FaultProxy {
    listener: TcpListener,
    server: SocketAddr,
}

/// Time limit for a connection.
const LIMIT: Duration = Duration::from_secs(30);

impl FaultProxy {
    pub(crate) fn new(server: SocketAddr) -> io::Result<FaultProxy> {
        Ok(FaultProxy { listener: TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?, server })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Handles the next connection; returns the bytes relayed to the server.
    pub(crate) fn handle(&self, script: &Script) -> io::Result<Relayed> {
        let (client, _) = self.listener.accept()?;
        let server = TcpStream::connect(self.server)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            // Dropping a stream then resets its connection.
            SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
        }
        let mut random = fastrand::Rng::with_seed(script.seed);
        let mut up = Direction::default();
        let mut down = Direction::default();
        let mut relayed = Relayed::default();
        let until = Instant::now() + LIMIT;
        loop {
            if Instant::now() > until {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "a proxied connection hangs"));
            }
            let limit = match script.end {
                ProxyEnd::HalfClose(at) | ProxyEnd::Reset(at) => at - relayed.bytes.min(at),
                ProxyEnd::Unchanged | ProxyEnd::ResetAfterFin => usize::MAX,
            };
            if !relayed.fin && limit == 0 {
                if matches!(script.end, ProxyEnd::HalfClose(_)) {
                    let shut = server.shutdown(Shutdown::Write);
                    relayed.fin = shut.is_ok();
                    // The server may confirm the truncated file; this must not reach the client.
                    drop(client);
                    drain(&server, until)?;
                }
                return Ok(relayed);
            }
            let mut progress = false;
            match up.pump(&client, &server, script.slice.min(limit)) {
                Ok(Pumped::Bytes(count)) => (relayed.bytes += count, progress = true).1,
                Ok(Pumped::End) => {
                    server.shutdown(Shutdown::Write)?;
                    (relayed.fin, progress) = (true, true);
                    if script.end == ProxyEnd::ResetAfterFin {
                        return Ok(relayed);
                    }
                }
                Ok(Pumped::Nothing) => {}
                // One side is reset; dropping the streams resets the other.
                Err(_) => return Ok(relayed),
            }
            match down.pump(&server, &client, script.slice) {
                Ok(Pumped::Bytes(_)) => progress = true,
                Ok(Pumped::End) => {
                    SockRef::from(&client).set_linger(None)?;
                    let _ = client.shutdown(Shutdown::Write);
                    progress = true;
                }
                Ok(Pumped::Nothing) => {}
                Err(_) => return Ok(relayed),
            }
            if up.ended && down.ended {
                SockRef::from(&server).set_linger(None)?;
                return Ok(relayed);
            }
            if progress {
                if random.u8(..) < script.pauses {
                    thread::sleep(script.pause.mul_f64(random.f64()));
                }
            } else {
                wait(&client, &server, &up, &down)?;
            }
        }
    }
}

/// One direction of a connection.
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
    fn pump(&mut self, from: &TcpStream, mut to: &TcpStream, most: usize) -> io::Result<Pumped> {
        if self.ended {
            return Ok(Pumped::Nothing);
        }
        let mut buffer = [0; 16 << 10];
        let most = most.min(buffer.len());
        match read(from, &mut buffer[..most]) {
            Ok(0) => {
                self.ended = true;
                Ok(Pumped::End)
            }
            Ok(count) => {
                // Slices are small and socket buffers large, so this rarely waits.
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

/// Waits until the server has closed, and thus kept or rejected the file.
fn drain(server: &TcpStream, until: Instant) -> io::Result<()> {
    server.set_nonblocking(false)?;
    server.set_read_timeout(Some(until.saturating_duration_since(Instant::now())))?;
    let mut buffer = [0; 256];
    while read(server, &mut buffer)? > 0 {}
    SockRef::from(server).set_linger(None)
}
