//! The uploads to a server whose system calls fail.

use std::net::SocketAddr;
use std::time::Duration;

use crate::directory_oracle::content;
use crate::load::{Ending, UploadOutcome, upload};
use accio_harness::peer::Dialect;

/// How long an upload waits for each answer of the server.
pub(super) const PATIENCE: Duration = Duration::from_millis(1_500);
/// Number of uploads that a healthy server confirms.
pub(super) const UPLOADS: usize = 6;
/// The tag of the upload that makes the server start its threads.
pub(super) const WARM_UP: u64 = 19;
/// The tag of the empty upload.
pub(super) const EMPTY: u64 = 0;

/// The results of the uploads as the clients see them.
#[derive(Debug, Default)]
pub(super) struct UploadResults {
    pub(super) confirmed: Vec<u64>,
    pub(super) empty: usize,
    pub(super) outcomes: Vec<UploadOutcome>,
}

/// Returns the length of an upload. All lengths differ, so that a length identifies an upload.
pub(super) fn length(tag: u64) -> usize {
    match tag {
        1 => 500,
        2 => 3 << 20,
        3 => 40_000,
        4 => 200_000,
        7 => 1_500_000,
        // The worker does not commit a file of this size itself, so the committer starts.
        WARM_UP => 1_200_000,
        _ => 60 + tag as usize,
    }
}

/// Runs uploads one after the other: small, large, confirmed, reset, silent, empty, and more.
pub(super) fn work(address: SocketAddr, patience: Duration) -> UploadResults {
    let mut results = UploadResults::default();
    let steps = [
        (1, Dialect::Accio, Ending::Fin),
        (2, Dialect::Accio, Ending::Fin),
        (3, Dialect::Confirm, Ending::Fin),
        (4, Dialect::Accio, Ending::Reset),
        (5, Dialect::Accio, Ending::Silence),
        (6, Dialect::Accio, Ending::Fin),
        (7, Dialect::Accio, Ending::Fin),
    ];
    let mut silent = 0;
    for (tag, dialect, ending) in steps {
        // Once the server no longer answers, further uploads show nothing new.
        if silent >= 2 {
            break;
        }
        let outcome = upload(address, dialect, &content(tag, length(tag)), ending, patience);
        if outcome == UploadOutcome::Confirmed {
            results.confirmed.push(tag);
        }
        silent = if outcome == UploadOutcome::Silent { silent + 1 } else { 0 };
        results.outcomes.push(outcome);
    }
    if silent < 2 {
        let outcome = upload(address, Dialect::Accio, b"", Ending::Fin, patience);
        results.empty += 1;
        if outcome == UploadOutcome::Confirmed {
            results.confirmed.push(EMPTY);
        }
        results.outcomes.push(outcome);
    }
    results
}
