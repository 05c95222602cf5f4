//! Uploads many small files, one connection each, from one thread with an event queue.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use accio_harness::peer::GREETING;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};

use super::stream::{Stream, tls_config};

/// Maximum number of connections that wait for the server's first bytes. All load generators
/// together stay below the server's accept queue of 4096: further connections are dropped by the
/// system and retried after a second.
const WAITING: u64 = 500;

/// The protocol of the uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Protocol {
    /// Wait for the greeting, send, shut down, wait for the server to close
    Accio,
    /// Send a PUT request, wait for the response and the close
    Http,
    /// The first, with TLS
    Accios,
    /// The second, with TLS
    Https,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Protocol::Accio => "accio",
            Protocol::Http => "http",
            Protocol::Accios => "accios",
            Protocol::Https => "https",
        }
    }

    pub(crate) fn is_secure(self) -> bool {
        matches!(self, Protocol::Accios | Protocol::Https)
    }

    fn is_http(self) -> bool {
        matches!(self, Protocol::Http | Protocol::Https)
    }
}

/// The number, size and protocol of the uploads.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoadOptions {
    port: u16,
    protocol: Protocol,
    /// Total number of uploads
    uploads: u64,
    /// Number of concurrent uploads
    concurrent: u64,
    /// Size of each upload in bytes, at least 8
    size: usize,
    /// Number of the first upload
    first: u64,
    /// Source network N: 127.N.0.0/16
    network: u8,
    /// First source host in that network
    host: u16,
    /// The pin of the server's key, with TLS
    #[arg(long)]
    pin: Option<String>,
}

/// Returns the content of every upload, except for its first eight bytes, which are its number.
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
pub(super) fn run(options: &LoadOptions) -> Result<()> {
    ensure!(options.size >= 8, "an upload needs at least 8 bytes");
    let mut load = LoadGenerator::new(options)?;
    writeln!(io::stdout(), "ready")?;
    io::stdin().read_line(&mut String::new())?;
    load.work()?;
    writeln!(io::stdout(), "done")?;
    Ok(())
}

struct LoadGenerator<'a> {
    options: &'a LoadOptions,
    queue: std::os::fd::OwnedFd,
    server: SocketAddr,
    uploads: HashMap<u64, Upload>,
    /// Number of uploads that have not sent anything yet.
    waiting: u64,
    started: u64,
    finished: u64,
    next_port: u16,
    next_host: u16,
    content: Vec<u8>,
    buffer: Vec<u8>,
    config: Option<Arc<ClientConfig>>,
}

struct Upload {
    stream: Stream,
    /// Number of greeting bytes received.
    greeted: usize,
    message: Vec<u8>,
    sent: usize,
    answered: bool,
}

impl<'a> LoadGenerator<'a> {
    fn new(options: &'a LoadOptions) -> Result<Self> {
        Ok(LoadGenerator {
            options,
            queue: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            server: SocketAddr::from(([127, 0, 0, 1], options.port)),
            uploads: HashMap::new(),
            waiting: 0,
            started: 0,
            finished: 0,
            next_port: 1024,
            next_host: options.host,
            content: pattern(options.size),
            buffer: vec![0; 4096],
            config: match (&options.pin, options.protocol.is_secure()) {
                (Some(pin), true) => Some(tls_config(pin)?),
                _ => None,
            },
        })
    }

    fn work(&mut self) -> Result<()> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 64];
        let timeout = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        let start = Instant::now();
        while self.finished < self.options.uploads {
            while self.started < self.options.uploads
                && (self.uploads.len() as u64) < self.options.concurrent
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
                self.options.uploads
            );
            for event in &events[..count] {
                let token = event.data.u64();
                let Some(upload) = self.uploads.get_mut(&token) else { continue };
                let waited = upload.sent == 0;
                let done = upload.advance(self.options.protocol, &mut self.buffer);
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
        let number = self.options.first + self.started;
        let mut message = Vec::with_capacity(self.options.size + 128);
        if self.options.protocol.is_http() {
            write!(
                message,
                "PUT /{number}.file HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n",
                self.options.size
            )?;
        }
        let head = message.len();
        message.extend_from_slice(&self.content);
        message[head..head + 8].copy_from_slice(&number.to_le_bytes());
        let stream = self.connect()?;
        // Edge-triggered in both directions: one call registers the socket for the whole upload.
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.queue, &stream, EventData::new_u64(number), flags)?;
        let stream = Stream::new(stream, self.config.as_ref().map(Arc::clone))?;
        let upload = Upload { stream, greeted: 0, message, sent: 0, answered: false };
        self.uploads.insert(number, upload);
        self.waiting += 1;
        self.started += 1;
        Ok(())
    }

    /// Connects from an explicit loopback address and port. With a single source address the system
    /// would run out of ports, and search long for the last ones.
    fn connect(&mut self) -> Result<TcpStream> {
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.set_reuse_address(true)?;
            let [high, low] = self.next_host.to_be_bytes();
            let host = Ipv4Addr::new(127, self.options.network, high, low);
            let local = SocketAddr::from((host, self.next_port));
            self.next_port = self.next_port.checked_add(1).unwrap_or_else(|| {
                self.next_host += 1;
                1024
            });
            match socket.bind(&local.into()) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
                bound => bound.with_context(|| format!("cannot bind to {local}"))?,
            }
            match socket.connect(&self.server.into()) {
                Ok(()) => return Ok(socket.into()),
                Err(error) => {
                    match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                        Some(rustix::io::Errno::INPROGRESS) => return Ok(socket.into()),
                        // The pair of addresses is in TIME-WAIT since an earlier run.
                        Some(rustix::io::Errno::ADDRNOTAVAIL) => {}
                        _ => return Err(error).context("cannot connect"),
                    }
                }
            }
        }
    }
}

impl Upload {
    /// Continues the upload without blocking; returns whether it is complete.
    fn advance(&mut self, protocol: Protocol, buffer: &mut [u8]) -> Result<bool> {
        let greeting = if protocol.is_http() { b"" } else { GREETING };
        if self.greeted < greeting.len() {
            let wanted = greeting.len() - self.greeted;
            match self.stream.read(&mut buffer[..wanted]) {
                Ok(0) => bail!("closed before the greeting"),
                Ok(count) => {
                    ensure!(
                        buffer[..count] == greeting[self.greeted..self.greeted + count],
                        "wrong greeting"
                    );
                    self.greeted += count;
                }
                Err(error) => return not_ready(error),
            }
            if self.greeted < greeting.len() {
                return Ok(false);
            }
        }
        if self.sent < self.message.len() {
            while self.sent < self.message.len() {
                match self.stream.write(&self.message[self.sent..]) {
                    Ok(count) => self.sent += count,
                    Err(error) => return not_ready(error),
                }
            }
            if !protocol.is_http() {
                self.stream.finish()?;
            }
            // Without TLS, the answer cannot have arrived yet; it causes another event.
            if !protocol.is_secure() {
                return Ok(false);
            }
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => {
                    ensure!(self.answered || !protocol.is_http(), "closed without an answer");
                    return Ok(true);
                }
                Ok(count) => {
                    let answer = &buffer[..count];
                    let good =
                        answer.starts_with(b"HTTP/1.1 201") || answer.starts_with(b"HTTP/1.1 204");
                    ensure!(
                        protocol.is_http() && (self.answered || good),
                        "answered {:?}",
                        String::from_utf8_lossy(answer)
                    );
                    self.answered = true;
                }
                Err(error) => return not_ready(error),
            }
        }
    }
}

/// Returns `false` for errors that mean "not yet ready", and other errors as they are.
fn not_ready(error: io::Error) -> Result<bool> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected => {
            Ok(false)
        }
        _ => Err(error.into()),
    }
}
