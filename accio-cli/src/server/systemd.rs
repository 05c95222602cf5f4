//! systemd, or another supervisor: passed sockets and notifications.

use std::net::TcpListener;

use accio_proto::os_error_text;
use listenfd::ListenFd;
use sd_notify::NotifyState;

use super::shutdown::Notice;
use crate::Failure;

/// Returns the listening sockets passed by the supervisor (`LISTEN_FDS`), usually none.
pub(super) fn sockets() -> Result<Vec<TcpListener>, Failure> {
    let mut handed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..handed.len() {
        let what = format_args!("cannot use socket {index} of LISTEN_FDS").to_string();
        let socket = handed
            .take_tcp_listener(index)
            .map_err(|error| Failure::new(&what, os_error_text(&error)))?
            .ok_or_else(|| Failure::new(&what, "it is taken"))?;
        match socket2::SockRef::from(&socket).is_listener() {
            Ok(true) => sockets.push(socket),
            Ok(false) => {
                return Err(Failure::new(what, "it does not listen; set Accept=no in the unit"));
            }
            Err(error) => return Err(Failure::new(what, os_error_text(&error))),
        }
    }
    Ok(sockets)
}

/// Reports that the server is ready.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Passes on a notice of the shutdown.
pub(super) fn notify_notice(notice: Notice<'_>) {
    match notice {
        Notice::Stopping(status) => notify(&[NotifyState::Stopping, NotifyState::Status(status)]),
        Notice::Status(status) => notify(&[NotifyState::Status(status)]),
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // Does nothing without NOTIFY_SOCKET.
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot notify systemd: {}", os_error_text(&error));
    }
}
