//! The programs, directories and source files of the benchmark.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use accio_harness::cargo;
use accio_harness::process::foreground;
use accio_harness::work_dir::WorkDir;
use anyhow::{Context, Result, bail, ensure};

use super::peers::{Identity, create_identity};
use super::roles::pattern;

/// The file system that uploads are stored on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    Disk,
    Tmpfs,
}

#[derive(Debug)]
pub(super) struct Workspace {
    bin: PathBuf,
    this: PathBuf,
    before: Option<PathBuf>,
    disk: WorkDir,
    tmpfs: Option<WorkDir>,
    identity: OnceLock<Identity>,
    tokio: OnceLock<PathBuf>,
}

impl Workspace {
    /// Builds the programs and creates the directories.
    pub(super) fn set_up(dir: Option<&Path>, before: Option<&Path>, keep: bool) -> Result<Self> {
        let bin = cargo::build()?.context("the programs do not build")?;
        let target = bin.parent().context("no target directory")?;
        let create = |parent: &Path| -> Result<WorkDir> {
            let mut dir = WorkDir::within(parent, "bench", || ())?;
            if keep {
                dir.keep();
            }
            Ok(dir)
        };
        let disk = dir.map_or_else(|| target.join("bench"), Path::to_owned);
        let disk = create(&std::path::absolute(disk)?)?;
        let memory = Path::new("/dev/shm");
        let tmpfs = match file_system(memory) {
            Some("tmpfs") => Some(create(memory)?),
            _ => None,
        };
        let before = before.map(std::path::absolute).transpose()?;
        let this = std::env::current_exe()?;
        let (identity, tokio) = (OnceLock::new(), OnceLock::new());
        Ok(Workspace { bin, this, before, disk, tmpfs, identity, tokio })
    }

    /// Returns the command that runs one of our programs, built for release.
    pub(super) fn program(&self, name: &str) -> Command {
        Command::new(self.bin.join(name))
    }

    pub(super) fn binary(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Returns the accio-server to compare ours with.
    pub(super) fn before(&self) -> Option<&Path> {
        self.before.as_deref()
    }

    /// Returns the example server of accio-tokio, which is built on first use.
    pub(super) fn tokio(&self) -> Result<&Path> {
        if let Some(program) = self.tokio.get() {
            return Ok(program);
        }
        let mut build = cargo::cargo();
        build.args(["build", "--release", "--package", "accio-tokio", "--example", "server"]);
        ensure!(foreground(&mut build)?.success(), "the server on tokio does not build");
        Ok(self.tokio.get_or_init(|| self.bin.join("examples/server")))
    }

    /// Returns the key of the servers with TLS, which is created on first use.
    pub(super) fn identity(&self) -> Result<&Identity> {
        match self.identity.get() {
            Some(identity) => Ok(identity),
            None => {
                let state = self.dir(Storage::Disk, "tls")?;
                let identity = create_identity(self.program("accio-server"), &state)?;
                Ok(self.identity.get_or_init(|| identity))
            }
        }
    }

    /// Returns the command that runs a role of the benchmark.
    pub(super) fn role(&self, name: &str) -> Command {
        let mut command = Command::new(&self.this);
        command.arg(name);
        command
    }

    pub(super) fn root(&self, storage: Storage) -> Result<&Path> {
        match storage {
            Storage::Disk => Ok(self.disk.path()),
            Storage::Tmpfs => match &self.tmpfs {
                Some(dir) => Ok(dir.path()),
                None => bail!("/dev/shm is not a tmpfs"),
            },
        }
    }

    pub(super) fn file_system(&self, storage: Storage) -> &'static str {
        self.root(storage).ok().and_then(file_system).unwrap_or("unknown")
    }

    /// Creates an empty directory.
    pub(super) fn dir(&self, storage: Storage, name: &str) -> Result<PathBuf> {
        let dir = self.root(storage)?.join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Returns a file of this size to upload. It is created once, and is then in the page cache.
    pub(super) fn source(&self, size: u64) -> Result<PathBuf> {
        let path = self.disk.path().join(format!("source-{size}"));
        if !path.exists() {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
            // The block length is not a multiple of a page or buffer, so that misplaced data
            // differs.
            let block = pattern((1 << 20) + 13);
            let mut left = size;
            while left > 0 {
                let count = left.min(block.len() as u64);
                file.write_all(&block[..count as usize])?;
                left -= count;
            }
            file.flush()?;
            // Write it back now instead of during a measurement.
            file.get_ref().sync_all()?;
        }
        Ok(path)
    }
}

/// Compares the files byte by byte.
pub(super) fn check_copy(source: &Path, copy: &Path) -> Result<()> {
    let open = |path: &Path| File::open(path).with_context(|| format!("{}", path.display()));
    let (mut left, mut right) = (open(source)?, open(copy)?);
    let (size, wanted) = (right.metadata()?.len(), left.metadata()?.len());
    ensure!(size == wanted, "{} has {size} bytes instead of {wanted}", copy.display());
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0;
    while at < wanted {
        let count = usize::try_from((wanted - at).min(1 << 20))?;
        left.read_exact(&mut a[..count])?;
        right.read_exact(&mut b[..count])?;
        ensure!(a[..count] == b[..count], "{} differs near byte {at}", copy.display());
        at += count as u64;
    }
    Ok(())
}

fn file_system(path: &Path) -> Option<&'static str> {
    match rustix::fs::statfs(path).ok()?.f_type as u64 {
        0x0102_1994 => Some("tmpfs"),
        0xef53 => Some("ext4"),
        0x9123_683e => Some("btrfs"),
        0x5846_5342 => Some("xfs"),
        0x794c_7630 => Some("overlayfs"),
        0x2fc1_2fc1 => Some("zfs"),
        _ => None,
    }
}
