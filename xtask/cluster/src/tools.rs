//! The third-party programs of the cluster.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use accio_harness::process;
use accio_harness::tools::find;
use anyhow::{Context, Result};

use super::balance::Balancer;

/// Time limit for a command of the store.
const LIMIT: Duration = Duration::from_secs(60);

/// Paths of the third-party programs.
#[derive(Debug, Clone)]
pub(super) struct Tools {
    pub(super) garage: PathBuf,
    pub(super) haproxy: PathBuf,
    /// Only if it is selected as the load balancer.
    pub(super) envoy: Option<PathBuf>,
    pub(super) curl: PathBuf,
}

impl Tools {
    /// Finds all programs, or returns the name of a missing one.
    pub(super) fn find(
        garage: Option<&Path>,
        balancer: Option<Balancer>,
    ) -> Result<Tools, &'static str> {
        let garage = garage.map_or_else(|| find("garage"), |path| Some(path.to_owned()));
        let envoy = match balancer {
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
