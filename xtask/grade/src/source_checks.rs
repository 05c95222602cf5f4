//! Checks of the source code and the repository that the course documents ask for. The code is
//! parsed, not run.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::outcome::Outcome;
use super::remark::Remark;
use super::settings::{Settings, Submission};
use accio_harness::context::Context;
use accio_harness::subject::{Program, Subject, Template};
use accio_harness::verdict::{Stop, Verdict};
use accio_harness::{process, tools};

/// The program that parses Python files; it prints a line for each remark.
const SCRIPT: &str = include_str!("source_checks.py");
/// Time limit for parsing, and for git.
const LIMIT: Duration = Duration::from_secs(20);
/// Number of files that are parsed, and their maximum size.
const FILES: usize = 40;
const SIZE: u64 = 1 << 20;
/// Maximum number of remarks, and length of one, in characters.
const REMARKS: usize = 100;
const TEXT: usize = 300;
/// Number of commits that the courses ask for.
const COMMITS: usize = 3;
/// Names and endings of files that do not belong in a repository.
const STRAY: [&str; 14] = [
    "__pycache__",
    ".pyc",
    ".pyo",
    ".o",
    ".obj",
    ".exe",
    ".DS_Store",
    "Thumbs.db",
    ".swp",
    "~",
    ".file",
    "a.out",
    ".idea",
    ".vscode",
];

/// Observations about the source code and the repository.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    pub(crate) remarks: Vec<Remark>,
    /// Number of commits; `None` without a repository.
    pub(crate) commits: Option<usize>,
}

impl Sources {
    /// Returns the result of the check of the repository for `program`.
    pub(crate) fn outcome(&self, program: Program) -> Outcome {
        let Some(commits) = self.commits else {
            return Outcome::NotGraded("the submission has no .git directory".into());
        };
        let own = |file: &str| {
            let stem = Path::new(file).file_stem().unwrap_or_default().to_string_lossy();
            Program::ALL.iter().all(|one| one.name() != stem) || stem == program.name()
        };
        let mut wrong: Vec<String> = self
            .remarks
            .iter()
            .filter(|remark| own(&remark.file))
            .map(ToString::to_string)
            .collect();
        if commits < COMMITS {
            wrong.insert(0, format!("{commits} commits"));
        }
        if wrong.is_empty() {
            return Outcome::Passed;
        }
        Outcome::Failed {
            expected: format!("at least {COMMITS} commits, a README, no stray files, no remarks"),
            actual: wrong.join("; "),
            during: Vec::new(),
        }
    }
}

/// Inspects the directory of a submission.
pub(crate) fn inspect(submission: &Submission, settings: &Settings) -> Sources {
    let Some(root) = &submission.directory else { return Sources::default() };
    let mut files = Vec::new();
    collect(root, &mut files);
    let relative = |path: &Path| {
        let path = path.strip_prefix(root).unwrap_or(path);
        accio_cli::escape(&path.to_string_lossy()).into_owned()
    };
    let mut sources = Sources::default();
    let is_readme = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        name.starts_with("readme")
    };
    let mut remark = |file: String, text: &str| {
        sources.remarks.push(Remark { file, line: 0, text: text.to_owned() });
    };
    if !files.iter().any(is_readme) {
        remark(String::new(), "no README");
    }
    for path in &files {
        let name = path.to_string_lossy();
        if STRAY.iter().any(|end| name.ends_with(end)) {
            remark(relative(path), "does not belong in a repository");
        }
    }
    // A thread of its own, because a sandbox changes the network of its thread.
    let parsed =
        thread::scope(|scope| scope.spawn(|| run_tools(root, &files, submission, settings)).join());
    match parsed {
        Ok(Ok((lines, commits))) => {
            for line in lines.lines() {
                let mut fields = line.splitn(3, '\t');
                let (Some(path), Some(line), Some(text)) =
                    (fields.next(), fields.next(), fields.next())
                else {
                    continue;
                };
                sources.remarks.push(Remark {
                    file: relative(Path::new(path)),
                    line: line.parse().unwrap_or(0),
                    text: accio_cli::escape(text).chars().take(TEXT).collect(),
                });
            }
            sources.commits = commits;
        }
        Ok(Err(Stop::Skip(_))) | Err(_) => {}
        Ok(Err(why)) => {
            let text = format!("not parsed: {why}");
            sources.remarks.push(Remark { file: String::new(), line: 0, text });
        }
    }
    let more = sources.remarks.len().saturating_sub(REMARKS);
    if more > 0 {
        sources.remarks.truncate(REMARKS);
        let text = format!("{more} more remarks");
        sources.remarks.push(Remark { file: String::new(), line: 0, text });
    }
    sources
}

/// Runs the parser and git in a sandbox; returns the remarks and the number of commits.
fn run_tools(
    root: &Path,
    files: &[PathBuf],
    submission: &Submission,
    settings: &Settings,
) -> Verdict<(String, Option<usize>)> {
    let python = interpreter(&submission.programs);
    let has_git = root.join(".git").exists() && tools::find("git").is_some();
    let scripts: Vec<&PathBuf> = files
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "py"))
        .filter(|path| fs::metadata(path).is_ok_and(|file| file.len() <= SIZE))
        .take(FILES)
        .collect();
    let parses = python.is_some() && !scripts.is_empty();
    if !parses && !has_git {
        return Ok((String::new(), None));
    }
    let dir = settings.dir.join("sources");
    fs::create_dir_all(&dir)?;
    let context =
        Context::new(Arc::new(Subject::default()), dir, settings.seed).guarded(settings.limits);
    // A submission that was built is graded in a copy; its history and scripts are in the original.
    let mut files = settings.files([submission]);
    files.readable.extend(submission.directory.clone());
    context.enter_sandbox(&settings.support, &files, settings.keep)?;
    let found = (|| {
        let run = |mut command: Command| -> Verdict<String> {
            command.current_dir(context.dir());
            let mut process = context.try_spawn_confined(command, None)?;
            process.wait(LIMIT).map_err(Stop::into_trouble)?;
            Ok(process.stdout().text())
        };
        let mut lines = String::new();
        if let (Some(python), true) = (python, parses) {
            let script = context.dir().join("source_checks.py");
            fs::write(&script, SCRIPT)?;
            let mut command = Command::new(python);
            command.args(["-I", "-S", "-B"]).arg(script).args(&scripts);
            lines = run(command)?;
        }
        let mut commits = None;
        if has_git {
            let mut command = Command::new("git");
            command.args(["-c", "safe.directory=*", "-C"]).arg(root);
            command.args(["rev-list", "--count", "HEAD"]);
            // A repository without commits has no HEAD.
            commits = Some(run(command)?.trim().parse().unwrap_or(0));
        }
        Ok((lines, commits))
    })();
    process::end_all_of(context.owner());
    context.leave_sandbox();
    found
}

/// Returns the Python interpreter that a program is started with.
fn interpreter(programs: &Subject) -> Option<String> {
    let templates = [&programs.client, &programs.server_s, &programs.server];
    let words = templates.into_iter().flatten().map(Template::program);
    let mut pythons = words.filter(|word| {
        let name = Path::new(word).file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("python")
    });
    pythons.next().map(str::to_owned)
}

/// Collects the files below `dir`, without those of version control and virtual environments.
fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let is_stray = STRAY.iter().any(|stray| name == *stray);
        let is_foreign = [".git", "venv", ".venv", "node_modules", "build"].map(OsString::from);
        if is_dir && !is_stray && !is_foreign.contains(&name) {
            collect(&path, files);
        } else if (!is_dir || is_stray) && files.len() < 10_000 {
            files.push(path);
        }
    }
}
