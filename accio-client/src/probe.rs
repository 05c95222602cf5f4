//! `--probe`: what listens there, without sending it anything.

use std::io::{self, Write};
use std::time::Duration;

use accio_cli::{Failure, check_stdout, say};
use accio_proto::{ClientError, Dialect, Finding, Probe, ServerReply, os_error_text};

use crate::advice;
use crate::arguments::Arguments;
use crate::events::{self, Details, Events, Subject};
use crate::exit_code::{WRITE, exit_code};
use crate::format::time;

/// How long a server may take to say something, unless `--timeout` says so.
const PATIENCE: Duration = Duration::from_secs(3);

/// Looks, says what it found, and gives the exit code.
pub(crate) fn run(arguments: &Arguments, events: &Events) -> Result<u8, Failure> {
    let subject = Subject { file: None, command: None, number: 0, attempt: 0 };
    let fail = |error: ClientError| {
        let advice = advice::advice(&error, false);
        let (code, exit, peer) = (error.code(), exit_code(&error), error.peer());
        let failure = Failure::from_error(error).with_code(exit);
        let failure = match advice {
            Some(advice) => failure.with_advice(advice),
            None => failure,
        };
        let message = failure.to_string();
        events.tell("failed", subject, Details::Failed { code, exit, message, peer });
        failure
    };
    let patience = arguments.network.timeout.unwrap_or(PATIENCE);
    let client = arguments.client().handshake_timeout(patience).build().map_err(fail)?;
    let probe = client.probe(&arguments.host, arguments.port.number()).map_err(fail)?;

    if arguments.output.json {
        tell(&probe, events, subject);
    } else {
        print(&text(&probe, arguments, patience))?;
    }
    let heard = probe.probed.iter().filter_map(|probed| probed.result.as_ref().ok());
    // Only a greeting shows that an Accio server has counted the connection.
    let counted = heard.clone().filter(|heard| heard.finding == Finding::Greets).count();
    if counted > 0 && !arguments.output.verbosity.quiet {
        say(format_args!(
            "note: an Accio server has counted {}, and holds ERROR for it",
            if counted == 1 { "this connection" } else { "both connections, each" },
        ));
    }
    let code = heard.map(|heard| code(heard.finding, arguments.handshake)).min();
    match code {
        Some(code) => Ok(code),
        None => Err(fail(unreachable(probe, arguments))),
    }
}

/// The error for a host none of whose addresses took a connection.
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

/// 0 for what the dialect wants, else what an upload would have come to.
fn code(finding: Finding, dialect: Dialect) -> u8 {
    match (finding, dialect) {
        (Finding::Greets, Dialect::Accio | Dialect::Confirm) => 0,
        (Finding::Silent, Dialect::Direct) => 0,
        (Finding::Silent | Finding::Stops, _) => 28,
        _ => 56,
    }
}

fn tell(probe: &Probe, events: &Events, subject: Subject<'_>) {
    let seconds = probe.resolved_in.as_secs_f64();
    events.tell("resolved", subject, Details::Resolved { addresses: &probe.addresses, seconds });
    for probed in &probe.probed {
        match &probed.result {
            Ok(heard) => events.tell(
                "heard",
                subject,
                Details::Heard {
                    peer: probed.address,
                    finding: events::finding(heard.finding),
                    heard: heard.bytes.escape_ascii().to_string(),
                    connected_seconds: heard.connected_in.as_secs_f64(),
                    spoke_seconds: heard.spoke_after.map(|after| after.as_secs_f64()),
                },
            ),
            Err(error) => events.tell(
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
            Ok(heard) => format!(
                "{address}: connected in {}, {}\n{}\n",
                time(heard.connected_in),
                words(heard, patience),
                sentence(heard)
            ),
        };
    }
    text
}

/// What it said, and when.
fn words(heard: &ServerReply, patience: Duration) -> String {
    match heard.spoke_after {
        None if heard.finding == Finding::Silent => format!("said nothing for {patience:?}"),
        None => "closed without a word".into(),
        Some(after) => format!(
            "said after {} these {} bytes: \"{}\"",
            time(after),
            heard.bytes.len(),
            heard.bytes.escape_ascii()
        ),
    }
}

/// What it found, in a sentence.
fn sentence(heard: &ServerReply) -> &'static str {
    match heard.finding {
        Finding::Greets => {
            "An Accio server: it greets, as the dialects accio and confirm begin; only sending \
             would tell which."
        }
        Finding::Silent => {
            "It waits for the client to begin: an Accio server of the dialect direct, one that is \
             busy with others, or no Accio server at all, such as one for HTTP."
        }
        Finding::Stops => "It began like an Accio server and stopped within the greeting.",
        Finding::Hangs => {
            "It closed the connection: it takes none from here now, or is no Accio server."
        }
        _ => foreign(&heard.bytes),
    }
}

/// The kind of server that greets like this.
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
    check_stdout()
        .and_then(|()| out.write_all(text.as_bytes()))
        .and_then(|()| out.flush())
        .map_err(|error| Failure::new("standard output", os_error_text(&error)).with_code(WRITE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_what_an_upload_would_come_to() {
        assert_eq!(code(Finding::Greets, Dialect::Accio), 0);
        assert_eq!(code(Finding::Greets, Dialect::Confirm), 0);
        assert_eq!(code(Finding::Greets, Dialect::Direct), 56);
        assert_eq!(code(Finding::Silent, Dialect::Direct), 0);
        assert_eq!(code(Finding::Silent, Dialect::Accio), 28);
        assert_eq!(code(Finding::Foreign, Dialect::Accio), 56);
        assert_eq!(code(Finding::Hangs, Dialect::Accio), 56);
    }

    #[test]
    fn well_known_greetings_are_named() {
        assert!(foreign(b"SSH-2.0-OpenSSH_9").contains("SSH"));
        assert!(foreign(b"accio\n").contains("Almost"));
        assert!(foreign(b"\xff").contains("another protocol"));
    }
}
