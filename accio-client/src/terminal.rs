//! Prints on stderr: progress bars on a terminal, plain progress lines on request, and messages in
//! between.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use accio_cli::{Failure, say, wait_for_stderr};
use accio_proto::Progress;
use indicatif::{
    HumanDuration, MultiProgress, ProgressBar, ProgressState, ProgressStyle as BarStyle,
};

use crate::arguments::{Output, ProgressStyle};
use crate::format::{rate, size};

/// The way in which progress is shown.
#[derive(Debug)]
pub(crate) enum Terminal {
    Nothing,
    Plain,
    Bars(MultiProgress),
}

/// The progress of one attempt to send a file.
#[derive(Debug)]
pub(crate) struct Track {
    name: String,
    kind: TrackStyle,
}

#[derive(Debug)]
enum TrackStyle {
    Nothing,
    /// The start of the transfer, and the time of the last line.
    Plain(Mutex<(Instant, Instant)>),
    Bar(ProgressBar),
}

/// Interval between plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(1);

impl Terminal {
    pub(crate) fn new(output: &Output) -> Self {
        // With -v, log lines would interrupt the bars.
        let bars = || io::stderr().is_terminal() && output.verbosity.verbose == 0;
        match output.progress {
            _ if output.verbosity.quiet => Terminal::Nothing,
            ProgressStyle::Plain => Terminal::Plain,
            ProgressStyle::Auto if bars() => Terminal::Bars(MultiProgress::new()),
            ProgressStyle::Auto | ProgressStyle::None => Terminal::Nothing,
        }
    }

    /// Starts showing the progress of a file.
    pub(crate) fn track(&self, name: &str) -> Track {
        let kind = match self {
            Terminal::Nothing => TrackStyle::Nothing,
            Terminal::Plain => {
                let now = Instant::now();
                TrackStyle::Plain(Mutex::new((now, now)))
            }
            Terminal::Bars(bars) => {
                let bar = ProgressBar::new_spinner()
                    .with_style(style("{prefix} {spinner} connecting"))
                    .with_prefix(name.to_owned());
                let bar = bars.add(bar);
                bar.tick();
                TrackStyle::Bar(bar)
            }
        };
        Track { name: name.to_owned(), kind }
    }

    /// Prints a line on stderr, above the bars.
    pub(crate) fn line(&self, line: impl Display) {
        self.above_bars(|| say(line));
    }

    /// Prints a failure on stderr, above the bars.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.above_bars(|| failure.say());
    }

    fn above_bars(&self, print: impl FnOnce()) {
        // Progress may be dropped while stderr is not read, but not the end of an upload.
        wait_for_stderr();
        match self {
            Terminal::Bars(bars) => bars.suspend(print),
            Terminal::Nothing | Terminal::Plain => print(),
        }
    }
}

impl Track {
    /// Shows that the handshake is complete and content is being sent.
    pub(crate) fn start(&self) {
        match &self.kind {
            TrackStyle::Nothing => {}
            TrackStyle::Plain(times) => {
                let now = Instant::now();
                *times.lock().unwrap_or_else(PoisonError::into_inner) = (now, now);
            }
            TrackStyle::Bar(bar) => {
                bar.reset();
                bar.set_style(style(WITHOUT_TOTAL));
            }
        }
    }

    pub(crate) fn show(&self, at: Progress) {
        // Where the system does not report acknowledged bytes, show the sent ones.
        let done = at.acknowledged.unwrap_or(at.sent);
        match &self.kind {
            TrackStyle::Nothing => {}
            TrackStyle::Plain(times) => {
                let mut times = times.lock().unwrap_or_else(PoisonError::into_inner);
                let now = Instant::now();
                if now.duration_since(times.1) >= PLAIN_INTERVAL {
                    times.1 = now;
                    say(plain(&self.name, done, at.total, now.duration_since(times.0)));
                }
            }
            TrackStyle::Bar(bar) => {
                if let Some(total) = at.total
                    && bar.length() != Some(total.max(done))
                {
                    bar.set_style(style(WITH_TOTAL).with_key("left", left).progress_chars("=> "));
                    bar.set_length(total.max(done));
                }
                bar.set_position(done);
            }
        }
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        if let TrackStyle::Bar(bar) = &self.kind {
            bar.finish_and_clear();
        }
    }
}

const WITH_TOTAL: &str = "{prefix} [{wide_bar}] {percent:>3}% {decimal_bytes} of \
    {decimal_total_bytes}, {decimal_bytes_per_sec}{left}";
const WITHOUT_TOTAL: &str =
    "{prefix} {spinner} {decimal_bytes}, {decimal_bytes_per_sec}, {elapsed} so far";

fn style(template: &str) -> BarStyle {
    // The templates are constants and are checked by a test.
    BarStyle::with_template(template).unwrap_or_else(|_| BarStyle::default_bar())
}

/// Writes the remaining time, or nothing while the rate is unknown.
fn left(state: &ProgressState, text: &mut dyn fmt::Write) {
    if state.per_sec() >= 1.0 {
        // The text is a string, which takes everything.
        let _ = write!(text, ", {:#} left", HumanDuration(state.eta()));
    }
}

fn plain(name: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let speed = rate(done, elapsed);
    let Some(total) = total.filter(|total| *total >= done && *total > 0) else {
        return format!("{name}: {}, {speed}", size(done as f64));
    };
    let share = 100.0 * done as f64 / total as f64;
    let left = match done {
        0 => String::new(),
        _ => {
            let seconds = elapsed.as_secs_f64() * (total - done) as f64 / done as f64;
            format!(", {seconds:.0} s left")
        }
    };
    format!("{name}: {share:.0}%, {} of {}, {speed}{left}", size(done as f64), size(total as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [WITH_TOTAL, WITHOUT_TOTAL, "{prefix} {spinner} connecting"] {
            assert!(BarStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn formats_plain_progress_lines() {
        let second = Duration::from_secs(1);
        assert_eq!(
            plain("f", 250_000, Some(1_000_000), second),
            "f: 25%, 250.0 kB of 1.0 MB, 250.0 kB/s, 3 s left"
        );
        assert_eq!(plain("f", 0, Some(10), second), "f: 0%, 0.0 B of 10.0 B, 0.0 B/s");
        assert_eq!(plain("f", 20, Some(10), second), "f: 20.0 B, 20.0 B/s", "it grew");
        assert_eq!(plain("f", 20, None, second), "f: 20.0 B, 20.0 B/s");
    }
}
