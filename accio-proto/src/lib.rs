//! Accio.
#![forbid(unsafe_code)]

mod dialect;
pub mod handshake;
pub mod limits;

pub use dialect::*;
