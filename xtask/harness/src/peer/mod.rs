//! Scripted sockets: scenarios control the other side of a tested connection byte by byte.

mod connection;
mod dialect;
mod end;
mod listener;
mod read;

pub use self::connection::{Peer, SOON, ends, side_by_side};
pub use self::dialect::{Dialect, FIRST, GREETING, SECOND};
pub use self::end::End;
pub use self::listener::Listener;
pub use self::read::read;
