//! Every check, program by program.

mod client;
mod receiver;
mod server;
mod server_s;
mod servers;

use std::sync::LazyLock;

use super::check::Check;
use accio_harness::subject::Program;

/// All checks, in the order of the courses' tables.
pub(crate) fn all() -> impl Iterator<Item = &'static Check> {
    static ALL: LazyLock<Vec<Check>> = LazyLock::new(|| {
        let both = |own: Vec<Check>, program| {
            let mut checks = own;
            checks.extend(servers::checks(program));
            checks.sort_by_key(|check| check.number().unwrap_or(u32::MAX));
            checks
        };
        let mut all = client::checks();
        all.extend(both(server_s::checks(), Program::ServerS));
        all.extend(both(server::checks(), Program::Server));
        all
    });
    ALL.iter()
}

/// Whether `text`, an id or a part of an id or a description, selects the check.
pub(crate) fn is_selected(check: &Check, text: &str) -> bool {
    let exact = all().any(|check| check.id == text);
    if exact { check.id == text } else { check.id.contains(text) || check.about.contains(text) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_is_there_once_and_each_program_is_worth_a_hundred_points() {
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
    fn an_id_means_itself_and_other_text_whatever_has_it() {
        let meant = |text: &str| all().filter(|check| is_selected(check, text)).count();
        assert_eq!(meant("server/1"), 1);
        assert_eq!(meant("client/"), all().filter(|check| check.id.starts_with("client/")).count());
        assert!(meant("100mib") == 3 && meant("no such") == 0);
    }
}
