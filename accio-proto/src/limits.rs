//! Every time limit, size and cap, each with its reason.

use std::time::Duration;

/// How long a server waits for a byte before it gives a connection up (seconds: 10).
///
/// Source: the course documents ask for an error when "no data" comes for over ten seconds.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Over how long a minimum rate is measured (seconds: 10). Shorter would punish a lost packet, whose
/// retransmission may take some seconds.
pub const RATE_WINDOW: Duration = Duration::from_secs(10);

/// How long a client takes to resolve a name and connect, over all addresses together (seconds: 10).
///
/// Source: the course documents limit the reaction to a server that is not there to ten seconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client waits for one of a host's addresses before it tries the next beside it
/// (milliseconds: 250).
///
/// Source: RFC 8305, section 5, "Connection Attempt Delay".
pub const CONNECT_STAGGER: Duration = Duration::from_millis(250);

/// How long a probe listens for more once a server has said something (milliseconds: 200): what one
/// says in one go comes in one go.
pub const PROBE_PAUSE: Duration = Duration::from_millis(200);

/// Bytes a probe listens to at the most (256): a greeting is 7, a banner of another protocol a line.
pub const PROBE_BYTES: usize = 256;

/// How long a client waits for the whole handshake, not for each byte of it (seconds: 10).
///
/// Source: as [`CONNECT_TIMEOUT`]; in total, so that a byte a second holds nobody for a minute.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client goes on when not one byte can be sent (seconds: 10).
///
/// Source: the course documents, for a send buffer that stays full.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client waits, after its last byte, for the server to confirm (seconds: 10).
///
/// Foreign servers may never close; ours closes as soon as the file is kept.
pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest time limit that can be set (seconds: one year). Beyond it the clock's arithmetic
/// could overflow, and nobody waits.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Connections that may wait to be accepted. The kernel caps it at `net.core.somaxconn`, 4096 by
/// default; asking for all of that costs nothing until they come.
pub const BACKLOG: i32 = 4096;

/// Connections accepted in one go before the listener is handed to the next worker. A burst is
/// numbered in few steps, yet its first clients need not wait for its last.
pub const ACCEPT_BATCH: usize = 16;

/// The longest header of the PROXY protocol, version 2 (4 KiB): addresses take 52 bytes, and what
/// proxies add is some hundred, or a few thousand with a client's certificate.
pub const PROXY_HEADER_MAX: usize = 4096;

/// The longest header of the PROXY protocol, version 1 (107). Source: its specification, section 2.1.
pub const PROXY_LINE_MAX: usize = 107;

/// Bytes received into memory at first (64 KiB): the handshake needs them anyway, and a small file
/// never needs more.
pub const FIRST_READ: usize = 64 << 10;

/// Bytes a connection may move before its worker looks at the others (1 MiB, a pipe's worth): of a
/// hundred files at once the last is done 1.3 times as late as the first; with four times as much it
/// was 2.0 times, at the same throughput (`cargo xtask bench --only at-once-100`).
pub const TURN: usize = 1 << 20;

/// Capacity of each worker's pipe (1 MiB): the largest an unprivileged process may ask for, and
/// twice as fast as the default of 64 KiB.
pub const PIPE_CAPACITY: usize = 1 << 20;

/// The first step of preallocation (1 MiB): smaller files are better off without.
pub const PREALLOCATE_MIN: u64 = 1 << 20;

/// The largest step of preallocation (64 MiB): what a crash or a full disk can waste per file.
pub const PREALLOCATE_MAX: u64 = 64 << 20;

/// How long the listener rests after the system had no descriptor or memory for a new connection
/// (milliseconds: 100), unless a connection ends earlier. Short against a client's patience, long
/// against the cost of a failing call.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Descriptors kept out of the connection limit: the standard streams, the listener, the epoll
/// instance, its two helpers and a few per worker, with room for what the program around needs.
pub const RESERVED_DESCRIPTORS: u64 = 64;

/// The most connections in service at once, whatever the descriptor limit allows. The slots of a
/// larger table are never used on one machine's ports.
pub const MAX_CONNECTIONS: usize = 1 << 20;

/// The most connections in service at once where each has a thread of its own, unless told otherwise
/// (1024): far below what a system or a container has threads for, and some 100 MiB of memory if all
/// are used.
pub const MAX_THREADS: usize = 1024;

/// Threads that are kept for the next connections when they have nothing to do (4), where each
/// connection has its own: a small upload then need not wait for one to start.
pub const IDLE_THREADS: usize = 4;

/// Bytes handed to one `sendfile` (1 MiB): often enough for a lively progress report, large enough
/// that the calls cost nothing.
pub const SEND_CHUNK: usize = 1 << 20;

/// Bytes read at once from a source that is sent portably (256 KiB): few calls, and small against
/// a client's other memory.
pub const SEND_BUFFER: usize = 256 << 10;

/// How often a client reports its progress at the most, and asks while it waits how much the peer
/// has acknowledged (milliseconds: 100). Smooth to the eye, free in CPU time.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
