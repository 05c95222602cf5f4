//! What to do next about a failure, and the failure as a line.

use std::fmt::Display;
use std::io;
use std::path::Path;

use accio_cli::{Failure, reason};
use accio_proto::ClientError;
use accio_proto::handshake::HandshakeError;

use crate::arguments::is_stdin;
use crate::exit_code::{READ, exit_code};

/// The failure of this file's upload, with advice where there is any.
pub(crate) fn failure(error: ClientError, file: &Path, source_is_stream: bool) -> Failure {
    let advice = advice(&error, source_is_stream);
    // The library does not know the file's name.
    let failure = match error {
        ClientError::Read { ref cause } => return unreadable(file, cause),
        ClientError::Shrank { expected, found } => cannot_read(
            file,
            format_args!("it shrank from {expected} to {found} bytes while it was being sent"),
        ),
        error => {
            let code = exit_code(&error);
            Failure::from(error).with_code(code)
        }
    };
    match advice {
        Some(advice) => failure.with_advice(advice),
        None => failure,
    }
}

/// The failure to open or read a file.
pub(crate) fn unreadable(file: &Path, error: &io::Error) -> Failure {
    let failure = cannot_read(file, reason(error));
    match error.kind() {
        io::ErrorKind::IsADirectory => {
            failure.with_advice("pack it: tar -c FOLDER | accio-client HOST PORT -")
        }
        io::ErrorKind::PermissionDenied => failure.with_advice("you need the right to read it"),
        _ => failure,
    }
}

fn cannot_read(file: &Path, why: impl Display) -> Failure {
    let failure = match is_stdin(file) {
        true => Failure::new("standard input", why),
        false => Failure::new(format!("file {file:?}"), why),
    };
    failure.with_code(READ)
}

/// One sentence, as the end of the error's.
pub(crate) fn advice(error: &ClientError, source_is_stream: bool) -> Option<&'static str> {
    Some(match error {
        ClientError::NoAddress { .. } => "leave out -4, -6 or --source, or choose another",
        ClientError::Resolve { .. } => "check the name, or give an address",
        ClientError::Source { .. } => "`ip address` lists those of this machine",
        ClientError::Connect { .. } => "check that a server runs there, and its port",
        ClientError::ResolveTimeout { .. } | ClientError::ConnectTimeout { .. } => {
            "check the address, or allow more time with --connect-timeout"
        }
        ClientError::Handshake { cause: HandshakeError::Closed { .. }, .. } => {
            "the server takes no files from here now, or is no Accio server"
        }
        ClientError::Handshake { .. } => {
            "--probe shows what listens there, --handshake chooses a dialect"
        }
        ClientError::HandshakeTimeout { .. } => {
            "the server is busy, or speaks another dialect: try --probe, --handshake or --timeout"
        }
        ClientError::Reset { .. } | ClientError::ClosedEarly { .. } if source_is_stream => {
            "a server gives up when no byte comes for 10 seconds; its log says more"
        }
        ClientError::Reset { .. }
        | ClientError::ClosedEarly { .. }
        | ClientError::Send { .. }
        | ClientError::HandshakeBroken { .. } => "its log says more; --retry starts over",
        ClientError::NotKept { .. } => "its log says why",
        ClientError::Stalled { .. } => "--timeout waits longer, --retry starts over",
        ClientError::Unconfirmed { .. } => "look there before you send it again",
        ClientError::Shrank { .. } => "send a copy that nobody writes to",
        _ => return None,
    })
}
