//! `--probe`: shows what listens on a port, without sending anything to it.

use std::io::{self, Write};
use std::time::Duration;

use accio_cli::{Failure, say};
use accio_proto::{ClientError, Dialect, Finding, Probe, ServerReply, os_error_text};

use crate::advice::{self, Circumstances};
use crate::arguments::Arguments;
use crate::events::{self, Details, Events, Subject};
use crate::exit_code::{WRITE, exit_code};
use crate::format::time;

/// How long to wait for a greeting, unless `--timeout` is set.
const PATIENCE: Duration = Duration::from_secs(3);

/// Probes the server, prints the result and returns the exit code.
pub(crate) fn run(arguments: &Arguments, events: &Events) -> Result<u8, Failure> {
    let subject = Subject { file: None, command: None, number: 0, attempt: 0 };
    let fail = |error: ClientError| {
        let advice = advice::advice(&error, Circumstances::default());
        let (code, exit, peer) = (error.code(), exit_code(&error), error.peer());
        let failure = Failure::from_error(error).with_code(exit);
        let failure = match advice {
            Some(advice) => failure.with_advice(advice),
            None => failure,
        };
        let message = failure.to_string();
        events.emit("failed", subject, Details::Failed { code, exit, message, peer });
        failure
    };
    let patience = arguments.network.timeout.unwrap_or(PATIENCE);
    let client = arguments.client().handshake_timeout(patience).build().map_err(fail)?;
    let probe = client.probe(&arguments.host, arguments.port.number()).map_err(fail)?;

    if arguments.output.json {
        emit_events(&probe, events, subject);
    } else {
        print(&text(&probe, arguments, patience))?;
    }
    let replies = probe.probed.iter().filter_map(|probed| probed.result.as_ref().ok());
    // Only a greeting shows that an Accio server has counted the connection.
    let counted = replies.clone().filter(|reply| reply.finding == Finding::Greets).count();
    if counted > 0 && !arguments.output.verbosity.quiet {
        say(format_args!(
            "note: an Accio server has counted {}, and holds ERROR for it",
            if counted == 1 { "this connection" } else { "both connections, each" },
        ));
    }
    let code = replies.map(|reply| code(reply.finding, arguments.handshake)).min();
    match code {
        Some(code) => Ok(code),
        None => Err(fail(unreachable(probe, arguments))),
    }
}

/// Returns the error for a host none of whose addresses accepted a connection.
fn unreachable(probe: Probe, arguments: &Arguments) -> ClientError {
    let (host, port) = (arguments.host.clone(), arguments.port.number());
    let failed = probe.probed.into_iter();
    let failures: Vec<_> =
        failed.filter_map(|probed| Some((probed.address, probed.result.err()?))).collect();
    let late = failures.iter().all(|(_, error)| error.kind() == io::ErrorKind::TimedOut);
    match arguments.network.connect_timeout.or(arguments.network.timeout) {
        after if late => {
            let after = after.unwrap_or(accio_proto::limits::CONNECT_TIMEOUT);
            ClientError::ConnectTimeout { host, port, after }
        }
        _ => ClientError::Connect { host, port, failures },
    }
}

/// Returns 0 if the finding matches the dialect, otherwise the exit code that an upload would have.
fn code(finding: Finding, dialect: Dialect) -> u8 {
    match (finding, dialect) {
        (Finding::Greets, Dialect::Accio | Dialect::Confirm) => 0,
        (Finding::Silent, Dialect::Direct) => 0,
        (Finding::Silent | Finding::Stops, _) => 28,
        _ => 56,
    }
}

fn emit_events(probe: &Probe, events: &Events, subject: Subject<'_>) {
    let seconds = probe.resolved_in.as_secs_f64();
    events.emit("resolved", subject, Details::Resolved { addresses: &probe.addresses, seconds });
    for probed in &probe.probed {
        match &probed.result {
            Ok(reply) => events.emit(
                "heard",
                subject,
                Details::Replied {
                    peer: probed.address,
                    finding: events::finding(reply.finding),
                    heard: reply.bytes.escape_ascii().to_string(),
                    connected_seconds: reply.connected_in.as_secs_f64(),
                    spoke_seconds: reply.spoke_after.map(|after| after.as_secs_f64()),
                },
            ),
            Err(error) => events.emit(
                "unreachable",
                subject,
                Details::Unreachable { peer: probed.address, message: os_error_text(error) },
            ),
        }
    }
}

fn text(probe: &Probe, arguments: &Arguments, patience: Duration) -> String {
    let addresses: Vec<_> = probe.addresses.iter().map(|at| at.ip().to_string()).collect();
    let mut text = format!(
        "{} is {} (resolved in {})\n",
        arguments.host.escape_debug(),
        addresses.join(", "),
        time(probe.resolved_in)
    );
    for probed in &probe.probed {
        let address = probed.address;
        text += &match &probed.result {
            Err(error) => format!("{address}: no connection: {}\n", os_error_text(error)),
            Ok(reply) => format!(
                "{address}: connected in {}, {}\n{}\n",
                time(reply.connected_in),
                describe_reply(reply, patience),
                describe_finding(reply)
            ),
        };
    }
    text
}

/// Describes the bytes that the server sent, and when.
fn describe_reply(reply: &ServerReply, patience: Duration) -> String {
    match reply.spoke_after {
        None if reply.finding == Finding::Silent => format!("sent nothing for {patience:?}"),
        None => "closed without sending anything".into(),
        Some(after) => format!(
            "after {} received these {} bytes: \"{}\"",
            time(after),
            reply.bytes.len(),
            reply.bytes.escape_ascii()
        ),
    }
}

/// Describes the finding in a sentence.
fn describe_finding(reply: &ServerReply) -> &'static str {
    match reply.finding {
        Finding::Greets => {
            "An Accio server: it greets as in accio and confirm; only sending would show which."
        }
        Finding::Silent => {
            "It waits for the client to begin: an Accio server that requires TLS, is busy or speaks \
             direct, or another server such as one for HTTP."
        }
        Finding::Stops => "It began like an Accio server but stopped within the greeting.",
        Finding::Hangs => {
            "It closed the connection: it refuses this client for now, or is not an Accio server."
        }
        _ => foreign(&reply.bytes),
    }
}

/// Describes the kind of server that greets like this.
fn foreign(bytes: &[u8]) -> &'static str {
    let known: [(&[u8], &str); 6] = [
        (b"SSH-", "Not an Accio server: one for SSH greets like this."),
        (b"HTTP/", "Not an Accio server: one for HTTP answers like this."),
        (b"220", "Not an Accio server: one for SMTP or FTP greets like this."),
        (b"+OK", "Not an Accio server: one for POP3 greets like this."),
        (b"* OK", "Not an Accio server: one for IMAP greets like this."),
        (b"accio", "Almost an Accio server: its greeting is not exactly \"accio\\r\\n\"."),
    ];
    let found = known.iter().find(|(begin, _)| bytes.starts_with(begin));
    found.map_or("Not an Accio server: it greets in another protocol.", |(_, sentence)| sentence)
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| Failure::new("standard output", os_error_text(&error)).with_code(WRITE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_code_is_that_of_an_upload() {
        assert_eq!(code(Finding::Greets, Dialect::Accio), 0);
        assert_eq!(code(Finding::Greets, Dialect::Confirm), 0);
        assert_eq!(code(Finding::Greets, Dialect::Direct), 56);
        assert_eq!(code(Finding::Silent, Dialect::Direct), 0);
        assert_eq!(code(Finding::Silent, Dialect::Accio), 28);
        assert_eq!(code(Finding::Foreign, Dialect::Accio), 56);
        assert_eq!(code(Finding::Hangs, Dialect::Accio), 56);
    }

    #[test]
    fn recognizes_well_known_greetings() {
        assert!(foreign(b"SSH-2.0-OpenSSH_9").contains("SSH"));
        assert!(foreign(b"accio\n").contains("Almost"));
        assert!(foreign(b"\xff").contains("another protocol"));
    }
}
