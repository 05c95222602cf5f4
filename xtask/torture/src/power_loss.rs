//! Power losses: shuts an ext4 down at a random point under load, mounts it again, and expects
//! every upload that a durable server confirmed.
//!
//! `EXT4_IOC_SHUTDOWN` without flushing the journal stops all writes at that instant. Data that has
//! not reached the disk by then is lost, as in a power failure.

use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::folder_oracle::{Survey, survey};
use super::load::load_until;
use super::runner::{Case, RunOptions};
use super::volume::Volume;
use accio_harness::context::Context;
use accio_harness::peer::SOON;
use accio_harness::verdict::{During, Stop, Verdict, ensure};
use accio_harness::{process, tools};

/// Number of concurrent clients.
const CLIENTS: usize = 8;
/// Number of power losses per case.
const POINTS: usize = 25;

/// Shuts an ext4 down without flushing its journal. The number of the ioctl is from `ext4.h`.
const SHUTDOWN: &str = "import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))";
const SHUTDOWN_PERL: &str = "open(my $d, '<', $ARGV[0]) or die $!;
my $flags = pack('I', 2); ioctl($d, 0x8004587d, $flags) or die $!;";

pub(super) fn cases(options: &RunOptions) -> Vec<Case> {
    let mut cases = Vec::new();
    let unprivileged = options.unprivileged;
    let ways: [(&str, &'static [&'static str]); 3] = [
        ("durable", &["--durable"]),
        ("durable-named", &["--durable", "--without", "tmpfile"]),
        ("not-durable", &[]),
    ];
    for round in 0..options.scale(1, 4) {
        for (way, flags) in ways {
            let points = if options.quick { POINTS / 5 } else { POINTS };
            let durable = flags.contains(&"--durable");
            let about = if durable {
                "every confirmed upload survives the power loss"
            } else {
                "counts what a power loss destroys without --durable; cannot fail"
            };
            let case = Case::new(format!("power/{way}-{round}"), about, move |context| {
                losses(context, unprivileged, flags, points, durable)
            });
            cases.push(case.within(Duration::from_secs(240)));
        }
    }
    cases
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
    let (mut confirmed, mut lost, mut torn, mut whole, mut empty) = (0, 0, 0, 0, 0);
    let mut tag = 0;
    for point in 0..points {
        let dir = volume.path().join(format!("received-{point}"));
        let server = context.server_into(&dir, flags)?;
        // The folder itself must survive the power loss.
        rustix::fs::syncfs(std::fs::File::open(volume.path())?)?;
        let address = server.address();
        let life = Duration::from_millis(random.u64(5..400));
        let sizes: Vec<usize> = (0..64).map(|_| size(&mut random)).collect();
        let (cut, confirmed_tags) =
            load_until(address, CLIENTS, &mut tag, &sizes, || -> Verdict {
                thread::sleep(life);
                let cut = shut_down(volume.path());
                // After the power loss, no further upload can be confirmed.
                server.process.signal(Signal::KILL)?;
                cut
            });
        drop(server);
        cut?;
        let place = || format!("point {point}, power lost after {life:?}");

        volume.unmount()?;
        volume.mount()?;
        confirmed += confirmed_tags.len();
        if durable {
            let found = survey_after_restart(context, &dir, flags).during(place)?;
            found.ensure_clean().during(place)?;
            found.ensure_kept(&confirmed_tags).during(place)?;
            ensure(found.empty == 0, "no empty file", || found.empty.to_string()).during(place)?;
            whole += found.whole.len();
        } else {
            let (intact, torn_now, empty_now) = count_damage(&dir)?;
            lost += confirmed_tags.iter().filter(|tag| !intact.contains(tag)).count();
            whole += intact.len();
            torn += torn_now;
            empty += empty_now;
        }
        std::fs::remove_dir_all(&dir)?;
        volume.unmount()?;
        volume.check().during(place)?;
        volume.mount()?;
    }
    Ok(if durable {
        format!("{points} losses, {confirmed} confirmed and kept, {whole} whole")
    } else {
        format!(
            "{points} losses, {confirmed} confirmed: {lost} of them lost, {empty} files empty, \
             {torn} torn"
        )
    })
}

/// Starts another server on the folder, which removes leftovers, and surveys the folder.
fn survey_after_restart(
    context: &Context,
    dir: &std::path::Path,
    flags: &[&str],
) -> Verdict<Survey> {
    let server = context.server_into(dir, flags)?;
    let found = survey(dir)?;
    server.stop()?;
    Ok(found)
}

/// Returns the tags of whole files, and the numbers of torn and of empty files.
fn count_damage(dir: &std::path::Path) -> Verdict<(Vec<u64>, usize, usize)> {
    use super::folder_oracle::{FileContent, identify};
    let (mut whole, mut torn, mut empty) = (Vec::new(), 0, 0);
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok((whole, torn, empty)) };
    for entry in entries {
        match identify(&std::fs::read(entry?.path())?) {
            FileContent::Whole(tag) => whole.push(tag),
            FileContent::Empty => empty += 1,
            FileContent::Error => {}
            FileContent::Partial(..) | FileContent::Garbage => torn += 1,
        }
    }
    Ok((whole, torn, empty))
}

fn size(random: &mut fastrand::Rng) -> usize {
    match random.u8(..10) {
        0..5 => random.usize(16..5_000),
        5..9 => random.usize(5_000..200_000),
        _ => random.usize(200_000..2_000_000),
    }
}

/// Shuts the mounted file system down.
fn shut_down(mount: &std::path::Path) -> Verdict {
    let mut why = Vec::new();
    for (tool, words) in [("python3", ["-c", SHUTDOWN]), ("perl", ["-e", SHUTDOWN_PERL])] {
        let run = tools::require(tool).and_then(|program| {
            let mut command = Command::new(program);
            command.args(words).arg(mount);
            process::checked_output(command, b"", SOON)
        });
        match run {
            Ok(_) => return Ok(()),
            Err(stop) => why.push(stop.to_string()),
        }
    }
    Err(Stop::skip(format!("cannot shut an ext4 down: {}", why.join(", "))))
}
