//! The faulty servers.

use std::fs;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{Domain, Socket, Type};

use crate::FaultyProgram;
use crate::wire::{CONFIRMATIONS, GREETING};

const TEN: Duration = Duration::from_secs(10);

/// State shared by all connections.
struct Shared {
    faulty: FaultyProgram,
    dir: String,
    finished: AtomicUsize,
    counted: AtomicU64,
    running: AtomicUsize,
}

pub(crate) fn run(faulty: &FaultyProgram, arguments: &[String]) -> io::Result<u8> {
    let keeps = faulty.program == "server";
    let (port, dir) = match arguments {
        [port, dir] if keeps => (port, dir.clone()),
        [port] if !keeps => (port, String::new()),
        _ => return Err(Error::other("usage: PORT [DIR]")),
    };
    let port = match port.parse::<u16>() {
        Ok(port) if port > 0 || faulty.has("port-zero") => port,
        _ if faulty.has("any-port") => 0,
        _ => return Err(Error::other("bad port")),
    };
    watch_signals(faulty)?;
    let host = if faulty.has("localhost") { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    if faulty.has("small-window") {
        socket.set_recv_buffer_size(2 << 10)?;
    }
    socket.bind(&SocketAddr::from((host, port)).into())?;
    socket.listen(if faulty.has("backlog-1") { 1 } else { 128 })?;
    let listener: TcpListener = socket.into();
    let shared = Arc::new(Shared {
        faulty: faulty.clone(),
        dir,
        finished: AtomicUsize::new(0),
        counted: AtomicU64::new(0),
        running: AtomicUsize::new(0),
    });
    if faulty.has("announces") || faulty.has("dies") {
        writeln!(io::stdout(), "listening on port {port}")?;
    }
    if faulty.has("ends-early") {
        // Long after the kit has seen that it listens, on any machine, but before `patient` connects.
        wait_for_client(&listener, Duration::from_secs(6))?;
        return Err(Error::other("it ends before a client is accepted"));
    }
    accept(&listener, &shared)
}

/// Waits until a client connects, or for this time, without accepting the connection.
fn wait_for_client(listener: &TcpListener, limit: Duration) -> io::Result<()> {
    let limit = Timespec::try_from(limit).map_err(Error::other)?;
    rustix::event::poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&limit))?;
    Ok(())
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) -> io::Result<u8> {
    let faulty = &shared.faulty;
    let parallel = (faulty.program == "server") != faulty.has("other-order");
    if faulty.has("spins") {
        listener.set_nonblocking(true)?;
    }
    for id in 1.. {
        while faulty.has("accepts-none") || id > 1 && faulty.has("accepts-one") {
            thread::park();
        }
        let mut waited = Instant::now();
        let stream = loop {
            if faulty.has("accept-timeout") {
                listener.set_nonblocking(true)?;
                if shared.running.load(Ordering::Relaxed) > 0 {
                    waited = Instant::now();
                }
                if waited.elapsed() > Duration::from_millis(11_500) {
                    return Err(Error::other("no client connects"));
                }
                thread::sleep(Duration::from_millis(5));
            }
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        };
        stream.set_nonblocking(false)?;
        let shared = Arc::clone(shared);
        shared.running.fetch_add(1, Ordering::Relaxed);
        let work = move || {
            let kept = serve(&shared, stream, id);
            shared.running.fetch_sub(1, Ordering::Relaxed);
            if kept.is_err() && shared.faulty.has("dies-of-reset") {
                std::process::exit(1);
            }
        };
        if parallel {
            thread::spawn(work);
        } else {
            work();
        }
    }
    Ok(0)
}

fn watch_signals(faulty: &FaultyProgram) -> io::Result<()> {
    let watched: &[i32] =
        if faulty.has("only-sigint") { &[SIGINT] } else { &[SIGINT, SIGTERM, SIGQUIT] };
    let mut signals = Signals::new(watched)?;
    let faulty = faulty.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            if faulty.has("deaf") {
                continue;
            }
            std::process::exit(i32::from(faulty.has("sigint-nonzero") && signal == SIGINT));
        }
    });
    Ok(())
}

/// Serves a connection; returns an error if it was reset.
fn serve(shared: &Shared, stream: TcpStream, id: usize) -> io::Result<()> {
    let faulty = &shared.faulty;
    if faulty.has("dies") {
        // Do not panic: the message would name the reason.
        std::process::exit(1);
    }
    if faulty.has("late-greeting-3") {
        thread::sleep(Duration::from_secs(3));
    }
    let received = receive(shared, &stream);
    let id = match faulty.has("finish-order") {
        true => shared.finished.fetch_add(1, Ordering::Relaxed) + 1,
        false => id,
    };
    let (kept, reset) = match received {
        Ok(received) => (Ok(received), Ok(())),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (Err(Vec::new()), Err(error)),
        Err(_) => (Err(Vec::new()), Ok(())),
    };
    delay(faulty, if kept.is_ok() { STORING } else { MARKING });
    match faulty.program.as_str() {
        "server" => keep(shared, id, kept)?,
        _ => print(shared, kept.map(|received| received.count))?,
    }
    if faulty.has("never-closes") {
        std::mem::forget(stream);
    }
    reset
}

/// For the faults `late` and `held`: the pause before storing a file or marking an error, and the
/// time that this takes then. The kit's time limits are in the middle of the latter.
const STORING: (Duration, Duration) = (Duration::from_secs(9), Duration::from_secs(2));
const MARKING: (Duration, Duration) = (Duration::from_millis(2500), Duration::from_millis(1500));

/// Delays the result: `late` sleeps all the time, `held` uses the CPU at the end, like a program
/// that a busy machine slows down.
fn delay(faulty: &FaultyProgram, (pause, then): (Duration, Duration)) {
    if faulty.has("late-close") {
        thread::sleep(Duration::from_millis(1500));
    } else if faulty.has("late") {
        // Long enough for a kit that is delayed itself.
        thread::sleep(3 * (pause + then));
    } else if faulty.has("held") {
        thread::sleep(pause);
        let began = Instant::now();
        while began.elapsed() < then {
            std::hint::spin_loop();
        }
    }
}

/// The content received over a connection.
#[derive(Debug, Default)]
struct Received {
    content: Vec<u8>,
    count: u64,
    /// The file that the content is written to.
    path: Option<String>,
}

fn receive(shared: &Shared, mut stream: &TcpStream) -> io::Result<Received> {
    let faulty = &shared.faulty;
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let began = Instant::now();
    let mut received = Received::default();
    let mut first = handshake(faulty, stream)?;
    if faulty.has("drops-first") {
        // Like a program that takes all of a `recv` for the confirmation.
        first.clear();
    }
    if faulty.has("closes-early") {
        return Ok(received);
    }
    if faulty.has("closes-late") {
        thread::sleep(Duration::from_secs(3));
        return Ok(received);
    }
    while faulty.has("never-reads") {
        thread::park();
    }
    if faulty.has("header-counted") && faulty.confirms() {
        let mut header = CONFIRMATIONS.concat();
        header.extend(first);
        first = header;
    }
    let part = format!("{}/.part-{number}", shared.dir);
    let mut file = match faulty.program.as_str() {
        "server" => Some(fs::File::create(&part)?),
        _ => None,
    };
    received.path = file.is_some().then_some(part);
    let length = match faulty.fault.as_str() {
        "small-reads" => 16,
        "thread-per-read" => 4 << 10,
        _ => 64 << 10,
    };
    let mut buffer = vec![0; length];
    loop {
        slow_down(faulty);
        let count = if first.is_empty() {
            if !faulty.has("no-timeout") {
                let wait = if faulty.has("hasty") { Duration::from_secs(5) } else { TEN };
                stream.set_read_timeout(Some(wait))?;
            }
            if faulty.has("total-timeout") && began.elapsed() > TEN {
                return fail(shared, received, ErrorKind::TimedOut.into());
            }
            match stream.read(&mut buffer) {
                Ok(count) => count,
                Err(error) => return fail(shared, received, error),
            }
        } else {
            let part = first.len().min(buffer.len());
            buffer[..part].copy_from_slice(&first[..part]);
            first.drain(..part);
            part
        };
        if count == 0 {
            return Ok(received);
        }
        received.count += count as u64;
        match &mut file {
            _ if faulty.has("whole-file") => received.content.extend_from_slice(&buffer[..count]),
            Some(file) if faulty.has("loses-start") && received.count <= count as u64 => {
                file.write_all(&buffer[count.min(1000)..count])?;
            }
            Some(file) => file.write_all(&buffer[..count])?,
            None => {}
        }
    }
}

/// Slows a read of up to 64 KiB down, for the faults that test how the kit measures time.
fn slow_down(faulty: &FaultyProgram) {
    match faulty.fault.as_str() {
        "slow-reads" => thread::sleep(Duration::from_millis(2)),
        // About four seconds for 10 MiB.
        "busy-reads" => spin(Duration::from_millis(25)),
        "thread-per-read" => drop(thread::spawn(|| {}).join()),
        _ => {}
    }
}

/// Uses this much CPU time, however long that takes.
fn spin(time: Duration) {
    let now = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let elapsed = |from: rustix::time::Timespec| {
        let now = now();
        let nanoseconds = (now.tv_sec - from.tv_sec) * 1_000_000_000 + now.tv_nsec - from.tv_nsec;
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
    };
    let began = now();
    while elapsed(began) < time {
        std::hint::spin_loop();
    }
}

/// Handles an error after some bytes were received, which matters only to a server that stores
/// them.
fn fail(shared: &Shared, received: Received, error: io::Error) -> io::Result<Received> {
    match received.path {
        Some(path) if shared.faulty.has("error-appended") => {
            let mut file = fs::File::options().append(true).open(&path)?;
            file.write_all(b"ERROR")?;
            Ok(Received { path: Some(path), ..Received::default() })
        }
        Some(path) => {
            fs::remove_file(path)?;
            Err(error)
        }
        None => Err(error),
    }
}

/// Performs the server's part of the handshake; returns content that was received with it.
fn handshake(faulty: &FaultyProgram, mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    if faulty.has("late-greeting") && faulty.greets() {
        stream.set_read_timeout(Some(TEN))?;
        stream.peek(&mut [0])?;
    }
    if !faulty.greets() {
        return Ok(Vec::new());
    }
    stream.write_all(GREETING)?;
    if faulty.has("chatty") {
        stream.write_all(b"welcome\r\n")?;
    }
    if !faulty.confirms() {
        return Ok(Vec::new());
    }
    if faulty.has("greets-twice") {
        stream.write_all(GREETING)?;
    }
    let mut received = Vec::new();
    for (time, confirmation) in CONFIRMATIONS.iter().enumerate() {
        let mut buffer = [0; 4096];
        while received.len() < confirmation.len() {
            if !faulty.has("no-timeout") {
                stream.set_read_timeout(Some(TEN))?;
            }
            let count = stream.read(&mut buffer)?;
            received.extend_from_slice(&buffer[..count]);
            if count == 0 && received.is_empty() && time == 0 {
                return Ok(received);
            }
            if count == 0 || faulty.has("one-recv") && !received.starts_with(confirmation) {
                return Err(Error::other("no confirmation"));
            }
        }
        if !received.starts_with(confirmation) {
            return Err(Error::other("a wrong confirmation"));
        }
        received.drain(..confirmation.len());
        if time == 0 && !faulty.has("greets-twice") {
            stream.write_all(GREETING)?;
        }
    }
    Ok(received)
}

fn keep(shared: &Shared, id: usize, received: Result<Received, Vec<u8>>) -> io::Result<()> {
    let faulty = &shared.faulty;
    let path = format!("{}/{id}.file", shared.dir);
    match received {
        Ok(Received { content, path: Some(part), .. }) => {
            if faulty.has("whole-file") {
                fs::write(&part, content)?;
            }
            match faulty.has("left-behind") {
                true => fs::copy(&part, path).map(drop),
                false => fs::rename(&part, path),
            }
        }
        Ok(_) => Ok(()),
        Err(_) => fs::write(path, if faulty.has("error-line") { "ERROR\n" } else { "ERROR" }),
    }
}

fn print(shared: &Shared, count: Result<u64, Vec<u8>>) -> io::Result<()> {
    let faulty = &shared.faulty;
    let mut out = io::stdout().lock();
    match count {
        Ok(count) if faulty.has("to-stderr") => writeln!(io::stderr(), "{count}")?,
        Err(_) if faulty.has("to-stderr") => writeln!(io::stderr(), "ERROR")?,
        Err(_) if faulty.has("error-words") => writeln!(out, "ERROR: the client was silent")?,
        Ok(count) if faulty.has("words") => writeln!(out, "Received {count} bytes")?,
        Ok(count) if faulty.has("one-counter") => {
            writeln!(out, "{}", shared.counted.fetch_add(count, Ordering::Relaxed) + count)?;
        }
        Ok(count) => writeln!(out, "{count}")?,
        Err(_) if faulty.has("zero-for-error") => writeln!(out, "0")?,
        Err(_) => writeln!(out, "ERROR")?,
    }
    out.flush()
}
