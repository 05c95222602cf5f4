//! Interface to systemd or another supervisor: passed sockets and notifications.

use std::ffi::OsStr;
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;

use accio_proto::os_error_text;
use listenfd::ListenFd;

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
            .ok_or_else(|| Failure::new(&what, "it is not available"))?;
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

/// The socket for notifications; `None` if the supervisor did not pass one.
static NOTICES: OnceLock<Option<UnixDatagram>> = OnceLock::new();

/// Connects to the supervisor, which the sandbox would forbid later.
pub(super) fn connect() {
    NOTICES.get_or_init(|| {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())?;
        connect_to(&name)
            .inspect_err(|error| log::warn!("cannot notify systemd: {}", os_error_text(error)))
            .ok()
    });
}

fn connect_to(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    // Do not wait for a supervisor that does not read.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// Reports that the server is ready.
pub(super) fn ready(status: &str) {
    notify(&format!("READY=1\nSTATUS={status}"));
}

/// Passes a notice of the shutdown to the supervisor.
pub(super) fn notify_notice(notice: Notice<'_>) {
    match notice {
        Notice::Stopping(status) => notify(&format!("STOPPING=1\nSTATUS={status}")),
        Notice::Status(status) => notify(&format!("STATUS={status}")),
    }
}

fn notify(state: &str) {
    if let Some(Some(socket)) = NOTICES.get()
        && let Err(error) = socket.send(state.as_bytes())
    {
        log::warn!("cannot notify systemd: {}", os_error_text(&error));
    }
}
