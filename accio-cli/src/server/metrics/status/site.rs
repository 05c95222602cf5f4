//! The status page without the other pages, for programs without operation flags.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use accio_proto::{Outcome, ServerHandle, os_error_text};

use super::super::http::{self, Request, Response, Site};
use super::{RunningStatus, Status};
use crate::Failure;
use crate::server::spawn::spawn;
use crate::server::sys::Wake;

/// A status page, with its address bound but not yet serving.
///
/// There is no authentication: anyone who can reach the address sees the addresses of clients.
#[derive(Debug)]
pub struct StatusPage {
    listener: TcpListener,
    address: SocketAddr,
    status: Status,
}

struct Pages {
    status: RunningStatus,
    wake: Wake,
}

impl StatusPage {
    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// Returns an error if the address cannot be listened on.
    pub fn bind(address: SocketAddr) -> Result<StatusPage, Failure> {
        let (listener, address) = http::bind(address, "the status page")?;
        Ok(StatusPage { listener, address, status: Status::new(&[]) })
    }

    /// Returns the address, with the port that the system chose if port 0 was requested.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the function to call with each outcome, and optionally with a note about the
    /// content.
    pub fn observer(&self) -> impl Fn(&Outcome, Option<&str>) + Send + Sync + 'static {
        let observer = self.status.observer();
        move |outcome, note| observer.observe(outcome, note)
    }

    /// Serves requests in a thread until the process ends.
    ///
    /// # Errors
    ///
    /// Returns an error if the thread cannot be started.
    pub fn serve(self, handle: ServerHandle, listening: &[SocketAddr]) -> Result<(), Failure> {
        let StatusPage { listener, status, .. } = self;
        let wake = Wake::new()
            .map_err(|error| Failure::new("cannot serve the status page", os_error_text(&error)))?;
        let pages = Pages { status: status.run(handle, listening.to_vec()), wake };
        spawn("accio-status", move || {
            if let Err(error) = http::serve(&listener, pages) {
                log::error!("stopped serving the status page: {}", os_error_text(&error));
            }
        })
    }
}

impl Site for Pages {
    fn answer(&mut self, request: &Request) -> Option<Response> {
        let missing = || Response::plain("404 Not Found", "pages: /, /status.json\n");
        Some(self.status.answer(request).unwrap_or_else(missing))
    }

    fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn patience(&self) -> Option<Instant> {
        None
    }
}
