//! The uploads: file after file, or several at once, each until it is sent or given up.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use accio_cli::{Failure, check_stdin};
use accio_proto::{ClientError, ClientEvent, Sent};

use crate::advice;
use crate::arguments::{Arguments, is_stdin};
use crate::events::{Details, Events, Subject};
use crate::exit_code::exit_code;
use crate::report;
use crate::screen::Screen;

/// Sends all files; the exit code of the first of them that failed, or 0.
pub(crate) fn all(arguments: &Arguments, events: &Arc<Events>) -> u8 {
    let screen = Screen::new(&arguments.output);
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failed = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = arguments.files.get(index) else { return failed };
            let upload = Upload { arguments, events, screen: &screen, file, number: index + 1 };
            if let Err(failure) = upload.run() {
                screen.failure(&failure);
                failed.push((index, failure.code()));
            }
        }
    };
    let helpers = arguments.jobs.get().min(arguments.files.len()).saturating_sub(1);
    let failed = thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, work);
        // Fewer threads than asked for still send all files.
        let helpers: Vec<_> = (0..helpers).map_while(|helper| start(helper).ok()).collect();
        let mut failed = work();
        for helper in helpers {
            failed.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        failed
    });
    failed.into_iter().min().map_or(0, |(_, code)| code)
}

/// One file's way.
struct Upload<'a> {
    arguments: &'a Arguments,
    events: &'a Arc<Events>,
    screen: &'a Screen,
    file: &'a Path,
    number: usize,
}

/// An open file, for as many attempts as it takes.
struct Opened {
    file: File,
    /// Where a regular file begins; anything else cannot be read twice.
    start: Option<u64>,
}

impl Upload<'_> {
    fn run(&self) -> Result<(), Failure> {
        let opened = match open(self.file) {
            Ok(opened) => opened,
            Err(error) => {
                let error = ClientError::Read { cause: error };
                return Err(self.give_up(error, false, 1));
            }
        };
        let stream = opened.start.is_none();
        let attempts = self.arguments.retry.saturating_add(1);
        let mut attempt = 1;
        loop {
            let (error, greeted) = match self.attempt(&opened, attempt) {
                Ok(sent) => {
                    self.events.success(self.subject(attempt), &sent);
                    if !self.arguments.output.verbosity.quiet {
                        self.screen.line(report::end(&report::name(self.file), &sent));
                    }
                    return Ok(());
                }
                Err(failed) => failed,
            };
            // What a pipe gave is gone once the sending has begun.
            let again = attempt < attempts && error.is_transient() && !(stream && greeted);
            if !again {
                return Err(self.give_up(error, stream, attempt));
            }
            self.pause(&error, attempt, attempts);
            attempt += 1;
        }
    }

    /// One whole upload; when it fails, also whether the content had begun.
    fn attempt(&self, opened: &Opened, attempt: u32) -> Result<Sent, (ClientError, bool)> {
        let source = opened.source().map_err(|cause| (ClientError::Read { cause }, false))?;
        let greeted = Arc::new(AtomicBool::new(false));
        let track = Arc::new(self.screen.track(&report::name(self.file)));
        let (number, file) = (self.number, Arc::<Path>::from(self.file));
        let client = self.arguments.client().on_event({
            let (greeted, track) = (Arc::clone(&greeted), Arc::clone(&track));
            let (events, file) = (Arc::clone(self.events), Arc::clone(&file));
            move |event| {
                if matches!(event, ClientEvent::Greeted { .. }) {
                    greeted.store(true, Ordering::Relaxed);
                    track.start();
                }
                events.step(Subject { file: Some(&file), number, attempt }, event);
            }
        });
        let client = client.on_progress({
            let events = Arc::clone(self.events);
            move |at| {
                track.show(at);
                events.progress(Subject { file: Some(&file), number, attempt }, at);
            }
        });
        let sent = client.build().and_then(|client| {
            client.send(&self.arguments.host, self.arguments.port.number(), source)
        });
        sent.map_err(|error| (error, greeted.load(Ordering::Relaxed)))
    }

    /// Says that it will be tried again, and waits.
    fn pause(&self, error: &ClientError, attempt: u32, attempts: u32) {
        let pause = backoff(attempt, RandomState::new().build_hasher().finish());
        self.events.tell(
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
            let counted = match error.peer() {
                Some(_) => "; the server has counted this attempt, and will hold a second file",
                None => "",
            };
            self.screen.line(format_args!(
                "retry: {}: {error}; attempt {} of {attempts} in {:.1} s{counted}",
                report::name(self.file),
                attempt + 1,
                pause.as_secs_f64(),
            ));
        }
        thread::sleep(pause);
    }

    fn give_up(&self, error: ClientError, stream: bool, attempt: u32) -> Failure {
        let (code, exit, peer) = (error.code(), exit_code(&error), error.peer());
        let failure = advice::failure(error, self.file, stream);
        let message = failure.to_string();
        let failed = Details::Failed { code, exit, message, peer };
        self.events.tell("failed", self.subject(attempt), failed);
        failure
    }

    fn subject(&self, attempt: u32) -> Subject<'_> {
        Subject { file: Some(self.file), number: self.number, attempt }
    }
}

impl Opened {
    /// The content from its start, for one attempt.
    fn source(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        if let Some(start) = self.start {
            file.seek(SeekFrom::Start(start))?;
        }
        Ok(file)
    }
}

/// Opens the file, and finds out that it is a directory before anybody is bothered with it.
fn open(path: &Path) -> io::Result<Opened> {
    let mut file = match is_stdin(path) {
        true => {
            check_stdin()?;
            File::from(io::stdin().as_fd().try_clone_to_owned()?)
        }
        false => File::open(path)?,
    };
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let start = if metadata.is_file() { Some(file.stream_position()?) } else { None };
    Ok(Opened { file, start })
}

/// The pause after a number of attempts: twice as long each time, and not the same for all clients
/// that one server's restart has thrown out.
fn backoff(attempts: u32, random: u64) -> Duration {
    const FIRST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_secs(60);
    let factor = 2u32.saturating_pow(attempts.saturating_sub(1));
    let pause = FIRST.saturating_mul(factor).min(LONGEST);
    // From one half of it to all of it.
    pause.mul_f64(0.5 + 0.5 * (random as f64 / u64::MAX as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_differ() {
        for (attempts, seconds) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (u32::MAX, 60)] {
            let longest = Duration::from_secs(seconds);
            assert_eq!(backoff(attempts, u64::MAX), longest);
            assert_eq!(backoff(attempts, 0), longest / 2);
        }
    }
}
