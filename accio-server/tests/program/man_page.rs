//! The man page has the same content as `--help`.

#[path = "../../../accio-cli/tests/common/man_page.rs"]
mod comparison;

#[test]
fn the_man_page_describes_every_flag_like_the_help() {
    comparison::compare(env!("CARGO_BIN_EXE_accio-server"));
}
