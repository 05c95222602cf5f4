//! The workload that a server is put through while its calls fail.

use std::net::SocketAddr;
use std::time::Duration;

use crate::folder_oracle::content;
use crate::load::{Ending, Fate, upload};
use accio_harness::peer::Dialect;

/// How long an upload of the workload waits for the next sign of the server.
pub(super) const PATIENCE: Duration = Duration::from_millis(1_500);
/// Uploads of the workload that a healthy server confirms.
pub(super) const UPLOADS: usize = 6;
/// Stands for the upload of nothing.
pub(super) const EMPTY: u64 = 0;
/// The results that the clients of the workload saw.
#[derive(Debug, Default)]
pub(super) struct UploadResults {
    pub(super) confirmed: Vec<u64>,
    pub(super) empty: usize,
    pub(super) fates: Vec<Fate>,
}

/// The length of each upload, by its tag; all differ, so that a count tells which it was.
pub(super) fn length(tag: u64) -> usize {
    match tag {
        1 => 500,
        2 => 3 << 20,
        3 => 40_000,
        4 => 200_000,
        7 => 1_500_000,
        _ => 60 + tag as usize,
    }
}

/// Connections one after the other: small, large, confirmed, reset, silent, empty, and some more.
pub(super) fn work(address: SocketAddr, patience: Duration) -> UploadResults {
    let mut told = UploadResults::default();
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
        // Once nothing is served any more, more of the same shows nothing.
        if silent >= 2 {
            break;
        }
        let fate = upload(address, dialect, &content(tag, length(tag)), ending, patience);
        if fate == Fate::Confirmed {
            told.confirmed.push(tag);
        }
        silent = if fate == Fate::Silent { silent + 1 } else { 0 };
        told.fates.push(fate);
    }
    if silent < 2 {
        let fate = upload(address, Dialect::Accio, b"", Ending::Fin, patience);
        told.empty += 1;
        if fate == Fate::Confirmed {
            told.confirmed.push(EMPTY);
        }
        told.fates.push(fate);
    }
    told
}
