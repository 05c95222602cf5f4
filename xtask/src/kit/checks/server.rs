//! The server that keeps files.

mod shown;

use self::shown::{at_once, by_reference, in_turn, only_files, together};
use super::receiver::{self, SMALL};
use crate::e2e::engine::Load::{Waits, Works};
use crate::kit::check::{ANY, CONFIRMED, Check, GREETED};
use crate::kit::reference;

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

const SIGNALS: &str = "SIGINT, SIGTERM and SIGQUIT end the server gracefully, with exit code 0";
const IDLE: &str = "no data for over 10 s: abort the connection; the file holds the single word \
                    ERROR without a line end, and nothing of what came before";
const NAMES: &str = "connection N's bytes, and nothing else, are FILE-DIR/N.file, N counted from 1 \
                     as connections are established";
const LISTENS: &str = "the server listens at the port it is given and accepts connections";
const MANY: &str = "at least 10 connections are served at the same time";
const LARGE_FILES: &str = "files of 100 MiB or more are accepted";

pub(super) static CHECKS: &[Check] = &[
    Check {
        id: "server/1",
        points: 5,
        about: "repository: at least 3 commits",
        rule: "the repository is looked at by the course",
        ..BASE
    },
    Check {
        id: "server/2",
        points: 5,
        about: "a bad port: ERROR: on stderr, an exit code that is not 0",
        rule: "an incorrect port ends the server with ERROR: on stderr and a non-zero exit code",
        run: Some(receiver::bad_port),
        ..BASE
    },
    Check {
        id: "server/3",
        points: 5,
        about: "SIGINT: a graceful end, exit code 0",
        rule: SIGNALS,
        load: Waits,
        run: Some(receiver::sigint),
        ..BASE
    },
    Check {
        id: "server/4",
        points: 5,
        about: "accepts a connection",
        rule: LISTENS,
        run: Some(receiver::accepts),
        ..BASE
    },
    Check {
        id: "server/5",
        points: 5,
        about: "sends the greeting before anything comes, and nothing more",
        rule: "after the connection is established the server sends accio\\r\\n",
        dialects: GREETED,
        run: Some(receiver::greets),
        ..BASE
    },
    Check {
        id: "server/6",
        points: 5,
        about: "starts to receive",
        rule: "after the handshake the server receives whatever the client sends",
        run: Some(receiver::receives),
        ..BASE
    },
    Check {
        id: "server/7",
        points: 5,
        about: "takes the next connection after the first is done",
        rule: "all connections are counted and saved, 1 for the first, 2 for the second and so on",
        run: Some(receiver::next),
        ..BASE
    },
    Check {
        id: "server/8",
        points: 5,
        about: "10 connections at the same time, all greeted, all saved",
        rule: MANY,
        run: Some(at_once),
        ..BASE
    },
    Check {
        id: "server/9",
        points: 5,
        about: "10 s of silence: the file holds exactly ERROR",
        rule: IDLE,
        load: Waits,
        run: Some(receiver::silence_after_data),
        ..BASE
    },
    Check {
        id: "server/10",
        points: 5,
        about: "takes the next connection after a time-out",
        rule: IDLE,
        load: Waits,
        run: Some(receiver::next_after_silence),
        ..BASE
    },
    Check {
        id: "server/11",
        points: 5,
        about: "500 bytes from the submitted client arrive",
        rule: "tested with the submitted client",
        with_client: true,
        run: Some(|trial| {
            let mut server = trial.server()?;
            trial.send_by_client(server.address.port(), &trial.context.content(1, SMALL))?;
            receiver::came_to_something(&mut server)
        }),
        ..BASE
    },
    Check {
        id: "server/12",
        points: 5,
        about: "… and are saved byte for byte",
        rule: NAMES,
        with_client: true,
        run: Some(|trial| {
            let server = trial.server()?;
            let content = trial.context.content(1, SMALL);
            trial.send_by_client(server.address.port(), &content)?;
            server.expect_file(1, &content)
        }),
        ..BASE
    },
    Check {
        id: "server/13",
        points: 5,
        about: "500 bytes from the reference client arrive",
        rule: "tested against the instructor's client",
        run: Some(|trial| {
            let mut server = trial.server()?;
            let address = server.address;
            receiver::arrives(trial, &mut server, address, &trial.context.content(1, SMALL))
        }),
        ..BASE
    },
    Check {
        id: "server/14",
        points: 5,
        about: "… and are saved byte for byte",
        rule: NAMES,
        run: Some(|trial| {
            let server = trial.server()?;
            let content = trial.context.content(1, SMALL);
            reference::send(server.address, trial.dialect, &content)?;
            server.expect_file(1, &content)
        }),
        ..BASE
    },
    Check {
        id: "server/15",
        points: 5,
        about: "10 × 10 MiB from the submitted client, one after another",
        rule: NAMES,
        with_client: true,
        run: Some(|trial| {
            let server = trial.server()?;
            let port = server.address.port();
            in_turn(trial, &server, &|content| trial.send_by_client(port, content))
        }),
        ..BASE
    },
    Check {
        id: "server/16",
        points: 5,
        about: "10 × 10 MiB from the submitted client, at the same time",
        rule: MANY,
        with_client: true,
        run: Some(|trial| {
            let server = trial.server()?;
            let port = server.address.port();
            together(trial, &server, &|content| trial.send_by_client(port, content))
        }),
        ..BASE
    },
    Check {
        id: "server/17",
        points: 5,
        about: "10 × 10 MiB from the reference client, one after another",
        rule: NAMES,
        run: Some(|trial| {
            let server = trial.server()?;
            in_turn(trial, &server, &|content| by_reference(trial, server.address, content))
        }),
        ..BASE
    },
    Check {
        id: "server/18",
        points: 5,
        about: "10 × 10 MiB from the reference client, at the same time",
        rule: MANY,
        run: Some(|trial| {
            let server = trial.server()?;
            together(trial, &server, &|content| by_reference(trial, server.address, content))
        }),
        ..BASE
    },
    Check {
        id: "server/19",
        points: 5,
        about: "10 × 10 MiB over a network with delay and loss, one after another",
        rule: "tested with emulated delays and transmission errors",
        load: Waits,
        run: Some(|trial| {
            let (server, proxy) = trial.server_far_away()?;
            in_turn(trial, &server, &|content| by_reference(trial, proxy.address(), content))
        }),
        ..BASE
    },
    Check {
        id: "server/20",
        points: 5,
        about: "10 × 10 MiB over a network with delay and loss, at the same time",
        rule: "tested with emulated delays and transmission errors",
        run: Some(|trial| {
            let (server, proxy) = trial.server_far_away()?;
            together(trial, &server, &|content| by_reference(trial, proxy.address(), content))
        }),
        ..BASE
    },
    Check {
        id: "server/sigterm",
        about: "SIGTERM: a graceful end, exit code 0",
        rule: SIGNALS,
        load: Waits,
        run: Some(receiver::sigterm),
        ..BASE
    },
    Check {
        id: "server/sigquit",
        about: "SIGQUIT: a graceful end, exit code 0",
        rule: SIGNALS,
        load: Waits,
        run: Some(receiver::sigquit),
        ..BASE
    },
    Check {
        id: "server/port-zero",
        about: "port 0 is a bad port",
        rule: "ports are 1 to 65535",
        run: Some(receiver::port_zero),
        ..BASE
    },
    Check {
        id: "server/interfaces",
        about: "listens on all interfaces",
        rule: "the server accepts connections coming from any interface",
        run: Some(receiver::all_interfaces),
        ..BASE
    },
    Check {
        id: "server/empty",
        about: "a connection with no byte is an empty file",
        rule: "a client that sends nothing and ends gracefully gives an empty file",
        run: Some(receiver::empty),
        ..BASE
    },
    Check {
        id: "server/100mib",
        about: "100mib: saved in bounded memory",
        rule: LARGE_FILES,
        run: Some(receiver::huge),
        ..BASE
    },
    Check {
        id: "server/piecemeal",
        about: "confirmations and content byte by byte",
        rule: "what is sent at once may come in pieces",
        load: Waits,
        run: Some(receiver::piecemeal),
        ..BASE
    },
    Check {
        id: "server/second-greeting",
        about: "greets again only after the first confirmation",
        rule: "the second accio\\r\\n is sent when the first confirmation has come",
        dialects: CONFIRMED,
        load: Waits,
        run: Some(receiver::second_greeting),
        ..BASE
    },
    Check {
        id: "server/only-files",
        about: "nothing but 1.file, 2.file and so on in FILE-DIR",
        rule: NAMES,
        run: Some(only_files),
        ..BASE
    },
    Check {
        id: "server/silent-start",
        about: "10 s without any byte: the file holds exactly ERROR",
        rule: IDLE,
        load: Waits,
        run: Some(receiver::silence_from_start),
        ..BASE
    },
    Check {
        id: "server/slow",
        about: "a transfer of 12 s without a silence of 10 s is whole",
        rule: "10 s without data are an error, not 10 s of transfer",
        load: Waits,
        run: Some(receiver::slow),
        ..BASE
    },
    Check {
        id: "server/patient",
        about: "still serves when nobody connected for 12 s",
        rule: "the server runs until a signal ends it",
        load: Waits,
        run: Some(receiver::patient),
        ..BASE
    },
    Check {
        id: "server/reset",
        about: "takes the next connection after resets",
        rule: "the server runs until a signal ends it",
        run: Some(receiver::survives_reset),
        ..BASE
    },
    Check {
        id: "server/closes",
        about: "closes the connection after the client did",
        rule: "a connection is accepted, processed and closed",
        run: Some(receiver::closes),
        ..BASE
    },
    Check {
        id: "server/idle",
        about: "uses no processor time while nothing happens",
        rule: "no busy loop",
        load: Waits,
        run: Some(receiver::idle),
        ..BASE
    },
    Check {
        id: "server/loss",
        about: "10 MiB over a network that really loses packets",
        rule: "tested with emulated delays and transmission errors",
        run: Some(receiver::loss),
        ..BASE
    },
];
