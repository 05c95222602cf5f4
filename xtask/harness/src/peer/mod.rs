//! Raw scripted sockets: the other end of what is tested, byte for byte.

mod connection;
mod dialect;
mod listener;

pub use self::connection::{End, Peer, SOON, ends, side_by_side};
pub use self::dialect::{Dialect, FIRST, GREETING, SECOND};
pub use self::listener::Listener;
