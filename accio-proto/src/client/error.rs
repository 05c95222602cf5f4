//! Errors of the client.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::error_text::{reasons, source_address};
use super::family::Family;
use super::tls_failure::TlsFailure;
use crate::dialect::Dialect;
use crate::handshake::HandshakeError;
use crate::limits;
use crate::os_error::reason;

/// Why an upload failed. Each message says what was being done and why it failed.
///
/// The connection was reset or never established, so a server that follows the protocol has not
/// stored the file. No protocol can exclude one case: if the network fails or a time limit is exceeded
/// between the end of the file and its confirmation, the server may have stored it. Then
/// [`may_be_stored`](ClientError::may_be_stored) returns true.
///
/// Another attempt may succeed if [`is_transient`](ClientError::is_transient) returns true. Limit the
/// number of attempts: a server that rejects every file of a client, for example beyond a quota, resets
/// the connection like one that has failed.
///
/// The cause is part of the message, so [`source`](std::error::Error::source) returns nothing.
///
/// | variant | occurs | may be stored | transient | local |
/// |---|---|---|---|---|
/// | [`Limit`](Self::Limit) | before the first step | no | no | yes |
/// | [`Resolve`](Self::Resolve) | while the host name is resolved | no | if `is_temporary` | no |
/// | [`NoAddress`](Self::NoAddress) | after the host name resolved | no | no | no |
/// | [`ResolveTimeout`](Self::ResolveTimeout) | while the host name is resolved | no | yes | no |
/// | [`Source`](Self::Source) | before connecting | no | no | yes |
/// | [`Connect`](Self::Connect) | while connecting | no | unless local for another reason than a shortage | if this machine refused every attempt: a shortage, a firewall, an address without its scope |
/// | [`ConnectTimeout`](Self::ConnectTimeout) | while connecting | no | yes | no |
/// | [`TlsName`](Self::TlsName) | before the TLS handshake | no | no | yes |
/// | [`Tls`](Self::Tls) | at any time | if `end_sent`, unless the server refused the client or requires TLS | like [its cause](TlsFailure::is_transient) | no |
/// | [`Handshake`](Self::Handshake) | during the handshake | no | if the server closed the connection | no |
/// | [`HandshakeTimeout`](Self::HandshakeTimeout) | during the handshake | no | yes | no |
/// | [`HandshakeBroken`](Self::HandshakeBroken) | during the handshake | no | yes | no |
/// | [`Reset`](Self::Reset) | while connecting, or during the transfer or the confirmation | no | yes | no |
/// | [`ClosedEarly`](Self::ClosedEarly) | during the transfer or the confirmation | no | yes | no |
/// | [`Stalled`](Self::Stalled) | during the transfer or the confirmation | if `end_sent` | yes | no |
/// | [`Send`](Self::Send) | during the transfer or the confirmation | if `end_sent` | yes | no |
/// | [`NotKept`](Self::NotKept) | during the confirmation | no | yes | no |
/// | [`Unconfirmed`](Self::Unconfirmed) | during the confirmation | yes | yes | no |
/// | [`TransferTimeout`](Self::TransferTimeout) | at any time | if `end_sent` | yes | no |
/// | [`Read`](Self::Read) | during the transfer | no | if a shortage | yes |
/// | [`Shrank`](Self::Shrank) | during the transfer | no | no | yes |
/// | [`Local`](Self::Local) | at any time | no | if a shortage | yes |
///
/// The last three columns are the results of [`may_be_stored`](Self::may_be_stored),
/// [`is_transient`](Self::is_transient) and [`is_local`](Self::is_local). A shortage is a lack of
/// descriptors, memory, ports or threads on this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// A time limit of the builder is zero or above [`limits::MAX_TIMEOUT`]. Nothing was sent; correct
    /// the value.
    #[error("{name} {value:?}: must be above 0 and at most {} seconds", limits::MAX_TIMEOUT.as_secs())]
    Limit {
        /// The builder's method.
        name: &'static str,
        /// The value it was given.
        value: Duration,
    },

    /// The host name did not resolve. Check its spelling; if `is_temporary` is true, try again later.
    #[error("resolve {host:?}: {}", reason(.cause))]
    Resolve {
        /// The host name.
        host: String,
        /// Whether the resolver may know the name later.
        is_temporary: bool,
        /// The error of the resolver.
        cause: io::Error,
    },
    /// The host has no address of the requested family, or of that of the source address. Allow both
    /// with [`family`](super::ClientBuilder::family), or use another host name.
    #[error("resolve {host:?}: it has no {family} address")]
    NoAddress {
        /// The host name.
        host: String,
        /// The family of the addresses that may be used.
        family: Family,
    },
    /// The host name did not resolve within the
    /// [connect timeout](super::ClientBuilder::connect_timeout): the resolver is slow or unreachable.
    /// Try again later, or use an address.
    #[error("resolve {host:?}: no answer within {after:?}")]
    ResolveTimeout {
        /// The host name.
        host: String,
        /// The time limit.
        after: Duration,
    },
    /// The [source address](super::ClientBuilder::source_address) cannot be used: it is not an address
    /// of this machine, or its port is in use. Correct it, or let the system choose.
    #[error("source address {}: {}", source_address(.address), reason(.cause))]
    Source {
        /// The address, and the port or 0.
        address: SocketAddr,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// No address of the host accepted the connection: no server listens on the port, the network has
    /// no route, or a firewall refuses. Check host and port, and try again once the server runs.
    #[error("connect to {} port {port}: {}", .host.escape_debug(), reasons(.failures))]
    Connect {
        /// The host as given.
        host: String,
        /// The port.
        port: u16,
        /// The addresses in the order they were tried, each with its error.
        failures: Vec<(SocketAddr, io::Error)>,
    },
    /// No address of the host answered within the
    /// [connect timeout](super::ClientBuilder::connect_timeout): the host is down, or a firewall drops
    /// what is sent to it. Try again later.
    #[error("connect to {} port {port}: no answer within {after:?}", .host.escape_debug())]
    ConnectTimeout {
        /// The host as given.
        host: String,
        /// The port.
        port: u16,
        /// The time limit.
        after: Duration,
    },

    /// The host cannot be named by a certificate, so TLS could not verify the server. Use its host name
    /// or its address.
    #[error("TLS with {host:?}: neither a host name nor an address that a certificate can have")]
    TlsName {
        /// The host as given.
        host: String,
    },
    /// TLS failed: in its handshake, or later by a connection that was cut or changed. The variants of
    /// [`TlsFailure`] say what to do.
    #[error("TLS with {peer}: {cause}")]
    Tls {
        /// The server.
        peer: SocketAddr,
        /// Whether the whole file and its end were sent before.
        end_sent: bool,
        /// The reason.
        cause: TlsFailure,
    },

    /// The server sent something other than the greeting of the dialect, or closed the connection
    /// instead of sending it. It is not an Accio server, or uses another dialect or TLS;
    /// [`Client::probe`](super::Client::probe) shows what it sends.
    #[error("{dialect} handshake with {peer}: {cause}")]
    Handshake {
        /// The address of the server.
        peer: SocketAddr,
        /// The dialect of the client.
        dialect: Dialect,
        /// The difference.
        cause: HandshakeError,
    },
    /// The handshake was not complete within the
    /// [handshake timeout](super::ClientBuilder::handshake_timeout). The server has as many connections
    /// as it serves, so try again later; or it waits for TLS or uses the dialect `direct`.
    #[error("{dialect} handshake with {peer}: not complete within {after:?}")]
    HandshakeTimeout {
        /// The address of the server.
        peer: SocketAddr,
        /// The dialect of the client.
        dialect: Dialect,
        /// The time limit.
        after: Duration,
    },
    /// The connection failed during the handshake. If the server reset it, its rules may refuse this
    /// address, or limit the connections of an address; otherwise try again later.
    #[error("{dialect} handshake with {peer}: {}", reason(.cause))]
    HandshakeBroken {
        /// The address of the server.
        peer: SocketAddr,
        /// The dialect of the client.
        dialect: Dialect,
        /// The error of the operating system.
        cause: io::Error,
    },

    /// The server reset the connection during the transfer: it refused the file, could not store it, or
    /// was stopped. The reason is in its log or journal. A retry may succeed.
    #[error("send to {peer}: the server reset the connection after at most {sent} bytes")]
    Reset {
        /// The address of the server.
        peer: SocketAddr,
        /// Number of bytes of the file passed to the kernel before.
        sent: u64,
    },
    /// The server closed its side of the connection before the end of the file. An Accio server resets it
    /// instead, so this is another kind of server, or a proxy in between.
    #[error(
        "send to {peer}: the server closed the connection before the end of the file, after at most {sent} bytes"
    )]
    ClosedEarly {
        /// The address of the server.
        peer: SocketAddr,
        /// Number of bytes of the file passed to the kernel before.
        sent: u64,
    },
    /// No byte could be sent, and none was acknowledged, for the
    /// [stall timeout](super::ClientBuilder::stall_timeout): the network is broken, or the server does
    /// not receive. Try again later, or with a longer limit.
    #[error("send to {peer}: no progress for {after:?} after at most {sent} bytes")]
    Stalled {
        /// The address of the server.
        peer: SocketAddr,
        /// Number of bytes of the file passed to the kernel before.
        sent: u64,
        /// Whether the whole file and its end are among them.
        end_sent: bool,
        /// The time limit.
        after: Duration,
    },
    /// The connection failed in another way during the transfer, for example because the network did.
    /// A retry may succeed.
    #[error("send to {peer}: {} after at most {sent} bytes", reason(.cause))]
    Send {
        /// The address of the server.
        peer: SocketAddr,
        /// Number of bytes of the file passed to the kernel before.
        sent: u64,
        /// Whether the whole file and its end are among them.
        end_sent: bool,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The server reset the connection after the end of the file instead of confirming it: it could not
    /// store the file, rejected it, or was stopped. The reason is in its log or journal. A retry may
    /// succeed.
    #[error("confirmation from {peer}: the server reset the connection: it has not kept the file")]
    NotKept {
        /// The address of the server.
        peer: SocketAddr,
    },
    /// The server did not confirm the file within the
    /// [confirm timeout](super::ClientBuilder::confirm_timeout), and it is unknown whether all bytes
    /// arrived: this system does not report how many were acknowledged. A retry may store the file
    /// twice, so check first if that matters.
    #[error(
        "confirmation from {peer}: none within {after:?}, and whether all bytes arrived is unknown"
    )]
    Unconfirmed {
        /// The address of the server.
        peer: SocketAddr,
        /// The time limit.
        after: Duration,
    },

    /// The upload was not complete within the
    /// [transfer timeout](super::ClientBuilder::transfer_timeout). Allow more time.
    #[error("not complete within {after:?}, after at most {sent} bytes")]
    TransferTimeout {
        /// The address of the server, if the connection was established.
        peer: Option<SocketAddr>,
        /// Number of bytes of the file passed to the kernel before.
        sent: u64,
        /// Whether the whole file and its end are among them.
        end_sent: bool,
        /// The time limit.
        after: Duration,
    },

    /// The source could not be read, or [its outcome](super::Source::with_outcome) was an error. A retry
    /// needs a new source.
    #[error("read the source: {}", reason(.cause))]
    Read {
        /// The error of the operating system or of the reader.
        cause: io::Error,
    },
    /// The file became shorter during the transfer. Send it when no other program changes it, or send a
    /// copy.
    #[error("read the source: it shrank from {expected} to {found} bytes while it was being sent")]
    Shrank {
        /// Number of bytes to send, from the size at the start.
        expected: u64,
        /// Number of bytes that were read.
        found: u64,
    },
    /// A system call of the client failed, for example because no descriptor is free: raise the limit of
    /// the process, or send fewer files at once. On a runtime, also if that ends.
    #[error("{what}: {}", reason(.cause))]
    Local {
        /// The operation that failed.
        what: &'static str,
        /// The error of the operating system.
        cause: io::Error,
    },
}
