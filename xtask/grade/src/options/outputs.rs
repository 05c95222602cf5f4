//! The options of the reports.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::checks;
use crate::outcome::Report;
use crate::report::{self, classroom, csv, gradescope, html, json, junit};
use crate::roster::Roster;

/// The reports to write.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Reports")]
pub(crate) struct Outputs {
    /// Print the results as JSON instead of a table
    #[arg(long)]
    pub(super) json: bool,
    /// Write the points as CSV
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Columns of the CSV file
    #[arg(long, value_name = "FOR", value_enum, default_value_t, requires = "csv")]
    columns: csv::Columns,
    /// CSV file with the columns submission and student_id
    #[arg(long, value_name = "FILE", requires = "csv")]
    roster: Option<PathBuf>,
    /// Name of the column of points for Moodle or Canvas
    #[arg(long, value_name = "NAME", default_value = "Accio", requires = "csv")]
    assignment: String,
    /// Write an HTML page with all submissions and checks
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the results as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the result.json of Classroom 50
    #[arg(long, value_name = "FILE", conflicts_with = "submissions")]
    classroom50: Option<PathBuf>,
    /// Write Gradescope's results.json and update it after each check
    #[arg(long, value_name = "FILE")]
    pub(super) gradescope: Option<PathBuf>,
    /// Hide checks with this text on Gradescope (repeatable)
    #[arg(long, value_name = "CHECKS", requires = "gradescope")]
    hidden: Vec<String>,
    /// Show checks with this text after the due date (repeatable)
    #[arg(long, value_name = "CHECKS", requires = "gradescope")]
    after_due: Vec<String>,
    /// Run every client with every server; write the results as Markdown
    ///
    /// The reference implementation is included.
    #[arg(long, value_name = "FILE")]
    pub(super) matrix: Option<PathBuf>,
}

impl Outputs {
    /// Returns the files to write.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let files =
            [&self.csv, &self.html, &self.junit, &self.classroom50, &self.gradescope, &self.matrix];
        files.into_iter().flatten().map(PathBuf::as_path)
    }

    /// Returns the files to read.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &Path> {
        self.roster.iter().map(PathBuf::as_path)
    }

    /// Reads the roster, which is empty without the option.
    pub(super) fn read_roster(&self) -> anyhow::Result<Roster> {
        self.roster.as_deref().map_or_else(|| Ok(Roster::default()), Roster::read)
    }

    /// Returns who may see which checks on Gradescope.
    pub(super) fn visibility(&self) -> anyhow::Result<gradescope::Visibility> {
        let select = |texts: &[String]| -> anyhow::Result<Vec<String>> {
            let mut ids = Vec::new();
            for text in texts {
                let before = ids.len();
                let selected = checks::all().filter(|check| checks::is_selected(check, text));
                ids.extend(selected.map(|check| check.id.clone()));
                anyhow::ensure!(ids.len() > before, "no check matches {text:?}: see --list");
            }
            Ok(ids)
        };
        Ok(gradescope::Visibility {
            hidden: select(&self.hidden)?,
            after_due: select(&self.after_due)?,
        })
    }

    /// Writes all reports but Gradescope's.
    pub(super) fn write(
        &self,
        reports: &[Report],
        roster: &Roster,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        if self.json {
            writeln!(out, "{}", json::text(reports)?)?;
        }
        if let Some(path) = &self.csv {
            report::write(path, csv::text(reports, roster, self.columns, &self.assignment)?)?;
        }
        if let Some(path) = &self.junit {
            report::write(path, junit::text(reports)?)?;
        }
        if let Some(path) = &self.html {
            report::write(path, html::text(reports))?;
        }
        if let (Some(path), [report]) = (&self.classroom50, reports) {
            report::write(path, classroom::text(report)?)?;
        }
        Ok(())
    }
}
