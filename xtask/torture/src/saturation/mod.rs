//! Clients that send as fast as they can must delay neither the greetings nor the time limits of
//! other clients.

pub(super) mod observer;
mod senders;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::directory_oracle::survey;
use super::exhaustion::expect_idle;
use super::runner::{Case, RunOptions};
use super::volume::Volume;
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::SOON;
use accio_harness::scheduling_delay;
use accio_harness::verdict::{During, Stop, Verdict, ensure};
use accio_harness::work_dir::WorkDir;
use observer::{Observed, observe};
use senders::send;

/// The largest number of bytes in unfinished files: each sender resets its connection after its
/// share of them, and the server frees the file.
const BYTES: u64 = 1 << 30;

/// The size of the file systems. It also limits the discarded bytes that are not freed yet.
const VOLUME: u64 = 3 << 30;

/// How long the senders run before the first observation.
const WARM_UP: Duration = Duration::from_millis(500);

/// The senders must send at least so many bytes; otherwise they have not saturated the server.
const MIN_SENT: u64 = 100 << 20;

/// The longest median and 99th percentile of the time from connecting to the greeting.
const GREETING: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));

/// A server without connections has fewer open file descriptors than this.
const IDLE_DESCRIPTORS: usize = 60;

/// How long after the idle timeout the server may still disconnect a silent client.
const MAX_DELAY: Duration = Duration::from_millis(500);

/// The numbers of clients and the idle timeout of one measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    senders: usize,
    silent: usize,
    /// The idle timeout of the server, in seconds.
    timeout: u64,
}

/// The kind of file system on which the server stores files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileSystem {
    Tmpfs,
    Ext4,
}

pub(super) fn cases(options: &RunOptions) -> Vec<Case> {
    let about =
        "silent clients end in [T, T + 0.5 s]; greetings take 50 ms (median), 250 ms (99 %)";
    let unprivileged = options.unprivileged;
    let case = |setup: Setup, file_system, name| {
        let name = format!("saturation/{}-senders-on-{name}", setup.senders);
        let work = move |context: &Context| saturate(context, setup, file_system, unprivileged);
        Case::new(name, about, work).alone()
    };
    if options.quick {
        let setup = Setup { senders: 100, silent: 50, timeout: 1 };
        return vec![case(setup, FileSystem::Tmpfs, "tmpfs")];
    }
    let mut cases = Vec::new();
    for senders in [20, 100, 1_000] {
        let setup = Setup { senders, silent: 500, timeout: 2 };
        cases.push(case(setup, FileSystem::Tmpfs, "tmpfs"));
        cases.push(case(setup, FileSystem::Ext4, "ext4"));
    }
    cases
}

/// The directory that contains FILE-DIR.
enum Location {
    Mounted(Volume),
    Shared(WorkDir),
    Ordinary(PathBuf),
}

impl Location {
    /// Mounts a new file system. Without the privilege to do so, uses `/dev/shm` instead of a tmpfs
    /// and the ordinary disk instead of an ext4.
    fn new(context: &Context, file_system: FileSystem, unprivileged: bool) -> Verdict<Location> {
        let volume = match file_system {
            FileSystem::Tmpfs => Volume::tmpfs(context, unprivileged, &format!("size={VOLUME}")),
            FileSystem::Ext4 => Volume::ext4(context, unprivileged, VOLUME, &[]),
        };
        match (volume, file_system) {
            (Err(Stop::Skip(_)), FileSystem::Tmpfs) => {
                let memory = WorkDir::within(Path::new("/dev/shm"), "torture", || ());
                memory.map(Location::Shared).map_err(Stop::into_skip)
            }
            (Err(Stop::Skip(_)), FileSystem::Ext4) => Ok(Location::Ordinary(context.fresh("disk"))),
            (volume, _) => Ok(Location::Mounted(volume?)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Location::Mounted(volume) => volume.path(),
            Location::Shared(dir) => dir.path(),
            Location::Ordinary(dir) => dir,
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Location::Mounted(_) => "a file system of its own",
            Location::Shared(_) => "/dev/shm",
            Location::Ordinary(_) => "the ordinary disk",
        })
    }
}

/// Tells the senders to stop when it is dropped.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn saturate(
    context: &Context,
    setup: Setup,
    file_system: FileSystem,
    unprivileged: bool,
) -> Verdict<String> {
    let location = Location::new(context, file_system, unprivileged)?;
    let seconds = setup.timeout.to_string();
    let server =
        context.server_into(&location.path().join("received"), &["--timeout", &seconds])?;
    let address = server.address();
    let source = File::open(context.file(&vec![7; senders::CHUNK])?)?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let share = BYTES / setup.senders as u64;
    let began = Instant::now();
    let observed = thread::scope(|scope| -> Verdict<Observed> {
        let stop_senders = StopOnDrop(&stop);
        let senders = scope.spawn(|| send(address, setup.senders, share, &source, &stop, &sent));
        thread::sleep(WARM_UP);
        let observed = scope.spawn(|| observe(address, setup.silent, setup.timeout)).join();
        drop(stop_senders);
        let ended = senders.join().unwrap_or_else(|_| Err(Stop::Trouble("a panic".into())));
        ended.and_then(|()| observed.unwrap_or_else(|_| Err(Stop::Trouble("a panic".into()))))
    })?;
    let (took, sent) = (began.elapsed(), sent.into_inner());
    let ticks = server.process.cpu_ticks()?;
    let delay = scheduling_delay::worst_since(began);
    let closed = || server.process.descriptors().is_ok_and(|now| now < IDLE_DESCRIPTORS);
    ensure(
        wait_until(SOON, closed),
        "the server to close the descriptors of all connections",
        || format!("{:?}", server.process.descriptors()),
    )?;
    // The server is still freeing the discarded files: wait until it uses no more CPU time.
    let mut used = 0;
    wait_until(SOON, || {
        let before = std::mem::replace(&mut used, server.process.cpu_ticks().unwrap_or(0));
        thread::sleep(Duration::from_millis(100));
        before == used
    });
    expect_idle(&server.process).during(|| "afterwards")?;
    let dir = server.dir.clone();
    server.stop()?;
    let found = survey(&dir)?;

    let (median, high) = (observed.greeting(50), observed.greeting(99));
    let (shortest, longest) = observed.ends();
    let note = format!(
        "ends after {shortest:.3?} to {longest:.3?}; {} greetings in {median:.1?} (median) and \
         {high:.1?} (99 %), of a reference in {:.1?} and {:.1?}; {} MB/s sent, {} % of a core used \
         by the server; harness {:.0?} late at most, {delay:.0?} at normal priority; on {location}",
        observed.greetings(),
        observed.reference(50),
        observed.reference(99),
        (sent as f64 / 1e6 / took.as_secs_f64()).round(),
        (ticks as f64 / took.as_secs_f64()).round(),
        observed.lateness(),
    );
    ensure(sent >= MIN_SENT, "the senders to send at least 100 MiB", || note.clone())?;
    let timeout = Duration::from_secs(setup.timeout);
    let in_time =
        shortest >= timeout && longest <= timeout + MAX_DELAY + observed.lateness() + delay;
    ensure(in_time, "the silent clients to end in [T, T + 0.5 s]", || note.clone())?;
    // Other processes delay the server as much as the reference.
    let prompt = median <= GREETING.0 + observed.reference(50)
        && high <= GREETING.1 + observed.reference(99);
    ensure(prompt, "greetings in 50 ms (median) and 250 ms (99 %)", || note.clone())?;
    found.ensure_clean()?;
    ensure(found.whole.is_empty() && found.empty == 0, "nothing but error markers", || {
        format!("{} whole files, {} empty ones", found.whole.len(), found.empty)
    })?;
    Ok(note)
}
