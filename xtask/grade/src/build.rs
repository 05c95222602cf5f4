//! Builds compiled submissions before they are graded, with CMake or make. The commands run in a
//! sandbox, on a copy of the submission.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::discovery;
use super::settings::{BuildTool, Settings, Submission};
use accio_harness::context::Context;
use accio_harness::process;
use accio_harness::subject::Subject;
use accio_harness::tools;
use accio_harness::verdict::{Stop, Verdict};

/// The script that copies and builds a submission.
const SCRIPT: &str = include_str!("build.sh");
/// Time limit for a build.
const LIMIT: Duration = Duration::from_secs(180);
/// Number of lines of the compiler's output in a report.
const LINES: usize = 20;

/// Returns the program that builds the submission in `dir`. A submission with scripts is not built,
/// whatever its Makefile is for.
pub(crate) fn tool(dir: &Path) -> Option<BuildTool> {
    if discovery::has_scripts(dir) {
        return None;
    }
    let has = |name: &str| dir.join(name).is_file();
    if has("CMakeLists.txt") {
        return Some(BuildTool::Cmake);
    }
    let is_make = ["GNUmakefile", "makefile", "Makefile"].into_iter().any(has);
    is_make.then_some(BuildTool::Make)
}

/// Builds all submissions that must be built. The second value of one that cannot be built becomes
/// the reason.
pub(crate) fn all(submissions: &mut [(Submission, Option<String>)], settings: &Settings) {
    let count = submissions.len();
    let queue: Vec<Mutex<&mut (Submission, Option<String>)>> =
        submissions.iter_mut().map(Mutex::new).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = queue.get(index) else { return };
            let mut one = one.lock().unwrap_or_else(PoisonError::into_inner);
            let (submission, problem) = &mut **one;
            let (Some(tool), None) = (submission.build, &*problem) else { continue };
            let dir = settings.dir.join(format!("build-{index}"));
            // Entering a sandbox changes the network of its thread.
            let built = thread::scope(|scope| {
                scope.spawn(|| build(submission, tool, &dir, settings)).join()
            });
            match built {
                Ok(Ok(())) => {}
                Ok(Err(why)) => *problem = Some(why),
                Err(_) => *problem = Some("the build step of the grader panicked".to_owned()),
            }
        }
    };
    let threads = thread::available_parallelism().map_or(2, usize::from).min(count);
    thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(work)));
}

/// Builds a submission in `dir` and finds its programs there, or returns the reason.
fn build(
    submission: &mut Submission,
    tool: BuildTool,
    dir: &Path,
    settings: &Settings,
) -> Result<(), String> {
    let name = tool.name();
    if tools::find(name).is_none() {
        return Err(format!("the submission must be built, but {name} is not installed"));
    }
    let failed = run(submission, tool, dir, settings)
        .map_err(|why| format!("the build with {name} failed: {why}"))?;
    if let Some(why) = failed {
        return Err(format!("the build with {name} failed: {why}"));
    }
    // The build may have replaced a directory by a link to files of others.
    let is_directory = |one: &Path| fs::symlink_metadata(one).is_ok_and(|data| data.is_dir());
    let directories = ["built", "source"].map(|name| dir.join(name));
    let built = directories.each_ref().map(|one| match is_directory(one) {
        true => discovery::programs(one).ok(),
        false => None,
    });
    let [first, second] = built.map(Option::unwrap_or_default);
    submission.programs = Subject {
        server: first.server.or(second.server),
        server_s: first.server_s.or(second.server_s),
        client: first.client.or(second.client),
    };
    submission.files = directories.into_iter().filter(|one| is_directory(one)).collect();
    if submission.programs.directories().is_empty() {
        return Err(format!(
            "the build with {name} made neither client, server nor server-s in the directory, its \
             build, bin or src"
        ));
    }
    Ok(())
}

/// Runs the build in a sandbox, of which `dir` keeps the files. Returns the reason if it failed.
fn run(
    submission: &Submission,
    tool: BuildTool,
    dir: &Path,
    settings: &Settings,
) -> Verdict<Option<String>> {
    let root = submission.directory.as_deref().ok_or_else(|| Stop::skip("no directory"))?;
    fs::create_dir_all(dir)?;
    let context = Context::new(Arc::new(Subject::default()), dir.to_owned(), settings.seed)
        .guarded(settings.limits);
    context.enter_sandbox(&settings.support, &settings.files([submission]), true)?;
    let outcome = (|| {
        let script = dir.join("build.sh");
        fs::write(&script, SCRIPT)?;
        let mut command = Command::new("sh");
        command.arg(script).arg(root).arg(tool.name()).current_dir(dir);
        let mut process = context.try_spawn_confined(command, None)?;
        let Ok(exit) = process.wait(LIMIT) else {
            return Ok(Some(format!("it takes more than {} s", LIMIT.as_secs())));
        };
        if exit.status.success() {
            return Ok(None);
        }
        let killed = accio_harness::resource_limits::reasons(context.owner());
        let how = killed.first().map_or_else(|| exit.describe(), |why| why.clone());
        let output = process.stdout().text() + &process.stderr().text();
        Ok(Some(describe(&how, &output, dir)))
    })();
    process::end_all_of(context.owner());
    context.leave_sandbox();
    outcome
}

/// Describes a failed build in one line, followed by the lines of its output from the first error
/// on.
fn describe(how: &str, output: &str, dir: &Path) -> String {
    let output = output.replace(&format!("{}/source/", dir.display()), "");
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    let is_error = |line: &&str| {
        let line = line.to_lowercase();
        line.contains("error:") || line.contains("error at") || line.contains("*** ")
    };
    let first = lines.iter().position(is_error).unwrap_or(lines.len().saturating_sub(LINES));
    let shown = lines.iter().skip(first).take(LINES).map(|line| accio_cli::escape(line));
    let shown: Vec<_> = shown.collect();
    match shown.first() {
        Some(line) => format!("{how}: {line}\n{}", shown.join("\n")),
        None => format!("{how}, without a message"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_file_is_used_unless_there_are_scripts() {
        let dir = tempfile::tempdir().unwrap();
        let add = |name: &str| fs::write(dir.path().join(name), "").unwrap();
        assert_eq!(tool(dir.path()), None);
        add("Makefile");
        assert_eq!(tool(dir.path()), Some(BuildTool::Make));
        add("CMakeLists.txt");
        assert_eq!(tool(dir.path()), Some(BuildTool::Cmake));
        add("client.py");
        assert_eq!(tool(dir.path()), None);
    }

    #[test]
    fn a_failure_begins_with_the_first_error() {
        let output = "g++ -c a.cpp\n/w/source/a.cpp:3:1: error: no ;\nmake: *** [client] Error 1\n";
        let text = describe("exit code 2", output, Path::new("/w"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "exit code 2: a.cpp:3:1: error: no ;");
        assert_eq!(lines[1..], ["a.cpp:3:1: error: no ;", "make: *** [client] Error 1"]);
    }
}
