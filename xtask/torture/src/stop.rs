//! Signals while many uploads are in progress, and neither stderr nor the journal is read.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::io::ioctl_fionread;
use rustix::process::Signal;

use super::exhaustion::{connect, ends};
use super::folder_oracle::survey;
use super::runner::{Case, RunOptions};
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::{End, SOON};
use accio_harness::process::{Input, Process};
use accio_harness::subject::Program;
use accio_harness::verdict::{Stop, Verdict, ensure, ensure_eq};
use accio_harness::work_dir::WorkDir;
use accio_harness::{ports, scheduling_delay};

/// Connections with a few bytes of content.
const SMALL: usize = 1_000;

/// Uploads at full speed.
const LARGE: usize = 24;

const MIB: u64 = 1 << 20;

/// The documented time within which a signal ends the server.
const LIMIT: Duration = Duration::from_secs(1);

/// How long the large uploads may take to reach their size.
const PATIENCE: Duration = Duration::from_secs(120);

/// How often the harness looks at the folder, the journal and the process.
const LOOK: Duration = Duration::from_millis(5);

/// Where FILE-DIR is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Disk,
    Memory,
}

/// Whether the journal's FIFO has room for lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Journal {
    Unread,
    Full,
}

pub(super) fn cases(options: &RunOptions) -> Vec<Case> {
    let about = "all markers and journal lines within a second, exit status 0";
    let size = if options.quick { 16 * MIB } else { 400 * MIB };
    let case = |name: String, about: &str, place, signal, journal| {
        Case::new(name, about, move |context| stop(context, place, signal, journal, size))
            .alone()
            .within(Duration::from_secs(240))
    };
    let places = [("on-disk", Place::Disk), ("in-memory", Place::Memory)];
    let signals = [("term", Signal::TERM), ("int", Signal::INT), ("quit", Signal::QUIT)];
    if options.quick {
        let name = "stop/term-in-memory".to_owned();
        return vec![case(name, about, Place::Memory, Signal::TERM, Journal::Unread)];
    }
    let mut cases = Vec::new();
    for (place_name, place) in places {
        for (name, signal) in signals {
            let name = format!("stop/{name}-{place_name}");
            cases.push(case(name, about, place, signal, Journal::Unread));
        }
    }
    let about = "a journal without room delays neither markers nor the end";
    let name = "stop/term-with-a-full-journal".to_owned();
    cases.push(case(name, about, Place::Disk, Signal::TERM, Journal::Full));
    cases
}

/// What the harness saw of the end, each as a time since the signal.
#[derive(Debug, Default)]
struct Seen {
    /// The last of the markers.
    markers: Option<Duration>,
    /// The last of the journal's bytes.
    lines: Duration,
    /// The process exits; its descriptors may still be closing, which frees discarded data.
    exiting: Option<Duration>,
    /// Nothing of it is left.
    ended: Duration,
}

fn stop(
    context: &Context,
    place: Place,
    signal: Signal,
    journal: Journal,
    size: u64,
) -> Verdict<String> {
    let memory = match place {
        Place::Disk => None,
        Place::Memory => Some(
            WorkDir::within(Path::new("/dev/shm"), "torture", || ()).map_err(Stop::into_skip)?,
        ),
    };
    let root = memory.as_ref().map_or(context.dir(), WorkDir::path);
    let size = size.min(room(root)? / 2 / LARGE as u64) / MIB * MIB;
    if size < 16 * MIB {
        return Err(Stop::skip(format!("{} has no room", root.display())));
    }
    // What other cases have left to write is not this one's.
    rustix::fs::syncfs(File::open(root)?)?;
    let dir = root.join("received");
    let (mut process, address, mut lines, _log) = start(context, &dir, journal)?;

    let small: Vec<TcpStream> = (0..SMALL)
        .map(|_| {
            let mut stream = connect(address)?;
            stream.write_all(b"part of a small file")?;
            Ok(stream)
        })
        .collect::<Verdict<_>>()?;
    let full = AtomicUsize::new(0);
    let (seen, delay) = thread::scope(|scope| -> Verdict<_> {
        let senders: Vec<_> =
            (0..LARGE).map(|_| scope.spawn(|| fill(address, size, &full))).collect();
        let over = || senders.iter().any(|sender| sender.is_finished());
        wait_until(PATIENCE, || full.load(Ordering::SeqCst) == LARGE || over());
        let count = full.load(Ordering::SeqCst);
        if count < LARGE {
            // Ends the other senders.
            process.kill()?;
            let failed = senders.into_iter().filter(|sender| sender.is_finished());
            let why: Vec<_> = failed.filter_map(|sender| sender.join().ok()?.err()).collect();
            return Err(Stop::Trouble(format!("only {count} uploads got that far: {why:?}")));
        }
        let start = Instant::now();
        process.signal(signal)?;
        let seen = watch(&mut process, &dir, &lines, start)?;
        let delay = scheduling_delay::worst_since(start);
        for sender in senders {
            let end = sender.join().unwrap_or_else(|_| Err(Stop::Trouble("a panic".into())))?;
            ensure_eq("the end of a large upload", End::Reset, end)?;
        }
        Ok((seen, delay))
    })?;
    for end in ends(&small, SOON)? {
        ensure_eq("the end of a small upload", Some(End::Reset), end.map(|(end, _)| end))?;
    }
    let exit = process.wait(SOON)?;
    ensure_eq("exit status", Some(0), exit.status.code())?;
    let found = survey(&dir)?;
    found.ensure_clean()?;
    let written = shutdowns(&mut lines);
    let note = format!(
        "{} markers {}, {written} lines after {:.2?}, exit begun after {:.2?} and over \
         after {:.2?}, {} MiB in progress, harness {delay:.0?} late at most",
        found.errors,
        seen.markers.map_or("in all".to_owned(), |after| format!("after {after:.2?}")),
        seen.lines,
        seen.exiting.unwrap_or(seen.ended),
        seen.ended,
        LARGE as u64 * size / MIB
    );
    let limit = LIMIT + delay;
    let count = SMALL + LARGE;
    let marked = found.errors == count && seen.markers.is_some_and(|after| after <= limit);
    ensure(marked, "all markers within a second", || note.clone())?;
    if journal == Journal::Unread {
        let written = written == count && seen.lines <= limit;
        ensure(written, "all journal lines within a second", || note.clone())?;
    }
    let exiting = seen.exiting.unwrap_or(seen.ended) <= limit;
    ensure(exiting, "the process to exit within a second", || note.clone())?;
    Ok(note)
}

/// Bytes that files may take there.
fn room(root: &Path) -> Verdict<u64> {
    let stat = rustix::fs::statvfs(root)?;
    let free = stat.f_bavail * stat.f_frsize;
    // Everything in a tmpfs is memory, and much of a file on a disk is for a while.
    let memory = fs::read_to_string("/proc/meminfo")?;
    let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = available.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(free.min(available.unwrap_or(0) << 10))
}

/// Starts a server whose stderr and journal are FIFOs that are open and not read.
fn start(
    context: &Context,
    dir: &Path,
    journal: Journal,
) -> Verdict<(Process, SocketAddr, File, File)> {
    let (journal_path, log_path) = (context.fresh("journal"), context.fresh("stderr"));
    let (mut lines, mut log) = (fifo(&journal_path)?, fifo(&log_path)?);
    rustix::pipe::fcntl_setpipe_size(&log, 4096)?;
    if journal == Journal::Full {
        rustix::pipe::fcntl_setpipe_size(&lines, 1 << 20)?;
        while lines.write(&[b'\n'; 4096]).is_ok() {}
    }
    let port = ports::free()?;
    let server = context.command(Program::Server)?;
    let mut command = Command::new("sh");
    command.args(["-c", "log=$1; shift; exec \"$@\" 2>\"$log\"", "sh"]).arg(&log_path);
    command.arg(server.get_program()).arg(port.to_string()).arg(dir);
    command.args(["--bind", "127.0.0.1", "--timeout", "300", "-vv", "--journal"]);
    command.arg(&journal_path);
    let process = context.spawn(command, Input::Null)?;
    // Read up to here, and no further.
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    let listens = wait_until(SOON, || {
        let count = log.read(&mut buffer).unwrap_or(0);
        text.extend_from_slice(&buffer[..count]);
        String::from_utf8_lossy(&text).contains("listening on")
    });
    ensure(listens, "a line on stderr: listening on", || String::from_utf8_lossy(&text).into())?;
    Ok((process, (Ipv4Addr::LOCALHOST, port).into(), lines, log))
}

fn fifo(path: &PathBuf) -> Verdict<File> {
    mkfifoat(CWD, path, Mode::from_raw_mode(0o600))?;
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    Ok(File::options().read(true).write(true).custom_flags(nonblocking).open(path)?)
}

/// An upload that sends `size` bytes, says so, goes on, and waits for its end.
fn fill(address: SocketAddr, size: u64, full: &AtomicUsize) -> Verdict<End> {
    let mut stream = connect(address)?;
    let chunk = vec![7; MIB as usize];
    for _ in 0..size / MIB {
        stream.write_all(&chunk)?;
    }
    full.fetch_add(1, Ordering::SeqCst);
    for _ in 0..size / MIB / 4 {
        if stream.write_all(&chunk).is_err() {
            return Ok(End::Reset);
        }
    }
    match ends(&[stream], PATIENCE)?.pop().flatten() {
        Some((end, _)) => Ok(end),
        None => Ok(End::Open),
    }
}

/// Watches the end of the server.
fn watch(process: &mut Process, dir: &Path, lines: &File, start: Instant) -> Verdict<Seen> {
    let (mut seen, mut bytes) = (Seen::default(), ioctl_fionread(lines)?);
    let until = start + Duration::from_secs(60);
    while !process.is_over()? {
        let now = ioctl_fionread(lines)?;
        if now > bytes {
            (bytes, seen.lines) = (now, start.elapsed());
        }
        // Nothing but markers gets a name: their content is looked at afterwards.
        if seen.markers.is_none() && fs::read_dir(dir)?.count() >= SMALL + LARGE {
            seen.markers = Some(start.elapsed());
        }
        if seen.exiting.is_none() && process.is_exiting()? {
            seen.exiting = Some(start.elapsed());
        }
        if Instant::now() >= until {
            return Err(Stop::fault("the server to end", "it still runs after a minute"));
        }
        thread::sleep(LOOK);
    }
    seen.ended = start.elapsed();
    if seen.markers.is_none() && fs::read_dir(dir)?.count() >= SMALL + LARGE {
        seen.markers = Some(seen.ended);
    }
    if ioctl_fionread(lines)? > bytes {
        seen.lines = seen.ended;
    }
    Ok(seen)
}

/// The number of lines about a connection that the end of the server aborted.
fn shutdowns(lines: &mut File) -> usize {
    let (mut text, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(count @ 1..) = lines.read(&mut buffer) {
        text.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&text);
    let is_shutdown = |line: &&str| line.ends_with('}') && line.contains("\"reason\":\"shutdown\"");
    text.lines().filter(is_shutdown).count()
}
