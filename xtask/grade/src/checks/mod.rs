//! The checks of all programs.

mod client;
mod receiver;
mod server;
mod server_s;
mod servers;
mod silence;

use std::sync::LazyLock;

use super::check::Check;
use accio_harness::subject::Program;

/// Returns all checks, in the order of the courses' grading tables.
pub(crate) fn all() -> impl Iterator<Item = &'static Check> {
    static ALL: LazyLock<Vec<Check>> = LazyLock::new(|| {
        let with_shared = |own: Vec<Check>, program| {
            let mut checks = own;
            checks.extend(servers::checks(program));
            checks.sort_by_key(|check| check.number().unwrap_or(u32::MAX));
            checks
        };
        let mut all = client::checks();
        all.extend(with_shared(server_s::checks(), Program::ServerS));
        all.extend(with_shared(server::checks(), Program::Server));
        all
    });
    ALL.iter()
}

/// Returns whether `text` selects the check: as its id, or as a part of its id or description.
pub(crate) fn is_selected(check: &Check, text: &str) -> bool {
    let exact = all().any(|check| check.id == text);
    if exact { check.id == text } else { check.id.contains(text) || check.about.contains(text) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_each_program_has_a_hundred_points() {
        let ids: BTreeSet<&str> = all().map(|check| check.id.as_str()).collect();
        assert_eq!(ids.len(), all().count());
        for (program, rows) in
            [(Program::Client, 13), (Program::ServerS, 16), (Program::Server, 20)]
        {
            let of = || all().filter(|check| check.program == program);
            for row in 1..=rows {
                let id = format!("{}/{row}", program.name());
                let check = all().find(|check| check.id == id);
                assert!(check.is_some_and(|check| check.points > 0), "{id}");
            }
            assert_eq!(of().filter(|check| check.points > 0).count(), rows);
            assert_eq!(of().map(|check| check.points).sum::<u32>(), 100, "{program:?}");
        }
    }

    #[test]
    fn an_id_selects_one_check_and_other_text_all_that_contain_it() {
        let count = |text: &str| all().filter(|check| is_selected(check, text)).count();
        assert_eq!(count("server/1"), 1);
        assert_eq!(count("client/"), all().filter(|check| check.id.starts_with("client/")).count());
        assert!(count("100mib") == 3 && count("no such") == 0);
    }
}
