//! Clients that send as fast as the server receives. One thread runs them all and copies no data,
//! which leaves the cores to the server.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use accio_harness::verdict::{Stop, Verdict};

/// The size of the source file, and the most bytes that one client sends in a row.
pub(super) const CHUNK: usize = 256 << 10;

/// Limits the memory that the kernel uses for a thousand connections.
const SEND_BUFFER: usize = 256 << 10;

/// Runs `count` clients until `stop` is set. Each sends `share` bytes of `source`, resets its
/// connection and opens a new one.
pub(super) fn send(
    address: SocketAddr,
    count: usize,
    share: u64,
    source: &File,
    stop: &AtomicBool,
    sent: &AtomicU64,
) -> Verdict {
    let queue = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let begin = |index: usize| -> Verdict<(TcpStream, u64)> {
        let stream = connect(address)?;
        socket2::SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
        epoll::add(&queue, &stream, EventData::new_u64(index as u64), EventFlags::OUT)?;
        Ok((stream, share))
    };
    let mut clients = (0..count).map(begin).collect::<Verdict<Vec<_>>>()?;
    let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 64];
    while !stop.load(Ordering::SeqCst) {
        let timeout = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        let ready = match epoll::wait(&queue, &mut events[..], Some(&timeout)) {
            Err(Errno::INTR) => continue,
            ready => ready?,
        };
        for event in &events[..ready] {
            let index = event.data.u64() as usize;
            let (stream, left) = &mut clients[index];
            match rustix::fs::sendfile(&*stream, source, Some(&mut 0), CHUNK.min(*left as usize)) {
                Ok(count) => {
                    *left -= count as u64;
                    sent.fetch_add(count as u64, Ordering::Relaxed);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                // The server has ended the connection.
                Err(_) => *left = 0,
            }
            if *left == 0 {
                clients[index] = begin(index)?;
            }
        }
    }
    Ok(())
}

/// Starts to connect without waiting. Dropping the stream resets the connection.
pub(super) fn connect(address: SocketAddr) -> Verdict<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            return Err(Stop::fault("the server to accept connections", error.to_string()));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(socket.into())
}
