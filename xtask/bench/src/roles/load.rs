//! Many small uploads, each over a connection of its own, by one thread with an event queue.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use accio_harness::peer::GREETING;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use socket2::{Domain, Socket, Type};

/// How many connections may wait for their first word at a time. All load generators together stay
/// below the 4096 that the system queues for a server: what comes on top it forgets, and tries again
/// after a second.
const WAITING: u64 = 500;

/// The protocol of the uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Speech {
    /// Waits for the greeting, sends, ends its side, waits for the end of the other
    Accio,
    /// PUTs, and waits for the answer and the end of the connection
    Http,
}

/// The number, size and protocol of the uploads.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoadOptions {
    port: u16,
    speech: Speech,
    /// How many in all
    uploads: u64,
    /// How many at a time
    concurrent: u64,
    /// Bytes of each, at least 8
    size: usize,
    /// The number of the first upload
    first: u64,
    /// The loopback network to connect from: 127.N.0.0/16
    network: u8,
    /// The first host of it to come from
    host: u16,
}

/// Returns the content of every upload, apart from its number in the first eight bytes.
pub(crate) fn pattern(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(size).collect()
}

/// Prints `ready`, waits for a line on stdin, uploads, prints `done`.
pub(super) fn run(plan: &LoadOptions) -> Result<()> {
    ensure!(plan.size >= 8, "an upload has at least 8 bytes");
    let mut load = Load::new(plan)?;
    writeln!(io::stdout(), "ready")?;
    io::stdin().read_line(&mut String::new())?;
    load.work()?;
    writeln!(io::stdout(), "done")?;
    Ok(())
}

struct Load<'a> {
    plan: &'a LoadOptions,
    queue: std::os::fd::OwnedFd,
    server: SocketAddr,
    uploads: HashMap<u64, Upload>,
    /// Of the uploads, those that sent nothing yet.
    waiting: u64,
    started: u64,
    finished: u64,
    next_port: u16,
    next_host: u16,
    content: Vec<u8>,
    buffer: Vec<u8>,
}

struct Upload {
    stream: TcpStream,
    /// Bytes received from the server before the client may send.
    greeted: usize,
    message: Vec<u8>,
    sent: usize,
    answered: bool,
}

impl<'a> Load<'a> {
    fn new(plan: &'a LoadOptions) -> Result<Self> {
        Ok(Load {
            plan,
            queue: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            server: SocketAddr::from(([127, 0, 0, 1], plan.port)),
            uploads: HashMap::new(),
            waiting: 0,
            started: 0,
            finished: 0,
            next_port: 1024,
            next_host: plan.host,
            content: pattern(plan.size),
            buffer: vec![0; 4096],
        })
    }

    fn work(&mut self) -> Result<()> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 64];
        let timeout = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        let start = Instant::now();
        while self.finished < self.plan.uploads {
            while self.started < self.plan.uploads
                && (self.uploads.len() as u64) < self.plan.concurrent
                && self.waiting < WAITING
            {
                self.start()?;
            }
            let count = match epoll::wait(&self.queue, &mut events[..], Some(&timeout)) {
                Err(rustix::io::Errno::INTR) => continue,
                count => count?,
            };
            ensure!(
                count > 0 && start.elapsed() < Duration::from_secs(300),
                "{} of {} uploads are stuck",
                self.uploads.len(),
                self.plan.uploads
            );
            for event in &events[..count] {
                let token = event.data.u64();
                let Some(upload) = self.uploads.get_mut(&token) else { continue };
                let waited = upload.sent == 0;
                let done = upload.advance(self.plan.speech, &mut self.buffer);
                let done = done.with_context(|| format!("upload {token}"))?;
                self.waiting -= u64::from(waited && upload.sent > 0);
                if done {
                    self.uploads.remove(&token);
                    self.finished += 1;
                }
            }
        }
        Ok(())
    }

    fn start(&mut self) -> Result<()> {
        let number = self.plan.first + self.started;
        let mut message = Vec::with_capacity(self.plan.size + 128);
        if self.plan.speech == Speech::Http {
            write!(
                message,
                "PUT /{number}.file HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n",
                self.plan.size
            )?;
        }
        let head = message.len();
        message.extend_from_slice(&self.content);
        message[head..head + 8].copy_from_slice(&number.to_le_bytes());
        let stream = self.connect()?;
        // Edge-triggered for both ways: one call for the whole upload.
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.queue, &stream, EventData::new_u64(number), flags)?;
        let upload = Upload { stream, greeted: 0, message, sent: 0, answered: false };
        self.uploads.insert(number, upload);
        self.waiting += 1;
        self.started += 1;
        Ok(())
    }

    /// Connects from a loopback address and port of its own choice: the system would run out of
    /// ports for one address, and search long for the last of them.
    fn connect(&mut self) -> Result<TcpStream> {
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.set_reuse_address(true)?;
            let [high, low] = self.next_host.to_be_bytes();
            let host = Ipv4Addr::new(127, self.plan.network, high, low);
            let local = SocketAddr::from((host, self.next_port));
            self.next_port = self.next_port.checked_add(1).unwrap_or_else(|| {
                self.next_host += 1;
                1024
            });
            match socket.bind(&local.into()) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                bound => bound.with_context(|| format!("cannot come from {local}"))?,
            }
            match socket.connect(&self.server.into()) {
                Ok(()) => return Ok(socket.into()),
                Err(error) => {
                    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                        Some(rustix::io::Errno::INPROGRESS) => return Ok(socket.into()),
                        // Still remembered by the system from an earlier run.
                        Some(rustix::io::Errno::ADDRNOTAVAIL) => {}
                        _ => return Err(error).context("cannot connect"),
                    }
                }
            }
        }
    }
}

impl Upload {
    /// Goes on as far as it can; whether the upload is complete.
    fn advance(&mut self, speech: Speech, buffer: &mut [u8]) -> Result<bool> {
        let greeting = if speech == Speech::Accio { GREETING } else { b"" };
        if self.greeted < greeting.len() {
            let wanted = greeting.len() - self.greeted;
            match self.stream.read(&mut buffer[..wanted]) {
                Ok(0) => bail!("closed before the greeting"),
                Ok(count) => {
                    ensure!(
                        buffer[..count] == greeting[self.greeted..self.greeted + count],
                        "greeted otherwise"
                    );
                    self.greeted += count;
                }
                Err(error) => return is_blocked(error),
            }
            if self.greeted < greeting.len() {
                return Ok(false);
            }
        }
        if self.sent < self.message.len() {
            while self.sent < self.message.len() {
                match self.stream.write(&self.message[self.sent..]) {
                    Ok(count) => self.sent += count,
                    Err(error) => return is_blocked(error),
                }
            }
            if speech == Speech::Accio {
                self.stream.shutdown(Shutdown::Write)?;
            }
            // Nothing can be there yet; the answer is an event of its own.
            return Ok(false);
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => {
                    ensure!(self.answered || speech == Speech::Accio, "closed without an answer");
                    return Ok(true);
                }
                Ok(count) => {
                    let answer = &buffer[..count];
                    let good =
                        answer.starts_with(b"HTTP/1.1 201") || answer.starts_with(b"HTTP/1.1 204");
                    ensure!(
                        speech == Speech::Http && (self.answered || good),
                        "answered {:?}",
                        String::from_utf8_lossy(answer)
                    );
                    self.answered = true;
                }
                Err(error) => return is_blocked(error),
            }
        }
    }
}

/// Nothing to do until the next event; any other error is one.
fn is_blocked(error: io::Error) -> Result<bool> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected => {
            Ok(false)
        }
        _ => Err(error.into()),
    }
}
