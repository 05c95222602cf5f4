//! The limit on the size of files (RLIMIT_FSIZE).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use accio_proto::os_error_text;
use signal_hook::consts::SIGXFSZ;

use crate::Failure;

/// Makes exceeding the limit a write error, like a full disk, instead of a signal that ends the
/// process.
pub(crate) fn survive_file_size_limit() -> Result<(), Failure> {
    // A handler, not SIG_IGN, which child processes would inherit.
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))
        .map(drop)
        .map_err(|error| Failure::new("cannot watch for signals", os_error_text(&error)))
}
