//! A network namespace in which this program runs again.

use std::process::{Command, ExitStatus};

use super::commands::{LIMIT, ip};
use crate::process;
use crate::tools;
use crate::verdict::{Stop, Verdict};

/// A command that creates a network namespace with the rights of this user: as root, or in a user
/// namespace.
#[derive(Debug)]
pub struct PrivateNamespace {
    arguments: &'static [&'static str],
}

impl PrivateNamespace {
    /// Finds a command that can create a namespace and set these nftables rules; returns a skip
    /// with the reason if there is none.
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
        Err(Stop::skip(format!("cannot create a network namespace with nftables: {why}")))
    }

    /// Runs this program in a new namespace, with the same arguments and `argument`.
    pub fn run_self(&self, argument: &str) -> Verdict<ExitStatus> {
        let mut command = Command::new(tools::require("unshare")?);
        command.args(self.arguments).arg(std::env::current_exe()?);
        command.args(std::env::args_os().skip(1)).arg(argument);
        Ok(process::foreground(&mut command)?)
    }

    /// Starts the loopback interface, which is down in a new namespace. Call it inside.
    pub fn start_loopback() -> Verdict {
        ip(&["-batch", "-"], "link set lo up\n").map(drop)
    }

    /// Replaces the nftables rules. Call it inside the namespace.
    pub fn set_rules(rules: &str) -> Verdict {
        let mut command = Command::new(tools::require("nft")?);
        command.args(["-f", "-"]);
        process::checked_output(command, rules.as_bytes(), LIMIT).map(drop)
    }
}
