//! Files appear complete, in one step, and under no other name.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};

use crate::runner::{Scenario, waits, works};
use accio_harness::context::{Context, ERROR};
use accio_harness::payload;
use accio_harness::peer::{Dialect, End, SOON};
use accio_harness::process;
use accio_harness::verdict::{During, Stop, Verdict, ensure, ensure_eq};

pub(super) static SCENARIOS: &[Scenario] = &[
    works("content/sizes", "files of 0 bytes to 10 MiB arrive unchanged and are counted", sizes),
    works("content/large", "64 MiB of random bytes arrive in each dialect", large),
    works("content/real-file", "a real file of 100 MiB or more arrives in each dialect", real_file),
    waits(
        "content/at-once",
        "N.file appears complete, and replaces an old file in one step",
        at_once,
    ),
    waits("content/nothing-else", "no other name is in FILE-DIR at any time", nothing_else),
    works("content/directory", "FILE-DIR is created; other files in it stay", directory),
    works("content/one-byte-writes", "content arrives in single bytes", one_byte_writes),
];

fn sizes(context: &Context) -> Verdict {
    let server = context.server(&[])?;
    let server_s = context.server_s(&[])?;
    let mib = 1 << 20;
    let sizes = [0, 1, 6, 7, 8, 500, 65_535, 65_536, 65_537, mib - 1, mib, mib + 1, 10 * mib];
    for (index, size) in sizes.into_iter().enumerate() {
        let place = || format!("{size} bytes");
        let file = context.large_file(size, size)?;
        context.send(server.port, &file, &[]).during(place)?;
        payload::ensure_same(&file, &server.path(index + 1)).during(place)?;
        context.send(server_s.port, &file, &[]).during(place)?;
        server_s.expect_line(index, &size.to_string()).during(place)?;
    }
    server.expect_only(1..=sizes.len())?;
    server.stop()?;
    server_s.stop_after(&sizes.map(|size| size.to_string()).each_ref().map(String::as_str))
}

fn large(context: &Context) -> Verdict {
    let file = context.large_file(1, (64 << 20) + 13)?;
    in_each_dialect(context, &file)
}

fn real_file(context: &Context) -> Verdict {
    let mut compiler = Command::new("rustc");
    compiler.args(["--print", "sysroot"]);
    let sysroot = process::checked_output(compiler, b"", SOON).map_err(Stop::into_skip)?;
    let library = PathBuf::from(String::from_utf8_lossy(&sysroot).trim()).join("lib");
    let files = fs::read_dir(&library).into_iter().flatten().flatten();
    let sized = files.filter_map(|entry| Some((entry.metadata().ok()?.len(), entry.path())));
    match sized.max() {
        Some((size, file)) if size >= 100 << 20 => in_each_dialect(context, &file),
        _ => Err(Stop::skip(format!("no file of 100 MiB in {}", library.display()))),
    }
}

fn in_each_dialect(context: &Context, file: &std::path::Path) -> Verdict {
    let server = context.server(&[])?;
    let server_s = context.server_s(&[])?;
    let size = fs::metadata(file)?.len().to_string();
    for (index, dialect) in Dialect::ALL.into_iter().enumerate() {
        let flags = ["--handshake", dialect.name()];
        context.send(server.port, file, &flags).during(|| dialect.name())?;
        payload::ensure_same(file, &server.path(index + 1)).during(|| dialect.name())?;
        fs::remove_file(server.path(index + 1))?;
        context.send(server_s.port, file, &flags).during(|| dialect.name())?;
    }
    server.stop()?;
    server_s.stop_after(&[size.as_str(); 3])
}

fn at_once(context: &Context) -> Verdict {
    let dir = context.fresh("received");
    fs::create_dir(&dir)?;
    let (old, new) = (context.content(1, 300_000), context.content(2, 2_000_000));
    for id in [1, 2, 3] {
        fs::write(dir.join(format!("{id}.file")), &old)?;
    }
    let server = context.server_into(&dir, &["--timeout", "1"])?;
    let (replaced, broken, silent, fresh) = (
        server.connect_greeted()?,
        server.connect_greeted()?,
        server.connect_greeted()?,
        server.connect_greeted()?,
    );
    let look = || -> Verdict {
        let outcomes: [&[u8]; 4] = [&new, ERROR, ERROR, &new];
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let before: Option<&[u8]> = (index < 3).then_some(&old);
            // The name always exists, because the file is replaced atomically.
            let now = fs::read(server.path(index + 1)).ok();
            let now = now.as_deref();
            ensure(
                now == Some(outcome) || now == before,
                format!("{}.file to be the old or the new file", index + 1),
                || now.map_or("no file".into(), payload::describe),
            )?;
        }
        Ok(())
    };
    watching(look, || {
        let (mut replaced, mut broken, mut silent, mut fresh) = (replaced, broken, silent, fresh);
        for part in new.chunks(100_000) {
            for peer in [&mut replaced, &mut broken, &mut fresh] {
                peer.send(part)?;
            }
            thread::sleep(Duration::from_millis(10));
        }
        silent.send(b"a part")?;
        broken.reset()?;
        replaced.complete(b"")?;
        fresh.complete(b"")?;
        silent.expect_end(End::Reset)
    })?;
    server.expect_file(1, &new)?;
    server.expect_replaced(2, &old, ERROR)?;
    server.expect_replaced(3, &old, ERROR)?;
    server.expect_file(4, &new)?;
    server.expect_only(1..=4)?;
    server.stop()
}

fn nothing_else(context: &Context) -> Verdict {
    // Without nameless files the server uses a hidden name during an upload.
    let nameless = OFlags::TMPFILE | OFlags::WRONLY;
    if let Err(error) = rustix::fs::open(context.dir(), nameless, Mode::RUSR | Mode::WUSR) {
        return Err(Stop::skip(format!("this file system has no O_TMPFILE: {error}")));
    }
    super::require_linux_programs(context)?;
    let server = context.server(&["--timeout", "1"])?;
    let part = context.content(1, 1_000_000);
    let allowed: Vec<String> = (1..=12).map(|id| format!("{id}.file")).collect();
    let look = || -> Verdict {
        let names = server.listing()?;
        ensure(
            names.iter().all(|name| allowed.contains(name)),
            "only 1.file … 12.file in FILE-DIR",
            || format!("{names:?}"),
        )?;
        for name in names {
            let content = fs::read(server.dir.join(&name))?;
            ensure(
                content == part || content == ERROR,
                format!("{name} to be complete or ERROR"),
                || payload::describe(&content),
            )?;
        }
        Ok(())
    };
    watching(look, || {
        for kind in 0..12 {
            let mut peer = server.connect_greeted()?;
            peer.send(&part[..500_000])?;
            thread::sleep(Duration::from_millis(30));
            match kind % 3 {
                0 => peer.complete(&part[500_000..])?,
                1 => peer.reset()?,
                _ => peer.expect_end(End::Reset)?,
            }
        }
        Ok(())
    })?;
    for id in 1..=12 {
        server.expect_file(id, if id % 3 == 1 { &part } else { ERROR })?;
    }
    server.expect_only(1..=12)?;
    server.stop()
}

/// Calls `look` over and over in another thread until `act` has returned.
fn watching(look: impl Fn() -> Verdict + Sync, act: impl FnOnce() -> Verdict) -> Verdict {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                look()?;
            }
            Ok(())
        });
        let acted = act();
        done.store(true, Ordering::Relaxed);
        let watched = watch
            .join()
            .unwrap_or_else(|_| Err(Stop::Trouble("the watching thread panicked".into())));
        watched.and(acted)
    })
}

fn directory(context: &Context) -> Verdict {
    let dir = context.fresh("received");
    let server = context.server_into(&dir, &[])?;
    ensure_eq("FILE-DIR is a directory once the server listens", true, dir.is_dir())?;
    server.connect_greeted()?.complete(b"first run")?;
    fs::write(dir.join("notes.txt"), "not a transfer")?;
    fs::write(dir.join("7.file"), "seventh of another day")?;
    server.stop()?;
    // Another run numbers from 1 again.
    let server = context.server_into(&dir, &[])?;
    server.connect_greeted()?.complete(b"second run")?;
    server.expect_file(1, b"second run")?;
    server.expect_file(7, b"seventh of another day")?;
    payload::ensure_holds(&dir.join("notes.txt"), b"not a transfer")?;
    ensure_eq("names in FILE-DIR", 3, server.listing()?.len())?;
    server.stop()
}

fn one_byte_writes(context: &Context) -> Verdict {
    let server = context.server(&[])?;
    let server_s = context.server_s(&[])?;
    let content = context.content(1, 3_000);
    for mut peer in [server.connect()?, server_s.connect()?] {
        peer.greet_as_client(Dialect::Accio)?;
        for byte in content.chunks(1) {
            peer.send(byte)?;
        }
        peer.complete(b"")?;
    }
    server.expect_file(1, &content)?;
    server.stop()?;
    server_s.stop_after(&["3000"])
}
