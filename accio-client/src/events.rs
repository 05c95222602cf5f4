//! `--json`: prints each event as a JSON object on a line of stdout. The events are documented in
//! docs/client.md.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use accio_cli::{Failure, escape_json};
use accio_proto::{ClientEvent, Finding, Progress, Sent, os_error_text};
use serde::Serialize;

use crate::exit_code::WRITE;

/// Maximum number of events that wait for stdout to be read.
const CAPACITY: usize = 1000;

/// Prints events on stdout. A thread writes them, so that a transfer does not wait for the reader.
#[derive(Debug)]
pub(crate) struct Events {
    /// `None` without `--json`.
    output: Option<Mutex<Output>>,
}

#[derive(Debug)]
struct Output {
    /// `None` after [`Events::end`], or if stdout cannot be used.
    lines: Option<SyncSender<String>>,
    /// Returns the first error, after which nothing more is written.
    writer: io::Result<JoinHandle<io::Result<()>>>,
}

/// The upload that an event belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) file: Option<&'a Path>,
    /// The command of `--from-command`.
    pub(crate) command: Option<&'a str>,
    /// Position of the file on the command line, from 1.
    pub(crate) number: usize,
    /// Number of the attempt, from 1; higher numbers are retries.
    pub(crate) attempt: u32,
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    number: usize,
    #[serde(skip_serializing_if = "is_zero")]
    attempt: usize,
    #[serde(flatten)]
    details: Details<'a>,
}

/// Fields that depend on the kind of event.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Details<'a> {
    Resolved {
        addresses: &'a [SocketAddr],
        seconds: f64,
    },
    Connected {
        peer: SocketAddr,
        local: Option<SocketAddr>,
        seconds: f64,
    },
    Secured {
        peer: SocketAddr,
        seconds: f64,
    },
    Greeted {
        peer: SocketAddr,
        dialect: &'static str,
        seconds: f64,
    },
    Progress {
        sent: u64,
        acknowledged: Option<u64>,
        total: Option<u64>,
    },
    Sent {
        peer: SocketAddr,
        bytes: u64,
        seconds: f64,
    },
    End {
        peer: SocketAddr,
        dialect: &'static str,
        bytes: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        digest: Option<String>,
        seconds: f64,
    },
    Retrying {
        code: &'static str,
        message: String,
        peer: Option<SocketAddr>,
        seconds: f64,
    },
    Failed {
        code: &'static str,
        exit: u8,
        message: String,
        peer: Option<SocketAddr>,
    },
    Replied {
        peer: SocketAddr,
        finding: &'static str,
        heard: String,
        connected_seconds: f64,
        spoke_seconds: Option<f64>,
    },
    Unreachable {
        peer: SocketAddr,
        message: String,
    },
}

impl Events {
    pub(crate) fn new(json: bool) -> Self {
        Events { output: json.then(|| Mutex::new(Output::start())) }
    }

    /// Prints an event if `--json` is set.
    pub(crate) fn emit(&self, event: &'static str, subject: Subject<'_>, details: Details<'_>) {
        let Some(output) = &self.output else { return };
        let lines = lock(output).lines.clone();
        let Some(lines) = lines else { return };
        let is_progress = matches!(details, Details::Progress { .. });
        let line = Line {
            event,
            file: subject.file.map(|file| file.to_string_lossy().into_owned()),
            command: subject.command,
            number: subject.number,
            attempt: subject.attempt as usize,
            details,
        };
        // All fields are numbers and strings, which always have a JSON form.
        let Ok(text) = serde_json::to_string(&line) else { return };
        let text = escape_json(text) + "\n";
        // The thread receives until the last line. Progress is left out while stdout is not read.
        let _ = match is_progress {
            true => lines.try_send(text).is_ok(),
            false => lines.send(text).is_ok(),
        };
    }

    pub(crate) fn step(&self, subject: Subject<'_>, event: &ClientEvent) {
        let (event, details) = match event {
            ClientEvent::Resolved { addresses, took, .. } => {
                ("resolved", Details::Resolved { addresses, seconds: took.as_secs_f64() })
            }
            ClientEvent::Connected { peer, local, took, .. } => (
                "connected",
                Details::Connected { peer: *peer, local: *local, seconds: took.as_secs_f64() },
            ),
            ClientEvent::Secured { peer, took, .. } => {
                ("secured", Details::Secured { peer: *peer, seconds: took.as_secs_f64() })
            }
            ClientEvent::Greeted { peer, dialect, took, .. } => (
                "greeted",
                Details::Greeted {
                    peer: *peer,
                    dialect: dialect.name(),
                    seconds: took.as_secs_f64(),
                },
            ),
            ClientEvent::Sent { peer, bytes, took, .. } => {
                ("sent", Details::Sent { peer: *peer, bytes: *bytes, seconds: took.as_secs_f64() })
            }
            // A later version of the library may report further steps.
            _ => return,
        };
        self.emit(event, subject, details);
    }

    pub(crate) fn progress(&self, subject: Subject<'_>, at: Progress) {
        let Progress { sent, acknowledged, total, .. } = at;
        self.emit("progress", subject, Details::Progress { sent, acknowledged, total });
    }

    pub(crate) fn success(&self, subject: Subject<'_>, sent: &Sent) {
        let event = if sent.confirmed { "confirmed" } else { "unconfirmed" };
        let details = Details::End {
            peer: sent.peer,
            dialect: sent.dialect.name(),
            bytes: sent.bytes,
            digest: sent.digest.map(|digest| digest.to_string()),
            seconds: sent.duration.as_secs_f64(),
        };
        self.emit(event, subject, details);
    }

    /// Reports that a file of TLS cannot be used, before the first upload.
    #[cfg(feature = "tls")]
    pub(crate) fn unusable_file(&self, failure: &Failure) {
        let code = match failure.code() {
            accio_cli::tls::BAD_IDENTITY => "tls-identity",
            _ => "tls-ca",
        };
        let subject = Subject { file: None, command: None, number: 0, attempt: 0 };
        let message = failure.to_string();
        let failed = Details::Failed { code, exit: failure.code(), message, peer: None };
        self.emit("failed", subject, failed);
    }

    /// Waits until all events are written; returns an error if one could not be.
    pub(crate) fn end(&self) -> Result<(), Failure> {
        let Some(output) = &self.output else { return Ok(()) };
        let mut output = lock(output);
        output.lines = None;
        let ended = io::Error::other("the events were ended before");
        let written = std::mem::replace(&mut output.writer, Err(ended)).and_then(|writer| {
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        written.map_err(|error| {
            Failure::new("standard output", os_error_text(&error)).with_code(WRITE)
        })
    }
}

impl Output {
    fn start() -> Output {
        let (lines, queue) = mpsc::sync_channel(CAPACITY);
        let writer =
            thread::Builder::new().name("accio-events".into()).spawn(move || write_all(&queue));
        Output { lines: writer.is_ok().then_some(lines), writer }
    }
}

fn lock(output: &Mutex<Output>) -> std::sync::MutexGuard<'_, Output> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the name of a finding in events.
pub(crate) fn finding(finding: Finding) -> &'static str {
    match finding {
        Finding::Greets => "greets",
        Finding::Silent => "silent",
        Finding::Hangs => "closes",
        Finding::Stops => "stops",
        _ => "foreign",
    }
}

/// Writes each line with a single call, so that a reader never sees a part of it.
fn write_all(queue: &Receiver<String>) -> io::Result<()> {
    let mut written = Ok(());
    for line in queue {
        if written.is_ok() {
            let mut out = io::stdout().lock();
            written = out.write_all(line.as_bytes()).and_then(|()| out.flush());
        }
    }
    written
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}
