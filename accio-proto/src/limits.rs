//! Time limits and sizes that peers and callers can observe, each with its reason.

use std::time::Duration;

/// Default time a server waits for the next byte of a connection (10 s).
///
/// Source: the course documents require an error when "no data" arrives for more than ten seconds.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time over which a minimum rate is measured (10 s). A shorter window would punish a lost packet,
/// whose retransmission may take several seconds.
pub const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Default time a client has to resolve a name and to connect, for all addresses together (10 s).
///
/// Source: the course documents give a client ten seconds to react when no server answers.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Default time a client has for the whole handshake, not for each byte of it (10 s): a server that
/// sends one byte a second could otherwise hold a client for minutes.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Default time after which a client gives up when it cannot send a single byte (10 s).
///
/// Source: the course documents, for a send buffer that stays full.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Default time a client waits for the server's confirmation after its last byte (10 s).
///
/// Other servers may never close the connection; an Accio server closes it as soon as the file is
/// stored.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum value of every time limit (365 days). Far larger values would overflow the arithmetic of
/// the clock.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Maximum number of bytes a probe reads (256 bytes): a greeting has 7, and the banner of another
/// protocol is usually one line.
pub const PROBE_BYTES: usize = 256;

/// Maximum length of a PROXY protocol header, version 2 (4 KiB): addresses take 52 bytes, and the
/// fields that proxies add take a few hundred, or a few thousand with a client's certificate.
pub const PROXY_HEADER_MAX: usize = 4096;

/// Maximum length of a PROXY protocol header, version 1 (107 bytes).
///
/// Source: the PROXY protocol specification, section 2.1.
pub const PROXY_LINE_MAX: usize = 107;

/// Maximum number of concurrent connections, whatever the descriptor limit allows (1,048,576).
pub const MAX_CONNECTIONS: usize = 1 << 20;

/// Default maximum number of concurrent connections when each connection has its own thread (1024):
/// far below the thread limit of a system or a container, and about 100 MiB of memory when all
/// threads are in use.
pub const MAX_THREADS: usize = 1024;

/// Connection limit from which a single address gets at most three quarters of the connections,
/// unless the limit per address is set (64). Without such a share, one client that sends a byte every
/// nine seconds on each connection would hold all of them, and a minimum rate cannot be a default,
/// because the protocol permits such pauses. Smaller limits are set to let clients wait for each
/// other, often on one machine, and its clients should wait rather than be refused.
pub const SHARED_CONNECTIONS: usize = 64;

/// Size of the buffer for the first bytes of a connection (64 KiB): the handshake needs a buffer
/// anyway, and a small file needs nothing else.
pub const FIRST_READ: usize = 64 << 10;

/// Maximum number of worker threads that can be configured (1024): more than any machine has cores,
/// and few enough for the thread limit of every system.
pub const MAX_WORKERS: usize = 1024;

/// Number of bytes after which a session yields to others (1 MiB, the capacity of a pipe). With 100
/// concurrent uploads the last one finishes 1.3 times as late as the first; with a turn of 4 MiB it
/// was 2.0 times, at the same throughput (`cargo xtask bench --only at-once-100`).
pub const TURN: usize = 1 << 20;
