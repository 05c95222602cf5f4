//! Both servers.

use std::fs;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use socket2::{Domain, Socket, Type};

use crate::Way;
use crate::wire::{CONFIRMATIONS, GREETING};

const TEN: Duration = Duration::from_secs(10);

/// What all connections share.
struct Shared {
    way: Way,
    dir: String,
    finished: AtomicUsize,
    counted: AtomicU64,
    running: AtomicUsize,
}

pub(crate) fn run(way: &Way, arguments: &[String]) -> io::Result<u8> {
    let keeps = way.program == "server";
    let (port, dir) = match arguments {
        [port, dir] if keeps => (port, dir.clone()),
        [port] if !keeps => (port, String::new()),
        _ => return Err(Error::other("usage: PORT [DIR]")),
    };
    let port = match port.parse::<u16>() {
        Ok(port) if port > 0 || way.has("port-zero") => port,
        _ if way.has("any-port") => 0,
        _ => return Err(Error::other("bad port")),
    };
    watch_signals(way)?;
    let host = if way.has("localhost") { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((host, port)).into())?;
    socket.listen(if way.has("backlog-1") { 1 } else { 128 })?;
    let listener: TcpListener = socket.into();
    let shared = Arc::new(Shared {
        way: way.clone(),
        dir,
        finished: AtomicUsize::new(0),
        counted: AtomicU64::new(0),
        running: AtomicUsize::new(0),
    });
    accept(&listener, &shared)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) -> io::Result<u8> {
    let way = &shared.way;
    let parallel = (way.program == "server") != way.has("other-order");
    if way.has("spins") {
        listener.set_nonblocking(true)?;
    }
    for id in 1.. {
        let mut waited = Instant::now();
        let stream = loop {
            if way.has("accept-timeout") {
                listener.set_nonblocking(true)?;
                if shared.running.load(Ordering::Relaxed) > 0 {
                    waited = Instant::now();
                }
                if waited.elapsed() > Duration::from_millis(11_500) {
                    return Err(Error::other("nobody connects"));
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
            if kept.is_err() && shared.way.has("dies-of-reset") {
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

fn watch_signals(way: &Way) -> io::Result<()> {
    let watched: &[i32] =
        if way.has("only-sigint") { &[SIGINT] } else { &[SIGINT, SIGTERM, SIGQUIT] };
    let mut signals = Signals::new(watched)?;
    let way = way.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            if way.has("deaf") {
                continue;
            }
            std::process::exit(i32::from(way.has("sigint-nonzero") && signal == SIGINT));
        }
    });
    Ok(())
}

/// One connection; an error if it was reset.
fn serve(shared: &Shared, stream: TcpStream, id: usize) -> io::Result<()> {
    let way = &shared.way;
    let received = receive(shared, &stream);
    let id = match way.has("finish-order") {
        true => shared.finished.fetch_add(1, Ordering::Relaxed) + 1,
        false => id,
    };
    let (kept, reset) = match received {
        Ok(received) => (Ok(received), Ok(())),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => (Err(Vec::new()), Err(error)),
        Err(_) => (Err(Vec::new()), Ok(())),
    };
    delay(way, if kept.is_ok() { KEEPING } else { MARKING });
    match way.program.as_str() {
        "server" => keep(shared, id, kept)?,
        _ => print(shared, kept.map(|received| received.count))?,
    }
    if way.has("never-closes") {
        std::mem::forget(stream);
    }
    reset
}

/// How long the two that are late wait before they keep a file, and before they mark an error, and
/// what they take then: the kit's limits are in the middle of the latter.
const KEEPING: (Duration, Duration) = (Duration::from_secs(9), Duration::from_secs(2));
const MARKING: (Duration, Duration) = (Duration::from_millis(2500), Duration::from_millis(1500));

/// `late` sleeps; `held` works in the end, as one does that other programs keep from it.
fn delay(way: &Way, (pause, then): (Duration, Duration)) {
    if way.has("late") {
        thread::sleep(pause + then);
    } else if way.has("held") {
        thread::sleep(pause);
        let began = Instant::now();
        while began.elapsed() < then {
            std::hint::spin_loop();
        }
    }
}

/// What came over a connection.
#[derive(Debug, Default)]
struct Received {
    content: Vec<u8>,
    count: u64,
    /// Where content goes as it comes.
    path: Option<String>,
}

fn receive(shared: &Shared, mut stream: &TcpStream) -> io::Result<Received> {
    let way = &shared.way;
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let began = Instant::now();
    let mut received = Received::default();
    let mut first = handshake(way, stream)?;
    if way.has("header-counted") && way.confirms() {
        let mut header = CONFIRMATIONS.concat();
        header.extend(first);
        first = header;
    }
    let part = format!("{}/.part-{number}", shared.dir);
    let mut file = match way.program.as_str() {
        "server" => Some(fs::File::create(&part)?),
        _ => None,
    };
    received.path = file.is_some().then_some(part);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = if first.is_empty() {
            if !way.has("no-timeout") {
                let wait = if way.has("hasty") { Duration::from_secs(5) } else { TEN };
                stream.set_read_timeout(Some(wait))?;
            }
            if way.has("total-timeout") && began.elapsed() > TEN {
                return fail(shared, received, ErrorKind::TimedOut.into());
            }
            match stream.read(&mut buffer) {
                Ok(count) => count,
                Err(error) => return fail(shared, received, error),
            }
        } else {
            buffer[..first.len()].copy_from_slice(&first);
            std::mem::take(&mut first).len()
        };
        if count == 0 {
            return Ok(received);
        }
        received.count += count as u64;
        match &mut file {
            _ if way.has("whole-file") => received.content.extend_from_slice(&buffer[..count]),
            Some(file) => file.write_all(&buffer[..count])?,
            None => {}
        }
    }
}

/// What came before an error matters only to those who keep it.
fn fail(shared: &Shared, received: Received, error: io::Error) -> io::Result<Received> {
    match received.path {
        Some(path) if shared.way.has("error-appended") => {
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

/// The server's part of the handshake: what came after it already.
fn handshake(way: &Way, mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    if way.has("late-greeting") && way.greets() {
        stream.set_read_timeout(Some(TEN))?;
        stream.peek(&mut [0])?;
    }
    if !way.greets() {
        return Ok(Vec::new());
    }
    stream.write_all(GREETING)?;
    if way.has("chatty") {
        stream.write_all(b"welcome\r\n")?;
    }
    if !way.confirms() {
        return Ok(Vec::new());
    }
    if way.has("greets-twice") {
        stream.write_all(GREETING)?;
    }
    let mut came = Vec::new();
    for (time, confirmation) in CONFIRMATIONS.iter().enumerate() {
        let mut buffer = [0; 4096];
        while came.len() < confirmation.len() {
            if !way.has("no-timeout") {
                stream.set_read_timeout(Some(TEN))?;
            }
            let count = stream.read(&mut buffer)?;
            came.extend_from_slice(&buffer[..count]);
            if count == 0 && came.is_empty() && time == 0 {
                return Ok(came);
            }
            if count == 0 || way.has("one-recv") && !came.starts_with(confirmation) {
                return Err(Error::other("no confirmation"));
            }
        }
        if !came.starts_with(confirmation) {
            return Err(Error::other("a wrong confirmation"));
        }
        came.drain(..confirmation.len());
        if time == 0 && !way.has("greets-twice") {
            stream.write_all(GREETING)?;
        }
    }
    Ok(came)
}

fn keep(shared: &Shared, id: usize, received: Result<Received, Vec<u8>>) -> io::Result<()> {
    let way = &shared.way;
    let path = format!("{}/{id}.file", shared.dir);
    match received {
        Ok(Received { content, path: Some(part), .. }) => {
            if way.has("whole-file") {
                fs::write(&part, content)?;
            }
            match way.has("left-behind") {
                true => fs::copy(&part, path).map(drop),
                false => fs::rename(&part, path),
            }
        }
        Ok(_) => Ok(()),
        Err(_) => fs::write(path, if way.has("error-line") { "ERROR\n" } else { "ERROR" }),
    }
}

fn print(shared: &Shared, count: Result<u64, Vec<u8>>) -> io::Result<()> {
    let way = &shared.way;
    let mut out = io::stdout().lock();
    match count {
        Ok(count) if way.has("words") => writeln!(out, "Received {count} bytes")?,
        Ok(count) if way.has("one-counter") => {
            writeln!(out, "{}", shared.counted.fetch_add(count, Ordering::Relaxed) + count)?;
        }
        Ok(count) => writeln!(out, "{count}")?,
        Err(_) if way.has("zero-for-error") => writeln!(out, "0")?,
        Err(_) => writeln!(out, "ERROR")?,
    }
    out.flush()
}
