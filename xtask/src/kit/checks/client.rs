//! The client.

mod shown;

use self::shown::{
    arguments, bad_target, bears_with, by_name, confirmations, dies_mid_transfer, gives_up_on,
    huge, never_closes, nobody_answers, not_there, nothing_early, slow_reader, transfers,
};
use super::receiver::{LARGE, SMALL, expect_idle};
use crate::e2e::engine::Load::{Waits, Works};
use crate::e2e::peer::side_by_side;
use crate::e2e::verdict::During;
use crate::kit::broken;
use crate::kit::check::{ANY, CONFIRMED, Check, GREETED};

const BASE: Check = Check {
    id: "",
    points: 0,
    about: "",
    rule: "",
    dialects: ANY,
    load: Works,
    with_client: false,
    run: None,
};

const ARGUMENTS: &str = "three arguments: HOST PORT FILE";
const WRONG: &str = "an incorrect host or port: ERROR: on stderr, a non-zero exit code";
const TEN: &str = "the reaction to network or server errors takes no longer than 10 s: ERROR: on \
                   stderr, a non-zero exit code";
const WHOLE: &str = "nothing is sent until the full accio\\r\\n has been received, which may come \
                     in small parts, character by character";
const CONFIRM: &str = "each accio\\r\\n is answered: confirm-accio\\r\\n, then \
                       confirm-accio-again\\r\\n\\r\\n";
const TRANSFER: &str = "the file is transferred, the connection ended gracefully, the exit code 0";
const LARGE_FILES: &str = "reasonably large files (100 MiB or more) are supported";

pub(super) static CHECKS: &[Check] = &[
    Check {
        id: "client/1",
        points: 5,
        about: "repository: at least 3 commits",
        rule: "the repository is looked at by the course",
        ..BASE
    },
    Check {
        id: "client/2",
        points: 5,
        about: "another number of arguments than three is an error",
        rule: ARGUMENTS,
        load: Waits,
        run: Some(arguments),
        ..BASE
    },
    Check {
        id: "client/3",
        points: 5,
        about: "unknown host, bad port: ERROR: on stderr, an exit code that is not 0",
        rule: WRONG,
        load: Waits,
        run: Some(bad_target),
        ..BASE
    },
    Check {
        id: "client/4",
        points: 10,
        about: "connects to a live server",
        rule: "the client connects to the host and port it is given",
        run: Some(|trial| trial.connected(b"content").map(drop)),
        ..BASE
    },
    Check {
        id: "client/5",
        points: 5,
        about: "fails on a server that is not there",
        rule: TEN,
        load: Waits,
        run: Some(not_there),
        ..BASE
    },
    Check {
        id: "client/6",
        points: 10,
        about: "… after 10 seconds at the most, when nobody answers",
        rule: TEN,
        load: Waits,
        run: Some(nobody_answers),
        ..BASE
    },
    Check {
        id: "client/7",
        points: 10,
        about: "sends nothing before the whole greeting, even byte by byte",
        rule: WHOLE,
        dialects: GREETED,
        load: Waits,
        run: Some(nothing_early),
        ..BASE
    },
    Check {
        id: "client/8",
        points: 10,
        about: "sends exactly the right confirmations",
        rule: CONFIRM,
        dialects: CONFIRMED,
        run: Some(confirmations),
        ..BASE
    },
    Check {
        id: "client/9",
        points: 5,
        about: "gives up within 10 s when the server or the network dies mid-transfer",
        rule: TEN,
        load: Waits,
        run: Some(dies_mid_transfer),
        ..BASE
    },
    Check {
        id: "client/10",
        points: 5,
        about: "a small file (500 bytes) to the reference server",
        rule: TRANSFER,
        run: Some(|trial| transfers(trial, SMALL)),
        ..BASE
    },
    Check {
        id: "client/11",
        points: 10,
        about: "a small file over a network with delay and loss",
        rule: TRANSFER,
        run: Some(|trial| trial.send_far_away(&trial.context.content(1, SMALL))),
        ..BASE
    },
    Check {
        id: "client/12",
        points: 10,
        about: "a large file (10 MiB) to the reference server",
        rule: TRANSFER,
        run: Some(|trial| transfers(trial, LARGE)),
        ..BASE
    },
    Check {
        id: "client/13",
        points: 10,
        about: "a large file over a network with delay and loss",
        rule: TRANSFER,
        run: Some(|trial| trial.send_far_away(&trial.context.content(1, LARGE))),
        ..BASE
    },
    Check {
        id: "client/handshake-timeout",
        about: "gives up within 10 s when no greeting comes, or only after 12 s",
        rule: TEN,
        dialects: GREETED,
        load: Waits,
        run: Some(|trial| {
            side_by_side(["silent", "late-12"], |name| gives_up_on(trial, name).during(|| name))
        }),
        ..BASE
    },
    Check {
        id: "client/endless-greeting",
        about: "gives up within 10 s when the greeting never ends",
        rule: TEN,
        dialects: GREETED,
        load: Waits,
        run: Some(|trial| gives_up_on(trial, "endless")),
        ..BASE
    },
    Check {
        id: "client/wrong-greeting",
        about: "sends no file after a wrong greeting",
        rule: WHOLE,
        dialects: GREETED,
        load: Waits,
        run: Some(|trial| gives_up_on(trial, "wrong")),
        ..BASE
    },
    Check {
        id: "client/late-greeting",
        about: "a greeting after 9.5 s is in time",
        rule: TEN,
        dialects: GREETED,
        load: Waits,
        run: Some(|trial| bears_with(trial, "late-9.5")),
        ..BASE
    },
    Check {
        id: "client/drip",
        about: "a greeting at a byte a second is in time",
        rule: WHOLE,
        dialects: GREETED,
        load: Waits,
        run: Some(|trial| bears_with(trial, "drip")),
        ..BASE
    },
    Check {
        id: "client/split",
        about: "a greeting in two pieces, cut at every place",
        rule: WHOLE,
        dialects: GREETED,
        run: Some(|trial| {
            let names = broken::ALL.iter().map(|broken| broken.name);
            side_by_side(names.filter(|name| name.starts_with("split-")), |name| {
                bears_with(trial, name).during(|| name)
            })
        }),
        ..BASE
    },
    Check {
        id: "client/never-closes",
        about: "ends within 10 s when the server never closes",
        rule: TEN,
        load: Waits,
        run: Some(never_closes),
        ..BASE
    },
    Check {
        id: "client/slow-reader",
        about: "a transfer of 12 s without a stall of 10 s is whole",
        rule: "10 s without being able to send are an error, not 10 s of transfer",
        load: Waits,
        run: Some(slow_reader),
        ..BASE
    },
    Check {
        id: "client/empty",
        about: "an empty file",
        rule: TRANSFER,
        run: Some(|trial| transfers(trial, 0)),
        ..BASE
    },
    Check {
        id: "client/100mib",
        about: "100mib: sent in bounded memory",
        rule: LARGE_FILES,
        run: Some(huge),
        ..BASE
    },
    Check {
        id: "client/name",
        about: "connects by a host's name",
        rule: "the host is a name or an IP address",
        run: Some(by_name),
        ..BASE
    },
    Check {
        id: "client/idle",
        about: "uses no processor time while it waits",
        rule: "no busy loop",
        dialects: GREETED,
        load: Waits,
        run: Some(|trial| {
            let (client, _peer) = trial.connected(b"content")?;
            expect_idle(client.pid()).during(|| "waiting for the greeting")
        }),
        ..BASE
    },
    Check {
        id: "client/loss",
        about: "a large file over a network that really loses packets",
        rule: TRANSFER,
        run: Some(|trial| trial.send_with_loss(&trial.context.content(1, LARGE))),
        ..BASE
    },
];
