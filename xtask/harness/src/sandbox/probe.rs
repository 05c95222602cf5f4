//! The process that tries whether sandboxes are possible.

use std::io;
use std::process::Command;
use std::sync::Arc;

use super::Sandbox;
use super::files::Files;
use super::support::Support;
use crate::peer::SOON;
use crate::process::NO_OWNER;
use crate::resource_limits::Limits;

/// Runs a program in a sandbox.
pub(super) fn probe() -> io::Result<()> {
    let support = Arc::new(Support::untried()?);
    let dir = tempfile::tempdir()?;
    let (files, owner) = (Files::default(), NO_OWNER - 1);
    let sandbox = Sandbox::enter(&support, &files, dir.path(), owner, Limits::default(), false)
        .map_err(io::Error::other)?;
    let mut command = Command::new("true");
    command.current_dir("/");
    let mut program = sandbox.spawn(&command, None)?;
    let exit = program.wait(SOON).map_err(io::Error::other)?;
    match exit.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(exit.describe())),
    }
}
