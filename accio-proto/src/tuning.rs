//! Constants that callers cannot observe except as speed, each with its reason.

use std::time::Duration;

/// Delay before a session is checked again whose deadline has passed while input waits for a worker
/// (milliseconds: 100). The worker that receives the input checks the limits.
pub(crate) const INPUT_WAITS: Duration = Duration::from_millis(100);

/// Capacity of a pipe that carries bytes between a socket and a file (1 MiB): the largest an
/// unprivileged process may request, and twice as fast as the default of 64 KiB.
pub(crate) const PIPE_CAPACITY: usize = 1 << 20;

/// Maximum size of the buffer for content that is hashed from memory or decrypted (1 MiB): a write to ext4 costs
/// about 15 µs, whatever its size, as much as hashing 60 KiB with BLAKE3.
pub(crate) const LARGE_BUFFER: usize = 1 << 20;

/// Size from which content is read back from its file to hash it (1 MiB), which needs one more
/// descriptor and, with a sandbox, a request to another process: too much for a small upload.
pub(crate) const READ_BACK_MIN: u64 = 1 << 20;

/// Size of the pieces in which content is read back (256 KiB): it fits into the cache of a core, and the
/// calls cost nothing.
pub(crate) const READ_BACK_PIECE: usize = 256 << 10;

/// File size from which blocks are preallocated, which is also the first step (1 MiB): smaller
/// files are written faster without.
pub(crate) const PREALLOCATE_MIN: u64 = 1 << 20;

/// Largest step of preallocation (64 MiB): a crash can waste this much disk space per file.
pub(crate) const PREALLOCATE_MAX: u64 = 64 << 20;

/// Constants of the server.
#[cfg(feature = "server")]
pub(crate) mod server {
    use std::time::Duration;

    /// Number of connections that may wait to be accepted. The kernel caps it at
    /// `net.core.somaxconn`, 4096 by default; requesting all of them costs nothing.
    pub(crate) const BACKLOG: i32 = 4096;

    /// Number of connections accepted before another thread gets the listening socket. A burst is
    /// accepted in few steps, and its first clients are greeted before its last ones are accepted.
    pub(crate) const ACCEPT_BATCH: usize = 16;

    /// Pause of the listener after the system had no descriptor or memory for a new connection,
    /// unless a connection ends earlier (100 ms): short compared with a client's timeout, long
    /// compared with the cost of a failing call.
    pub(crate) const ACCEPT_RETRY: Duration = Duration::from_millis(100);

    /// Number of descriptors kept back from connections and pipes, at least and at most (64, 96).
    /// accio-server with all features has 27 open without a connection, then up to 32 clients of
    /// `--metrics`, 16 discarded files, and a few files and sockets that threads are about to close, or
    /// duplicate for a review; the rest is for further listening sockets.
    pub(crate) const RESERVED_DESCRIPTORS: (u64, u64) = (64, 96);

    /// Number of pipes that the connection limit leaves room for (64), for as many workers as may be
    /// blocked. If fewer connections than possible are allowed, there may be more.
    pub(crate) const RESERVED_PIPES: u64 = 64;

    /// These pipes get at most this fraction of all descriptors (one 16th): a thread without a pipe is up
    /// to half as fast, but a connection without a descriptor fails.
    pub(crate) const RESERVED_PIPES_SHARE: u64 = 16;

    /// The assumed descriptor limit if the kernel does not report it: the usual soft limit.
    pub(crate) const UNKNOWN_DESCRIPTOR_LIMIT: u64 = 1024;

    /// Number of idle threads kept for the next connections when each connection has its own thread
    /// (4): a small upload then does not wait for a thread to start.
    pub(crate) const IDLE_THREADS: usize = 4;
}

/// Constants of the client.
#[cfg(feature = "client")]
pub(crate) mod client {
    use std::time::Duration;

    /// Delay before a client tries the next address of a host while earlier attempts continue
    /// (250 ms).
    ///
    /// Source: RFC 8305, section 5, "Connection Attempt Delay".
    pub(crate) const CONNECT_STAGGER: Duration = Duration::from_millis(250);

    /// Time a probe waits for more bytes after a server has sent some (200 ms): the bytes of one
    /// write arrive together.
    pub(crate) const PROBE_PAUSE: Duration = Duration::from_millis(200);

    /// Number of bytes passed to one `sendfile` (1 MiB): small enough for frequent progress
    /// reports, large enough that the calls cost nothing.
    pub(crate) const SEND_CHUNK: usize = 1 << 20;

    /// Size of the buffer for a source that is read and then sent (256 KiB): few calls, and small
    /// compared with the rest of a client's memory.
    pub(crate) const SEND_BUFFER: usize = 256 << 10;

    /// Maximum number of unacknowledged bytes when the client ends the file (128 KiB). The kernel of
    /// the server may delay its acknowledgement of one segment, which has up to 64 KiB on loopback,
    /// so a much smaller number would cost 40 ms in each upload.
    pub(crate) const UNACKED_AT_END: u64 = 128 << 10;

    /// First pause between two queries of the acknowledged bytes at the end of a file (50 µs); it
    /// doubles each time. Long enough for the acknowledgements on loopback.
    pub(crate) const FIRST_LOOK: Duration = Duration::from_micros(50);

    /// Minimum time between two progress reports, and between two queries of the acknowledged bytes
    /// while the client waits (100 ms): looks smooth and costs no measurable CPU time.
    pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
}
