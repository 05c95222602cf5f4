//! Builds the programs reproducibly: without paths of this machine and without the time.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use accio_harness::cargo::cargo;
use accio_harness::process::{checked_output, foreground, output};
use anyhow::{Context, bail};

use super::common::{LIMIT, PACKAGES, PROGRAMS};

/// The target of a build.
pub(super) struct Target {
    /// The target given on the command line.
    given: Option<String>,
    name: String,
    sysroot: PathBuf,
}

impl Target {
    pub(super) fn new(given: Option<&str>) -> anyhow::Result<Target> {
        let version = rustc(&["--version", "--verbose"])?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.context("rustc does not print its host")?;
        let sysroot = rustc(&["--print", "sysroot"])?.trim().into();
        let name = given.unwrap_or(host).to_owned();
        Ok(Target { given: given.map(str::to_owned), name, sysroot })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_linux(&self) -> bool {
        self.name.contains("linux")
    }

    /// Returns the name of the processor in Debian packages and container images.
    pub(super) fn debian_arch(&self) -> &str {
        match self.processor() {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }

    /// Returns the first part of the target's name.
    pub(super) fn processor(&self) -> &str {
        self.name.split('-').next().unwrap_or_default()
    }

    /// Builds all programs; `None` if cargo has printed an error.
    pub(super) fn build(&self) -> anyhow::Result<Option<PathBuf>> {
        let library = self.sysroot.join("lib/rustlib").join(&self.name);
        if !library.is_dir() {
            let name = &self.name;
            bail!("cannot build for {name}: no standard library: run `rustup target add {name}`");
        }
        let mut build = cargo();
        build.args(["build", "--release", "--locked"]).args(selection());
        if let Some(name) = &self.given {
            build.args(["--target", name]);
        }
        build.env("CARGO_ENCODED_RUSTFLAGS", flags()?).env("CARGO_INCREMENTAL", "0");
        build.env("SOURCE_DATE_EPOCH", epoch()?.to_string());
        if !foreground(&mut build)?.success() {
            return Ok(None);
        }
        let target = env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
        Ok(Some(match &self.given {
            Some(name) => target.join(name).join("release"),
            None => target.join("release"),
        }))
    }

    /// Returns a directory with programs that run here, to print man pages and completions: `bin`,
    /// or a build for this machine if those are for another one.
    pub(super) fn generators(&self, bin: &Path) -> anyhow::Result<PathBuf> {
        let mut probe = Command::new(fs::canonicalize(bin)?.join(PROGRAMS[0]));
        probe.arg("--version");
        if output(probe, b"", LIMIT).is_ok_and(|output| output.status.success()) {
            return Ok(fs::canonicalize(bin)?);
        }
        let mut build = cargo();
        build.args(["build", "--locked"]).args(selection());
        if !foreground(&mut build)?.success() {
            bail!("cannot build the programs for this machine");
        }
        // This program is target/PROFILE/NAME.
        let own = env::current_exe()?;
        let target = own.parent().and_then(Path::parent);
        Ok(target.context("this program is not in a target directory")?.join("debug"))
    }
}

/// Returns the arguments of cargo that select the programs; some packages have others, for tests.
fn selection() -> impl Iterator<Item = &'static str> {
    let packages = PACKAGES.into_iter().flat_map(|package| ["--package", package]);
    packages.chain(PROGRAMS.into_iter().flat_map(|program| ["--bin", program]))
}

/// Returns the time of the last commit, which stands for that of the build.
pub(super) fn epoch() -> anyhow::Result<u64> {
    if let Ok(given) = env::var("SOURCE_DATE_EPOCH") {
        return given.parse().with_context(|| format!("SOURCE_DATE_EPOCH {given:?}"));
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"]);
    let text = checked_output(git, b"", LIMIT).context("set SOURCE_DATE_EPOCH outside of git")?;
    Ok(String::from_utf8_lossy(&text).trim().parse()?)
}

/// Returns the flags of rustc that keep the paths of this machine out of the programs.
fn flags() -> io::Result<String> {
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map_or(home.join(".cargo"), PathBuf::from);
    let given = env::var("RUSTFLAGS").unwrap_or_default();
    let mut flags: Vec<String> = given.split_whitespace().map(str::to_owned).collect();
    for (from, to) in [(env::current_dir()?, "/accio"), (cargo_home, "/cargo")] {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    }
    Ok(flags.join("\u{1f}"))
}

fn rustc(arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    command.args(arguments);
    Ok(String::from_utf8(checked_output(command, b"", LIMIT)?)?)
}
