//! The server gets a signal while many uploads are in progress and nothing reads its stderr and
//! journal.

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

use super::directory_oracle::survey;
use super::exhaustion::{connect, ends};
use super::runner::{Case, RunOptions};
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::{End, SOON};
use accio_harness::process::{Input, Process};
use accio_harness::subject::Program;
use accio_harness::verdict::{Stop, Verdict, ensure, ensure_eq};
use accio_harness::work_dir::WorkDir;
use accio_harness::{ports, scheduling_delay};

/// The number of uploads that send a few bytes.
const SMALL: usize = 1_000;

/// The number of uploads that send at full speed.
const LARGE: usize = 24;

const MIB: u64 = 1 << 20;

/// The documented time within which a signal ends the server.
const LIMIT: Duration = Duration::from_secs(1);

/// How long the large uploads may take to reach their size.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(120);

/// The interval at which the harness examines the directory, the journal and the process.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The file system that contains FILE-DIR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    Disk,
    Memory,
}

/// Where the journal's lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Journal {
    /// Into a FIFO with room for all lines.
    Unread,
    /// Into a FIFO without room.
    Full,
    /// Onto a full disk.
    OnFullDisk,
}

pub(super) fn cases(options: &RunOptions) -> Vec<Case> {
    let about = "all markers and journal lines within a second, exit status 0";
    let size = if options.quick { 16 * MIB } else { 400 * MIB };
    let case = |name: String, about: &str, storage, signal, journal| {
        Case::new(name, about, move |context| stop(context, storage, signal, journal, size))
            .alone()
            .within(Duration::from_secs(240))
    };
    let storages = [("on-disk", Storage::Disk), ("in-memory", Storage::Memory)];
    let signals = [("term", Signal::TERM), ("int", Signal::INT), ("quit", Signal::QUIT)];
    if options.quick {
        let name = "stop/term-in-memory".to_owned();
        return vec![case(name, about, Storage::Memory, Signal::TERM, Journal::Unread)];
    }
    let mut cases = Vec::new();
    for (storage_name, storage) in storages {
        for (name, signal) in signals {
            let name = format!("stop/{name}-{storage_name}");
            cases.push(case(name, about, storage, signal, Journal::Unread));
        }
    }
    let about = "a full journal delays neither the markers nor the exit";
    let name = "stop/term-with-a-full-journal".to_owned();
    cases.push(case(name, about, Storage::Disk, Signal::TERM, Journal::Full));
    let name = "stop/term-with-a-journal-on-a-full-disk".to_owned();
    cases.push(case(name, about, Storage::Disk, Signal::TERM, Journal::OnFullDisk));
    cases
}

/// The times of what the harness observed, counted from the signal.
#[derive(Debug, Default)]
struct ShutdownTimes {
    /// The last marker.
    markers: Option<Duration>,
    /// The last bytes in the journal.
    lines: Duration,
    /// The process has begun to exit. The kernel may still be closing its descriptors, which frees
    /// discarded data.
    exiting: Option<Duration>,
    /// The process has ended.
    ended: Duration,
}

fn stop(
    context: &Context,
    storage: Storage,
    signal: Signal,
    journal: Journal,
    size: u64,
) -> Verdict<String> {
    let memory = match storage {
        Storage::Disk => None,
        Storage::Memory => Some(
            WorkDir::within(Path::new("/dev/shm"), "torture", || ()).map_err(Stop::into_skip)?,
        ),
    };
    let root = memory.as_ref().map_or(context.dir(), WorkDir::path);
    let size = size.min(available_bytes(root)? / 2 / LARGE as u64) / MIB * MIB;
    if size < 16 * MIB {
        return Err(Stop::skip(format!("too little space in {}", root.display())));
    }
    // Data of earlier cases that is not written yet would slow this one down.
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
    let (times, delay) = thread::scope(|scope| -> Verdict<_> {
        let senders: Vec<_> =
            (0..LARGE).map(|_| scope.spawn(|| fill(address, size, &full))).collect();
        let over = || senders.iter().any(|sender| sender.is_finished());
        wait_until(UPLOAD_TIMEOUT, || full.load(Ordering::SeqCst) == LARGE || over());
        let count = full.load(Ordering::SeqCst);
        if count < LARGE {
            // This ends the other senders, too.
            process.kill()?;
            let failed = senders.into_iter().filter(|sender| sender.is_finished());
            let why: Vec<_> = failed.filter_map(|sender| sender.join().ok()?.err()).collect();
            return Err(Stop::Trouble(format!("only {count} uploads reached their size: {why:?}")));
        }
        let start = Instant::now();
        process.signal(signal)?;
        let times = watch(&mut process, &dir, &lines, start)?;
        let delay = scheduling_delay::worst_since(start);
        for sender in senders {
            let end = sender.join().unwrap_or_else(|_| Err(Stop::Trouble("a panic".into())))?;
            ensure_eq("the end of a large upload", End::Reset, end)?;
        }
        Ok((times, delay))
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
        "{} markers {}, {written} lines after {:.2?}, exit begun after {:.2?} and ended \
         after {:.2?}, {} MiB in progress, harness {delay:.0?} late at most",
        found.errors,
        times.markers.map_or("in total".to_owned(), |after| format!("after {after:.2?}")),
        times.lines,
        times.exiting.unwrap_or(times.ended),
        times.ended,
        LARGE as u64 * size / MIB
    );
    let limit = LIMIT + delay;
    let count = SMALL + LARGE;
    let marked = found.errors == count && times.markers.is_some_and(|after| after <= limit);
    ensure(marked, "all markers within a second", || note.clone())?;
    if journal == Journal::Unread {
        let written = written == count && times.lines <= limit;
        ensure(written, "all journal lines within a second", || note.clone())?;
    }
    let exiting = times.exiting.unwrap_or(times.ended) <= limit;
    ensure(exiting, "the process to exit within a second", || note.clone())?;
    Ok(note)
}

/// Returns how many bytes of files fit into `root` and into memory.
fn available_bytes(root: &Path) -> Verdict<u64> {
    let stat = rustix::fs::statvfs(root)?;
    let free = stat.f_bavail * stat.f_frsize;
    // A tmpfs keeps files in memory, and so does the page cache until they are on the disk.
    let memory = fs::read_to_string("/proc/meminfo")?;
    let available = memory.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available = available.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(free.min(available.unwrap_or(0) << 10))
}

/// Starts a server whose stderr and journal are FIFOs. They stay open, but nothing reads them after
/// the server has started.
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
    command.arg(match journal {
        Journal::Unread | Journal::Full => journal_path.as_path(),
        Journal::OnFullDisk => Path::new("/dev/full"),
    });
    let process = context.spawn(command, Input::Null)?;
    // Read stderr only until the server listens.
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

/// Uploads `size` bytes, counts itself in `full`, sends more, and waits until the server ends the
/// connection.
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
    match ends(&[stream], UPLOAD_TIMEOUT)?.pop().flatten() {
        Some((end, _)) => Ok(end),
        None => Ok(End::Open),
    }
}

/// Watches the server from the signal until it has ended.
fn watch(
    process: &mut Process,
    dir: &Path,
    lines: &File,
    start: Instant,
) -> Verdict<ShutdownTimes> {
    let (mut times, mut bytes) = (ShutdownTimes::default(), ioctl_fionread(lines)?);
    let until = start + Duration::from_secs(60);
    while !process.is_over()? {
        let now = ioctl_fionread(lines)?;
        if now > bytes {
            (bytes, times.lines) = (now, start.elapsed());
        }
        // Only markers get a name here. `survey` checks their content later.
        if times.markers.is_none() && fs::read_dir(dir)?.count() >= SMALL + LARGE {
            times.markers = Some(start.elapsed());
        }
        if times.exiting.is_none() && process.is_exiting()? {
            times.exiting = Some(start.elapsed());
        }
        if Instant::now() >= until {
            return Err(Stop::fault("the server to end", "it is still running after a minute"));
        }
        thread::sleep(POLL_INTERVAL);
    }
    times.ended = start.elapsed();
    if times.markers.is_none() && fs::read_dir(dir)?.count() >= SMALL + LARGE {
        times.markers = Some(times.ended);
    }
    if ioctl_fionread(lines)? > bytes {
        times.lines = times.ended;
    }
    Ok(times)
}

/// Counts the journal's lines about connections that the server aborted because of the signal.
fn shutdowns(lines: &mut File) -> usize {
    let (mut text, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(count @ 1..) = lines.read(&mut buffer) {
        text.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8_lossy(&text);
    let is_shutdown = |line: &&str| line.ends_with('}') && line.contains("\"reason\":\"shutdown\"");
    text.lines().filter(is_shutdown).count()
}
