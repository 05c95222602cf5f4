//! Power losses: an ext4 is shut down at a random point under load, mounted again, and every
//! upload that a durable server confirmed must be there.
//!
//! `EXT4_IOC_SHUTDOWN` without flushing the journal stops all writing at that instant: what was
//! not on the disk then is gone, as when the power fails.

use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::folder_oracle::{Found, survey};
use super::load::load_until;
use super::runner::{Case, RunOptions};
use super::volume::Volume;
use accio_harness::context::Context;
use accio_harness::peer::SOON;
use accio_harness::verdict::{During, Stop, Verdict, ensure};
use accio_harness::{process, tools};

/// Clients that upload side by side.
const CLIENTS: usize = 8;
/// Points of one case.
const POINTS: usize = 25;

/// Without flushing its journal; its number is that of the header `ext4.h`.
const SHUTDOWN: &str = "import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))";
const SHUTDOWN_PERL: &str = "open(my $d, '<', $ARGV[0]) or die $!;
my $flags = pack('I', 2); ioctl($d, 0x8004587d, $flags) or die $!;";

pub(super) fn cases(plan: &RunOptions) -> Vec<Case> {
    let mut cases = Vec::new();
    let unprivileged = plan.unprivileged;
    let ways: [(&str, &'static [&'static str]); 3] = [
        ("durable", &["--durable"]),
        ("durable-named", &["--durable", "--without", "tmpfile"]),
        ("not-durable", &[]),
    ];
    for round in 0..plan.scale(1, 4) {
        for (way, flags) in ways {
            let points = if plan.quick { POINTS / 5 } else { POINTS };
            let durable = flags.contains(&"--durable");
            let about = if durable {
                "every confirmed upload is there after the power came back"
            } else {
                "what a power loss does without --durable, for information"
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
        // The folder itself is older than the power loss.
        rustix::fs::syncfs(std::fs::File::open(volume.path())?)?;
        let address = server.address();
        let life = Duration::from_millis(random.u64(5..400));
        let sizes: Vec<usize> = (0..64).map(|_| size(&mut random)).collect();
        let (cut, told) = load_until(address, CLIENTS, &mut tag, &sizes, || -> Verdict {
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
        confirmed += told.len();
        if durable {
            let found = started_again(context, &dir, flags).during(place)?;
            found.ensure_clean().during(place)?;
            found.ensure_kept(&told).during(place)?;
            ensure(found.empty == 0, "no empty file", || found.empty.to_string()).during(place)?;
            whole += found.whole.len();
        } else {
            let (kept, bad, nothing) = look(&dir)?;
            lost += told.iter().filter(|tag| !kept.contains(tag)).count();
            whole += kept.len();
            torn += bad;
            empty += nothing;
        }
        std::fs::remove_dir_all(&dir)?;
        volume.unmount()?;
        volume.check().during(place)?;
        volume.mount()?;
    }
    Ok(if durable {
        format!("{points} losses, {confirmed} confirmed, all there, {whole} whole")
    } else {
        format!(
            "{points} losses, {confirmed} confirmed: {lost} of them lost, {empty} files empty, \
             {torn} torn"
        )
    })
}

/// Surveys the folder after a server has started on it.
fn started_again(context: &Context, dir: &std::path::Path, flags: &[&str]) -> Verdict<Found> {
    let server = context.server_into(dir, flags)?;
    let found = survey(dir)?;
    server.stop()?;
    Ok(found)
}

/// Whole contents, files that are neither, and empty files.
fn look(dir: &std::path::Path) -> Verdict<(Vec<u64>, usize, usize)> {
    use super::folder_oracle::{Holds, identify};
    let (mut whole, mut bad, mut nothing) = (Vec::new(), 0, 0);
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok((whole, bad, nothing)) };
    for entry in entries {
        match identify(&std::fs::read(entry?.path())?) {
            Holds::Whole(tag) => whole.push(tag),
            Holds::Nothing => nothing += 1,
            Holds::Error => {}
            Holds::Start(..) | Holds::Garbage => bad += 1,
        }
    }
    Ok((whole, bad, nothing))
}

fn size(random: &mut fastrand::Rng) -> usize {
    match random.u8(..10) {
        0..5 => random.usize(16..5_000),
        5..9 => random.usize(5_000..200_000),
        _ => random.usize(200_000..2_000_000),
    }
}

/// Cuts the file system off.
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
    Err(Stop::skip(format!("no way to shut an ext4 down: {}", why.join(", "))))
}
