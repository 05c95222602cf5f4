//! Temporary names of files that are not complete.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Maximum number of names that are tried if names are taken.
const ATTEMPTS: usize = 100;

/// Generates hidden names, `.ID.file.` and 16 hexadecimal digits, which other users of the
/// directory cannot predict and therefore cannot create first.
#[derive(Debug, Default)]
pub(super) struct HiddenNames {
    /// Keyed with random numbers from the system.
    hasher: RandomState,
    count: AtomicU64,
}

impl HiddenNames {
    /// Calls `create` with one hidden name after another until one is free; returns the result and
    /// the name.
    pub(super) fn first_free<T>(
        &self,
        id: u64,
        mut create: impl FnMut(&str) -> io::Result<T>,
    ) -> io::Result<(T, String)> {
        for _ in 1..ATTEMPTS {
            let name = self.next(id);
            match create(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created.map(|created| (created, name)),
            }
        }
        let name = self.next(id);
        create(&name).map(|created| (created, name))
    }

    fn next(&self, id: u64) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        format!(".{id}.file.{:016x}", self.hasher.hash_one(count))
    }
}

/// Returns whether a name has the form of `HiddenNames`, or of version 0.1.0
/// (`.ID.file.PID-COUNT`).
pub(super) fn is_hidden_name(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    let is_random = |part: &str| {
        part.len() == 16 && part.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
    };
    let Some((id, rest)) = name.strip_prefix('.').and_then(|name| name.split_once(".file.")) else {
        return false;
    };
    let is_counted =
        || rest.split_once('-').is_some_and(|(pid, count)| is_number(pid) && is_number(count));
    is_number(id) && (is_random(rest) || is_counted())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn hidden_names_are_recognized_and_differ_between_processes() {
        // The second generator stands for a second process: both count from zero.
        let sets = [HiddenNames::default(), HiddenNames::default()];
        let names: HashSet<_> =
            (0..50).flat_map(|id| sets.each_ref().map(|set| set.next(id))).collect();
        assert_eq!(names.len(), 100);
        for name in &names {
            assert!(is_hidden_name(name), "{name}");
        }
        for other in [".7.file", ".7.file.x-1", ".file.1-1", "7.file", ".x.file.1-1", ".7.file.1-"]
        {
            assert!(!is_hidden_name(other), "{other}");
        }
    }

    #[test]
    fn tries_another_name_if_one_is_taken() {
        let names = HiddenNames::default();
        let mut tried = Vec::new();
        let (_, free) = names
            .first_free(1, |name| {
                tried.push(name.to_owned());
                if tried.len() < 50 { Err(io::ErrorKind::AlreadyExists.into()) } else { Ok(()) }
            })
            .unwrap();
        assert_eq!((tried.len(), Some(&free)), (50, tried.last()));
        let always = names.first_free(1, |_| Err::<(), _>(io::ErrorKind::AlreadyExists.into()));
        assert_eq!(always.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
