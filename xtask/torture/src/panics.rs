//! A panic of a sink in the programs as they are released.
//!
//! `cargo test` always unwinds, whatever the release profile says, so only a released program shows
//! that a panic ends one connection.

use super::runner::{Case, RunOptions};
use accio_harness::context::Context;
use accio_harness::peer::{Dialect, End, SOON};
use accio_harness::verdict::{Stop, Verdict, ensure, ensure_eq};

/// The number of the connection for which the sink panics.
const PANICS: usize = 3;

/// The number of concurrent connections.
const CLIENTS: usize = 6;

pub(super) fn cases(_options: &RunOptions) -> Vec<Case> {
    let about = "a panic ends its own connection; the others and the next one are not affected";
    vec![Case::new("panics/one-of-six", about, one_of_six)]
}

fn one_of_six(context: &Context) -> Verdict<String> {
    let number = PANICS.to_string();
    let server = match context.server_s(&["--panic-on", &number]) {
        Err(Stop::Fault(fault)) if fault.actual.contains("unexpected argument") => {
            return Err(Stop::skip("server-s was built without the feature diagnostics"));
        }
        server => server?,
    };
    let mut peers = Vec::new();
    for _ in 0..CLIENTS {
        let mut peer = server.connect()?;
        peer.greet_as_client(Dialect::Accio)?;
        peer.send(b"first half")?;
        peers.push(peer);
    }
    let mut panicking = peers.remove(PANICS - 1);
    ensure_eq("the end of the connection that panics", End::Reset, panicking.end(SOON)?.0)?;
    for peer in peers {
        peer.complete(b"second half")?;
    }
    let mut next = server.connect()?;
    next.greet_as_client(Dialect::Accio)?;
    next.complete(b"next")?;
    let log = server.process.stderr().text();
    let reported = log.contains("requested by --panic-on");
    ensure(reported, "the panic in the log", || log.clone())?;
    server.stop_after(&["ERROR", "21", "21", "21", "21", "21", "4"])?;
    Ok(format!("{CLIENTS} concurrent uploads and one after them, one panic"))
}
