//! Accio.
#![forbid(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
mod dialect;
mod fast_path;
pub mod handshake;
pub mod limits;

pub use dialect::{
    Dialect, FIRST_CONFIRMATION, GREETING, SECOND_CONFIRMATION, ServerDialect, UnknownDialect,
};
pub use fast_path::{FastPath, FastPaths, UnknownFastPath};
