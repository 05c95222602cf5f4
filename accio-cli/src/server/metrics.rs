//! The server's numbers, for Prometheus, and whether it is well.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use accio_proto::{Outcome, ServerHandle};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use rustix::fs::{CWD, Dir, Mode, OFlags, openat};
use rustix::process::{Resource, getrlimit};

use crate::{Failure, reason};

/// How long a request and its answer may take. They are served one after another.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest head of a request.
const HEAD: usize = 8 << 10;

/// How long to wait when the system has no descriptor left for a connection.
const RETRY: Duration = Duration::from_millis(100);

/// The bounds of the duration histogram, in seconds: from a small file next door to a large one
/// from far away.
const DURATIONS: [f64; 12] =
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 60.0, 600.0, 3600.0];

/// Parses an address to serve on: `9090`, `0.0.0.0:9090`, `[::1]:9090`.
pub(super) fn address(value: &str) -> Result<SocketAddr, String> {
    match value.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        Err(_) => value.parse().map_err(|_| {
            "use a port such as 9090, or an address and a port such as 192.0.2.1:9090".to_owned()
        }),
    }
}

/// The address is bound; nobody is served yet.
pub(super) struct Metrics {
    listener: TcpListener,
    address: SocketAddr,
    told: Told,
    descriptors: Option<Descriptors>,
}

/// What the outcomes tell.
#[derive(Clone)]
struct Told {
    durations: Histogram,
    reasons: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Metrics {
    pub(super) fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let failure = |error: io::Error| {
            Failure::new(format_args!("cannot serve metrics on {address}"), reason(&error))
        };
        let listener = TcpListener::bind(address).map_err(failure)?;
        let address = listener.local_addr().map_err(failure)?;
        let told = Told { durations: Histogram::new(DURATIONS), reasons: Family::default() };
        Ok(Metrics { listener, address, told, descriptors: Descriptors::open() })
    }

    /// With the port that the system chose, if it was asked to.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Is to be told of every connection that ended.
    pub(super) fn observer(&self) -> impl Fn(&Outcome) + Send + Sync + 'static {
        let told = self.told.clone();
        move |outcome| {
            told.durations.observe(outcome.duration.as_secs_f64());
            if let Err(why) = &outcome.result {
                told.reasons.get_or_create(&[("reason", why.code())]).inc();
            }
        }
    }

    /// Serves from now on, until the process ends. `ending` is true when it is not well any more.
    pub(super) fn serve(
        self,
        handle: ServerHandle,
        ending: Arc<AtomicBool>,
    ) -> Result<(), Failure> {
        let Metrics { listener, told, descriptors, .. } = self;
        let mut registry = Registry::with_prefix("accio");
        let help = "How long connections took, from accept to commit or abort";
        registry.register_with_unit("connection_duration", help, Unit::Seconds, told.durations);
        registry.register("errors", "Connections that ended with ERROR, by cause", told.reasons);
        registry.register_collector(Box::new(State { handle, descriptors }));
        let site = Site { registry, ending };
        let spawned = thread::Builder::new().name("accio-metrics".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) => {
                        if let Err(error) = site.serve(stream) {
                            log::debug!("a request for metrics failed: {error}");
                        }
                    }
                    Err(error) => {
                        log::debug!("cannot accept a request for metrics: {error}");
                        thread::sleep(RETRY);
                    }
                }
            }
        });
        spawned.map(drop).map_err(|error| Failure::new("cannot start a thread", reason(&error)))
    }
}

/// What can be asked for.
struct Site {
    registry: Registry,
    ending: Arc<AtomicBool>,
}

/// The content type of the OpenMetrics text format, which Prometheus reads.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

impl Site {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let (status, kind, body, bodiless) = match head(&mut stream, deadline)? {
            Some((method, path)) => {
                let (status, kind, body) = match (method.as_str(), path.as_str()) {
                    ("GET" | "HEAD", path) => self.answer(path),
                    _ => ("405 Method Not Allowed", PLAIN, "use GET\n".to_owned()),
                };
                (status, kind, body, method == "HEAD")
            }
            None => ("400 Bad Request", PLAIN, "not a request\n".to_owned(), false),
        };
        let length = body.len();
        let mut answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n"
        );
        if !bodiless {
            answer.push_str(&body);
        }
        stream.set_write_timeout(Some(left(deadline)?))?;
        stream.write_all(answer.as_bytes())?;
        stream.shutdown(Shutdown::Write)
    }

    fn answer(&self, path: &str) -> (&'static str, &'static str, String) {
        match path.split('?').next() {
            Some("/metrics") => {
                let mut body = String::new();
                match text::encode(&mut body, &self.registry) {
                    Ok(()) => ("200 OK", METRICS, body),
                    Err(error) => ("500 Internal Server Error", PLAIN, format!("{error}\n")),
                }
            }
            Some("/health") if self.ending.load(Ordering::SeqCst) => {
                ("503 Service Unavailable", PLAIN, "stopping\n".to_owned())
            }
            Some("/health") => ("200 OK", PLAIN, "serving\n".to_owned()),
            _ => ("404 Not Found", PLAIN, "there are /metrics and /health\n".to_owned()),
        }
    }
}

/// Reads the head of a request: its method and path, or `None` if it is no request.
fn head(stream: &mut TcpStream, deadline: Instant) -> io::Result<Option<(String, String)>> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        let count = stream.read(&mut buffer)?;
        head.extend_from_slice(&buffer[..count]);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                return Ok(request.method.zip(request.path).map(|(m, p)| (m.into(), p.into())));
            }
            Ok(httparse::Status::Partial) if count > 0 && head.len() < HEAD => {}
            _ => return Ok(None),
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// What is asked of the server with every request.
struct State {
    handle: ServerHandle,
    descriptors: Option<Descriptors>,
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
        let help = "Connections that ended, by outcome; refused ones got no number";
        let mut outcomes = encoder.encode_descriptor("connections", help, None, counter)?;
        for (outcome, count) in
            [("complete", stats.completed), ("error", stats.failed), ("refused", stats.refused)]
        {
            let labels = [("outcome", outcome)];
            ConstCounter::new(count).encode(outcomes.encode_family(&labels)?)?;
        }
        for (name, help, count) in [
            ("accepted", "Connections that got a number", stats.accepted),
            ("accept_errors", "Attempts to accept that the system failed", stats.accept_errors),
            ("received_bytes", "Content of complete files", stats.bytes),
        ] {
            let counter = ConstCounter::new(count);
            let kind = counter.metric_type();
            counter.encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        let in_service = i64::try_from(stats.in_service).unwrap_or(i64::MAX);
        let gauges = [
            ("in_service", "Connections in service", Some(in_service)),
            (
                "free_descriptors",
                "Descriptors the process may still open; a connection takes two",
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

/// The process's own descriptors. Opened before the process gives up looking at anything else.
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
            // `.` and `..` are no descriptors.
            used += i64::from(!entry.ok()?.file_name().to_bytes().starts_with(b"."));
        }
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.map_or(i64::MAX, |limit| i64::try_from(limit).unwrap_or(i64::MAX));
        Some(limit - used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_port_is_this_machine_alone() {
        assert_eq!(address("9090"), Ok(SocketAddr::from(([127, 0, 0, 1], 9090))));
        assert_eq!(address("0.0.0.0:1"), Ok(SocketAddr::from(([0, 0, 0, 0], 1))));
        assert_eq!(address("[::1]:1").map(|address| address.is_ipv6()), Ok(true));
        for bad in ["", "65536", "localhost:1", "::1:", ":9090"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn opening_a_descriptor_leaves_fewer() {
        let descriptors = Descriptors::open().unwrap();
        // Other tests open and close some too, but not this many.
        let before = descriptors.free().unwrap();
        let files: Vec<_> =
            (0..500).map(|_| std::fs::File::open("/proc/self/fd").unwrap()).collect();
        let after = descriptors.free().unwrap();
        assert!((400..=600).contains(&(before - after)), "{before} {after}");
        drop(files);
    }
}
