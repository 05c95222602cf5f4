//! The man page has what `--help` has.

#[path = "../../accio-cli/tests/common/man_page.rs"]
mod man_page;

#[test]
fn the_man_page_has_every_flag_of_the_help_with_its_text() {
    man_page::compare(env!("CARGO_BIN_EXE_accio-server"));
}
