//! Records the system calls of other processes and injects failures into them, with `strace`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal};

use accio_harness::context::{Context, wait_until};
use accio_harness::peer::SOON;
use accio_harness::process::{Input, Process};
use accio_harness::verdict::{Stop, Verdict};

/// Number of calls by name.
pub(crate) type Counts = BTreeMap<String, usize>;

/// Part of the line of a trace that ends the runtime's start-up; earlier calls are not the
/// program's.
pub(crate) const RUNTIME_READY: &str = "SIGBUS, {";

/// A fault to inject: `-e inject=CALL:error=ERRNO:when=OCCURRENCE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InjectedFault {
    pub(crate) call: String,
    pub(crate) errno: &'static str,
    pub(crate) when: Occurrence,
}

/// The calls of a thread that fail, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occurrence {
    /// Only this one.
    Once(usize),
    /// From the first to the last of these numbers.
    Burst(usize, usize),
    /// This one and all later ones.
    From(usize),
}

impl InjectedFault {
    /// Returns the options of `strace` that inject it.
    pub(crate) fn options(&self) -> Vec<String> {
        let when = match self.when {
            Occurrence::Once(k) => format!("{k}"),
            Occurrence::Burst(first, last) => format!("{first}..{last}"),
            Occurrence::From(k) => format!("{k}+"),
        };
        let InjectedFault { call, errno, .. } = self;
        let inject = format!("inject={call}:error={errno}:when={when}");
        vec!["-e".into(), format!("trace={call}"), "-e".into(), inject]
    }

    /// Returns the fault's part of a case name.
    pub(crate) fn name(&self) -> String {
        let when = match self.when {
            Occurrence::Once(k) => format!("@{k}"),
            Occurrence::Burst(first, last) => format!("@{first}-{last}"),
            Occurrence::From(k) => format!("@{k}+"),
        };
        format!("{}={}{when}", self.call, self.errno)
    }
}

/// Returns the words to put before a command to trace it. The tracer runs in the background, so
/// that the command itself is the child of this process.
pub(crate) fn wrapper(options: &[String], record: &Path) -> Vec<String> {
    // By default a tracer that started the command ignores SIGTERM.
    let fixed = ["strace", "-D", "-I2", "-f", "-qq", "-o"].map(String::from);
    let record = record.to_string_lossy().into_owned();
    fixed.into_iter().chain([record]).chain(options.iter().cloned()).collect()
}

/// A tracer attached to running threads.
#[derive(Debug)]
pub(crate) struct Tracer {
    process: Process,
    targets: Vec<Pid>,
}

impl Tracer {
    /// Attaches a tracer to the thread `target`.
    pub(crate) fn attach(
        context: &Context,
        target: Pid,
        options: &[String],
        record: &Path,
    ) -> Verdict<Tracer> {
        Tracer::attach_all(context, &[target], options, record)
    }

    /// Attaches a tracer to several threads.
    pub(crate) fn attach_all(
        context: &Context,
        targets: &[Pid],
        options: &[String],
        record: &Path,
    ) -> Verdict<Tracer> {
        let mut command = Command::new("strace");
        command.args(["-qq", "-o"]).arg(record).args(options);
        for target in targets {
            command.arg("-p").arg(target.as_raw_nonzero().to_string());
        }
        let mut process = context.spawn(command, Input::Null)?;
        let is_traced = |target| status(target, "TracerPid").is_none_or(|tracer| tracer != "0");
        if !wait_until(SOON, || targets.iter().all(|target| is_traced(*target))) {
            return Err(Stop::Trouble(format!("strace does not attach: {:?}", process.stderr())));
        }
        if process.has_ended()? {
            let text = process.stderr().text();
            return Err(Stop::Trouble(format!("strace ended immediately: {text}")));
        }
        // After attaching, strace still has to resume the threads.
        thread::sleep(Duration::from_millis(10));
        Ok(Tracer { process, targets: targets.to_vec() })
    }

    /// Detaches the tracer; the process continues without it.
    pub(crate) fn detach(mut self) -> Verdict {
        if !self.process.has_ended()? {
            self.process.signal(Signal::TERM)?;
            self.process.wait(SOON)?;
        }
        let is_free = |target| status(target, "TracerPid").is_none_or(|tracer| tracer == "0");
        wait_until(SOON, || self.targets.iter().all(|target| is_free(*target)));
        Ok(())
    }
}

/// Ends the tracer of a process that was started with [`wrapper`].
pub(crate) fn release(target: Pid) -> Verdict {
    if let Some(tracer) = tracer(target) {
        // It may have ended with its target.
        let _ = rustix::process::kill_process(tracer, Signal::TERM);
        wait_until(SOON, || self::tracer(target).is_none());
    }
    Ok(())
}

/// Returns, for each call in a trace, the largest number that a single thread made.
pub(crate) fn most_per_thread(record: &Path) -> Verdict<Counts> {
    Ok(most(&fs::read_to_string(record)?))
}

/// Returns the calls that the first thread of a trace made up to the last line that contains
/// `text`.
pub(crate) fn calls_up_to(record: &Path, text: &str) -> Verdict<Counts> {
    let record = fs::read_to_string(record)?;
    let thread = record.split_whitespace().next().unwrap_or_default().to_owned();
    let lines = record.lines().filter(|line| line.starts_with(&thread));
    let until: Vec<&str> = lines.collect();
    let Some(end) = until.iter().rposition(|line| line.contains(text)) else {
        return Err(Stop::Trouble(format!("no line of the trace contains {text:?}")));
    };
    Ok(most(&until[..=end].join("\n")))
}

fn most(record: &str) -> Counts {
    let mut threads: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for line in record.lines() {
        // A trace of a single thread has no thread numbers.
        let numbered = line.starts_with(|c: char| c.is_ascii_digit());
        let (thread, rest) = match line.split_once(char::is_whitespace) {
            Some((thread, rest)) if numbered => (thread, rest.trim_start()),
            _ => ("", line),
        };
        let Some((name, _)) = rest.split_once('(') else { continue };
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // Resumed calls, signals and exits do not begin with a name and a parenthesis.
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

/// Returns the thread of a process with this name.
pub(crate) fn thread_named(process: Pid, name: &str) -> Option<Pid> {
    threads_named(process, name).pop()
}

/// Returns all threads of a process with this name.
pub(crate) fn threads_named(process: Pid, name: &str) -> Vec<Pid> {
    let mut tasks = tasks(process);
    tasks.retain(|task| status(*task, "Name").is_some_and(|own| own == name));
    tasks
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

/// Returns a field of `/proc/TASK/status`.
fn status(task: Pid, field: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{}/status", task.as_raw_nonzero())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_calls_of_the_busiest_thread() {
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
