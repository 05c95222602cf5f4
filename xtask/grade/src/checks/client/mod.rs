//! The checks of the client.

mod probes;

use self::probes::{
    arguments, bad_target, by_name, confirmations, dies_mid_transfer, gives_up_on, huge,
    never_closes, no_answer, no_server, nothing_early, slow_reader, tolerates, transfers,
};
use super::receiver::{LARGE, SMALL, expect_idle};
use crate::broken;
use crate::check::{CONFIRMED, Check, GREETED};
use accio_harness::peer::side_by_side;
use accio_harness::subject::Program;
use accio_harness::verdict::During;

const ARGUMENTS: &str = "three arguments: HOST PORT FILE";
const WRONG: &str = "an incorrect host or port: ERROR: on stderr, a non-zero exit code";
const TEN: &str = "the reaction to network or server errors takes at most 10 s: ERROR: on \
                   stderr, a non-zero exit code";
const WHOLE: &str = "nothing is sent until the full accio\\r\\n has been received, which may come \
                     in small parts, character by character";
const CONFIRM: &str = "each accio\\r\\n is answered: confirm-accio\\r\\n, then \
                       confirm-accio-again\\r\\n\\r\\n";
const TRANSFER: &str = "the file is transferred, the connection ended gracefully, the exit code 0";
const LARGE_FILES: &str = "reasonably large files (100 MiB or more) are supported";
const CONNECTS: &str = "the client connects to the given host and port";
const REPOSITORY: &str = "the course looks at the repository";
const NO_BUSY_LOOP: &str = "no busy loop";
const STALL: &str = "10 s without being able to send are an error, not 10 s of transfer";
const HOST: &str = "the host is a name or an IP address";

pub(super) fn checks() -> Vec<Check> {
    let check = |name, about, rule| Check::new(Program::Client, name, about, rule);
    vec![
        check("1", "repository: at least 3 commits", REPOSITORY).worth(5),
        check("2", "rejects any number of arguments other than three, with an error", ARGUMENTS)
            .worth(5)
            .waits()
            .run(arguments),
        check("3", "unknown host or invalid port: ERROR: on stderr, a non-zero exit code", WRONG)
            .worth(5)
            .waits()
            .run(bad_target),
        check("4", "connects to a running server", CONNECTS)
            .worth(10)
            .run(|trial| trial.connected(b"content").map(drop)),
        check("5", "fails if no server is running", TEN).worth(5).waits().run(no_server),
        check("6", "… after at most 10 seconds if no server answers", TEN)
            .worth(10)
            .waits()
            .run(no_answer),
        check("7", "sends nothing before the end of the greeting, even byte by byte", WHOLE)
            .worth(10)
            .in_dialects(GREETED)
            .waits()
            .run(nothing_early),
        check("8", "sends exactly the right confirmations", CONFIRM)
            .worth(10)
            .in_dialects(CONFIRMED)
            .run(confirmations),
        check("9", "gives up within 10 s when the server or the network dies mid-transfer", TEN)
            .worth(5)
            .waits()
            .run(dies_mid_transfer),
        check("10", "sends a small file (500 bytes) to the reference server", TRANSFER)
            .worth(5)
            .run(|trial| transfers(trial, SMALL)),
        check("11", "sends a small file over a network with delay and loss", TRANSFER)
            .worth(10)
            .run(|trial| trial.send_far_away(&trial.context.content(1, SMALL))),
        check("12", "sends a large file (10 MiB) to the reference server", TRANSFER)
            .worth(10)
            .run(|trial| transfers(trial, LARGE)),
        check("13", "sends a large file over a network with delay and loss", TRANSFER)
            .worth(10)
            .run(|trial| trial.send_far_away(&trial.context.content(1, LARGE))),
        check(
            "handshake-timeout",
            "gives up within 10 s if no greeting comes, or only after 12 s",
            TEN,
        )
        .in_dialects(GREETED)
        .waits()
        .run(|trial| {
            side_by_side(["silent", "late-12"], |name| gives_up_on(trial, name).during(|| name))
        }),
        check("endless-greeting", "gives up within 10 s if the greeting never ends", TEN)
            .in_dialects(GREETED)
            .waits()
            .run(|trial| gives_up_on(trial, "endless")),
        check("wrong-greeting", "sends no file after a wrong greeting", WHOLE)
            .in_dialects(GREETED)
            .waits()
            .run(|trial| gives_up_on(trial, "wrong")),
        check("late-greeting", "accepts a greeting after 8.5 s", TEN)
            .in_dialects(GREETED)
            .waits()
            .run(|trial| tolerates(trial, "late-8.5")),
        check("drip", "accepts a greeting at one byte per second", WHOLE)
            .in_dialects(GREETED)
            .waits()
            .run(|trial| tolerates(trial, "drip")),
        check("split", "accepts a greeting in two pieces, split at every byte", WHOLE)
            .in_dialects(GREETED)
            .run(|trial| {
                let names = broken::ALL.iter().map(|broken| broken.name);
                side_by_side(names.filter(|name| name.starts_with("split-")), |name| {
                    tolerates(trial, name).during(|| name)
                })
            }),
        check("greetings-together", "accepts both greetings in one segment", WHOLE)
            .in_dialects(CONFIRMED)
            .run(|trial| tolerates(trial, "together")),
        check("never-closes", "ends within 10 s if the server never closes", TEN)
            .waits()
            .run(never_closes),
        check("slow-reader", "a transfer of 12 s without a stall of 10 s is complete", STALL)
            .waits()
            .run(slow_reader),
        check("empty", "sends an empty file", TRANSFER).run(|trial| transfers(trial, 0)),
        check("100mib", "100mib: sent with bounded memory", LARGE_FILES).run(huge),
        check("name", "connects to a host by its name", HOST).run(by_name),
        check("idle", "uses no CPU time while it waits", NO_BUSY_LOOP)
            .in_dialects(GREETED)
            .waits()
            .run(|trial| {
                let (client, _peer) = trial.connected(b"content")?;
                expect_idle(client.pid()).during(|| "waiting for the greeting")
            }),
        check("loss", "sends a large file over a network that loses packets", TRANSFER)
            .run(|trial| trial.send_with_loss(&trial.context.content(1, LARGE))),
    ]
}
