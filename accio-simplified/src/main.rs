//! The Accio server that counts: one client at a time, one line each.
#![forbid(unsafe_code)]

fn main() {}
