//! Power losses: shuts an ext4 down at a random point under load, mounts it again, and expects
//! every upload that a durable server confirmed, and its line in the journal.
//!
//! `EXT4_IOC_SHUTDOWN` without flushing the journal stops all writes at that instant. Data that has
//! not reached the disk by then is lost, as in a power failure.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::directory_oracle::{FileContent, Survey, identify, survey};
use super::journal_oracle::complete_uploads;
use super::load::load_until;
use super::power_switch::PowerSwitch;
use super::runner::{Case, RunOptions};
use super::volume::Volume;
use accio_harness::context::Context;
use accio_harness::verdict::{During, Verdict, ensure};

/// Number of concurrent clients: enough for commits to gather in groups.
const CLIENTS: usize = 32;
/// Number of power losses per case.
const POINTS: usize = 32;

/// Number of cases without --durable, which only count losses.
const NOT_DURABLE_ROUNDS: usize = 4;

/// The debug line of a group commit, up to the number of files.
const GROUP: &str = "committing a group of ";

pub(super) fn cases(options: &RunOptions) -> Vec<Case> {
    let mut cases = Vec::new();
    let unprivileged = options.unprivileged;
    let modes: [(&str, &'static [&'static str]); 3] = [
        ("durable", &["--durable"]),
        ("durable-named", &["--durable", "--without", "tmpfile"]),
        ("not-durable", &[]),
    ];
    for round in 0..options.scale(1, 8) {
        for (mode, flags) in modes {
            let durable = flags.contains(&"--durable");
            if !durable && round >= NOT_DURABLE_ROUNDS {
                continue;
            }
            let points = if options.quick { POINTS / 6 } else { POINTS };
            let about = if durable {
                "every confirmed upload and its line in the journal survive the power loss"
            } else {
                "counts what a power loss destroys without --durable; cannot fail"
            };
            let case = Case::new(format!("power/{mode}-{round}"), about, move |context| {
                losses(context, unprivileged, flags, points, durable)
            });
            cases.push(case.within(Duration::from_secs(360)));
        }
    }
    cases
}

/// Counters of a case.
#[derive(Default)]
struct LossCounts {
    confirmed: usize,
    recorded: usize,
    lost: usize,
    whole: usize,
    empty: usize,
    torn: usize,
    largest_group: usize,
}

fn losses(
    context: &Context,
    unprivileged: bool,
    flags: &[&str],
    points: usize,
    durable: bool,
) -> Verdict<String> {
    let mut random = fastrand::Rng::with_seed(context.seed());
    let mut volume = Volume::ext4(context, unprivileged, 512 << 20, &[])?;
    let mut counts = LossCounts::default();
    let mut tag = 0;
    for point in 0..points {
        let dir = volume.path().join(format!("received-{point}"));
        let journal = volume.path().join(format!("journal-{point}"));
        let logged = ["--journal", &journal.to_string_lossy(), "-vv"].map(str::to_owned);
        let logged: Vec<&str> =
            flags.iter().copied().chain(logged.iter().map(|word| &**word)).collect();
        let server = context.server_into(&dir, &logged)?;
        if !durable {
            // The directory itself must survive the power loss.
            rustix::fs::syncfs(fs::File::open(volume.path())?)?;
        }
        let switch = PowerSwitch::new(context, volume.path())?;
        let address = server.address();
        let life = Duration::from_millis(random.u64(5..400));
        let sizes: Vec<usize> = (0..64).map(|_| size(&mut random)).collect();
        let (cut, confirmed_tags) =
            load_until(address, CLIENTS, &mut tag, &sizes, |confirmed| -> Verdict<usize> {
                thread::sleep(life);
                // Until it is killed, the server sees I/O errors, which it would not in a real
                // power loss. After an error of the journal it still confirms files that are on the
                // disk.
                let confirmed = confirmed();
                let cut = switch.turn_off();
                // After the power loss, no further upload can be confirmed.
                server.process.signal(Signal::KILL)?;
                cut.map(|()| confirmed)
            });
        counts.largest_group =
            counts.largest_group.max(largest_group(&server.process.stderr().text()));
        drop(server);
        let recorded_tags = &confirmed_tags[..cut?];
        let place = || format!("point {point}, power lost after {life:?}");

        volume.unmount()?;
        volume.mount()?;
        counts.confirmed += confirmed_tags.len();
        if durable {
            let found = survey_after_restart(context, &dir, flags).during(place)?;
            found.ensure_clean().during(place)?;
            found.ensure_kept(&confirmed_tags).during(place)?;
            ensure(found.empty == 0, "no empty file", || found.empty.to_string()).during(place)?;
            counts.whole += found.whole.len();
            ensure_recorded(&dir, &journal, recorded_tags).during(place)?;
            counts.recorded += recorded_tags.len();
        } else {
            count_damage(&dir, &confirmed_tags, &mut counts)?;
        }
        fs::remove_dir_all(&dir)?;
        volume.unmount()?;
        volume.check().during(place)?;
        volume.mount()?;
    }
    let LossCounts { confirmed, recorded, lost, whole, empty, torn, largest_group } = counts;
    Ok(if durable {
        format!(
            "{points} losses, {confirmed} confirmed and kept, {recorded} of them recorded before the \
             loss and in the journal, {whole} whole, groups of up to {largest_group}"
        )
    } else {
        format!(
            "{points} losses, {confirmed} confirmed: {lost} of them lost, {empty} files empty, \
             {torn} torn"
        )
    })
}

/// Expects the journal to list these uploads with their sizes, and no uploads without a file.
fn ensure_recorded(dir: &Path, journal: &Path, tags: &[u64]) -> Verdict {
    let recorded = complete_uploads(journal)?;
    let (mut sizes, mut ids) = (BTreeMap::new(), BTreeMap::new());
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(Ok(id)) = name.strip_suffix(".file").map(str::parse::<u64>) else { continue };
        let bytes = fs::read(entry.path())?;
        if let FileContent::Whole(tag) = identify(&bytes) {
            sizes.insert(id, bytes.len() as u64);
            ids.insert(tag, id);
        }
    }
    let is_recorded = |tag: &&u64| {
        ids.get(tag).is_some_and(|id| recorded.get(id).is_some_and(|size| sizes[id] == *size))
    };
    let missing: Vec<_> = tags.iter().filter(|tag| !is_recorded(tag)).collect();
    ensure(missing.is_empty(), "a line in the journal for every confirmed upload", || {
        format!("none for {} of {}: {missing:?}", missing.len(), tags.len())
    })?;
    let without_file: Vec<_> =
        recorded.iter().filter(|(id, size)| sizes.get(id) != Some(size)).collect();
    ensure(without_file.is_empty(), "a file for every complete upload in the journal", || {
        format!("no file for {without_file:?} (number, size)")
    })
}

/// Returns the largest size of a group commit in the log.
fn largest_group(log: &str) -> usize {
    let sizes = log.split(GROUP).skip(1).filter_map(|rest| rest.split(' ').next()?.parse().ok());
    sizes.max().unwrap_or(0)
}

/// Starts another server on the directory, which removes leftovers, and surveys the directory.
fn survey_after_restart(context: &Context, dir: &Path, flags: &[&str]) -> Verdict<Survey> {
    let server = context.server_into(dir, flags)?;
    let found = survey(dir)?;
    server.stop()?;
    Ok(found)
}

/// Counts complete, torn and empty files, and confirmed uploads that are lost.
fn count_damage(dir: &Path, confirmed: &[u64], counts: &mut LossCounts) -> Verdict {
    let mut whole = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        match identify(&fs::read(entry?.path())?) {
            FileContent::Whole(tag) => whole.push(tag),
            FileContent::Empty => counts.empty += 1,
            FileContent::Error => {}
            FileContent::Partial(..) | FileContent::Garbage => counts.torn += 1,
        }
    }
    counts.lost += confirmed.iter().filter(|tag| !whole.contains(tag)).count();
    counts.whole += whole.len();
    Ok(())
}

fn size(random: &mut fastrand::Rng) -> usize {
    match random.u8(..10) {
        0..5 => random.usize(16..5_000),
        5..9 => random.usize(5_000..200_000),
        _ => random.usize(200_000..2_000_000),
    }
}
