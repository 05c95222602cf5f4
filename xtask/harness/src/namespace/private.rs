//! A network namespace in which this program runs itself again.

use std::process::{Command, ExitStatus};

use super::commands::{LIMIT, ip};
use crate::process;
use crate::tools;
use crate::verdict::{Stop, Verdict};

/// A way to make a network namespace that this user may use: as root, or as the root of a user
/// namespace.
#[derive(Debug)]
pub struct PrivateNamespace {
    arguments: &'static [&'static str],
}

impl PrivateNamespace {
    /// Tries both ways with nftables rules as they will be used; a skip with the reason if neither
    /// works.
    pub fn find(rules: &str) -> Verdict<PrivateNamespace> {
        let (unshare, nft) = (tools::require("unshare")?, tools::require("nft")?);
        let mut why = String::new();
        for arguments in [&["--net"][..], &["--user", "--map-root-user", "--net"][..]] {
            let mut command = Command::new(&unshare);
            command.args(arguments).arg(&nft).args(["-f", "-"]);
            match process::checked_output(command, rules.as_bytes(), LIMIT) {
                Ok(_) => return Ok(PrivateNamespace { arguments }),
                Err(error) => why = error.to_string(),
            }
        }
        Err(Stop::skip(format!("no network namespace with nftables: {why}")))
    }

    /// Runs this program within, with its own arguments and one more.
    pub fn run_self(&self, argument: &str) -> Verdict<ExitStatus> {
        let mut command = Command::new(tools::require("unshare")?);
        command.args(self.arguments).arg(std::env::current_exe()?);
        command.args(std::env::args_os().skip(1)).arg(argument);
        Ok(process::foreground(&mut command)?)
    }

    /// Within: starts the loopback interface, which a new namespace has switched off.
    pub fn start_loopback() -> Verdict {
        ip(&["-batch", "-"], "link set lo up\n").map(drop)
    }

    /// Within: replaces the nftables rules.
    pub fn set_rules(rules: &str) -> Verdict {
        let mut command = Command::new(tools::require("nft")?);
        command.args(["-f", "-"]);
        process::checked_output(command, rules.as_bytes(), LIMIT).map(drop)
    }
}
