//! Advice on how to resolve a failure.

use std::fmt::Display;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use accio_cli::Failure;
use accio_proto::handshake::HandshakeError;
use accio_proto::{ClientError, Sent, TlsFailure, os_error_text};

use rustix::io::Errno;

use crate::arguments::is_stdin;
use crate::content::Content;
use crate::exit_code::{READ, TIMEOUT, exit_code};

/// Properties of an upload on which the advice depends.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Circumstances {
    /// The content is produced during the transfer.
    pub(crate) is_produced: bool,
    /// The server must have a given key.
    pub(crate) is_pinned: bool,
}

/// Returns the failure of an upload, with advice if there is any.
pub(crate) fn failure(
    error: ClientError,
    content: Content<'_>,
    circumstances: Circumstances,
) -> Failure {
    let advice = advice(&error, circumstances);
    // The library does not know the content's name.
    let failure = match error {
        ClientError::Read { ref cause } => return unreadable(content, cause),
        ClientError::Shrank { expected, found } => cannot_read(
            content,
            format_args!("shrank from {expected} to {found} bytes during the transfer"),
        ),
        ClientError::TransferTimeout { .. } => {
            Failure::new(named(content), &error).with_code(exit_code(&error))
        }
        error => {
            let code = exit_code(&error);
            Failure::from_error(error).with_code(code)
        }
    };
    match advice {
        Some(advice) => failure.with_advice(advice),
        None => failure,
    }
}

/// Returns the failure of an unconfirmed upload for which a confirmation is required.
pub(crate) fn unconfirmed(content: Content<'_>, sent: &Sent) -> Failure {
    let why = format_args!(
        "not confirmed: {} has received all bytes but has not closed the connection",
        sent.peer
    )
    .to_string();
    let failure = Failure::new(named(content), why).with_code(TIMEOUT);
    failure.with_advice("check the server before sending it again")
}

/// Returns the failure to open or read the content.
fn unreadable(content: Content<'_>, error: &io::Error) -> Failure {
    let failure = cannot_read(content, os_error_text(error));
    match (error.kind(), content) {
        (ErrorKind::PermissionDenied, _) => failure.with_advice("check its permissions"),
        (ErrorKind::NotFound, Content::Command { .. }) => {
            failure.with_advice("check the name of the program, or give its path")
        }
        // An entry of a directory that has disappeared has no error number.
        (ErrorKind::NotFound, _) if error.raw_os_error().is_some() => {
            failure.with_advice("check the path")
        }
        _ if Errno::from_io_error(error) == Some(Errno::BADF) => failure.with_advice(concat!(
            "it is closed, or /dev/null opened for reading and writing: ",
            "redirect a file or a pipe to it"
        )),
        _ => failure,
    }
}

fn cannot_read(content: Content<'_>, why: impl Display) -> Failure {
    Failure::new(named(content), why).with_code(READ)
}

fn named(content: Content<'_>) -> String {
    match content {
        Content::Command { line, .. } => format!("command {line:?}"),
        Content::File(file) if is_stdin(file) => "standard input".to_owned(),
        Content::File(file) => format!("file {file:?}"),
    }
}

/// Returns advice for an error that only this machine can have caused.
fn local_advice(error: &ClientError) -> Option<&'static str> {
    Some(match Errno::from_io_error(error.local_cause()?)? {
        Errno::MFILE | Errno::NFILE => "use fewer --jobs, or raise the limit: ulimit -n",
        Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN => "use fewer --jobs, or --retry",
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => {
            "this machine has no free port or no address of that family: use fewer --jobs, or --retry"
        }
        Errno::INVAL => "a link-local address needs its interface, as in fe80::1%eth0",
        Errno::PERM | Errno::ACCESS => "a firewall or a sandbox on this machine forbids it",
        Errno::AFNOSUPPORT => "this machine has no addresses of that family: try -4 or -6",
        _ => return None,
    })
}

/// Returns whether the network has no route to any of the addresses.
fn is_unreachable(failures: &[(SocketAddr, io::Error)]) -> bool {
    let mut kinds = failures.iter().map(|(_, error)| error.kind());
    !failures.is_empty()
        && kinds
            .all(|kind| matches!(kind, ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable))
}

/// Returns advice to append to the error.
pub(crate) fn advice(error: &ClientError, circumstances: Circumstances) -> Option<&'static str> {
    if error.local_cause().is_some() {
        return local_advice(error);
    }
    if error.may_be_stored() {
        return Some("check the server before sending it again");
    }
    Some(match error {
        ClientError::Source { cause, .. } if Errno::from_io_error(cause) == Some(Errno::INVAL) => {
            "a link-local address needs its interface, as in fe80::1%eth0"
        }
        ClientError::NoAddress { .. } => "remove or change -4, -6 or --source",
        ClientError::Resolve { .. } => "check the name, or use an address",
        ClientError::Source { .. } => "run `ip address` for a list of local addresses",
        ClientError::Connect { failures, .. } if is_unreachable(failures) => {
            "check the address and the network"
        }
        ClientError::Connect { .. } => "check the port, and that a server is running there",
        ClientError::ResolveTimeout { .. } => "check the name, or raise --connect-timeout",
        ClientError::ConnectTimeout { .. } => {
            "check the address, or raise --connect-timeout; a firewall may drop the packets"
        }
        ClientError::TlsName { .. } => "use the name in the server's certificate, or --tls-pin",
        ClientError::Tls { cause, .. } => match cause {
            TlsFailure::Required => "use --tls-pin with the pin that the server prints, or --tls",
            TlsFailure::Plain(_) => "remove the --tls flags, or check the port",
            TlsFailure::Untrusted(_) if circumstances.is_pinned => {
                "compare it with the pin that the server printed: the key has changed, or another \
                 machine answers"
            }
            TlsFailure::Untrusted(_) => {
                "check the name and the address; use --tls-pin or --tls-ca for a server that this \
                 system does not know"
            }
            TlsFailure::Refused(_) => {
                "see the server's log; it may require --tls-identity and your key in its --tls-clients"
            }
            TlsFailure::Truncated => "see the server's log, or use --retry",
            _ => return None,
        },
        ClientError::Handshake { cause: HandshakeError::Closed { .. }, .. } => {
            "the server refuses this client, or is not an Accio server"
        }
        ClientError::Handshake { .. } => {
            "use --probe to see what listens there, --handshake to choose a dialect"
        }
        ClientError::HandshakeTimeout { .. } => {
            "the server is busy or speaks another dialect: try --probe, --handshake or --timeout"
        }
        // Does not advise a retry, which fails again if the file is too large.
        ClientError::Reset { .. } | ClientError::ClosedEarly { .. }
            if circumstances.is_produced =>
        {
            "the cause is its idle timeout, a limit, or a shutdown, unless its disk is full; see its log"
        }
        ClientError::Reset { .. } | ClientError::ClosedEarly { .. } => {
            "the cause is its idle timeout, a size or time limit, a full disk, or a shutdown; see its log"
        }
        ClientError::HandshakeBroken { cause, .. }
            if cause.kind() == ErrorKind::ConnectionReset =>
        {
            "the server may refuse this address, or it was stopped; use --retry to start over"
        }
        ClientError::Send { .. } | ClientError::HandshakeBroken { .. } => {
            "use --retry to start over"
        }
        ClientError::NotKept { .. } => {
            "the cause is a limit, a full disk, a refusal, or a shutdown; see the server's log"
        }
        ClientError::Stalled { .. } => "raise --timeout, or use --retry",
        ClientError::TransferTimeout { .. } => "raise --max-time",
        ClientError::Shrank { .. } => "send a copy that does not change",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_host_has_another_advice_than_a_closed_port() {
        let advice = |causes: &[Errno]| {
            let peer = SocketAddr::from(([127, 0, 0, 1], 9));
            let failures = causes.iter().map(|cause| (peer, (*cause).into())).collect();
            let error = ClientError::Connect { host: "h".into(), port: 9, failures };
            advice(&error, Circumstances::default()).unwrap()
        };
        assert!(advice(&[Errno::HOSTUNREACH, Errno::NETUNREACH]).contains("the network"));
        assert!(advice(&[Errno::NETUNREACH, Errno::CONNREFUSED]).contains("the port"));
    }

    #[test]
    fn an_untrusted_server_is_compared_with_a_pin_if_there_is_one() {
        let advice = |is_pinned| {
            let peer = SocketAddr::from(([127, 0, 0, 1], 9));
            let cause = TlsFailure::Untrusted(io::Error::other("another key"));
            let circumstances = Circumstances { is_pinned, ..Circumstances::default() };
            advice(&ClientError::Tls { peer, end_sent: false, cause }, circumstances).unwrap()
        };
        assert!(advice(true).contains("the pin that the server printed"));
        assert!(advice(false).contains("--tls-ca"));
    }
}
