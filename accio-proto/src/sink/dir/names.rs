//! The names of files, and their choice by the program.

use std::fmt::{self, Write};
use std::io;
use std::sync::Arc;

use super::hidden_name::is_hidden_name;
use crate::connection::Connection;

/// Chooses the name of each file.
#[derive(Clone, Default)]
pub(super) struct Names(pub(super) Option<Arc<Choice>>);

type Choice = dyn Fn(&Connection) -> String + Send + Sync;

/// Maximum length of a name: that of most file systems.
const MAX_LENGTH: usize = 255;

impl Names {
    /// Returns the name of a connection's file.
    pub(super) fn name(&self, connection: &Connection) -> io::Result<String> {
        let Some(choice) = &self.0 else { return Ok(numbered(connection.id)) };
        let name = choice(connection);
        match is_valid(&name) {
            true => Ok(name),
            false => {
                let why = format!("{name:?} is not the name of a file in the directory");
                Err(io::Error::new(io::ErrorKind::InvalidInput, why))
            }
        }
    }
}

/// Returns the name `N.file`.
fn numbered(id: u64) -> String {
    let mut name = String::with_capacity("18446744073709551615.file".len());
    // Writing to a string cannot fail.
    let _ = write!(name, "{id}.file");
    name
}

/// Returns whether the name is a single component of a path that cannot be mistaken for a hidden
/// file.
fn is_valid(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && !name.contains(['/', '\0'])
        && name.len() <= MAX_LENGTH
        && !is_hidden_name(name)
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "chosen by the program" } else { "N.file" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_names_stay_in_the_directory() {
        for name in ["a", "7.file", "..a", ".hidden", "a b", &"x".repeat(255)] {
            assert!(is_valid(name), "{name:?}");
        }
        let hidden = ".7.file.0123456789abcdef";
        for name in ["", ".", "..", "a/b", "/a", "../a", "a\0b", hidden, &"x".repeat(256)] {
            assert!(!is_valid(name), "{name:?}");
            let name = name.to_owned();
            let names = Names(Some(Arc::new(move |_| name.clone())));
            let error = names.name(&Connection::new(1)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn names_are_numbers_by_default() {
        assert_eq!(Names::default().name(&Connection::new(7)).unwrap(), "7.file");
        let names = Names(Some(Arc::new(|connection| format!("upload-{}", connection.id))));
        assert_eq!(names.name(&Connection::new(7)).unwrap(), "upload-7");
    }
}
