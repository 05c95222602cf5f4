//! The checks of the server, which stores files.

mod probes;

use self::probes::{at_once, by_reference, in_turn, only_files, together};
use super::receiver::{self, SMALL};
use super::silence;
use crate::check::Check;
use crate::reference;
use accio_harness::subject::Program;

const IDLE: &str = "no data for over 10 s: abort the connection; the file contains the single word \
                    ERROR without a line end, and none of the received bytes";
const NAMES: &str = "connection N's bytes, and nothing else, are FILE-DIR/N.file, N counted from 1 \
                     as connections are established";
const COUNTED: &str =
    "all connections are counted and saved, 1 for the first, 2 for the second and so on";
const MANY: &str = "at least 10 connections are served at the same time";
const LARGE_FILES: &str = "files of 100 MiB or more are accepted";
const NETWORK: &str = "tested with emulated delays and transmission errors";
const INSTRUCTOR: &str = "tested against the instructor's client";
const TOGETHER: &str = "tested with the submitted client";
const EMPTY: &str = "a client that sends nothing and ends gracefully gives an empty file";

/// Returns its checks, except for those that both servers share.
pub(super) fn checks() -> Vec<Check> {
    let check = |name, about, rule| Check::new(Program::Server, name, about, rule);
    vec![
        check("7", "accepts the next connection after the first is done", COUNTED)
            .worth(5)
            .run(receiver::next),
        check("8", "10 connections at the same time are all greeted and saved", MANY)
            .worth(5)
            .run(at_once),
        check("9", "10 s of silence: the file is exactly ERROR", IDLE)
            .worth(5)
            .waits()
            .run(silence::after_data),
        check("11", "500 bytes from the submitted client arrive", TOGETHER)
            .worth(5)
            .with_client()
            .run(|trial| {
                let server = trial.server()?;
                let relay = trial.relay_to(&server)?;
                trial.send_by_client(&server, &relay, &trial.context.content(1, SMALL))?;
                receiver::produces_file(&server)
            }),
        check("12", "… and are saved byte for byte", NAMES).worth(5).with_client().run(|trial| {
            let server = trial.server()?;
            let relay = trial.relay_to(&server)?;
            let content = trial.context.content(1, SMALL);
            trial.send_by_client(&server, &relay, &content)?;
            server.expect_file(1, &content)
        }),
        check("13", "500 bytes from the reference client arrive", INSTRUCTOR).worth(5).run(
            |trial| {
                let server = trial.server()?;
                receiver::arrives(&server, server.address, &trial.context.content(1, SMALL))
            },
        ),
        check("14", "… and are saved byte for byte", NAMES).worth(5).run(|trial| {
            let server = trial.server()?;
            let content = trial.context.content(1, SMALL);
            reference::send(&server, server.address, &content)?;
            server.expect_file(1, &content)
        }),
        check("15", "10 × 10 MiB from the submitted client, one after another", NAMES)
            .worth(5)
            .with_client()
            .run(|trial| {
                let server = trial.server()?;
                let relay = trial.relay_to(&server)?;
                in_turn(trial, &server, &|content| trial.send_by_client(&server, &relay, content))
            }),
        check("16", "10 × 10 MiB from the submitted client, at the same time", MANY)
            .worth(5)
            .with_client()
            .run(|trial| {
                let server = trial.server()?;
                let relay = trial.relay_to(&server)?;
                together(trial, &server, &|content| trial.send_by_client(&server, &relay, content))
            }),
        check("17", "10 × 10 MiB from the reference client, one after another", NAMES)
            .worth(5)
            .run(|trial| {
                let server = trial.server()?;
                in_turn(trial, &server, &|content| by_reference(&server, server.address, content))
            }),
        check("18", "10 × 10 MiB from the reference client, at the same time", MANY).worth(5).run(
            |trial| {
                let server = trial.server()?;
                together(trial, &server, &|content| by_reference(&server, server.address, content))
            },
        ),
        check("19", "10 × 10 MiB over a network with delay and loss, one after another", NETWORK)
            .worth(5)
            .transfers()
            .run(|trial| {
                let (server, proxy) = trial.server_far_away()?;
                in_turn(trial, &server, &|content| by_reference(&server, proxy.address(), content))
            }),
        check("20", "10 × 10 MiB over a network with delay and loss, at the same time", NETWORK)
            .worth(5)
            .run(|trial| {
                let (server, proxy) = trial.server_far_away()?;
                together(trial, &server, &|content| by_reference(&server, proxy.address(), content))
            }),
        check("empty", "a connection without any byte is an empty file", EMPTY)
            .run(receiver::empty),
        check("100mib", "100mib: saved with bounded memory", LARGE_FILES).run(receiver::huge),
        check("only-files", "FILE-DIR contains only 1.file, 2.file and so on", NAMES)
            .run(only_files),
        check("silent-start", "10 s without any byte: the file is exactly ERROR", IDLE)
            .waits()
            .run(silence::from_start),
    ]
}
