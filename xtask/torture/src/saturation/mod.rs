//! Clients that send as fast as they can, next to silent ones: greetings and time limits on time.

mod observer;
mod senders;

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::exhaustion::expect_idle;
use super::folder_oracle::survey;
use super::runner::{Case, RunOptions};
use super::volume::Volume;
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::SOON;
use accio_harness::scheduling_delay;
use accio_harness::verdict::{During, Stop, Verdict, ensure};
use accio_harness::work_dir::WorkDir;
use observer::{Observed, observe};
use senders::send;

/// Most bytes in unfinished files: every sender resets its connection once its share is used up,
/// and the server frees it.
const BYTES: u64 = 1 << 30;

/// The size of the file systems, which also bounds the bytes that are being freed.
const VOLUME: u64 = 3 << 30;

/// How long the senders run before the first observation.
const WARM_UP: Duration = Duration::from_millis(500);

/// Bytes that the senders must get rid of, or they saturate nothing.
const LEAST: u64 = 100 << 20;

/// The longest median and 99th percentile of the time from connecting to the greeting.
const GREETING: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));

/// More descriptors than a server without connections has.
const IDLE_DESCRIPTORS: usize = 60;

/// How late a silent client may be ended.
const LATE: Duration = Duration::from_millis(500);

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    senders: usize,
    silent: usize,
    /// The idle timeout of the server, in seconds.
    timeout: u64,
}

/// A file system to store on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Storage {
    Tmpfs,
    Ext4,
}

pub(super) fn cases(options: &RunOptions) -> Vec<Case> {
    let about =
        "silent clients end in [T, T + 0.5 s]; greetings take 50 ms (median), 250 ms (99 %)";
    let unprivileged = options.unprivileged;
    let case = |setup: Setup, storage, name| {
        let name = format!("saturation/{}-senders-on-{name}", setup.senders);
        let work = move |context: &Context| saturate(context, setup, storage, unprivileged);
        Case::new(name, about, work).alone()
    };
    if options.quick {
        let setup = Setup { senders: 100, silent: 50, timeout: 1 };
        return vec![case(setup, Storage::Tmpfs, "tmpfs")];
    }
    let mut cases = Vec::new();
    for senders in [20, 100, 1_000] {
        let setup = Setup { senders, silent: 500, timeout: 2 };
        cases.push(case(setup, Storage::Tmpfs, "tmpfs"));
        cases.push(case(setup, Storage::Ext4, "ext4"));
    }
    cases
}

/// Where FILE-DIR is.
enum Place {
    Mounted(Volume),
    Shared(WorkDir),
    Ordinary(PathBuf),
}

impl Place {
    /// A file system of its own, or what comes closest.
    fn new(context: &Context, storage: Storage, unprivileged: bool) -> Verdict<Place> {
        let volume = match storage {
            Storage::Tmpfs => Volume::tmpfs(context, unprivileged, &format!("size={VOLUME}")),
            Storage::Ext4 => Volume::ext4(context, unprivileged, VOLUME, &[]),
        };
        match (volume, storage) {
            (Err(Stop::Skip(_)), Storage::Tmpfs) => {
                let memory = WorkDir::within(Path::new("/dev/shm"), "torture", || ());
                memory.map(Place::Shared).map_err(Stop::into_skip)
            }
            (Err(Stop::Skip(_)), Storage::Ext4) => Ok(Place::Ordinary(context.fresh("disk"))),
            (volume, _) => Ok(Place::Mounted(volume?)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Place::Mounted(volume) => volume.path(),
            Place::Shared(dir) => dir.path(),
            Place::Ordinary(dir) => dir,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Place::Mounted(_) => "a file system of its own",
            Place::Shared(_) => "/dev/shm",
            Place::Ordinary(_) => "the ordinary disk",
        })
    }
}

/// Tells the senders to end when dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

fn saturate(
    context: &Context,
    setup: Setup,
    storage: Storage,
    unprivileged: bool,
) -> Verdict<String> {
    let place = Place::new(context, storage, unprivileged)?;
    let seconds = setup.timeout.to_string();
    let server = context.server_into(&place.path().join("received"), &["--timeout", &seconds])?;
    let address = server.address();
    let source = File::open(context.file(&vec![7; senders::CHUNK])?)?;
    let (over, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let share = BYTES / setup.senders as u64;
    let began = Instant::now();
    let observed = thread::scope(|scope| -> Verdict<Observed> {
        let end = Over(&over);
        let senders = scope.spawn(|| send(address, setup.senders, share, &source, &over, &sent));
        thread::sleep(WARM_UP);
        let observed = scope.spawn(|| observe(address, setup.silent, setup.timeout)).join();
        drop(end);
        let ended = senders.join().unwrap_or_else(|_| Err(Stop::Trouble("a panic".into())));
        ended.and_then(|()| observed.unwrap_or_else(|_| Err(Stop::Trouble("a panic".into()))))
    })?;
    let (took, sent) = (began.elapsed(), sent.into_inner());
    let ticks = server.process.cpu_ticks()?;
    let delay = scheduling_delay::worst_since(began);
    let back = || server.process.descriptors().is_ok_and(|now| now < IDLE_DESCRIPTORS);
    ensure(wait_until(SOON, back), "all descriptors back", || {
        format!("{:?}", server.process.descriptors())
    })?;
    // What was discarded is still being freed.
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
         {high:.1?} (99 %); {} MB/s sent, {} % of a core used by the server; harness {:.0?} late \
         at most, {delay:.0?} at normal priority; on {place}",
        observed.greetings(),
        (sent as f64 / 1e6 / took.as_secs_f64()).round(),
        (ticks as f64 / took.as_secs_f64()).round(),
        observed.lateness(),
    );
    ensure(sent >= LEAST, "the senders to send", || note.clone())?;
    let timeout = Duration::from_secs(setup.timeout);
    let in_time = shortest >= timeout && longest <= timeout + LATE + observed.lateness();
    ensure(in_time, "the silent clients to end in [T, T + 0.5 s]", || note.clone())?;
    let prompt = median <= GREETING.0 && high <= GREETING.1;
    ensure(prompt, "greetings in 50 ms (median) and 250 ms (99 %)", || note.clone())?;
    found.ensure_clean()?;
    ensure(found.whole.is_empty() && found.empty == 0, "nothing but error markers", || {
        format!("{} whole files, {} empty ones", found.whole.len(), found.empty)
    })?;
    Ok(note)
}
