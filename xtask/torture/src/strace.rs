//! System calls of others, recorded and made to fail, by `strace`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use accio_harness::context::{Context, wait_until};
use accio_harness::peer::SOON;
use accio_harness::process::{self, Input, Process};
use accio_harness::tools;
use accio_harness::verdict::{Stop, Verdict};

/// Calls by name.
pub(crate) type Counts = BTreeMap<String, usize>;

/// A part of a line that only appears after the runtime's own start: calls before `main` are not the
/// program's.
pub(crate) const RUNTIME_READY: &str = "SIGBUS, {";

/// A fault to inject: `-e inject=CALL:error=ERRNO:when=WHEN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) call: String,
    pub(crate) errno: &'static str,
    pub(crate) when: When,
}

/// The calls of a thread that fail, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// This one.
    Once(usize),
    /// These few in a row.
    Burst(usize, usize),
    /// This one and all later ones.
    From(usize),
}

impl Fault {
    /// The options for it.
    pub(crate) fn options(&self) -> Vec<String> {
        let when = match self.when {
            When::Once(k) => format!("{k}"),
            When::Burst(first, last) => format!("{first}..{last}"),
            When::From(k) => format!("{k}+"),
        };
        let Fault { call, errno, .. } = self;
        let inject = format!("inject={call}:error={errno}:when={when}");
        vec!["-e".into(), format!("trace={call}"), "-e".into(), inject]
    }

    /// For the name of a case.
    pub(crate) fn name(&self) -> String {
        let when = match self.when {
            When::Once(k) => format!("@{k}"),
            When::Burst(first, last) => format!("@{first}-{last}"),
            When::From(k) => format!("@{k}+"),
        };
        format!("{}={}{when}", self.call, self.errno)
    }
}

/// A skip unless processes can be traced here.
pub(crate) fn ensure_available() -> Verdict {
    tools::require("strace")?;
    let mut command = Command::new("strace");
    command.args(["-o", "/dev/null", "true"]);
    process::checked_output(command, b"", SOON)
        .map(drop)
        .map_err(|why| Stop::skip(format!("no process may be traced: {why}")))
}

/// The words before a command that start it under the tracer, which stays in the background: the
/// command is our own child.
pub(crate) fn wrapper(options: &[String], record: &Path) -> Vec<String> {
    // By default a tracer with a command of its own takes no signal to end.
    let fixed = ["strace", "-D", "-I2", "-f", "-qq", "-o"].map(String::from);
    let record = record.to_string_lossy().into_owned();
    fixed.into_iter().chain([record]).chain(options.iter().cloned()).collect()
}

/// A tracer that follows a thread that runs already.
#[derive(Debug)]
pub(crate) struct Tracer {
    process: Process,
    target: Pid,
}

impl Tracer {
    /// Follows the thread `target` from now on.
    pub(crate) fn attach(
        context: &Context,
        target: Pid,
        options: &[String],
        record: &Path,
    ) -> Verdict<Tracer> {
        let mut command = Command::new("strace");
        command.args(["-qq", "-o"]).arg(record).args(options);
        command.arg("-p").arg(target.as_raw_nonzero().to_string());
        let mut process = context.spawn(command, Input::Null)?;
        if !wait_until(SOON, || status(target, "TracerPid").is_none_or(|tracer| tracer != "0")) {
            return Err(Stop::Trouble(format!("strace does not attach: {:?}", process.stderr())));
        }
        if process.has_ended()? {
            let text = process.stderr().text();
            return Err(Stop::Trouble(format!("strace ended at once: {text}")));
        }
        // Traced, a thread still has to be let run again.
        thread::sleep(Duration::from_millis(10));
        Ok(Tracer { process, target })
    }

    /// Lets the process go on by itself.
    pub(crate) fn detach(mut self) -> Verdict {
        if !self.process.has_ended()? {
            self.process.signal(Signal::TERM)?;
            self.process.wait(SOON)?;
        }
        wait_until(SOON, || status(self.target, "TracerPid").is_none_or(|tracer| tracer == "0"));
        Ok(())
    }
}

/// Lets a process go that was started with [`wrapper`].
pub(crate) fn release(target: Pid) -> Verdict {
    if let Some(tracer) = tracer(target) {
        // It may have ended with its target.
        let _ = rustix::process::kill_process(tracer, Signal::TERM);
        wait_until(SOON, || self::tracer(target).is_none());
    }
    Ok(())
}

/// Calls by name: the most that any one thread made, in a record.
pub(crate) fn most_per_thread(record: &Path) -> Verdict<BTreeMap<String, usize>> {
    Ok(most(&fs::read_to_string(record)?))
}

/// Calls by name that the first thread of a record made before the first line that has `text`.
pub(crate) fn before(record: &Path, text: &str) -> Verdict<BTreeMap<String, usize>> {
    let record = fs::read_to_string(record)?;
    let thread = record.split_whitespace().next().unwrap_or_default().to_owned();
    let lines = record.lines().filter(|line| line.starts_with(&thread));
    let until: Vec<&str> = lines.collect();
    let Some(end) = until.iter().rposition(|line| line.contains(text)) else {
        return Err(Stop::Trouble(format!("no line with {text:?} in a record")));
    };
    Ok(most(&until[..=end].join("\n")))
}

fn most(record: &str) -> BTreeMap<String, usize> {
    let mut threads: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in record.lines() {
        // Records of one thread do not name it.
        let numbered = line.starts_with(|c: char| c.is_ascii_digit());
        let (thread, rest) = match line.split_once(char::is_whitespace) {
            Some((thread, rest)) if numbered => (thread, rest.trim_start()),
            _ => ("", line),
        };
        let Some((name, _)) = rest.split_once('(') else { continue };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // Ends of interrupted lines, signals and exits are no calls.
        if !name.is_empty() && name.chars().all(plain) {
            *threads.entry((thread, name)).or_default() += 1;
        }
    }
    let mut most = BTreeMap::new();
    for ((_, name), count) in threads {
        let known = most.entry(name.to_owned()).or_insert(0);
        *known = count.max(*known);
    }
    most
}

/// The thread of a process that has this name.
pub(crate) fn thread_named(process: Pid, name: &str) -> Option<Pid> {
    tasks(process).into_iter().find(|task| status(*task, "Name").is_some_and(|own| own == name))
}

fn tracer(process: Pid) -> Option<Pid> {
    let number = |task| status(task, "TracerPid")?.parse().ok().and_then(Pid::from_raw);
    tasks(process).into_iter().find_map(number)
}

fn tasks(process: Pid) -> Vec<Pid> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero())) else {
        return Vec::new();
    };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    tasks.filter_map(Result::ok).filter_map(number).filter_map(Pid::from_raw).collect()
}

/// A field of `/proc/TASK/status`.
fn status(task: Pid, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{}/status", task.as_raw_nonzero())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_thread() {
        let record = "\
7 write(2, \"a (b\", 4) = 4
8 write(2, \"x\", 1) = 1
7 write(2, \"y\", 1 <unfinished ...>
8 <... epoll_wait resumed>) = 1
7 <... write resumed>) = 1
7 --- SIGTERM {si_signo=SIGTERM} ---
7 +++ exited with 0 +++
";
        assert_eq!(most(record), BTreeMap::from([("write".to_owned(), 2)]));
        let record = "close(3) = 0\nclose(4) = 0\nwrite(5, \"(\", 1) = 1\n";
        let counts = [("close".to_owned(), 2), ("write".to_owned(), 1)];
        assert_eq!(most(record), BTreeMap::from(counts));
    }
}
