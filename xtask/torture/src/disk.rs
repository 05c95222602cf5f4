//! Disks that are full, have no free inodes, or disappear.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::directory_oracle::{content, survey};
use super::exhaustion::expect_idle;
use super::load::{UploadOutcome, send};
use super::runner::{Case, RunOptions};
use super::volume::Volume;
use accio_harness::context::{Context, Server};
use accio_harness::peer::{Dialect, End, Peer, SOON};
use accio_harness::tools;
use accio_harness::verdict::{During, Stop, Verdict, ensure, ensure_eq};

const MIB: usize = 1 << 20;

/// Pause after a change of the free space: longer than the fifth of a second for which a server may
/// reuse an answer about it.
const ROOM_DELAY: Duration = Duration::from_millis(300);

/// Flags that make the server write files differently.
const MODES: [(&str, &[&str]); 4] = [
    ("plain", &[]),
    ("durable", &["--durable"]),
    ("named", &["--without", "tmpfile"]),
    ("portable", &["--without", "splice", "--without", "preallocate"]),
];

pub(super) fn cases(options: &RunOptions) -> Vec<Case> {
    let mut cases = Vec::new();
    let unprivileged = options.unprivileged;
    let about =
        "below --min-free the server idles and clients wait; with space they are served in 200 ms";
    let case = Case::new("disk/min-free", about, move |context| {
        min_free(context, Volume::tmpfs(context, unprivileged, "size=24m")?)
    });
    cases.push(case.alone());
    for (mode, flags) in MODES.into_iter().take(options.scale(2, MODES.len())) {
        let about =
            "files that fit are whole, the others are ERROR and rejected, and their space is freed";
        cases.push(Case::new(format!("disk/full-tmpfs/{mode}"), about, move |context| {
            full(context, Volume::tmpfs(context, unprivileged, "size=24m")?, flags)
        }));
        cases.push(Case::new(format!("disk/full-ext4/{mode}"), about, move |context| {
            full(context, Volume::ext4(context, unprivileged, 40 << 20, &[])?, flags)
        }));
        if !flags.contains(&"tmpfile") {
            let about =
                "started on a full disk, with space and full again: an idle client leaves ERROR";
            cases.push(Case::new(format!("disk/full-at-start/{mode}"), about, move |context| {
                full_at_start(context, Volume::tmpfs(context, unprivileged, "size=2m")?, flags)
            }));
        }
        let about = "without inodes accepted uploads are rejected and clients wait; with inodes all are whole";
        cases.push(Case::new(format!("disk/inodes-tmpfs/{mode}"), about, move |context| {
            inodes(context, Volume::tmpfs(context, unprivileged, "nr_inodes=40")?, flags)
        }));
        cases.push(Case::new(format!("disk/inodes-ext4/{mode}"), about, move |context| {
            let volume = Volume::ext4(context, unprivileged, 40 << 20, &["-N", "48"])?;
            inodes(context, volume, flags)
        }));
        let about =
            "a file beyond RLIMIT_FSIZE is ERROR, the server survives, the next file is whole";
        cases.push(Case::new(format!("disk/file-size/{mode}"), about, move |context| {
            file_size(context, flags)
        }));
        let about = "FILE-DIR is removed: the server survives and rejects uploads";
        cases.push(Case::new(format!("disk/removed/{mode}"), about, move |context| {
            removed(context, flags)
        }));
        let about =
            "FILE-DIR's file system turns read-only and back: uploads are rejected, then whole";
        cases.push(Case::new(format!("disk/read-only/{mode}"), about, move |context| {
            read_only(context, Volume::tmpfs(context, unprivileged, "size=24m")?, flags)
        }));
    }
    cases
}

/// Fills the disk with concurrent uploads, several times.
fn full(context: &Context, volume: Volume, flags: &[&str]) -> Verdict<String> {
    const SIZES: [usize; 12] = [
        MIB,
        2 * MIB,
        3 * MIB,
        5 * MIB,
        MIB / 2,
        4 * MIB,
        7 * MIB,
        MIB,
        6 * MIB,
        3 * MIB,
        9 * MIB,
        2 * MIB,
    ];
    let dir = volume.path().join("received");
    let server = context.server_into(&dir, flags)?;
    let free = free_bytes(&volume)?;
    let (mut kept, mut refused, mut absent, mut ticks) = (0, 0, 0, 0);
    // With `--without tmpfile` there is no spare marker.
    let named = flags.contains(&"tmpfile");
    for round in 0..4 {
        let outcomes = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for (number, size) in SIZES.into_iter().enumerate() {
                let (server, outcomes) = (&server, &outcomes);
                scope.spawn(move || {
                    let tag = (round * 100 + number + 1) as u64;
                    let outcome = send(server.address(), &content(tag, size), SOON);
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push((tag, outcome));
                });
            }
        });
        let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
        let confirmed: Vec<u64> = outcomes
            .iter()
            .filter(|(_, outcome)| *outcome == UploadOutcome::Confirmed)
            .map(|(tag, _)| *tag)
            .collect();
        let silent =
            outcomes.iter().filter(|(_, outcome)| *outcome == UploadOutcome::Silent).count();
        ensure(silent == 0, "an answer for every client", || format!("{silent} got none"))?;
        let found = survey(&dir)?;
        found.ensure_clean()?;
        found.ensure_kept(&confirmed)?;
        ensure(found.whole.len() == confirmed.len(), "only confirmed files to be whole", || {
            format!("{} are, {} were confirmed", found.whole.len(), confirmed.len())
        })?;
        let failed = SIZES.len() - confirmed.len();
        // An upload that never got a block has none for its marker either, while others take the
        // freed blocks. Then it leaves no file; its client and the log must say so.
        let text = server.process.stderr().text();
        let reported = text.matches("cannot keep the error marker").count();
        ensure_eq(
            "markers, and reports of a missing marker",
            failed,
            found.errors + reported - absent,
        )?;
        absent = reported;
        ensure(failed > 0 && !confirmed.is_empty(), "some to fit and some not", || {
            format!("{} of {} fit", confirmed.len(), SIZES.len())
        })?;
        kept += confirmed.len();
        refused += failed;

        // Take the last block while two clients are connected: one silent, one whose file cannot
        // fit.
        let filler = volume.path().join("filler");
        fill(&filler)?;
        let mut silent = server.connect_greeted()?;
        let mut partial = server.connect_greeted()?;
        // The server may reset the connection before all is sent.
        let _ = partial.send(&content(0, 100_000));
        let end = partial.end(SOON)?.0;
        ensure_eq("the end of an upload without a block", End::Reset, end)?;
        if round == 0 && !named {
            // Another name for the spare marker needs no block. (In later rounds there is no spare
            // marker, because this test removed all its names.)
            let without = server.process.stderr().text().matches("cannot keep").count() - absent;
            ensure_eq("refused uploads without a marker", 0, without)?;
        }
        ticks = ticks.max(expect_idle(&server.process).during(|| "on a full disk")?);
        absent = server.process.stderr().text().matches("cannot keep the error marker").count();
        fs::remove_file(&filler)?;
        silent.send(&content((round * 100 + 98) as u64, 100))?;
        silent.complete(b"")?;

        // With free space again, uploads must succeed.
        for entry in fs::read_dir(&dir)? {
            fs::remove_file(entry?.path())?;
        }
        let mut back = 0;
        // The blocks of a file are freed shortly after its close.
        accio_harness::context::wait_until(Duration::from_secs(3), || {
            back = free_bytes(&volume).unwrap_or(0);
            back + 64 * 1024 >= free
        });
        ensure(back + 64 * 1024 >= free, format!("{free} bytes free again"), || back.to_string())?;
        let tag = (round * 100 + 99) as u64;
        let outcome = send(server.address(), &content(tag, 6 * MIB), SOON);
        ensure_eq("an upload with free space again", UploadOutcome::Confirmed, outcome)?;
        survey(&dir)?.ensure_kept(&[tag])?;
        for entry in fs::read_dir(&dir)? {
            fs::remove_file(entry?.path())?;
        }
    }
    server.stop()?;
    Ok(format!(
        "{kept} kept, {refused} refused, {absent} of them without space for a marker, {ticks} \
         ticks in a second with a full disk"
    ))
}

/// Starts the server on a full disk, which has no block for the spare marker. The server must create
/// it later, before the disk is full again.
fn full_at_start(context: &Context, volume: Volume, flags: &[&str]) -> Verdict<String> {
    let (dir, filler) = (volume.path().join("received"), volume.path().join("filler"));
    fs::create_dir(&dir)?;
    fill(&filler)?;
    let server = context.server_into(&dir, &[flags, &["--timeout", "1"]].concat())?;
    fs::remove_file(&filler)?;
    let outcome = send(server.address(), &content(1, 5_000), SOON);
    ensure_eq("an upload with space", UploadOutcome::Confirmed, outcome)?;
    fill(&filler)?;
    let mut silent = server.connect_greeted()?;
    ensure_eq("the end of a silent client", End::Reset, silent.end(SOON)?.0)?;
    server.expect_error(2)?;
    survey(&dir)?.ensure_kept(&[1])?;
    server.stop()?;
    Ok("1 kept, 1 ERROR".into())
}

/// Writes a file until no block is free.
fn fill(path: &Path) -> Verdict {
    let mut file = fs::File::create(path)?;
    for size in [MIB, 4096, MIB, 4096] {
        let zeros = vec![0; size];
        while file.write_all(&zeros).is_ok() {}
        // Blocks reserved for delayed allocation may become free when the data is written.
        let _ = file.sync_all();
    }
    Ok(())
}

fn free_bytes(volume: &Volume) -> Verdict<u64> {
    let stat = rustix::fs::statvfs(volume.path())?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Uses up all inodes, then frees some. Connections that the server has accepted by then must fail;
/// further clients must wait until there are inodes again.
fn inodes(context: &Context, volume: Volume, flags: &[&str]) -> Verdict<String> {
    let dir = volume.path().join("received");
    let server = context.server_into(&dir, flags)?;
    let accepted: Vec<Peer> = (0..5).map(|_| server.connect_greeted()).collect::<Verdict<_>>()?;
    let mut fillers = Vec::new();
    for number in 0..1_000 {
        let path = volume.path().join(format!("filler-{number}"));
        if fs::write(&path, b"").is_err() {
            break;
        }
        fillers.push(path);
    }
    ensure(fillers.len() < 900, "the inodes to be used up", || fillers.len().to_string())?;
    thread::sleep(ROOM_DELAY);
    for (tag, mut peer) in (1..).zip(accepted) {
        // The server may reset the connection before all is sent.
        let _ = peer.send(&content(tag, 50_000));
        ensure_eq("the end of an upload without inodes", End::Reset, peer.end(SOON)?.0)?;
    }
    let mut waiting: Vec<Peer> = (0..3).map(|_| server.connect()).collect::<Verdict<_>>()?;
    expect_idle(&server.process).during(|| "without inodes")?;
    for peer in &mut waiting {
        peer.expect_silence(Duration::from_millis(10))?;
    }
    let found = survey(&dir)?;
    found.ensure_clean()?;
    ensure(found.whole.is_empty() && found.empty == 0, "nothing to be kept", || {
        format!("{found:?}")
    })?;
    // A tmpfs counts each name as an inode; elsewhere further names of the spare marker need none.
    if volume.is_on_disk() && !flags.contains(&"tmpfile") {
        ensure_eq("markers without an inode", 5, found.errors)?;
    }
    for path in fillers.iter().take(16) {
        fs::remove_file(path)?;
    }
    for (tag, mut peer) in (11..).zip(waiting) {
        peer.greet_as_client(Dialect::Accio)?;
        peer.complete(&content(tag, 50_000))?;
    }
    for tag in 14..=16 {
        let outcome = send(server.address(), &content(tag, 50_000), SOON);
        ensure_eq("an upload with inodes again", UploadOutcome::Confirmed, outcome)?;
    }
    let found = survey(&dir)?;
    found.ensure_clean()?;
    found.ensure_kept(&[11, 12, 13, 14, 15, 16])?;
    server.stop()?;
    Ok(format!("5 rejected without inodes, {} markers, 3 waited", found.errors))
}

/// Fills and frees the disk while clients wait for space.
fn min_free(context: &Context, volume: Volume) -> Verdict<String> {
    let server = context.server_into(&volume.path().join("received"), &["--min-free", "8M"])?;
    ensure_eq(
        "before",
        UploadOutcome::Confirmed,
        send(server.address(), &content(1, 5_000), SOON),
    )?;
    let (mut worst, mut ticks) = (Duration::ZERO, 0);
    for round in 0..4 {
        let filler = volume.path().join("filler");
        fs::write(&filler, vec![0; 18 * MIB])?;
        thread::sleep(ROOM_DELAY);
        let mut waiting: Vec<Peer> = (0..10).map(|_| server.connect()).collect::<Verdict<_>>()?;
        ticks = ticks.max(expect_idle(&server.process).during(|| "without enough space")?);
        for peer in &mut waiting {
            peer.expect_silence(Duration::from_millis(10))?;
        }
        fs::remove_file(&filler)?;
        let freed = Instant::now();
        for (number, mut peer) in waiting.into_iter().enumerate() {
            peer.greet_as_client(Dialect::Accio)?;
            worst = worst.max(freed.elapsed());
            peer.complete(&content((round * 10 + number + 2) as u64, 5_000))?;
        }
    }
    ensure(worst < Duration::from_millis(200), "service within 200 ms of enough space", || {
        format!("{worst:?}")
    })?;
    let found = survey(&server.dir)?;
    found.ensure_clean()?;
    found.ensure_kept(&(1..=41).collect::<Vec<_>>())?;
    server.stop()?;
    Ok(format!("{ticks} ticks in a second; served after {} ms at the most", worst.as_millis()))
}

fn file_size(context: &Context, flags: &[&str]) -> Verdict<String> {
    tools::require("prlimit")?;
    let server = context.server_wrapped(&["prlimit", "--fsize=1000000", "--"], flags)?;
    for (tag, size, outcome) in [
        (1, 999_000, UploadOutcome::Confirmed),
        (2, 1_000_001, UploadOutcome::Refused),
        (3, 40 * MIB, UploadOutcome::Refused),
        (4, 1_000_000, UploadOutcome::Confirmed),
    ] {
        let seen = send(server.address(), &content(tag, size), SOON);
        ensure_eq("an upload near the limit", outcome, seen).during(|| format!("{size} bytes"))?;
    }
    server.expect_error(2)?;
    server.expect_error(3)?;
    let found = survey(&server.dir)?;
    found.ensure_clean()?;
    found.ensure_kept(&[1, 4])?;
    server.stop()?;
    Ok("2 kept, 2 ERROR".into())
}

/// Starts an upload and sends half of it; returns the connection and the other half.
fn half(server: &Server, tag: u64, size: usize) -> Verdict<(Peer, Vec<u8>)> {
    let mut peer = server.connect()?;
    peer.greet_as_client(Dialect::Accio)?;
    let bytes = content(tag, size);
    peer.send(&bytes[..size / 2])?;
    thread::sleep(Duration::from_millis(30));
    let rest = bytes[size / 2..].to_vec();
    Ok((peer, rest))
}

/// Sends the rest and returns how the server ended the connection.
fn rest(mut peer: Peer, rest: &[u8]) -> Verdict<End> {
    // The server may have ended the connection already.
    let _ = peer.send(rest).and_then(|()| peer.fin());
    Ok(peer.end(SOON)?.0)
}

fn removed(context: &Context, flags: &[&str]) -> Verdict<String> {
    let server = context.server(flags)?;
    ensure_eq(
        "before",
        UploadOutcome::Confirmed,
        send(server.address(), &content(1, 5_000), SOON),
    )?;
    let (peer, second) = half(&server, 2, 400_000)?;
    fs::remove_dir_all(&server.dir)?;
    ensure_eq("the end of an upload under way", End::Reset, rest(peer, &second)?)?;
    for tag in 3..6 {
        let outcome = send(server.address(), &content(tag, 5_000), SOON);
        ensure_eq("an upload into a removed directory", UploadOutcome::Refused, outcome)?;
    }
    ensure(!server.dir.exists(), "the directory to stay removed", || "it exists again".into())?;
    server.stop()?;
    Ok("4 refused".into())
}

fn read_only(context: &Context, volume: Volume, flags: &[&str]) -> Verdict<String> {
    let server = context.server_into(&volume.path().join("received"), flags)?;
    let remount = |mode: &str| {
        super::volume::command("mount", &["-o", mode], &[volume.path()]).map_err(Stop::into_trouble)
    };
    ensure_eq(
        "before",
        UploadOutcome::Confirmed,
        send(server.address(), &content(1, 5_000), SOON),
    )?;
    // The server keeps its nameless spare marker open, and thus the kernel refuses to remount.
    match remount("remount,ro") {
        Err(Stop::Trouble(why)) if why.contains("busy") && !flags.contains(&"tmpfile") => {
            server.stop()?;
            return Err(Stop::skip(
                "a running server keeps its file system from turning read-only",
            ));
        }
        remounted => remounted?,
    }
    for tag in 2..5 {
        let outcome = send(server.address(), &content(tag, 90_000), SOON);
        ensure_eq("an upload while read-only", UploadOutcome::Refused, outcome)?;
    }
    remount("remount,rw")?;
    let outcome = send(server.address(), &content(5, 90_000), SOON);
    ensure_eq("an upload when writable again", UploadOutcome::Confirmed, outcome)?;
    let found = survey(&server.dir)?;
    found.ensure_clean()?;
    found.ensure_kept(&[1, 5])?;
    server.stop()?;
    Ok(format!("3 refused, {} markers", found.errors))
}
