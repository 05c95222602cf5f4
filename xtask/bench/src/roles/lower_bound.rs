//! The lower bound for the cost of small uploads, called `floor` in reports: accept, greet, read to
//! the end, close. It has no files, timeouts, resets or error handling; a server's cost above it is
//! due to these.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use accio_harness::peer::GREETING;
use anyhow::{Context, Result};
use rustix::event::epoll::{self, Event, EventData, EventFlags};

/// Two designs; the faster one on a machine is the lower bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Design {
    /// Blocking threads
    Threads,
    /// An epoll instance per thread
    Epoll,
}

pub(super) fn serve(port: u16, threads: usize, design: Design) -> Result<()> {
    let listener = super::listener::listen(port)?;
    let work = || match design {
        Design::Threads => block(&listener),
        Design::Epoll => poll(&listener),
    };
    listener.set_nonblocking(design == Design::Epoll)?;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("a thread panicked")),
        })
    })
    .context("lower-bound server")
}

fn block(listener: &TcpListener) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (mut stream, _) = listener.accept()?;
        // Ignore clients that fail.
        let _ = stream.write_all(GREETING);
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    }
}

fn poll(listener: &TcpListener) -> io::Result<()> {
    const LISTENER: u64 = u64::MAX;
    let queue = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let listening = EventFlags::IN | EventFlags::EXCLUSIVE;
    epoll::add(&queue, listener, EventData::new_u64(LISTENER), listening)?;
    let mut streams: HashMap<u64, TcpStream> = HashMap::new();
    let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 64];
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match epoll::wait(&queue, &mut events[..], None) {
            Err(rustix::io::Errno::INTR) => continue,
            count => count?,
        };
        for event in &events[..count] {
            let token = event.data.u64();
            if token == LISTENER {
                let Ok((mut stream, _)) = listener.accept() else { continue };
                stream.set_nonblocking(true)?;
                let _ = stream.write_all(GREETING);
                let token = u64::from(stream.as_raw_fd().unsigned_abs());
                epoll::add(&queue, &stream, EventData::new_u64(token), EventFlags::IN)?;
                streams.insert(token, stream);
            } else if let Some(stream) = streams.get_mut(&token) {
                let ended = loop {
                    match stream.read(&mut buffer) {
                        Ok(0) => break true,
                        Ok(_) => {}
                        Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
                    }
                };
                if ended {
                    streams.remove(&token);
                }
            }
        }
    }
}
