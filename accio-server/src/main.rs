//! The Accio receiver: connection N's bytes become N.file.
#![forbid(unsafe_code)]

fn main() {}
