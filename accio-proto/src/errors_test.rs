//! Every error prints its cause and does not return it as its source, so that a program that prints
//! an error with all its sources prints nothing twice.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The text of a cause.
const CAUSE: &str = "the text of the cause";

fn cause() -> io::Error {
    io::Error::other(CAUSE)
}

/// Creates a list with an error of every variant; a variant without an error does not compile.
macro_rules! every {
    ($($variant:pat = $error:expr),* $(,)?) => {{
        let errors = [$($error),*];
        for error in &errors {
            match error { $($variant => {})* }
        }
        errors
    }};
}

/// Checks errors of which this number have a cause.
fn check<E: Error>(errors: impl IntoIterator<Item = E>, with_cause: usize) {
    let mut found = 0;
    for error in errors {
        let text = error.to_string();
        assert!(error.source().is_none(), "{error:?} returns a source");
        assert!(!text.is_empty() && !text.contains('\n'), "{text:?}");
        found += usize::from(text.contains(CAUSE));
        assert_eq!(text.contains(CAUSE), format!("{error:?}").contains(CAUSE), "{error:?}: {text}");
    }
    assert_eq!(found, with_cause);
}

#[test]
fn this_file_names_every_public_error() {
    fn search(dir: &Path, found: &mut usize) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                search(&path, found);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for item in text.split("thiserror::Error").skip(1) {
                let line =
                    item.lines().find(|line| line.contains("enum ") || line.contains("struct "));
                let Some(name) = line.and_then(|line| line.strip_prefix("pub ")) else { continue };
                let name = name.split(|c: char| !c.is_alphanumeric()).nth(1).unwrap();
                assert!(include_str!("errors_test.rs").contains(name), "no test of {name}");
                *found += 1;
            }
        }
    }
    let mut found = 0;
    search(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found >= 15, "found {found} errors only");
}

#[test]
fn values_that_cannot_be_parsed() {
    check::<crate::InvalidPort>(["x".parse::<crate::Port>().unwrap_err()], 0);
    check::<crate::UnknownDialect>(["x".parse::<crate::Dialect>().unwrap_err()], 0);
    check::<crate::UnknownDialect>(["x".parse::<crate::ServerDialect>().unwrap_err()], 0);
    check::<crate::UnknownFastPath>(["x".parse::<crate::FastPath>().unwrap_err()], 0);
    {
        use crate::digest::InvalidDigest;
        check(
            every! {
                InvalidDigest::Algorithm(_) = InvalidDigest::Algorithm("x".into()),
                InvalidDigest::Value(_) = InvalidDigest::Value("x".into()),
            },
            0,
        );
    }
    #[cfg(feature = "server")]
    check::<crate::InvalidNetwork>(["x".parse::<crate::Network>().unwrap_err()], 0);
    #[cfg(feature = "tls")]
    check::<crate::tls::InvalidPin>(["x".parse::<crate::tls::Pin>().unwrap_err()], 0);
    #[cfg(feature = "tls")]
    check::<crate::tls::InvalidClients>(["x".parse::<crate::tls::KnownClients>().unwrap_err()], 0);
}

fn handshake_errors() -> [crate::handshake::HandshakeError; 2] {
    use crate::handshake::HandshakeError;
    let expected = crate::GREETING;
    every! {
        HandshakeError::Mismatch { .. } = HandshakeError::Mismatch { expected, got: b"x".into() },
        HandshakeError::Closed { .. } = HandshakeError::Closed { expected, matched: 3 },
    }
}

#[test]
fn handshake_error() {
    check(handshake_errors(), 0);
}

#[test]
fn copy_error() {
    use crate::CopyError;
    check(
        every! {
            CopyError::Receive(_) = CopyError::Receive(cause()),
            CopyError::Write(_) = CopyError::Write(cause()),
            CopyError::Read(_) = CopyError::Read(cause()),
            CopyError::Idle(_) = CopyError::Idle(Duration::from_secs(1)),
        },
        3,
    );
}

#[test]
fn abort() {
    use crate::Abort;
    let [mismatch, _] = handshake_errors();
    let violation = mismatch.to_string();
    let errors = every! {
        Abort::Idle(_) = Abort::Idle(Duration::from_secs(1)),
        Abort::TooSlow { .. } = Abort::TooSlow { got: 1, min_rate: 2 },
        Abort::TooLong(_) = Abort::TooLong(Duration::from_secs(1)),
        Abort::TooLarge(_) = Abort::TooLarge(1),
        Abort::Reset(_) = Abort::Reset(cause()),
        Abort::Truncated = Abort::Truncated,
        Abort::Tls(_) = Abort::Tls(cause()),
        Abort::Handshake(_) = Abort::Handshake(mismatch),
        Abort::Sink { .. } = Abort::Sink { action: crate::session::SinkCall::Open, cause: cause() },
        Abort::System(_) = Abort::System(cause()),
        Abort::Rejected(_) = Abort::Rejected("it is too old".into()),
        Abort::Shutdown = Abort::Shutdown,
    };
    assert!(errors.iter().any(|error| error.to_string().ends_with(&violation)));
    check(errors, 4);
}

#[cfg(feature = "io")]
#[test]
fn open_error() {
    use crate::OpenError;
    check(
        every! {
            OpenError::Rejected(_) = OpenError::rejected("too many"),
            OpenError::Failed(_) = OpenError::Failed(cause()),
        },
        1,
    );
}

#[cfg(feature = "io")]
#[test]
fn dir_error() {
    let error = crate::DirSink::create("/dev/null/directory").unwrap_err();
    assert!(error.to_string().ends_with("not a directory"), "{error}");
    check::<crate::DirError>([error], 0);
}

#[cfg(feature = "server")]
#[test]
fn server_error() {
    use std::num::NonZeroUsize;

    use crate::ServerError;
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9));
    check(
        every! {
            ServerError::Address(_) = ServerError::Address(cause()),
            ServerError::Listen { .. } = ServerError::Listen { address, cause: cause() },
            ServerError::Timeout(_) = ServerError::Timeout(Duration::ZERO),
            ServerError::Workers(_) = ServerError::Workers(NonZeroUsize::MAX),
            ServerError::Start(_) = ServerError::Start(cause()),
            ServerError::Serve(_) = ServerError::Serve(cause()),
        },
        4,
    );
}

#[cfg(feature = "client")]
#[test]
fn client_error() {
    use crate::{ClientError, Dialect, Family, TlsFailure};
    let host = || "host".to_owned();
    let (address, after, sent) =
        (std::net::SocketAddr::from(([127, 0, 0, 1], 9)), Duration::from_secs(1), 5);
    let (peer, dialect, end_sent) = (address, Dialect::Accio, false);
    let [violation, _] = handshake_errors();
    let errors = every! {
        ClientError::Limit { .. } = ClientError::Limit { name: "timeout", value: after },
        ClientError::Resolve { .. } =
            ClientError::Resolve { host: host(), is_temporary: true, cause: cause() },
        ClientError::NoAddress { .. } =
            ClientError::NoAddress { host: host(), family: Family::Ipv6 },
        ClientError::ResolveTimeout { .. } = ClientError::ResolveTimeout { host: host(), after },
        ClientError::Source { .. } = ClientError::Source { address, cause: cause() },
        ClientError::Connect { .. } =
            ClientError::Connect { host: host(), port: 9, failures: vec![(address, cause())] },
        ClientError::ConnectTimeout { .. } =
            ClientError::ConnectTimeout { host: host(), port: 9, after },
        ClientError::TlsName { .. } = ClientError::TlsName { host: host() },
        ClientError::Tls { .. } = ClientError::Tls { peer, end_sent, cause: TlsFailure::Lost(cause()) },
        ClientError::Handshake { .. } = ClientError::Handshake { peer, dialect, cause: violation },
        ClientError::HandshakeTimeout { .. } =
            ClientError::HandshakeTimeout { peer, dialect, after },
        ClientError::HandshakeBroken { .. } =
            ClientError::HandshakeBroken { peer, dialect, cause: cause() },
        ClientError::Reset { .. } = ClientError::Reset { peer, sent },
        ClientError::ClosedEarly { .. } = ClientError::ClosedEarly { peer, sent },
        ClientError::Stalled { .. } = ClientError::Stalled { peer, sent, end_sent, after },
        ClientError::Send { .. } = ClientError::Send { peer, sent, end_sent, cause: cause() },
        ClientError::NotKept { .. } = ClientError::NotKept { peer },
        ClientError::Unconfirmed { .. } = ClientError::Unconfirmed { peer, after },
        ClientError::TransferTimeout { .. } =
            ClientError::TransferTimeout { peer: None, sent, end_sent, after },
        ClientError::Read { .. } = ClientError::Read { cause: cause() },
        ClientError::Shrank { .. } = ClientError::Shrank { expected: 2, found: 1 },
        ClientError::Local { .. } = ClientError::Local { what: "open a socket", cause: cause() },
    };
    check(errors, 8);
}

#[cfg(feature = "client")]
#[test]
fn tls_failure() {
    use crate::TlsFailure;
    check(
        every! {
            TlsFailure::Required = TlsFailure::Required,
            TlsFailure::Plain(_) = TlsFailure::Plain(b"x".into()),
            TlsFailure::Late(_) = TlsFailure::Late(Duration::from_secs(1)),
            TlsFailure::Closed = TlsFailure::Closed,
            TlsFailure::Lost(_) = TlsFailure::Lost(cause()),
            TlsFailure::Untrusted(_) = TlsFailure::Untrusted(cause()),
            TlsFailure::Refused(_) = TlsFailure::Refused(cause()),
            TlsFailure::Invalid(_) = TlsFailure::Invalid(cause()),
            TlsFailure::Truncated = TlsFailure::Truncated,
        },
        4,
    );
}

#[cfg(feature = "tls")]
#[test]
fn handshake_failure() {
    use crate::tls::{HandshakeFailure, OutOfDate};
    check(
        every! {
            HandshakeFailure::NotTls(_) = HandshakeFailure::NotTls(b"x".into()),
            HandshakeFailure::Silent(_) = HandshakeFailure::Silent(Duration::from_secs(1)),
            HandshakeFailure::Plain = HandshakeFailure::Plain,
            HandshakeFailure::Late(_) = HandshakeFailure::Late(Duration::from_secs(1)),
            HandshakeFailure::Closed = HandshakeFailure::Closed,
            HandshakeFailure::Lost(_) = HandshakeFailure::Lost(cause()),
            HandshakeFailure::TooLong(_) = HandshakeFailure::TooLong(1),
            HandshakeFailure::TooMany { .. } =
                HandshakeFailure::TooMany { identity: "ada".into(), max: 1 },
            HandshakeFailure::Tls(_) = HandshakeFailure::Tls(rustls::Error::General(CAUSE.into())),
        },
        2,
    );
    check(
        every! {
            OutOfDate::Expired(_) = OutOfDate::Expired(Duration::from_secs(1)),
            OutOfDate::NotYetValid(_) = OutOfDate::NotYetValid(Duration::from_secs(1)),
        },
        0,
    );
}
