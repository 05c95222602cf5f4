//! The parts of a server program that the library does not provide: flags, signals and, with the
//! feature `operations`, the journal, draining and systemd.

mod flags;
#[cfg(feature = "operations")]
mod journal;
#[cfg(feature = "metrics")]
mod metrics;
mod program;
mod run;
mod shutdown;
mod spawn;
#[cfg(feature = "operations")]
mod sys;
#[cfg(all(linux_sys, feature = "operations"))]
mod systemd;
#[cfg(feature = "tls-server")]
mod tls;

#[cfg(feature = "operations")]
pub use flags::OperationFlags;
pub use flags::ServerFlags;
#[cfg(feature = "operations")]
pub use journal::{ListedFile, ListedFiles};
#[cfg(all(linux_sys, feature = "operations"))]
pub use journal::{is_helper, open_journals, outlive_signals};
#[cfg(feature = "metrics")]
pub use metrics::{StatusPage, explain};
pub use program::Program;
