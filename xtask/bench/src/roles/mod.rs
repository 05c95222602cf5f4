//! Baseline servers and load generators, each run as a process of its own.

mod alternatives;
mod baseline;
mod drain;
mod hold;
mod listener;
mod load;
mod lower_bound;

use std::path::PathBuf;

use anyhow::Result;

/// Part of the benchmark in a process of its own, so that its cost can be told apart.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Role {
    /// Keep uploads with a plain loop of read and write
    #[command(hide = true)]
    ServeLoop { port: u16, dir: PathBuf },
    /// Keep uploads with std::io::copy
    #[command(hide = true)]
    ServeCopy { port: u16, dir: PathBuf },
    /// Keep uploads one at a time, in a way that was tried
    #[command(hide = true)]
    ServeIdea { port: u16, dir: PathBuf, idea: Idea },
    /// Drop uploads in the kernel
    #[command(hide = true)]
    Drain { port: u16, dialect: drain::Speaks },
    /// Read small uploads and forget them
    #[command(hide = true)]
    Floor { port: u16, threads: usize, design: lower_bound::Design },
    /// Send a file with a plain loop of read and write
    #[command(hide = true)]
    SendLoop { port: u16, file: PathBuf },
    /// Send a file with std::io::copy
    #[command(hide = true)]
    SendCopy { port: u16, file: PathBuf },
    /// Send a file with sendfile alone
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
    pub(crate) fn play(&self) -> Result<()> {
        match self {
            Role::ServeLoop { port, dir } => baseline::serve(*port, dir, baseline::copy_by_loop),
            Role::ServeCopy { port, dir } => baseline::serve(*port, dir, baseline::copy_by_std),
            Role::ServeIdea { port, dir, idea } => baseline::serve(*port, dir, idea.copy()),
            Role::Drain { port, dialect } => drain::serve(*port, *dialect),
            Role::Floor { port, threads, design } => lower_bound::serve(*port, *threads, *design),
            Role::SendLoop { port, file } => baseline::send(*port, file, baseline::send_by_loop),
            Role::SendCopy { port, file } => baseline::send(*port, file, baseline::send_by_std),
            Role::SendFile { port, file } => {
                baseline::send(*port, file, baseline::send_by_sendfile)
            }
            Role::Load(plan) => load::run(plan),
            Role::Hold(plan) => hold::run(plan),
        }
    }
}

pub(crate) use alternatives::Idea;
pub(crate) use drain::Speaks;
pub(crate) use load::{Speech, pattern};
pub(crate) use lower_bound::Design;
