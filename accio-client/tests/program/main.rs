//! Tests of the program from a user's point of view: output, events, exit codes, and its effect on
//! servers.
#![allow(clippy::unwrap_used, reason = "a test's helpers are tests too")]

mod closed_stdio;
mod common;
mod escaping;
mod limits;
mod man_page;
mod one_upload;
mod output;
mod probe;
mod produced;
mod snapshots;
mod transfers;
