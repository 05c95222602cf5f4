//! Metrics in the OpenMetrics format, the readiness check and the status page, over HTTP.

mod health;
mod http;
mod status;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use accio_proto::{Outcome, ServerHandle, os_error_text};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use rustix::fs::{CWD, Dir, Mode, OFlags, openat};

use super::journal::Journal;
use super::program::Program;
use super::spawn::spawn;
use crate::Failure;
use crate::descriptors::descriptor_limit;
use health::Health;
use http::{Request, Response, Site};
use status::{RunningStatus, Status, StatusObserver};

pub use status::{StatusPage, explain};

/// Bucket bounds of the duration histogram in seconds, from a small file on a local network to a
/// large one over a slow link.
const DURATIONS: [f64; 12] =
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0, 600.0, 3600.0];

/// Parses the address to listen on: `9090`, `0.0.0.0:9090` or `[::1]:9090`.
pub(super) fn address(value: &str) -> Result<SocketAddr, String> {
    match value.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        Err(_) => crate::address_and_port(value),
    }
}

/// The metrics server, with its address bound but not yet serving.
pub(super) struct Metrics {
    listener: TcpListener,
    address: SocketAddr,
    outcomes: OutcomeMetrics,
    status: Option<Status>,
    descriptors: Option<Descriptors>,
}

/// Metrics computed from the outcomes of connections.
#[derive(Clone)]
struct OutcomeMetrics {
    durations: Histogram,
    reasons: Family<[(&'static str, &'static str); 1], Counter>,
    /// Whether the connection with the last number has ended.
    last_ended: Arc<AtomicBool>,
}

impl Metrics {
    /// Listens on `address`. With `status_names`, there is a status page, which also answers under
    /// these host names.
    pub(super) fn bind(
        address: SocketAddr,
        status_names: Option<&[String]>,
    ) -> Result<Self, Failure> {
        let (listener, address) = http::bind(address, "metrics")?;
        let outcomes = OutcomeMetrics {
            durations: Histogram::new(DURATIONS),
            reasons: Family::default(),
            last_ended: Arc::default(),
        };
        let (status, descriptors) = (status_names.map(Status::new), Descriptors::open());
        Ok(Metrics { listener, address, outcomes, status, descriptors })
    }

    /// Returns the address, with the port that the system chose if port 0 was requested.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns whether there is a status page.
    pub(super) fn has_status_page(&self) -> bool {
        self.status.is_some()
    }

    /// Returns the observer that records outcomes for the status page, if there is one.
    pub(super) fn status_observer(&self) -> Option<StatusObserver> {
        self.status.as_ref().map(Status::observer)
    }

    /// Returns the function to call for every finished connection.
    pub(super) fn observer(&self) -> impl Fn(&Outcome) + Send + Sync + 'static {
        let (outcomes, status) = (self.outcomes.clone(), self.status_observer());
        move |outcome| {
            if let Some(status) = &status {
                status.observe(outcome, None);
            }
            if outcome.connection.id == u64::MAX {
                outcomes.last_ended.store(true, Ordering::SeqCst);
            }
            outcomes.durations.observe(outcome.duration.as_secs_f64());
            if let Err(why) = &outcome.result {
                outcomes.reasons.get_or_create(&[("reason", why.code())]).inc();
            }
        }
    }

    /// Serves requests in a thread until the process ends. `ending` becomes true when shutdown
    /// begins.
    pub(super) fn serve(
        self,
        handle: ServerHandle,
        listening: &[SocketAddr],
        program: Arc<dyn Program>,
        journal: Option<Arc<Journal>>,
        ending: Arc<AtomicBool>,
    ) -> Result<(), Failure> {
        let Metrics { listener, outcomes, status, descriptors, .. } = self;
        let status = status.map(|status| status.run(handle.clone(), listening.to_vec()));
        // The registry adds a period to each text.
        let mut registry = Registry::with_prefix("accio");
        let help = "Duration of connections, from accept to commit or abort";
        registry.register_with_unit("connection_duration", help, Unit::Seconds, outcomes.durations);
        registry.register(
            "errors",
            "Connections that ended with ERROR, by cause",
            outcomes.reasons,
        );
        let health =
            Health::start(handle.clone(), Arc::clone(&program), ending, outcomes.last_ended)?;
        let state = State { handle, descriptors, journal, program };
        registry.register_collector(Box::new(state));
        let pages = Pages { registry, status, health };
        spawn("accio-metrics", move || {
            if let Err(error) = http::serve(&listener, pages) {
                log::error!("stopped serving metrics: {}", os_error_text(&error));
            }
        })
    }
}

/// The pages: `/metrics`, `/health`, `/live` and those of the status page.
struct Pages {
    registry: Registry,
    status: Option<RunningStatus>,
    health: Arc<Health>,
}

/// The content type of the OpenMetrics text format, which Prometheus reads.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Site for Pages {
    fn answer(&mut self, request: &Request) -> Option<Response> {
        let status = self.status.as_ref();
        if let Some(response) = status.and_then(|status| status.answer(request)) {
            return Some(response);
        }
        Some(match request.path.split('?').next() {
            Some("/metrics") => {
                let mut body = String::new();
                match text::encode(&mut body, &self.registry) {
                    Ok(()) => Response { content_type: METRICS, ..Response::plain("200 OK", body) },
                    Err(error) => {
                        Response::plain("500 Internal Server Error", format!("{error}\n"))
                    }
                }
            }
            Some("/health") => match self.health.readiness()? {
                Ok(()) => Response::plain("200 OK", "ready\n"),
                Err(why) => Response::plain("503 Service Unavailable", format!("{why}\n")),
            },
            Some("/live") => Response::plain("200 OK", "alive\n"),
            _ => Response::plain(
                "404 Not Found",
                match status {
                    Some(_) => "pages: /, /status.json, /metrics, /health, /live\n",
                    None => "pages: /metrics, /health, /live\n",
                },
            ),
        })
    }

    fn wake(&self) -> BorrowedFd<'_> {
        self.health.as_fd()
    }

    fn patience(&self) -> Option<Instant> {
        self.health.gives_up_at()
    }
}

/// Reads the server's counters for each request.
struct State {
    handle: ServerHandle,
    descriptors: Option<Descriptors>,
    journal: Option<Arc<Journal>>,
    program: Arc<dyn Program>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Collector for State {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let stats = self.handle.stats();
        let counter = ConstCounter::new(0_u64).metric_type();
        let help = "Finished connections by outcome; refused connections have no number.";
        let mut outcomes = encoder.encode_descriptor("connections", help, None, counter)?;
        for (outcome, count) in
            [("complete", stats.completed), ("error", stats.failed), ("refused", stats.refused)]
        {
            let labels = [("outcome", outcome)];
            ConstCounter::new(count).encode(outcomes.encode_family(&labels)?)?;
        }
        for (name, help, count) in [
            ("accepted", "Connections that were assigned a number.", stats.accepted),
            ("accept_errors", "Failed attempts to accept a connection.", stats.accept_errors),
            ("received_bytes", "Bytes of content in complete files.", stats.bytes),
        ] {
            let counter = ConstCounter::new(count);
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        let lost_lines = self.journal.as_ref().map(|journal| journal.lost());
        for (name, help, count) in [
            ("journal_lost", "Lines that could not be written to the journal.", lost_lines),
            (
                "on_commit_lost",
                "Complete files without a command because the queue was full.",
                self.program.lost_commands(),
            ),
        ] {
            if let Some(count) = count {
                let counter = ConstCounter::new(count);
                let kind = counter.metric_type();
                counter.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
            }
        }
        let failed = self.journal.as_ref().map(|journal| i64::from(journal.has_failed()));
        let in_service = i64::try_from(stats.in_service).unwrap_or(i64::MAX);
        let gauges = [
            ("in_service", "Connections in service.", Some(in_service)),
            ("journal_failed", "Whether transfers continue without the journal.", failed),
            (
                "free_descriptors",
                "Descriptors that the process may still open; a connection needs two.",
                self.descriptors.as_ref().and_then(Descriptors::free),
            ),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let gauge = ConstGauge::new(value);
                let kind = gauge.metric_type();
                gauge.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
            }
        }
        Ok(())
    }
}

/// The directory of the process's own descriptors, opened before the sandbox forbids opening it.
struct Descriptors(Mutex<Dir>);

impl Descriptors {
    fn open() -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, "/proc/self/fd", flags, Mode::empty()).and_then(Dir::new);
        dir.inspect_err(|error| log::debug!("cannot count descriptors: {error}"))
            .ok()
            .map(|dir| Descriptors(Mutex::new(dir)))
    }

    fn free(&self) -> Option<i64> {
        let mut dir = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        dir.rewind();
        let mut used = 0;
        while let Some(entry) = dir.read() {
            // `.` and `..` are not descriptors.
            used += i64::from(!entry.ok()?.file_name().to_bytes().starts_with(b"."));
        }
        let limit = descriptor_limit().ok()?;
        let limit = limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        Some(limit - used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_binds_to_loopback() {
        assert_eq!(address("9090"), Ok(SocketAddr::from(([127, 0, 0, 1], 9090))));
        assert_eq!(address("0.0.0.0:1"), Ok(SocketAddr::from(([0, 0, 0, 0], 1))));
        assert_eq!(address("[::1]:1").map(|address| address.is_ipv6()), Ok(true));
        for bad in ["", "65536", "localhost:1", "::1:", ":9090"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn opening_descriptors_reduces_the_number_of_free_ones() {
        let descriptors = Descriptors::open().unwrap();
        // Other tests open and close descriptors at the same time, but not this many.
        let before = descriptors.free().unwrap();
        let files: Vec<_> =
            (0..500).map(|_| std::fs::File::open("/proc/self/fd").unwrap()).collect();
        let after = descriptors.free().unwrap();
        assert!((400..=600).contains(&(before - after)), "{before} {after}");
        drop(files);
    }
}
