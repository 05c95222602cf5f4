//! `--verify`: compares the files of a directory with a journal.

mod check;
mod report;

use std::fs::File;
use std::io::{self, BufReader};
use std::path::Path;
use std::process::ExitCode;

use accio_cli::{Failure, ListedFiles, USAGE, check_stdin};
use accio_proto::os_error_text;

use check::check;
use report::Report;

/// Exit code if the directory differs from the journal.
const DIFFERENT: u8 = 1;

/// Compares the directory with the journal and prints what differs.
///
/// # Errors
///
/// The journal or the directory cannot be read, or stdout cannot be written.
pub(crate) fn run(
    journal: &Path,
    dir: &Path,
    json: bool,
    quiet: bool,
) -> Result<ExitCode, Failure> {
    let failure = |what: &str, path: &Path, error: io::Error| {
        Failure::new(format_args!("cannot {what} {path:?}"), os_error_text(&error)).with_code(USAGE)
    };
    let printing =
        |error| Failure::new("cannot print to stdout", os_error_text(&error)).with_code(USAGE);
    let listed = read(journal).map_err(|error| failure("read the journal", journal, error))?;
    let mut report = Report::new(json, quiet);
    let checked = check(&listed, dir, |finding| report.add(finding));
    checked.map_err(|error| failure("read", dir, error))?;
    let is_same = report.finish(&listed).map_err(printing)?;
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::from(DIFFERENT) })
}

fn read(journal: &Path) -> io::Result<ListedFiles> {
    match journal == Path::new("-") {
        true => {
            check_stdin()?;
            ListedFiles::read(io::stdin().lock())
        }
        false => ListedFiles::read(BufReader::new(File::open(journal)?)),
    }
}
