//! The temporary directory of a run.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::verdict::{Stop, Verdict};
use super::{interruption, os_error_text};

/// A new directory that is removed on drop and when the run is interrupted.
#[derive(Debug)]
pub struct WorkDir {
    dir: Option<TempDir>,
    path: PathBuf,
}

impl WorkDir {
    /// Creates one in the system's directory for temporary files.
    pub fn new(tool: &str, undo: fn()) -> Verdict<WorkDir> {
        WorkDir::within(&std::env::temp_dir(), tool, undo)
            .map_err(|stop| Stop::Trouble(format!("{stop}: set TMPDIR to another directory")))
    }

    /// Creates one in `parent`, which is created if it is missing. If the run is interrupted,
    /// `undo` is called before the directory is removed.
    pub fn within(parent: &Path, tool: &str, undo: fn()) -> Verdict<WorkDir> {
        let failed =
            |error| Stop::Trouble(format!("{}: {}", parent.display(), os_error_text(&error)));
        std::fs::create_dir_all(parent).map_err(failed)?;
        let dir = tempfile::Builder::new()
            .prefix(&format!("accio-{tool}-"))
            .tempdir_in(parent)
            .map_err(failed)?;
        let path = dir.path().to_owned();
        interruption::remove_when_interrupted(undo, path.clone())?;
        Ok(WorkDir { dir: Some(dir), path })
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the directory.
    pub fn keep(&mut self) {
        if let Some(dir) = self.dir.take() {
            let _ = dir.keep();
        }
    }
}
