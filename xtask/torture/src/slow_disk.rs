//! Disks that take seconds for a system call must not delay clients that connect, send or are
//! silent.

use std::fs;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use socket2::SockRef;

use super::directory_oracle::{content, survey};
use super::exhaustion::{connect, ends};
use super::runner::{Case, RunOptions};
use super::saturation::observer::{Observed, observe};
use super::strace;
use super::volume::Volume;
use accio_harness::context::{Context, Server, wait_until};
use accio_harness::peer::SOON;
use accio_harness::verdict::{Stop, Verdict, ensure, ensure_eq};
use accio_harness::{scheduling_delay, tools};

/// The number of clients whose files are being committed.
const CLIENTS: usize = 50;

/// The number of threads that commit files with `--durable`.
const COMMITTERS: usize = 4;

/// The number of concurrent uploads that make the server start these threads.
const WARM_UPS: u64 = 16;

/// The number of silent clients.
const SILENT: usize = 20;

/// The idle timeout of the server, in seconds.
const TIMEOUT: u64 = 2;

/// How long the server may take to receive [`SIZE_WHILE_OPEN`] bytes of an open file.
const MAX_UPLOAD_TIME: Duration = Duration::from_secs(1);

/// How many bytes of an open file are sent while the commits wait.
const SIZE_WHILE_OPEN: usize = 1 << 20;

/// How long after its time limit a server may begin to exit or disconnect a silent client.
const MAX_DELAY: Duration = Duration::from_millis(500);

pub(super) fn cases(options: &RunOptions) -> Vec<Case> {
    let unprivileged = options.unprivileged;
    let about = "greetings, time limits and open files do not wait for commits";
    let limit = Duration::from_secs(120);
    let delayed = Case::new("slow-disk/calls-take-2-s", about, delayed);
    let throttled = Case::new("slow-disk/throttled", about, move |context| {
        let volume = Volume::ext4(context, unprivileged, 512 << 20, &[])?;
        throttled(context, &volume)
    });
    let cases = if unprivileged || options.quick { vec![] } else { vec![delayed, throttled] };
    cases.into_iter().map(|case| case.alone().within(limit)).collect()
}

/// Delays every system call of the committers on a file, a descriptor or a socket by two seconds.
/// A commit then takes half a minute.
fn delayed(context: &Context) -> Verdict<String> {
    tools::require_tracing()?;
    let timeout = TIMEOUT.to_string();
    let server = context.server(&["--durable", "--timeout", &timeout])?;
    let committers = start_committers(&server)?;
    let calls = "%file,%desc,%network";
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:delay_enter=2s"));
    let options = ["-e", &trace, "-e", &inject].map(str::to_owned);
    let record = context.fresh("trace");
    let _tracer = strace::Tracer::attach_all(context, &committers, &options, &record)?;
    // The workers, whose calls are not delayed, commit smaller files themselves.
    measure(server, 2 << 20)
}

/// Uploads and breaks off uploads until the server has started all threads that commit and free
/// files, and returns these threads.
fn start_committers(server: &Server) -> Verdict<Vec<Pid>> {
    let address = server.address();
    let committers = || {
        let named = |name| strace::threads_named(server.process.pid(), name);
        (named("accio-commit"), named("accio-discard"))
    };
    let mut first = 1_000;
    let all_run = wait_until(SOON, || {
        let waiting = (first..first + WARM_UPS).map(|tag| upload(address, tag, 4 << 10));
        first += WARM_UPS;
        let Ok(waiting) = waiting.collect::<Verdict<Vec<_>>>() else { return false };
        if !ends(&waiting, SOON).is_ok_and(|ends| ends.iter().all(Option::is_some)) {
            return false;
        }
        if broken_off(address).is_err() {
            return false;
        }
        let (commit, discard) = committers();
        commit.len() == COMMITTERS && !discard.is_empty()
    });
    let (commit, discard) = committers();
    ensure(all_run, format!("{COMMITTERS} threads that commit and one that discards"), || {
        format!("{} and {}", commit.len(), discard.len())
    })?;
    Ok([commit, discard].concat())
}

/// Puts the server into a control group that writes at most 2 MB per second to the disk.
fn throttled(context: &Context, volume: &Volume) -> Verdict<String> {
    let timeout = TIMEOUT.to_string();
    let flags = ["--durable", "--timeout", &timeout];
    let server = context.server_into(&volume.path().join("received"), &flags)?;
    let _group = Throttle::new(server.process.pid(), volume.path(), 2_000_000)?;
    measure(server, 1 << 20)
}

/// Commits files of `size` bytes each, and measures the delays of other clients at the same time.
fn measure(mut server: Server, size: usize) -> Verdict<String> {
    let address = server.address();
    let before = survey(&server.dir)?.whole.len();
    let mut open = connect(address)?;
    open.write_all(&content(0, SIZE_WHILE_OPEN))?;
    let began = Instant::now();
    let start_upload = |tag: usize| {
        // Starting them all may take longer than the idle timeout.
        open.write_all(b"more")?;
        upload(address, tag as u64 + 1, size)
    };
    let waiting = (0..CLIENTS).map(start_upload).collect::<Verdict<Vec<_>>>()?;
    let (observed, sent) = thread::scope(|scope| -> Verdict<(Observed, Duration)> {
        let observed = scope.spawn(|| observe(address, SILENT, TIMEOUT));
        let started = Instant::now();
        open.write_all(&content(0, SIZE_WHILE_OPEN))?;
        let sent = started.elapsed();
        let observed = observed.join().unwrap_or_else(|_| Err(Stop::Trouble("a panic".into())));
        Ok((observed?, sent))
    })?;
    let committed = survey(&server.dir)?.whole.len() - before;
    let stopped = Instant::now();
    server.process.signal(Signal::TERM)?;
    let limit = Duration::from_secs(1) + MAX_DELAY;
    let exits = wait_until(limit, || server.process.is_exiting().unwrap_or(true));
    let exiting = stopped.elapsed();
    let exit = server.process.wait(Duration::from_secs(60))?;
    drop((waiting, open));
    let delay = scheduling_delay::worst_since(began);
    let (median, high) = (observed.greeting(50), observed.greeting(99));
    let (shortest, longest) = observed.ends();
    let note = format!(
        "{committed} of {CLIENTS} commits done during that time; ends after {shortest:.3?} to {longest:.3?}; \
         greetings in {median:.1?} (median) and {high:.1?} (99 %); {SIZE_WHILE_OPEN} bytes of an \
         open file in {sent:.1?}; exit begun after {exiting:.2?}; harness {:.0?} late at most, \
         {delay:.0?} at normal priority",
        observed.lateness()
    );
    // If all commits are done, the disk was not slow.
    ensure(committed < CLIENTS, "commits that wait for the disk", || note.clone())?;
    // Other processes delay the server as much as the reference.
    let prompt = median <= Duration::from_millis(50) + observed.reference(50)
        && high <= Duration::from_millis(250) + observed.reference(99);
    ensure(prompt, "greetings in 50 ms (median) and 250 ms (99 %)", || note.clone())?;
    let timeout = Duration::from_secs(TIMEOUT);
    let in_time =
        shortest >= timeout && longest <= timeout + MAX_DELAY + observed.lateness() + delay;
    ensure(in_time, "the silent clients to end in [T, T + 0.5 s]", || note.clone())?;
    ensure(
        sent <= MAX_UPLOAD_TIME,
        "the server to receive part of an open file within a second",
        || note.clone(),
    )?;
    ensure(exits, "the process to exit within a second", || note.clone())?;
    ensure_eq("exit status", Some(0), exit.status.code())?;
    survey(&server.dir)?.ensure_clean()?;
    Ok(note)
}

/// Sends a part of a file and resets the connection.
fn broken_off(address: SocketAddr) -> Verdict {
    let mut stream = connect(address)?;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    Ok(stream.write_all(b"part of a file")?)
}

/// Uploads a file and does not wait for the confirmation.
fn upload(address: SocketAddr, tag: u64, size: usize) -> Verdict<TcpStream> {
    let mut stream = connect(address)?;
    stream.write_all(&content(tag, size))?;
    stream.shutdown(Shutdown::Write)?;
    Ok(stream)
}

/// A control group that limits how fast its processes write to one device. Dropping the handle
/// removes the group.
struct Throttle(PathBuf);

impl Throttle {
    /// Limits what `process` writes to the device of `path`, in bytes per second.
    fn new(process: Pid, path: &Path, rate: u64) -> Verdict<Throttle> {
        let root = Path::new("/sys/fs/cgroup/blkio");
        let file = "blkio.throttle.write_bps_device";
        if !root.join(file).exists() {
            return Err(Stop::skip("no control group throttles writes: no blkio.throttle"));
        }
        let device = fs::metadata(path)?.dev();
        let group = root.join(format!("accio-torture-{}", std::process::id()));
        fs::create_dir(&group).map_err(|why| Stop::skip(format!("no control group: {why}")))?;
        let group = Throttle(group);
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        fs::write(group.0.join(file), format!("{major}:{minor} {rate}"))?;
        fs::write(group.0.join("cgroup.procs"), process.as_raw_nonzero().to_string())?;
        Ok(group)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // This succeeds because the server, the only process of the group, has ended.
        let _ = fs::remove_dir(&self.0);
    }
}
