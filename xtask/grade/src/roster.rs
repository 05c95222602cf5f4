//! The list of students that `--roster` names: which student a submission belongs to.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use accio_proto::os_error_text;
use anyhow::{Context, anyhow, bail};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Student {
    /// The id in the course's system.
    pub(crate) id: String,
    /// The name, if the roster has it.
    pub(crate) name: String,
    /// The email address, if the roster has it.
    pub(crate) email: String,
}

/// The students by the name of their submission.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster(BTreeMap<String, Student>);

/// Accepted names of the columns, in lower case.
const SUBMISSION: &[&str] = &["submission", "directory", "login", "username", "github_username"];
const ID: &[&str] = &["student_id", "id", "id number", "sis user id", "student"];
const NAME: &[&str] = &["name", "student_name", "full name"];
const EMAIL: &[&str] = &["email", "email address"];

impl Roster {
    /// Reads a CSV file with a header.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Roster> {
        let describe = || format!("--roster {}", path.display());
        let file = File::open(path)
            .map_err(|error| anyhow!("{}: {}", describe(), os_error_text(&error)))?;
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
        let header = reader.headers().with_context(describe)?.clone();
        let column = |names: &[&str]| {
            // A spreadsheet may write a byte order mark first.
            header.iter().position(|field| {
                names.contains(&field.trim_start_matches('\u{feff}').to_lowercase().as_str())
            })
        };
        let (Some(submission), Some(id)) = (column(SUBMISSION), column(ID)) else {
            bail!("{}: needs the columns submission and student_id", describe());
        };
        let (name, email) = (column(NAME), column(EMAIL));
        let mut students = BTreeMap::new();
        for record in reader.records() {
            let record = record.with_context(describe)?;
            let field = |column: Option<usize>| {
                column.and_then(|column| record.get(column)).unwrap_or_default().to_owned()
            };
            let student = Student { id: field(Some(id)), name: field(name), email: field(email) };
            if students.insert(field(Some(submission)), student).is_some() {
                bail!("{}: the submission {} twice", describe(), field(Some(submission)));
            }
        }
        Ok(Roster(students))
    }

    /// Returns the student of a submission.
    pub(crate) fn student(&self, submission: &str) -> Option<&Student> {
        self.0.get(submission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Roster> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Roster::read(file.path())
    }

    #[test]
    fn finds_columns_by_name_in_any_order() {
        let roster = read("\u{feff}Email,ID number,Submission\na@b.c, 0042 ,amara\n").unwrap();
        let student = roster.student("amara").unwrap();
        assert_eq!((student.id.as_str(), student.email.as_str()), ("0042", "a@b.c"));
        assert_eq!(roster.student("ben"), None);
        assert!(read("submission,name\n").is_err());
        let missing = Roster::read(Path::new("/no/such/file")).unwrap_err().to_string();
        assert_eq!(missing, "--roster /no/such/file: no such file or directory");
        assert!(read("submission,id\na,1\na,2\n").unwrap_err().to_string().ends_with("a twice"));
    }
}
