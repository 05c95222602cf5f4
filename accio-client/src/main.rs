//! Sends a file to an Accio server.
#![forbid(unsafe_code)]

fn main() {}
