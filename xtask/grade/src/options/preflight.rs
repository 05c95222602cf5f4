//! Checks the command line before grading starts, which may take an hour.

use std::io;
use std::path::{self, PathBuf};

use super::Options;
use crate::check::Check;
use crate::settings::Submission;
use crate::{discovery, grade, report};

impl Options {
    /// Returns the first error in the command line.
    pub(super) fn command_line_error(
        &self,
        found: &[(Submission, Option<String>)],
        chosen: &[&'static Check],
    ) -> Option<String> {
        if let Some(dir) = self.workdir.as_ref().filter(|dir| !dir.is_dir()) {
            return Some(format!("--workdir {}: no such directory", dir.display()));
        }
        if let Some(file) = self.outputs.gradescope.as_ref().filter(|_| found.len() > 1) {
            return Some(format!(
                "--gradescope {}: needs one submission and one dialect: add --handshake",
                file.display()
            ));
        }
        let is_results_in = |dir: &PathBuf| {
            let results = path::absolute(&self.results).ok()?;
            Some(results.starts_with(path::absolute(dir).ok()?))
        };
        if self.submissions.as_ref().and_then(is_results_in) == Some(true) {
            return Some(format!(
                "--results {}: inside the directory of submissions, where the next run would grade \
                 it: choose another directory",
                self.results.display()
            ));
        }
        for (submission, _) in found {
            if let Some(why) = discovery::missing(&submission.programs) {
                return Some(format!("{}: {why}", submission.name));
            }
        }
        let nothing = |(one, problem): &(Submission, Option<String>)| {
            problem.is_none() && one.build.is_none() && grade::checks_for(one, chosen).is_empty()
        };
        found.iter().all(nothing).then(|| {
            let ids: Vec<&str> = chosen.iter().map(|check| check.id.as_str()).take(3).collect();
            format!("nothing to grade: there is no program for {}", ids.join(", "))
        })
    }

    /// Checks that all reports can be written.
    pub(super) fn try_report_files(&self) -> io::Result<()> {
        self.outputs.files().try_for_each(report::try_out)?;
        match self.submissions {
            Some(_) => report::try_out(&self.results.join("NAME.txt")),
            None => Ok(()),
        }
    }
}
