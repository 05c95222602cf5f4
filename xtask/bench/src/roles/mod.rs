//! Baseline servers and load generators, each run in its own process.

mod alternatives;
mod baseline;
mod drain;
mod hold;
mod listener;
mod load;
mod lower_bound;
mod stream;

use std::path::PathBuf;

use anyhow::Result;

/// A part of the benchmark that runs in its own process, so that its cost can be measured
/// separately.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Role {
    /// Store uploads with a loop of read and write
    #[command(hide = true)]
    ServeLoop { port: u16, dir: PathBuf },
    /// Store uploads with std::io::copy
    #[command(hide = true)]
    ServeCopy { port: u16, dir: PathBuf },
    /// Store small uploads durably, one after another
    #[command(hide = true)]
    ServeDurable { port: u16, dir: PathBuf },
    /// Store uploads one at a time in an alternative way
    #[command(hide = true)]
    ServeAlternative { port: u16, dir: PathBuf, alternative: Alternative },
    /// Discard uploads in the kernel
    #[command(hide = true)]
    Drain { port: u16, protocol: drain::DrainProtocol },
    /// Read small uploads and discard them
    #[command(hide = true)]
    LowerBound { port: u16, threads: usize, design: lower_bound::Design },
    /// Send a file with a loop of read and write
    #[command(hide = true)]
    SendLoop { port: u16, file: PathBuf },
    /// Send a file with std::io::copy
    #[command(hide = true)]
    SendCopy { port: u16, file: PathBuf },
    /// Send a file with sendfile
    #[command(hide = true)]
    SendFile { port: u16, file: PathBuf },
    /// Upload many small files
    #[command(hide = true)]
    Load(load::LoadOptions),
    /// Hold many connections open
    #[command(hide = true)]
    Hold(hold::HoldOptions),
}

impl Role {
    pub(crate) fn run(&self) -> Result<()> {
        match self {
            Role::ServeLoop { port, dir } => baseline::serve(*port, dir, baseline::copy_by_loop),
            Role::ServeCopy { port, dir } => baseline::serve(*port, dir, baseline::copy_by_std),
            Role::ServeDurable { port, dir } => baseline::serve_durable(*port, dir),
            Role::ServeAlternative { port, dir, alternative } => {
                baseline::serve(*port, dir, alternative.copy_function())
            }
            Role::Drain { port, protocol } => drain::serve(*port, *protocol),
            Role::LowerBound { port, threads, design } => {
                lower_bound::serve(*port, *threads, *design)
            }
            Role::SendLoop { port, file } => baseline::send(*port, file, baseline::send_by_loop),
            Role::SendCopy { port, file } => baseline::send(*port, file, baseline::send_by_std),
            Role::SendFile { port, file } => {
                baseline::send(*port, file, baseline::send_by_sendfile)
            }
            Role::Load(options) => load::run(options),
            Role::Hold(options) => hold::run(options),
        }
    }
}

pub(crate) use alternatives::Alternative;
pub(crate) use drain::DrainProtocol;
pub(crate) use load::{Protocol, pattern};
pub(crate) use lower_bound::Design;
