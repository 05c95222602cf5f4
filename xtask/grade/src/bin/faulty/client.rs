//! The faulty clients.

use std::fs::{self, File};
use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use crate::FaultyProgram;
use crate::wire::{CONFIRMATIONS, GREETING};

const TEN: Duration = Duration::from_secs(10);
const FOREVER: Duration = Duration::from_secs(1000);

pub(crate) fn run(faulty: &FaultyProgram, arguments: &[String]) -> io::Result<u8> {
    let [host, port, file] = match arguments {
        [host, port, file, ..] if faulty.has("ignores-arguments") => [host, port, file],
        [host, port, file] => [host, port, file],
        _ if faulty.has("no-usage") => return Ok(0),
        // Like a program that uses an argument without having looked at their number.
        _ if faulty.has("crashes") => [&arguments[0], &arguments[1], &arguments[2]],
        _ => return Err(Error::other("usage: HOST PORT FILE")),
    };
    let port: u16 = port.parse().map_err(|_| Error::other("bad port"))?;
    if faulty.has("late-connect") {
        thread::sleep(Duration::from_secs(3));
    }
    let stream = connect(faulty, host, port)?;
    if faulty.has("small-buffer") {
        socket2::SockRef::from(&stream).set_send_buffer_size(2 << 10)?;
    }
    let began = Instant::now();
    handshake(faulty, &stream)?;
    let wait = if faulty.has("no-send-timeout") { FOREVER } else { TEN };
    stream.set_write_timeout(Some(wait))?;
    if faulty.has("slow-start") {
        thread::sleep(Duration::from_secs(9));
    }
    send(faulty, &stream, file, began)?;
    stream.shutdown(Shutdown::Write)?;
    let wait = if faulty.has("waits-for-close") { FOREVER } else { Duration::from_secs(5) };
    stream.set_read_timeout(Some(wait))?;
    // Everything is sent, whether the server closes or not. Read the rest, which may include a
    // greeting: unread bytes would turn our close into a reset.
    while matches!((&stream).read(&mut [0; 16]), Ok(1..)) {}
    Ok(0)
}

fn connect(faulty: &FaultyProgram, host: &str, port: u16) -> io::Result<TcpStream> {
    if faulty.has("no-names") {
        let ip: IpAddr = host.parse().map_err(|_| Error::other("no address"))?;
        return TcpStream::connect_timeout(&(ip, port).into(), TEN);
    }
    let wait = if faulty.has("no-connect-timeout") { FOREVER } else { TEN };
    let mut last = Error::other("no address");
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    for address in addresses {
        match TcpStream::connect_timeout(&address, wait) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn handshake(faulty: &FaultyProgram, mut stream: &TcpStream) -> io::Result<()> {
    if !faulty.greets() {
        return Ok(());
    }
    let deadline = Instant::now() + if faulty.has("no-handshake-timeout") { FOREVER } else { TEN };
    let mut answers = CONFIRMATIONS.map(<[u8]>::to_vec);
    if faulty.has("swapped") {
        answers.swap(0, 1);
    }
    if faulty.has("no-blank-line") {
        answers[1].truncate(answers[1].len() - 2);
    }
    if faulty.has("no-wait") {
        if faulty.confirms() {
            stream.write_all(&answers.concat())?;
        }
        return Ok(());
    }
    let times = if faulty.confirms() { 2 } else { 1 };
    for (time, answer) in answers.iter().enumerate().take(times) {
        // This fault does not wait for the second greeting.
        if !(faulty.has("early") && time == 1) {
            greeting(faulty, stream, deadline)?;
        }
        if faulty.confirms() {
            stream.write_all(answer)?;
        }
    }
    Ok(())
}

fn greeting(faulty: &FaultyProgram, mut stream: &TcpStream, deadline: Instant) -> io::Result<()> {
    let mut got = Vec::new();
    let mut buffer = [0; 7];
    if faulty.has("spins") {
        stream.set_nonblocking(true)?;
    }
    while got.len() < GREETING.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::other("no greeting in time"));
        }
        stream.set_read_timeout(Some(left))?;
        let missing = GREETING.len() - got.len();
        match stream.read(&mut buffer[..missing]) {
            Ok(0) => return Err(Error::other("the server closed")),
            Ok(count) => got.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        let wrong = !GREETING.starts_with(&got) || faulty.has("one-recv") && got != GREETING;
        if wrong && !faulty.has("any-greeting") {
            return Err(Error::other("a wrong greeting"));
        }
    }
    stream.set_nonblocking(false)
}

fn send(
    faulty: &FaultyProgram,
    mut stream: &TcpStream,
    file: &str,
    began: Instant,
) -> io::Result<()> {
    if faulty.has("whole-file") {
        return write_all(stream, &fs::read(file)?);
    }
    let mut file = File::open(file)?;
    let length = if faulty.has("small-writes") { 100 } else { 64 << 10 };
    let mut buffer = vec![0; length];
    if faulty.has("send-ignored") {
        // A small buffer, as on other systems: bytes that do not fit are lost.
        socket2::SockRef::from(stream).set_send_buffer_size(8 << 10)?;
        stream.set_nonblocking(true)?;
    }
    let mut sent = 0_u64;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        if faulty.has("total-timeout") && began.elapsed() > TEN {
            return Err(Error::other("the transfer takes too long"));
        }
        if faulty.has("slow-writes") {
            thread::sleep(Duration::from_millis(20));
        }
        if faulty.has("first-megabyte") && sent >= 1 << 20 {
            break;
        }
        match faulty.has("send-ignored") {
            true => drop(stream.write(&buffer[..count])),
            false => write_all(stream, &buffer[..count])?,
        }
        sent += count as u64;
    }
    if faulty.has("extra-newline") {
        stream.write_all(b"\n")?;
    }
    if faulty.has("reset-at-the-end") {
        // Like a process that exits with unread bytes.
        thread::sleep(Duration::from_millis(50));
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))?;
        std::process::exit(0);
    }
    stream.set_nonblocking(false)
}

/// Writes all bytes. A partial write that times out returns the number of bytes instead of an
/// error, so the time is checked here.
fn write_all(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let began = Instant::now();
        let count = stream.write(bytes)?;
        if began.elapsed() > TEN - Duration::from_millis(100) {
            return Err(ErrorKind::TimedOut.into());
        }
        bytes = &bytes[count..];
    }
    Ok(())
}
