//! Selects the programs to grade, and returns the options that repeat a check.

use std::path::{Path, PathBuf};

use accio_harness::quoting::{quote, quote_untrusted};
use anyhow::{Context, bail};

use super::{COURSES, DISK, MEMORY, Options, RunSettings};
use crate::build;
use crate::detect;
use crate::discovery;
use crate::settings::Submission;
use crate::trial::Network;
use accio_harness::peer::Dialect;
use accio_harness::subject::Subject;

impl Options {
    /// Returns the options that repeat a check, in addition to those that select the submission.
    pub(super) fn repeat(&self) -> String {
        let mut options = String::new();
        if let Some(dir) = &self.workdir {
            options.push_str(&format!(" --workdir {}", quote(&dir.to_string_lossy())));
        }
        if self.memory != MEMORY {
            options.push_str(&format!(" --memory {}", self.memory));
        }
        if self.no_build {
            options.push_str(" --no-build");
        }
        if self.allow_start_up_lines {
            options.push_str(" --allow-start-up-lines");
        }
        if self.repository_points {
            options.push_str(" --repository-points");
        }
        if let Some(path) = &self.rubric {
            options.push_str(&format!(" --rubric {}", quote(&path.to_string_lossy())));
        }
        if self.disk != DISK {
            options.push_str(&format!(" --disk {}", self.disk));
        }
        if self.network == Network::Proxy {
            options.push_str(" --network proxy");
        }
        options
    }

    /// Returns the programs to grade.
    pub(super) fn selected(&self, run: &RunSettings<'_>) -> anyhow::Result<Vec<Submission>> {
        if !self.is_third_party() {
            let bin_dir = self.run.bin_dir.as_deref().map(|dir| quote(&dir.to_string_lossy()));
            let bin_dir = bin_dir.map_or_else(String::new, |dir| format!("--bin-dir {dir} "));
            let dialects = self.handshake.map_or(Dialect::ALL.to_vec(), |dialect| vec![dialect]);
            return dialects
                .into_iter()
                .map(|dialect| {
                    Ok(Submission {
                        name: "our own programs".into(),
                        directory: None,
                        programs: Subject::own_in(run.bin, dialect)?,
                        dialect,
                        options: format!("{bin_dir}--handshake {}", dialect.name()),
                        build: None,
                        files: vec![run.bin.to_owned()],
                    })
                })
                .collect();
        }
        let detected = || self.subject().and_then(|dir| detect::dialect(dir)).unwrap_or(COURSES);
        let dialect = self.handshake.unwrap_or_else(detected);
        let mut options = String::new();
        let build = self.subject().and_then(|dir| build::tool(dir)).filter(|_| !self.no_build);
        let (name, programs) = match self.subject() {
            Some(dir) => {
                options.push_str(&format!("{} ", subject_option(dir)));
                let name = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
                let name = name.file_name().unwrap_or_default().to_string_lossy();
                let name = accio_cli::escape(&name).into_owned();
                let programs = match build {
                    Some(_) => Subject::default(),
                    None => discovery::programs(dir)?,
                };
                (name, programs)
            }
            None => {
                let mut template = |option: &str, text: &Option<String>, placeholders: &[&str]| {
                    let Some(text) = text else { return Ok(None) };
                    if let Some(place) = placeholders.iter().find(|place| !text.contains(**place)) {
                        bail!("{option} {text:?}: has no {place}: add it in place of the value");
                    }
                    options.push_str(&format!("{option} {} ", quote(text)));
                    discovery::template(text).map(Some).with_context(|| option.to_owned())
                };
                let programs = Subject {
                    server: template("--server", &self.server, &["{port}", "{dir}"])?,
                    server_s: template("--server-s", &self.server_s, &["{port}"])?,
                    client: template("--client", &self.client, &["{host}", "{port}", "{file}"])?,
                };
                ("subject".to_owned(), programs)
            }
        };
        options.push_str(&format!("--handshake {}", dialect.name()));
        let directory = self.subject().and_then(|dir| std::path::absolute(dir).ok());
        let files = match self.subject() {
            Some(dir) => vec![dir.clone()],
            None => programs.directories(),
        };
        Ok(vec![Submission { name, programs, dialect, directory, options, build, files }])
    }

    /// Returns the directories that no program may see.
    pub(super) fn hidden(&self) -> Vec<PathBuf> {
        let mut hidden: Vec<PathBuf> = self.submissions.iter().cloned().collect();
        hidden.extend(self.submissions.is_some().then(|| self.results.clone()));
        let files = self.outputs.files().chain(self.outputs.inputs());
        let directories = files.chain(self.rubric.as_deref()).filter_map(Path::parent);
        hidden.extend(directories.filter(|dir| !dir.as_os_str().is_empty()).map(Path::to_owned));
        hidden
    }
}

/// Returns the argument that selects a submission's directory.
pub(super) fn subject_option(dir: &Path) -> String {
    quote_untrusted(&dir.to_string_lossy())
}
