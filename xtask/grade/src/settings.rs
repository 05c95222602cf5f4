//! Settings of a run of the kit.

use std::path::PathBuf;
use std::sync::Arc;

use super::trial::Network;
use accio_harness::peer::Dialect;
use accio_harness::resource_limits::Limits;
use accio_harness::sandbox::{Files, Support};
use accio_harness::subject::Subject;

/// The programs to grade.
#[derive(Debug, Clone)]
pub(crate) struct Submission {
    /// Its name in reports.
    pub(crate) name: String,
    pub(crate) programs: Subject,
    /// The dialect to check.
    pub(crate) dialect: Dialect,
    /// Its directory, unless its programs were given one by one.
    pub(crate) directory: Option<PathBuf>,
    /// The command-line options that select it.
    pub(crate) options: String,
    /// The program that builds it before it is graded.
    pub(crate) build: Option<BuildTool>,
    /// The files that its programs need, which other submissions may not see.
    pub(crate) files: Vec<PathBuf>,
}

/// The program that builds a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuildTool {
    /// For a `CMakeLists.txt`.
    Cmake,
    /// For a `Makefile`.
    Make,
}

impl BuildTool {
    /// Returns the name of its command.
    pub(crate) fn name(self) -> &'static str {
        match self {
            BuildTool::Cmake => "cmake",
            BuildTool::Make => "make",
        }
    }
}

/// The settings for grading a submission.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The seed of contents and of the network emulator.
    pub(crate) seed: u64,
    /// How delay and loss are emulated.
    pub(crate) network: Network,
    /// Resource limits for the processes of a check.
    pub(crate) limits: Limits,
    /// The working directory of the programs; `None` for a new directory each.
    pub(crate) workdir: Option<PathBuf>,
    /// The directory for the checks' files.
    pub(crate) dir: PathBuf,
    /// Whether server-s may print lines at its start.
    pub(crate) may_announce: bool,
    /// Whether to run a failed check again by itself.
    pub(crate) retry: bool,
    /// Whether to keep the files of a failed check.
    pub(crate) keep: bool,
    /// Further command-line options that are needed to repeat a check.
    pub(crate) repeat: String,
    /// How programs can be confined on this machine.
    pub(crate) support: Arc<Support>,
    /// Whether the checks of the repository have points.
    pub(crate) repository_points: bool,
    /// Directories that no program may see.
    pub(crate) hidden: Vec<PathBuf>,
}

impl Settings {
    /// Returns the files for the programs of these submissions.
    pub(crate) fn files<'a>(&self, submissions: impl IntoIterator<Item = &'a Submission>) -> Files {
        let readable = submissions.into_iter().flat_map(|one| one.files.iter().cloned());
        Files {
            readable: readable.collect(),
            writable: self.workdir.iter().cloned().collect(),
            hidden: self.hidden.clone(),
        }
    }
}
