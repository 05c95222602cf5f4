//! Captures the output of a process while it runs.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The stdout or stderr of a process, captured while it runs.
#[derive(Debug, Default)]
pub struct Capture {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    dropped: u64,
    closed: bool,
}

impl Capture {
    /// Returns an empty, closed capture, for a process whose output is not captured.
    pub(crate) fn none() -> Arc<Capture> {
        let capture = Capture::default();
        capture.lock().closed = true;
        Arc::new(capture)
    }

    pub(crate) fn of(pipe: Option<impl Read + Send + 'static>, kept: usize) -> Arc<Capture> {
        let capture = Arc::new(Capture::default());
        let shared = Arc::clone(&capture);
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            if let Some(mut pipe) = pipe {
                loop {
                    match pipe.read(&mut buffer) {
                        Ok(0) => break,
                        Ok(count) => shared.add(&buffer[..count], kept),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(_) => break,
                    }
                }
            }
            shared.lock().closed = true;
            shared.changed.notify_all();
        });
        capture
    }

    fn add(&self, bytes: &[u8], kept: usize) {
        let mut output = self.lock();
        let room = bytes.len().min(kept - output.bytes.len());
        output.bytes.extend_from_slice(&bytes[..room]);
        output.dropped += (bytes.len() - room) as u64;
        drop(output);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of bytes so far, including dropped ones.
    pub fn length(&self) -> u64 {
        let output = self.lock();
        output.bytes.len() as u64 + output.dropped
    }

    /// Returns the bytes kept so far.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Returns the output so far.
    pub fn text(&self) -> String {
        let output = self.lock();
        let mut text = String::from_utf8_lossy(&output.bytes).into_owned();
        if output.dropped > 0 {
            text.push_str(&format!("\n… and {} more bytes", output.dropped));
        }
        text
    }

    /// Calls `find` for each new output until it returns a value, and returns that, or `None` after
    /// `limit`. The second argument of `find` says whether the output is complete.
    pub fn wait<T>(
        &self,
        limit: Duration,
        mut find: impl FnMut(&[u8], bool) -> Option<T>,
    ) -> Option<T> {
        let until = Instant::now() + limit;
        let mut output = self.lock();
        loop {
            if let Some(found) = find(&output.bytes, output.closed) {
                return Some(found);
            }
            let left = until.saturating_duration_since(Instant::now());
            if output.closed || left.is_zero() {
                return None;
            }
            output =
                self.changed.wait_timeout(output, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for line `index` (from 0) and returns it without the newline.
    pub fn line(&self, index: usize, limit: Duration) -> Option<String> {
        self.wait(limit, |bytes, _| {
            let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
            let line = lines.nth(index)?.strip_suffix(b"\n")?;
            Some(String::from_utf8_lossy(line).into_owned())
        })
    }
}
