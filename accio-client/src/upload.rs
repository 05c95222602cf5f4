//! Runs the uploads, one after another or several at once, with retries.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use accio_cli::Failure;
use accio_proto::{ClientError, ClientEvent, Sent, os_error_text};

use rustix::io::Errno;

use crate::advice::{self, Circumstances};
use crate::arguments::Arguments;
use crate::command;
use crate::content::{Content, Opened};
use crate::descendants;
use crate::events::{Details, Events, Subject};
use crate::exit_code::{LOCAL, exit_code};
use crate::format;
use crate::terminal::Terminal;

/// Sends all files; returns the exit code of the first failed upload in argument order, or 0.
pub(crate) fn all(arguments: &Arguments, events: &Arc<Events>) -> Result<u8, Failure> {
    let words = arguments.from_command.as_deref().map(command::split).transpose()?;
    let contents: Vec<_> = match (&words, &arguments.from_command) {
        (Some(words), Some(line)) => vec![Content::Command { words, line }],
        _ => arguments.files.iter().map(|file| Content::File(file)).collect(),
    };
    if words.is_some()
        && let Err(error) = descendants::watch()
    {
        return Err(Failure::new("cannot watch signals", os_error_text(&error)).with_code(LOCAL));
    }
    Ok(send_all(arguments, events, &contents))
}

fn send_all(arguments: &Arguments, events: &Arc<Events>, contents: &[Content<'_>]) -> u8 {
    let terminal = Terminal::new(&arguments.output);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failed = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(content) = contents.get(index).copied() else { return failed };
            let upload =
                Upload { arguments, events, terminal: &terminal, content, number: index + 1 };
            if let Err(failure) = upload.run() {
                terminal.failure(&failure);
                failed.push((index, failure.code()));
            }
        }
    };
    let helpers = arguments.jobs.get().min(contents.len()).saturating_sub(1);
    let failed = thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, work);
        // If some threads cannot be started, the others still send all files.
        let helpers: Vec<_> = (0..helpers).map_while(|helper| start(helper).ok()).collect();
        let mut failed = work();
        for helper in helpers {
            failed.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        failed
    });
    failed.into_iter().min().map_or(0, |(_, code)| code)
}

/// The upload of one file, with all of its attempts.
struct Upload<'a> {
    arguments: &'a Arguments,
    events: &'a Arc<Events>,
    terminal: &'a Terminal,
    content: Content<'a>,
    number: usize,
}

impl Upload<'_> {
    fn run(&self) -> Result<(), Failure> {
        let attempts = self.arguments.retry.saturating_add(1);
        let mut attempt = 1;
        let mut opened = None;
        loop {
            let (error, greeted) = match self.open_and_send(&mut opened, attempt) {
                Ok(sent) => return self.end(&sent, attempt),
                Err(failed) => failed,
            };
            let opened = opened.as_ref();
            // Bytes from a pipe cannot be read again.
            let is_gone = opened.is_some_and(Opened::is_stream) && greeted;
            if attempt >= attempts || !error.is_transient() || is_gone {
                let circumstances = Circumstances {
                    is_produced: opened.is_some_and(Opened::is_produced),
                    is_pinned: self.arguments.is_pinned(),
                };
                return Err(self.give_up(error, circumstances, attempt));
            }
            self.pause(&error, attempt, attempts);
            attempt += 1;
        }
    }

    /// Opens the content, if it is not open yet, and sends it.
    fn open_and_send<'o>(
        &'o self,
        opened: &mut Option<Opened<'o>>,
        attempt: u32,
    ) -> Result<Sent, (ClientError, bool)> {
        let start = Instant::now();
        let limit = self.arguments.network.max_time;
        let opened = match opened {
            Some(opened) => opened,
            None => {
                let content = self.content.open(limit);
                opened.insert(content.map_err(|cause| (cannot_open(cause), false))?)
            }
        };
        // Opening a named pipe waits for its writer, and retries do not open it again.
        let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
        if let (Some(after), Some(Duration::ZERO)) = (limit, left) {
            return Err((
                ClientError::TransferTimeout { peer: None, sent: 0, end_sent: false, after },
                false,
            ));
        }
        self.attempt(opened, attempt, left)
    }

    /// Reports an upload that was sent. Returns an error if a required confirmation is missing.
    fn end(&self, sent: &Sent, attempt: u32) -> Result<(), Failure> {
        self.events.success(self.subject(attempt), sent);
        if !sent.confirmed && self.arguments.require_confirmation {
            let failure = advice::unconfirmed(self.content, sent);
            let failed = Details::Failed {
                code: "unconfirmed",
                exit: failure.code(),
                message: failure.to_string(),
                peer: Some(sent.peer),
            };
            self.events.emit("failed", self.subject(attempt), failed);
            return Err(failure);
        }
        if !self.arguments.output.verbosity.quiet {
            self.terminal.line(format::end(&format::name(self.content), sent));
        }
        Ok(())
    }

    /// Runs one attempt. On failure, also returns whether sending had begun.
    fn attempt(
        &self,
        opened: &Opened<'_>,
        attempt: u32,
        limit: Option<Duration>,
    ) -> Result<Sent, (ClientError, bool)> {
        let source = opened.source().map_err(|cause| (cannot_open(cause), false))?;
        let greeted = Arc::new(AtomicBool::new(false));
        let track = Arc::new(self.terminal.track(&format::name(self.content)));
        let number = self.number;
        let file = self.content.path().map(Arc::<Path>::from);
        let command = self.content.command().map(Arc::<str>::from);
        let client = self.arguments.client().on_event({
            let (greeted, track) = (Arc::clone(&greeted), Arc::clone(&track));
            let events = Arc::clone(self.events);
            let (file, command) = (file.clone(), command.clone());
            move |event| {
                if matches!(event, ClientEvent::Greeted { .. }) {
                    greeted.store(true, Ordering::Relaxed);
                    track.start();
                }
                events.step(
                    Subject { file: file.as_deref(), command: command.as_deref(), number, attempt },
                    event,
                );
            }
        });
        let client = match limit {
            Some(limit) => client.transfer_timeout(limit),
            None => client,
        };
        let client = client.on_progress({
            let events = Arc::clone(self.events);
            move |at| {
                track.show(at);
                events.progress(
                    Subject { file: file.as_deref(), command: command.as_deref(), number, attempt },
                    at,
                );
            }
        });
        let sent = client.build().and_then(|client| {
            client.send(&self.arguments.host, self.arguments.port.number(), source)
        });
        sent.map_err(|error| {
            let error = match (error, self.arguments.network.max_time) {
                // The client was given what opening the content had left of the limit.
                (ClientError::TransferTimeout { peer, sent, end_sent, .. }, Some(after)) => {
                    ClientError::TransferTimeout { peer, sent, end_sent, after }
                }
                (error, _) => error,
            };
            (error, greeted.load(Ordering::Relaxed))
        })
    }

    /// Reports the next attempt and waits before it.
    fn pause(&self, error: &ClientError, attempt: u32, attempts: u32) {
        let pause = backoff(attempt, RandomState::new().build_hasher().finish());
        self.events.emit(
            "retrying",
            self.subject(attempt),
            Details::Retrying {
                code: error.code(),
                message: error.to_string(),
                peer: error.peer(),
                seconds: pause.as_secs_f64(),
            },
        );
        if !self.arguments.output.verbosity.quiet {
            let counted = match (error, error.peer()) {
                (ClientError::Tls { .. }, _) | (_, None) => "",
                _ => "; the server has counted this attempt, and will store a second file",
            };
            self.terminal.line(format_args!(
                "retry: {}: {error}; attempt {} of {attempts} in {:.1} s{counted}",
                format::name(self.content),
                attempt + 1,
                pause.as_secs_f64(),
            ));
        }
        thread::sleep(pause);
    }

    fn give_up(&self, error: ClientError, circumstances: Circumstances, attempt: u32) -> Failure {
        let (code, exit, peer) = (error.code(), exit_code(&error), error.peer());
        let failure = advice::failure(error, self.content, circumstances);
        let message = failure.to_string();
        let failed = Details::Failed { code, exit, message, peer };
        self.events.emit("failed", self.subject(attempt), failed);
        failure
    }

    fn subject(&self, attempt: u32) -> Subject<'_> {
        Subject {
            file: self.content.path(),
            command: self.content.command(),
            number: self.number,
            attempt,
        }
    }
}

/// Returns the error for content that cannot be opened. A lack of descriptors or memory is not a
/// fault of the file.
fn cannot_open(cause: io::Error) -> ClientError {
    let is_shortage = matches!(
        Errno::from_io_error(&cause),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN)
    );
    match is_shortage {
        true => ClientError::Local { what: "open the file", cause },
        false => ClientError::Read { cause },
    }
}

/// Returns the delay after a number of attempts. It doubles each time and has a random part, so
/// that clients that lost the same server do not reconnect simultaneously.
fn backoff(attempts: u32, random: u64) -> Duration {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);
    let factor = 2u32.saturating_pow(attempts.saturating_sub(1));
    let pause = FIRST.saturating_mul(factor).min(LONGEST);
    // Between half of the delay and all of it.
    pause.mul_f64(0.5 + 0.5 * (random as f64 / u64::MAX as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_a_minute_and_vary() {
        for (attempts, seconds) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (u32::MAX, 60)] {
            let longest = Duration::from_secs(seconds);
            assert_eq!(backoff(attempts, u64::MAX), longest);
            assert_eq!(backoff(attempts, 0), longest / 2);
        }
    }
}
