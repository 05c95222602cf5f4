//! The status page alone, for programs that are not operated by flags.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use accio_proto::{Outcome, ServerHandle, os_error_text};

use super::super::http::{self, Request, Response, Site};
use super::{RunningStatus, Status};
use crate::Failure;
use crate::server::spawn::spawn;

/// A status page that has its address and does not answer yet.
///
/// There is no authentication: whoever reaches the address sees the peers of the server.
#[derive(Debug)]
pub struct StatusPage {
    listener: TcpListener,
    address: SocketAddr,
    status: Status,
}

struct Pages {
    status: RunningStatus,
    wake: OwnedFd,
}

impl StatusPage {
    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on.
    pub fn bind(address: SocketAddr) -> Result<StatusPage, Failure> {
        let (listener, address) = http::bind(address, "the status page")?;
        Ok(StatusPage { listener, address, status: Status::new(&[]) })
    }

    /// Returns the address, with the port that the system chose if port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns an observer to be called with each outcome, and with a note about the content if there
    /// is something to say.
    pub fn observer(&self) -> impl Fn(&Outcome, Option<&str>) + Send + Sync + 'static {
        let observer = self.status.observer();
        move |outcome, note| observer.observe(outcome, note)
    }

    /// Answers from now on, until the process ends, in a thread of its own.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn serve(self, handle: ServerHandle, listening: &[SocketAddr]) -> Result<(), Failure> {
        let StatusPage { listener, status, .. } = self;
        let wake = http::wake()
            .map_err(|error| Failure::new("cannot serve the status page", os_error_text(&error)))?;
        let pages = Pages { status: status.run(handle, listening.to_vec()), wake };
        spawn("accio-status", move || {
            if let Err(error) = http::serve(&listener, pages) {
                log::error!("cannot go on serving the status page: {}", os_error_text(&error));
            }
        })
    }
}

impl Site for Pages {
    fn answer(&mut self, request: &Request) -> Option<Response> {
        let missing = || Response::plain("404 Not Found", "there are / and /status.json\n");
        Some(self.status.answer(request).unwrap_or_else(missing))
    }

    fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn patience(&self) -> Option<Instant> {
        None
    }
}
