//! The checks that both servers share.

use super::receiver;
use super::silence;
use crate::check::{CONFIRMED, Check, GREETED};
use accio_harness::subject::Program;

const SIGNALS: &str = "SIGINT, SIGTERM and SIGQUIT end the server gracefully, with exit code 0; the \
                       documents of the dialect direct ask for SIGTERM and SIGQUIT only";
const RUNS: &str = "the server runs until a signal ends it";
const NETWORK: &str = "tested with emulated delays and transmission errors";
const REPOSITORY: &str = "the course looks at the repository";
const PORT: &str =
    "an incorrect port ends the server with ERROR: on stderr and a non-zero exit code";
const LISTENS: &str = "the server listens on the given port and accepts connections";
const GREETING: &str = "after the connection is established the server sends accio\\r\\n";
const RECEIVES: &str = "after the handshake the server receives the file";
const PORTS: &str = "ports are 1 to 65535";
const INTERFACES: &str = "the server accepts connections coming from any interface";
const PIECES: &str = "bytes that are sent together may arrive in pieces, and others together";
const SECOND: &str = "the second accio\\r\\n is sent after the first confirmation has arrived";
const SILENCE: &str = "10 s without data are an error, not 10 s of transfer";
const CLOSED: &str = "a connection is accepted, processed and closed";
const NO_BUSY_LOOP: &str = "no busy loop";

/// Returns the checks of `program` that both servers share.
pub(super) fn checks(program: Program) -> Vec<Check> {
    let check = |name, about, rule| Check::new(program, name, about, rule);
    vec![
        check("1", "repository: at least 3 commits", REPOSITORY).worth(5),
        check("2", "an invalid port: ERROR: on stderr, a non-zero exit code", PORT)
            .worth(5)
            .run(receiver::bad_port),
        check("3", "SIGINT (direct: SIGTERM and SIGQUIT): ends with exit code 0", SIGNALS)
            .worth(5)
            .waits()
            .run(receiver::signals),
        check("4", "accepts a connection", LISTENS).worth(5).run(receiver::accepts),
        check("5", "sends the greeting first, and nothing more", GREETING)
            .worth(5)
            .in_dialects(GREETED)
            .run(receiver::greets),
        check("6", "starts to receive", RECEIVES).worth(5).run(receiver::receives),
        check("10", "accepts the next connection after a timeout", RUNS)
            .worth(5)
            .waits()
            .run(silence::next_after_silence),
        check("sigterm", "SIGTERM: ends gracefully with exit code 0", SIGNALS)
            .in_dialects(GREETED)
            .waits()
            .run(receiver::sigterm),
        check("sigquit", "SIGQUIT: ends gracefully with exit code 0", SIGNALS)
            .in_dialects(GREETED)
            .waits()
            .run(receiver::sigquit),
        check("port-zero", "port 0 is invalid", PORTS).run(receiver::port_zero),
        check("interfaces", "listens on all interfaces", INTERFACES).run(receiver::all_interfaces),
        check("piecemeal", "accepts confirmations and content byte by byte", PIECES)
            .waits()
            .run(receiver::piecemeal),
        check("same-segment", "accepts content in the segment of the last confirmation", PIECES)
            .in_dialects(CONFIRMED)
            .run(receiver::same_segment),
        check("second-greeting", "greets again only after the first confirmation", SECOND)
            .in_dialects(CONFIRMED)
            .waits()
            .run(receiver::second_greeting),
        check("slow", "a transfer of 12 s without 10 s of silence is complete", SILENCE)
            .waits()
            .run(receiver::slow),
        check("patient", "still works after 12 s without a client", RUNS)
            .waits()
            .run(receiver::patient),
        check("reset", "accepts the next connection after resets", RUNS)
            .run(receiver::survives_reset),
        check("closes", "closes the connection after the client did", CLOSED).run(receiver::closes),
        check("idle", "uses no CPU time while nothing happens", NO_BUSY_LOOP)
            .waits()
            .run(receiver::idle),
        check("loss", "10 MiB over a network that loses packets", NETWORK).run(receiver::loss),
    ]
}
