//! The third-party programs of the cluster.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use accio_harness::process;
use accio_harness::tools::find;
use anyhow::{Context, Result};

use super::balance::Balancer;

/// How long a command of the store may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Paths of the third-party programs.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    pub(super) garage: PathBuf,
    pub(super) haproxy: PathBuf,
    /// Where the way through it was chosen.
    pub(super) envoy: Option<PathBuf>,
    pub(super) curl: PathBuf,
}

impl Tools {
    /// All of them, or the name of one that is missing.
    pub(super) fn find(
        garage: Option<&Path>,
        way: Option<Balancer>,
    ) -> Result<Tools, &'static str> {
        let garage = garage.map_or_else(|| find("garage"), |path| Some(path.to_owned()));
        let envoy = match way {
            Some(Balancer::Envoy) => Some(find("envoy").ok_or("envoy")?),
            _ => None,
        };
        Ok(Tools {
            envoy,
            garage: garage.filter(|path| path.is_file()).ok_or("garage")?,
            haproxy: find("haproxy").ok_or("haproxy")?,
            curl: find("curl").ok_or("curl")?,
        })
    }

    pub(super) fn garage(&self, config: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.garage);
        command.arg("-c").arg(config).args(arguments).env("RUST_LOG", "error");
        let output =
            process::checked_output(command, b"", LIMIT).with_context(|| arguments.join(" "))?;
        Ok(String::from_utf8(output)?)
    }
}
