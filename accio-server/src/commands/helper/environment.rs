//! The environment of the commands.

use std::process::Command;

use accio_cli::peer_text;

use crate::commands::setup::Job;

/// Describes a file to a command.
pub(super) fn describe(command: &mut Command, job: &Job) {
    command
        .env("ACCIO_ID", job.id.to_string())
        .env("ACCIO_BYTES", job.bytes.to_string())
        .env("ACCIO_IDENTITY", job.identity.as_deref().unwrap_or_default())
        .env("ACCIO_FILE_DIGEST", job.digest.as_deref().unwrap_or_default())
        .env("ACCIO_PEER", job.peer.map(peer_text).unwrap_or_default());
}
