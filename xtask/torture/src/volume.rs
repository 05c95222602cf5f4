//! Small file systems that a case mounts in order to fill them or cut their power.

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

/// Time limit for `mount`, `mkfs.ext4` and so on; generous, because the disk may be busy.
const LIMIT: Duration = Duration::from_secs(120);

/// The current mount points.
static MOUNTED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn mounted() -> MutexGuard<'static, Vec<PathBuf>> {
    MOUNTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Unmounts all file systems, including those in use.
pub(crate) fn unmount_all() {
    for path in mounted().iter() {
        let _ = command("umount", &["-l"], &[path]);
    }
}

/// A mounted file system, unmounted on drop.
#[derive(Debug)]
pub(crate) struct Volume {
    at: PathBuf,
    /// The image file of an ext4; a tmpfs has none.
    image: Option<PathBuf>,
    mounted: bool,
}

impl Volume {
    /// Mounts a file system in memory.
    pub(crate) fn tmpfs(context: &Context, unprivileged: bool, options: &str) -> Verdict<Volume> {
        ensure_root(unprivileged)?;
        let at = context.fresh("tmpfs");
        fs::create_dir(&at)?;
        command("mount", &["-t", "tmpfs", "-o", options, "accio"], &[&at])
            .map_err(|why| Stop::skip(format!("cannot mount a tmpfs: {why}")))?;
        mounted().push(at.clone());
        Ok(Volume { at, image: None, mounted: true })
    }

    /// Creates and mounts an ext4 of `bytes` bytes in an image file.
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

    /// Returns whether its contents survive an unmount.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.image.is_some()
    }

    /// Returns its mount point.
    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    /// Mounts it again, which replays the journal.
    pub(crate) fn mount(&mut self) -> Verdict {
        if let Some(image) = &self.image {
            command("mount", &["-o", "loop"], &[image, &self.at]).map_err(Stop::into_trouble)?;
            self.mounted = true;
            mounted().push(self.at.clone());
        }
        Ok(())
    }

    pub(crate) fn unmount(&mut self) -> Verdict {
        // Between fork and exec, a new child process still holds copies of our descriptors.
        let mut last = Ok(());
        wait_until(SOON, || {
            last = command("umount", &[], &[&self.at]);
            last.is_ok()
        });
        last.map_err(Stop::into_trouble)?;
        self.mounted = false;
        mounted().retain(|path| *path != self.at);
        self.ensure_released()
    }

    /// Fails while the file system is still mounted elsewhere: mounting it again would only return
    /// the same file system, including its state after a power loss.
    fn ensure_released(&self) -> Verdict {
        let Some(image) = &self.image else { return Ok(()) };
        let mut devices = String::new();
        wait_until(SOON, || {
            let mut command = Command::new("losetup");
            command.arg("-j").arg(image);
            devices = process::checked_output(command, b"", LIMIT)
                .map_or_else(|stop| stop.to_string(), |out| String::from_utf8_lossy(&out).into());
            devices.is_empty()
        });
        if devices.is_empty() {
            return Ok(());
        }
        let why = "another mount namespace has a copy of the file system";
        Err(Stop::Trouble(format!("{}: {why}: {devices}", self.at.display())))
    }

    /// Checks with `e2fsck` that the unmounted file system is consistent.
    pub(crate) fn check(&self) -> Verdict {
        let Some(image) = &self.image else { return Ok(()) };
        command("e2fsck", &["-f", "-n"], &[image])
            .map_err(|why| Stop::fault("a consistent file system", why.to_string()))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // The processes that still use it are being killed; a lazy unmount completes after their
        // end.
        if self.mounted && command("umount", &[], &[&self.at]).is_err() {
            let _ = command("umount", &["-l"], &[&self.at]);
        }
        mounted().retain(|path| *path != self.at);
    }
}

/// Runs a tool and fails unless it exits with 0.
pub(crate) fn command(name: &str, words: &[&str], paths: &[&Path]) -> Verdict {
    let mut command = Command::new(tools::require(name)?);
    command.args(words).args(paths);
    process::checked_output(command, b"", LIMIT).map(drop)
}
