//! What systemd, or another supervisor, hands over and is told.

use std::net::TcpListener;

use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::{Failure, reason};

/// The listening sockets that were handed over (`LISTEN_FDS`), usually none.
pub(super) fn sockets() -> Result<Vec<TcpListener>, Failure> {
    let mut handed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..handed.len() {
        let what = format_args!("cannot use socket {index} of LISTEN_FDS").to_string();
        let socket = handed
            .take_tcp_listener(index)
            .map_err(|error| Failure::new(&what, reason(&error)))?
            .ok_or_else(|| Failure::new(&what, "it is taken"))?;
        match socket2::SockRef::from(&socket).is_listener() {
            Ok(true) => sockets.push(socket),
            Ok(false) => {
                return Err(Failure::new(what, "it does not listen; set Accept=no in the unit"));
            }
            Err(error) => return Err(Failure::new(what, reason(&error))),
        }
    }
    Ok(sockets)
}

/// Serving from now on.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// On the way to the end.
pub(super) fn stopping(status: &str) {
    notify(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// What it does right now, in words.
pub(super) fn status(status: &str) {
    notify(&[NotifyState::Status(status)]);
}

fn notify(states: &[NotifyState<'_>]) {
    // Does nothing where nobody asks for it (NOTIFY_SOCKET).
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot notify systemd: {}", reason(&error));
    }
}
