//! The files of a package.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use accio_harness::process::checked_output;

use super::common::{LIMIT, PROGRAMS, VERSION};

/// Documents of the repository, in addition to the pages of `docs/`.
const DOCUMENTS: [&str; 5] =
    ["README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE-APACHE", "LICENSE-MIT"];
/// The kinds of output of `--generate`, and their places below `share/`.
const GENERATED: [(&str, &str, &str); 4] = [
    ("man", "man/man1/", ".1"),
    ("complete-bash", "bash-completion/completions/", ""),
    ("complete-zsh", "zsh/vendor-completions/_", ""),
    ("complete-fish", "fish/vendor_completions.d/", ".fish"),
];
const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: accio

Files: *
Copyright: 2026 The Accio developers
License: MIT or Apache-2.0
 At your choice: the files LICENSE-MIT and LICENSE-APACHE in this directory.
 .
 On Debian systems, the Apache License 2.0 is also in /usr/share/common-licenses/Apache-2.0.
";

/// The directory with the files of a package.
pub(super) struct Tree {
    pub(super) root: PathBuf,
    /// The path before `bin`, `lib` and `share`.
    pub(super) prefix: &'static str,
}

impl Tree {
    /// Adds the programs in `bin`, what those in `generators` generate, and the documents.
    pub(super) fn fill(&self, bin: &Path, generators: &Path) -> anyhow::Result<()> {
        for program in PROGRAMS {
            self.put_program("bin", &bin.join(program))?;
            for (kind, place, ending) in GENERATED {
                let mut command = Command::new(generators.join(program));
                command.args(["--generate", kind]);
                let text = checked_output(command, b"", LIMIT)?;
                self.put(&format!("share/{place}{program}{ending}"), &text)?;
            }
        }
        for unit in ["accio-server.service", "accio-server.socket"] {
            let text = fs::read(Path::new("accio-server/dist").join(unit))?;
            self.put(&format!("lib/systemd/system/{unit}"), &text)?;
        }
        for example in ["accept-scan", "accept-size"] {
            let path = Path::new("accio-server/dist").join(example);
            self.put_program("share/doc/accio/examples", &path)?;
        }
        for document in DOCUMENTS {
            self.put(&format!("share/doc/accio/{document}"), &fs::read(document)?)?;
        }
        // The relative paths are the same as in the repository, so links between the pages stay
        // valid.
        for page in files(Path::new("docs"))? {
            self.put(&format!("share/doc/accio/{}", page.display()), &fs::read(&page)?)?;
        }
        Ok(())
    }

    /// Adds the files that only packages of a distribution have, and compresses the man pages.
    pub(super) fn add_system_files(&self, epoch: u64) -> anyhow::Result<()> {
        self.put("share/doc/accio/copyright", COPYRIGHT.as_bytes())?;
        self.put(
            "lib/sysusers.d/accio-server.conf",
            &fs::read("packaging/accio-server.sysusers")?,
        )?;
        self.put(
            "share/lintian/overrides/accio",
            &fs::read("packaging/debian/lintian-overrides")?,
        )?;
        let mut date = Command::new("date");
        date.args(["--utc", "--rfc-email", &format!("--date=@{epoch}")]);
        let date = String::from_utf8(checked_output(date, b"", LIMIT)?)?;
        let changes = format!(
            "accio ({VERSION}-1) unstable; urgency=medium\n\n  * CHANGELOG.md lists the changes.\n\n \
             -- Accio <accio@localhost>  {date}"
        );
        self.put("share/doc/accio/changelog.Debian", changes.as_bytes())?;
        for path in files(&self.root)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(".1") || name == "changelog.Debian" {
                let mut gzip = Command::new("gzip");
                gzip.args(["-n", "-9"]).arg(&path);
                checked_output(gzip, b"", LIMIT)?;
            }
        }
        let logrotate = fs::read("accio-server/dist/accio-server.logrotate")?;
        Tree { root: self.root.clone(), prefix: "" }
            .put("etc/logrotate.d/accio-server", &logrotate)?;
        Ok(())
    }

    fn put_program(&self, dir: &str, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let to = self.put(&format!("{dir}/{name}"), &fs::read(path)?)?;
        fs::set_permissions(to, fs::Permissions::from_mode(0o755))
    }

    fn put(&self, place: &str, content: &[u8]) -> io::Result<PathBuf> {
        let path = self.root.join(format!("{}{place}", self.prefix));
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(&path, content)?;
        // The mode must not depend on the umask.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        Ok(path)
    }
}

/// Returns all files below a directory, sorted.
pub(super) fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    let mut found = Vec::new();
    for entry in entries {
        match entry.file_type()?.is_dir() {
            true => found.extend(files(&entry.path())?),
            false => found.push(entry.path()),
        }
    }
    Ok(found)
}

pub(super) fn is_executable(path: &Path) -> io::Result<bool> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o111 != 0)
}
