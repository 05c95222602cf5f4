//! The status page: uploads in progress, recent outcomes and the limits, for people and scripts.
//!
//! None of this code runs while bytes are received. A finished connection is pushed into the
//! history; everything else is read when a page is requested, in the thread that answers.

mod explanation;
mod history;
mod host;
mod page;
mod report;
mod site;
mod text;

use std::net::SocketAddr;
use std::sync::Arc;

#[cfg(feature = "tls-server")]
use accio_proto::FailedHandshake;
use accio_proto::{Outcome, ServerHandle};
use jiff::Timestamp;

use super::http::{Request, Response};
use crate::escape_json;
pub use explanation::explain;
use history::{History, Record};
use host::Hosts;
use report::{Filter, Report, Subject};
pub use site::StatusPage;

/// The status page of a server that is not running yet.
#[derive(Debug)]
pub(super) struct Status {
    history: Arc<History>,
    hosts: Hosts,
    started: Timestamp,
}

/// Records outcomes for the status page. Clones record for the same page.
#[derive(Debug, Clone)]
pub(in crate::server) struct StatusObserver(Arc<History>);

/// The status page of a running server.
#[derive(Debug)]
pub(super) struct RunningStatus {
    subject: Subject,
    history: Arc<History>,
    hosts: Hosts,
}

impl Status {
    /// Creates a page that also answers under `names`.
    pub(super) fn new(names: &[String]) -> Status {
        Status { history: Arc::default(), hosts: Hosts::new(names), started: Timestamp::now() }
    }

    pub(super) fn observer(&self) -> StatusObserver {
        StatusObserver(Arc::clone(&self.history))
    }

    pub(super) fn run(self, handle: ServerHandle, listening: Vec<SocketAddr>) -> RunningStatus {
        let Status { history, hosts, started } = self;
        RunningStatus { subject: Subject { started, listening, handle }, history, hosts }
    }
}

impl StatusObserver {
    /// Records a finished connection, with a note about its content.
    pub(in crate::server) fn observe(&self, outcome: &Outcome, note: Option<&str>) {
        self.0.push(Record::ended(outcome, note));
    }

    /// Records a connection whose TLS handshake failed.
    #[cfg(feature = "tls-server")]
    pub(in crate::server) fn refuse(&self, failed: &FailedHandshake) {
        self.0.push(Record::refused(failed));
    }
}

impl RunningStatus {
    /// Answers a request for the page or for its JSON; returns `None` for other paths.
    pub(super) fn answer(&self, request: &Request) -> Option<Response> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let answer: fn(&Report) -> Response = match path {
            "/" => |report| Response {
                content_type: "text/html; charset=utf-8",
                policy: page::POLICY,
                body: page::html(report),
                ..Response::plain("200 OK", "")
            },
            "/status.json" => |report| Response {
                content_type: "application/json",
                // Serializing numbers and strings cannot fail.
                body: escape_json(serde_json::to_string(report).unwrap_or_default()) + "\n",
                ..Response::plain("200 OK", "")
            },
            _ => return None,
        };
        if !self.hosts.allows(request.host.as_deref()) {
            return Some(Response::plain("421 Misdirected Request", WRONG_HOST));
        }
        let filter = Filter::of_query(query);
        Some(answer(&Report::read(&self.subject, &self.history, filter.as_ref())))
    }
}

const WRONG_HOST: &str = "this host name is not one of the server's: use its address, or start it with \
                          --metrics-name NAME\n";

#[cfg(test)]
mod tests;
