//! Small file systems to fill up or to cut off, mounted for the time of a case.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::privileges::ensure_root;
use accio_harness::context::{Context, wait_until};
use accio_harness::peer::SOON;
use accio_harness::verdict::{Stop, Verdict};
use accio_harness::{process, tools};

/// How long a tool may take on a busy disk.
const LIMIT: Duration = Duration::from_secs(120);

/// Where file systems are mounted now.
static MOUNTED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn mounted() -> MutexGuard<'static, Vec<PathBuf>> {
    MOUNTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unmounts all file systems, even those in use.
pub(crate) fn unmount_all() {
    for path in mounted().iter() {
        let _ = command("umount", &["-l"], &[path]);
    }
}

/// A mounted file system; unmounted with its handle.
#[derive(Debug)]
pub(crate) struct Volume {
    at: PathBuf,
    /// Of one that survives being unmounted.
    image: Option<PathBuf>,
    mounted: bool,
}

impl Volume {
    /// A file system in memory.
    pub(crate) fn tmpfs(context: &Context, unprivileged: bool, options: &str) -> Verdict<Volume> {
        ensure_root(unprivileged)?;
        let at = context.fresh("tmpfs");
        fs::create_dir(&at)?;
        command("mount", &["-t", "tmpfs", "-o", options, "accio"], &[&at])
            .map_err(|why| Stop::skip(format!("cannot mount a tmpfs: {why}")))?;
        mounted().push(at.clone());
        Ok(Volume { at, image: None, mounted: true })
    }

    /// An ext4 of so many bytes in an image of its own.
    pub(crate) fn ext4(
        context: &Context,
        unprivileged: bool,
        bytes: u64,
        make: &[&str],
    ) -> Verdict<Volume> {
        ensure_root(unprivileged)?;
        for tool in ["mkfs.ext4", "e2fsck", "losetup"] {
            tools::require(tool)?;
        }
        if !Path::new("/dev/loop-control").exists() {
            return Err(Stop::skip("no loop devices: no /dev/loop-control"));
        }
        let (image, at) = (context.fresh("image"), context.fresh("ext4"));
        File::create(&image)?.set_len(bytes)?;
        fs::create_dir(&at)?;
        let options = [&["-q", "-F", "-m", "0"], make].concat();
        command("mkfs.ext4", &options, &[&image]).map_err(Stop::into_trouble)?;
        let mut volume = Volume { at, image: Some(image), mounted: false };
        volume.mount().map_err(|stop| match stop {
            Stop::Trouble(why) => Stop::skip(format!("cannot mount an ext4: {why}")),
            stop => stop,
        })?;
        Ok(volume)
    }

    /// Whether it is one that would survive being unmounted.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.image.is_some()
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Mounts it again, which replays its journal.
    pub(crate) fn mount(&mut self) -> Verdict {
        if let Some(image) = &self.image {
            command("mount", &["-o", "loop"], &[image, &self.at]).map_err(Stop::into_trouble)?;
            self.mounted = true;
            mounted().push(self.at.clone());
        }
        Ok(())
    }

    /// Unmounts it.
    pub(crate) fn unmount(&mut self) -> Verdict {
        // A process that is being started has, for a moment, all that we have open.
        let mut last = Ok(());
        wait_until(SOON, || {
            last = command("umount", &[], &[&self.at]);
            last.is_ok()
        });
        last.map_err(Stop::into_trouble)?;
        self.mounted = false;
        mounted().retain(|path| *path != self.at);
        Ok(())
    }

    /// A fault unless the unmounted file system is consistent.
    pub(crate) fn check(&self) -> Verdict {
        let Some(image) = &self.image else { return Ok(()) };
        command("e2fsck", &["-f", "-n"], &[image])
            .map_err(|why| Stop::fault("a consistent file system", why.to_string()))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // What still uses it is being killed; it goes when that is gone.
        if self.mounted && command("umount", &[], &[&self.at]).is_err() {
            let _ = command("umount", &["-l"], &[&self.at]);
        }
        mounted().retain(|path| *path != self.at);
    }
}

/// Runs a tool to its end, which must be a success.
pub(crate) fn command(name: &str, words: &[&str], paths: &[&Path]) -> Verdict {
    let mut command = Command::new(tools::require(name)?);
    command.args(words).args(paths);
    process::checked_output(command, b"", LIMIT).map(drop)
}
