//! Every check, program by program.

mod client;
mod receiver;
mod server;
mod server_s;

use super::check::Check;

/// All checks, in the order of the courses' tables.
pub(crate) fn all() -> impl Iterator<Item = &'static Check> {
    [client::CHECKS, server_s::CHECKS, server::CHECKS].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::e2e::subject::Program;

    #[test]
    fn every_row_is_there_once_and_each_program_is_worth_a_hundred_points() {
        let ids: BTreeSet<&str> = all().map(|check| check.id).collect();
        assert_eq!(ids.len(), all().count());
        for (program, rows) in
            [(Program::Client, 13), (Program::ServerS, 16), (Program::Server, 20)]
        {
            let of = || all().filter(|check| check.program() == program);
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
        let meant = |text: &str| all().filter(|check| check.is_meant_by(text)).count();
        assert_eq!(meant("server/1"), 1);
        assert_eq!(meant("client/"), all().filter(|check| check.id.starts_with("client/")).count());
        assert!(meant("100mib") == 3 && meant("no such") == 0);
    }
}
