//! Transfers without fast paths give the same files.

use crate::runner::{Scenario, works};
use accio_harness::context::{Context, ERROR};
use accio_harness::payload;
use accio_harness::peer::{Dialect, SOON, side_by_side};
use accio_harness::process::output;
use accio_harness::subject::Program;
use accio_harness::verdict::{During, Stop, Verdict};

pub(super) static SCENARIOS: &[Scenario] = &[
    works("portable/each", "all programs without each fast path give the same files", each),
    works("portable/none", "all programs without any fast path give the same files", none),
];

/// The fast paths that can be switched off.
pub(super) const NAMES: [&str; 7] =
    ["splice", "truncate", "tmpfile", "preallocate", "empty-path", "sendfile", "read-back"];

/// Skips the scenario if server-s cannot switch fast paths off, as in a release: they need its
/// feature `diagnostics`.
pub(super) fn require_switches(context: &Context) -> Verdict {
    let mut help = context.subject().template(Program::ServerS)?.bare();
    help.arg("--help");
    let help = output(help, b"", SOON)?.stdout;
    if String::from_utf8_lossy(&help).contains("--without") {
        return Ok(());
    }
    Err(Stop::skip("server-s was built without its feature diagnostics"))
}

fn each(context: &Context) -> Verdict {
    require_switches(context)?;
    // Two at a time, because other busy scenarios run at the same time.
    for pair in NAMES.chunks(2) {
        side_by_side(pair, |name| {
            transfer_all(context, &["--without", name]).during(|| format!("--without {name}"))
        })?;
    }
    transfer_all(context, &["--without", "tmpfile", "--without", "empty-path"])
}

fn none(context: &Context) -> Verdict {
    require_switches(context)?;
    transfer_all(context, &NAMES.map(|name| ["--without", name]).concat())
}

/// Transfers files of all sizes in each dialect, with failures and replaced files.
fn transfer_all(context: &Context, flags: &[&str]) -> Verdict {
    let dir = context.fresh("received");
    std::fs::create_dir(&dir)?;
    std::fs::write(dir.join("1.file"), "to be replaced")?;
    std::fs::write(dir.join("2.file"), "to be replaced")?;
    let server = context.server_into(&dir, flags)?;
    let server_s = context.server_s(flags)?;
    let mut lines = Vec::new();
    let mut id = 0;

    let part = context.content(9, 3_000_000);
    for wire in [&part[..], b"x"] {
        for mut peer in [server.connect()?, server_s.connect()?] {
            peer.greet_as_client(Dialect::Accio)?;
            peer.send(wire)?;
            peer.reset()?;
        }
        id += 1;
        server.expect_replaced(id, b"to be replaced", ERROR)?;
        lines.push("ERROR".to_owned());
        server_s.expect_line(id - 1, "ERROR")?;
    }
    for size in [0, 1, 7, 65_536, 5_000_001] {
        let file = context.large_file(size, size)?;
        for dialect in Dialect::ALL {
            let place = || format!("{size} bytes, {dialect:?}");
            let all = [flags, &["--handshake", dialect.name()]].concat();
            id += 1;
            context.send(server.port, &file, &all).during(place)?;
            payload::ensure_same(&file, &server.path(id)).during(place)?;
            context.send(server_s.port, &file, &all).during(place)?;
            lines.push(size.to_string());
        }
    }
    // An upload that is open at the end must leave no other file.
    let mut open = server.connect_greeted()?;
    open.send(&part)?;
    let dir = server.dir.clone();
    server.expect_only_or_hidden(1..=id)?;
    server.stop()?;
    payload::ensure_holds(&dir.join(format!("{}.file", id + 1)), ERROR)?;
    let names = std::fs::read_dir(&dir)?.count();
    accio_harness::verdict::ensure_eq("number of files in FILE-DIR at the end", id + 1, names)?;
    server_s.stop_after(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}
