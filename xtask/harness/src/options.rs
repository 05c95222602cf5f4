//! The options that the tools have in common.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use super::cargo;

/// Options of a tool that runs many tests: scenarios, checks or cases.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RunOptions {
    /// List the tests instead of running them
    #[arg(long)]
    pub list: bool,
    /// Run only tests with this text in name or description (repeatable)
    #[arg(long, value_name = "TEXT")]
    pub filter: Vec<String>,
    /// Keep the files and outputs of failed tests and print their path
    #[arg(long)]
    pub keep: bool,
    /// Number of concurrent tests that use the CPU [default: by cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Seed of file contents and of other random choices [default: random; 1 in accio-grade]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Test our own programs in this directory instead of building them
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
}

impl RunOptions {
    /// Returns whether the filter selects a test with this name.
    pub fn selects(&self, name: &str) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|text| name.contains(text.as_str()))
    }

    /// Returns the number of concurrent tests, by default this many per core.
    pub fn jobs(&self, per_core: usize) -> usize {
        let cores = thread::available_parallelism().map_or(2, usize::from);
        self.jobs.map_or(per_core * cores, usize::from)
    }

    /// Returns the seed, by default a random one that is short to type.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| fastrand::u64(..1 << 32))
    }

    /// Returns the directory of our own programs and builds them unless it was given. If the build
    /// fails, cargo prints the reason, and this returns `None`.
    pub fn programs(&self) -> io::Result<Option<PathBuf>> {
        match &self.bin_dir {
            Some(dir) => std::path::absolute(dir).map(Some),
            None => cargo::build(),
        }
    }

    /// Adds the options to the command of a tool, except for those that select tests.
    pub fn add_to(&self, command: &mut Command) {
        command.args(self.keep.then_some("--keep"));
        if let Some(jobs) = self.jobs {
            command.arg("--jobs").arg(jobs.to_string());
        }
        if let Some(seed) = self.seed {
            command.arg("--seed").arg(seed.to_string());
        }
        if let Some(dir) = &self.bin_dir {
            command.arg("--bin-dir").arg(dir);
        }
    }
}
