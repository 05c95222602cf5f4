//! The run of a grading: the programs, the reports and the exit code.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;

use accio_harness::TROUBLE;
use anyhow::anyhow;

use super::{COURSES, Options, RunSettings, USAGE, selection};
use crate::build;
use crate::check::Check;
use crate::grade;
use crate::interop;
use crate::outcome::Report;
use crate::report::saved::Reuse;
use crate::report::{self, gradescope, table};
use crate::settings::Submission;
use crate::submissions;

/// Default number of concurrent submissions per core.
const AT_ONCE: usize = 4;

impl Options {
    /// Grades the programs, writes the reports and returns the exit code.
    pub(super) fn grade(
        &self,
        chosen: &[&'static Check],
        run: &RunSettings<'_>,
        out: &mut impl Write,
    ) -> anyhow::Result<ExitCode> {
        let found = match &self.submissions {
            Some(dir) => submissions::find(dir, self.handshake.unwrap_or(COURSES), !self.no_build),
            None => self.selected(run).map(|all| all.into_iter().map(|one| (one, None)).collect()),
        };
        if let (Err(why), Some(file), Some(_)) = (&found, &self.outputs.gradescope, self.subject())
        {
            // The student must see the reason instead of a failed autograder.
            gradescope::write_nothing(file, &why.to_string())?;
        }
        let inputs = self.outputs.read_roster().and_then(|roster| {
            let visibility = self.outputs.visibility()?;
            Ok((roster, visibility))
        });
        let found = found.and_then(|found: Vec<_>| match self.command_line_error(&found, chosen) {
            Some(why) => Err(anyhow!(why)),
            None => Ok(found),
        });
        let (mut found, (roster, visibility)) = match found.and_then(|found| Ok((found, inputs?))) {
            Ok(all) => all,
            Err(why) => {
                // It may contain a name that a student chose.
                let why = format!("{why:#}");
                writeln!(io::stderr().lock(), "ERROR: {}", accio_cli::escape(&why))?;
                return Ok(ExitCode::from(USAGE));
            }
        };
        self.try_report_files()?;
        build::all(&mut found, &self.settings(run, run.dir.to_owned()));
        if let (None, [(_, Some(why))]) = (&self.submissions, &found[..]) {
            if let Some(file) = &self.outputs.gradescope {
                gradescope::write_nothing(file, why)?;
            }
            writeln!(io::stderr().lock(), "ERROR: {why}")?;
            return Ok(ExitCode::from(USAGE));
        }
        let reports = match self.submissions {
            Some(_) => self.grade_class(&found, chosen, run, out)?,
            None => self.grade_each(&found, chosen, run, &visibility, out)?,
        };
        self.outputs.write(&reports, &roster, out)?;
        if let Some(path) = &self.outputs.matrix {
            let all: Vec<Submission> = found.into_iter().map(|(one, _)| one).collect();
            let settings = self.settings(run, run.dir.join("interop"));
            report::write(path, interop::run(&all, &settings)?)?;
        }
        Ok(exit_code(&reports))
    }

    fn grade_class(
        &self,
        found: &[(Submission, Option<String>)],
        chosen: &[&'static Check],
        run: &RunSettings<'_>,
        out: &mut impl Write,
    ) -> anyhow::Result<Vec<Report>> {
        let cores = thread::available_parallelism().map_or(2, usize::from);
        let at_once = self.at_once.map_or(AT_ONCE * cores, usize::from);
        let settings = self.settings(run, run.dir.to_owned());
        let reuse = match (self.resume, self.changed) {
            (true, _) => Reuse::Complete,
            (_, true) => Reuse::Unchanged,
            _ => Reuse::Nothing,
        };
        let results = (self.results.as_path(), reuse);
        let reports = submissions::grade(found, chosen, &settings, at_once, results)?;
        if !self.outputs.json {
            submissions::summary(out, &reports)?;
            writeln!(out, "\nreports of each submission: {}", self.results.display())?;
        }
        Ok(reports)
    }

    fn grade_each(
        &self,
        found: &[(Submission, Option<String>)],
        chosen: &[&'static Check],
        run: &RunSettings<'_>,
        visibility: &gradescope::Visibility,
        out: &mut impl Write,
    ) -> anyhow::Result<Vec<Report>> {
        let mut reports = Vec::new();
        for (submission, _) in found {
            let report = self.grade_one(submission, chosen, run, visibility, out)?;
            if !self.outputs.json {
                if self.directory.is_some() {
                    table::summary(out, &report)?;
                    report.rows.iter().try_for_each(|row| table::line(out, row))?;
                }
                table::failures(out, &report)?;
                table::scores(out, &report)?;
                out.flush()?;
            }
            reports.push(report);
        }
        Ok(reports)
    }

    fn grade_one(
        &self,
        submission: &Submission,
        chosen: &[&'static Check],
        run: &RunSettings<'_>,
        visibility: &gradescope::Visibility,
        out: &mut impl Write,
    ) -> anyhow::Result<Report> {
        let settings = self.settings(run, run.dir.join(submission.dialect.name()));
        let checks = grade::checks_for(submission, chosen);
        let subject_option = self.subject().map(|dir| selection::subject_option(dir));
        let mut results = self.outputs.gradescope.as_ref().map(|path| {
            gradescope::Results::new(path, &checks, subject_option.as_deref(), visibility.clone())
        });
        // The summary comes before the lines of the checks.
        let waits = self.directory.is_some() && !self.outputs.json;
        let bar = match waits {
            true => submissions::progress_bar(checks.len())?,
            false => indicatif::ProgressBar::hidden(),
        };
        let mut failed = Ok(());
        let report = grade::grade(submission, chosen, &settings, |row, is_final| {
            bar.inc(u64::from(is_final));
            let written = results.as_mut().map_or(Ok(()), |results| results.add(row));
            let written = written.and_then(|()| match is_final && !waits && !self.outputs.json {
                true => table::line(out, row).and_then(|()| out.flush()),
                false => Ok(()),
            });
            if failed.is_ok() {
                failed = written;
            }
        })?;
        bar.finish_and_clear();
        failed?;
        results.map_or(Ok(()), |mut results| results.finish(&report))?;
        Ok(report)
    }
}

/// Returns 0 if all passed, 1 if some failed, and 3 if the kit itself failed.
fn exit_code(reports: &[Report]) -> ExitCode {
    if reports.iter().any(Report::is_troubled) {
        ExitCode::from(TROUBLE)
    } else if reports.iter().any(Report::has_failed) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
