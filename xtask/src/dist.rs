//! `cargo xtask dist`: packages the programs with their man pages, completions, systemd units and
//! licences, as a tarball and as a Debian package.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use accio_harness::process::checked_output;
use accio_harness::{TROUBLE, cargo, tools};

/// Time limit for each command.
const LIMIT: Duration = Duration::from_secs(600);
const VERSION: &str = env!("CARGO_PKG_VERSION");
const PROGRAMS: [&str; 3] = ["accio-client", "accio-server", "server-s"];
/// Documents of the repository, in addition to the pages of `docs/`.
const DOCUMENTS: [&str; 5] =
    ["README.md", "CHANGELOG.md", "SECURITY.md", "LICENSE-APACHE", "LICENSE-MIT"];

/// The options of `cargo xtask dist`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Directory for the packages
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    out: PathBuf,
}

/// Builds the programs and packs them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Some(bin) = cargo::build()? else { return Ok(ExitCode::from(TROUBLE)) };
    let out = &arguments.out;
    fs::create_dir_all(out)?;
    let work = tempfile::tempdir_in(out)?;
    let mut stdout = io::stdout().lock();

    let name = format!("accio-{VERSION}-{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let tree = Tree { root: work.path().join(&name), prefix: "" };
    tree.fill(&bin)?;
    let tarball = out.join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--file"]).arg(&tarball).arg("--directory");
    tar.arg(work.path()).arg(&name);
    checked_output(tar, b"", LIMIT)?;
    writeln!(stdout, "{}", tarball.display())?;

    if tools::find("dpkg-deb").is_none() {
        writeln!(
            stdout,
            "skipped: the Debian package: dpkg-deb is not installed (apt install dpkg)"
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    let tree = Tree { root: work.path().join("deb"), prefix: "usr/" };
    tree.fill(&bin)?;
    tree.put(
        "etc/logrotate.d/accio-server",
        &fs::read("accio-server/dist/accio-server.logrotate")?,
    )?;
    let mut dpkg = Command::new("dpkg");
    dpkg.arg("--print-architecture");
    let architecture = checked_output(dpkg, b"", LIMIT)?;
    let architecture = String::from_utf8_lossy(&architecture).trim().to_owned();
    tree.put("DEBIAN/conffiles", b"/etc/logrotate.d/accio-server\n")?;
    tree.put("DEBIAN/control", control(&architecture, &glibc(&bin)?).as_bytes())?;
    let package = out.join(format!("accio_{VERSION}_{architecture}.deb"));
    let mut deb = Command::new("dpkg-deb");
    deb.args(["--build", "--root-owner-group"]).arg(&tree.root).arg(&package);
    checked_output(deb, b"", LIMIT)?;
    writeln!(stdout, "{}", package.display())?;
    Ok(ExitCode::SUCCESS)
}

/// The directory with the files of a package.
struct Tree {
    root: PathBuf,
    /// The path before `bin`, `lib` and `share`.
    prefix: &'static str,
}

impl Tree {
    fn fill(&self, bin: &Path) -> anyhow::Result<()> {
        let prefix = self.prefix;
        for program in PROGRAMS {
            let path = bin.join(program);
            let generated = |kind: &str| {
                let mut command = Command::new(&path);
                command.args(["--generate", kind]);
                checked_output(command, b"", LIMIT)
            };
            self.put(&format!("{prefix}bin/{program}"), &fs::read(&path)?)?;
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(self.root.join(format!("{prefix}bin/{program}")), mode)?;
            for (kind, place) in [
                ("man", format!("man/man1/{program}.1")),
                ("complete-bash", format!("bash-completion/completions/{program}")),
                ("complete-zsh", format!("zsh/vendor-completions/_{program}")),
                ("complete-fish", format!("fish/vendor_completions.d/{program}.fish")),
            ] {
                self.put(&format!("{prefix}share/{place}"), &generated(kind)?)?;
            }
        }
        for unit in ["accio-server.service", "accio-server.socket"] {
            let text = fs::read(Path::new("accio-server/dist").join(unit))?;
            self.put(&format!("{prefix}lib/systemd/system/{unit}"), &text)?;
        }
        for example in ["accept-scan", "accept-size"] {
            let text = fs::read(Path::new("accio-server/dist").join(example))?;
            let place = format!("{prefix}share/doc/accio/examples/{example}");
            self.put(&place, &text)?;
            fs::set_permissions(self.root.join(&place), fs::Permissions::from_mode(0o755))?;
        }
        for document in DOCUMENTS {
            self.put(&format!("{prefix}share/doc/accio/{document}"), &fs::read(document)?)?;
        }
        // The relative paths are the same as in the repository, so links between the pages stay
        // valid.
        self.copy("docs", &format!("{prefix}share/doc/accio/docs"))?;
        let copyright = "The authors of Accio.\n\nMIT OR Apache-2.0, at your choice: LICENSE-MIT and \
                         LICENSE-APACHE in this directory.\n";
        Ok(self.put(&format!("{prefix}share/doc/accio/copyright"), copyright.as_bytes())?)
    }

    /// Copies a directory recursively.
    fn copy(&self, from: &str, to: &str) -> io::Result<()> {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let (from, to) = (format!("{from}/{name}"), format!("{to}/{name}"));
            match entry.file_type()?.is_dir() {
                true => self.copy(&from, &to)?,
                false => self.put(&to, &fs::read(&from)?)?,
            }
        }
        Ok(())
    }

    fn put(&self, place: &str, content: &[u8]) -> io::Result<()> {
        let path = self.root.join(place);
        fs::create_dir_all(path.parent().unwrap_or(&path))?;
        fs::write(&path, content)?;
        // The mode must not depend on the umask.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
    }
}

fn control(architecture: &str, glibc: &str) -> String {
    format!(
        "Package: accio\nVersion: {VERSION}\nArchitecture: {architecture}\nMaintainer: Accio <accio@localhost>\n\
         Section: net\nPriority: optional\nDepends: libc6 (>= {glibc}), libgcc-s1\n\
         Description: file drop over raw TCP\n \
         accio-server stores each upload as a file, complete or with the content ERROR;\n \
         accio-client sends files; server-s counts the bytes of uploads.\n"
    )
}

/// Returns the newest version of the C library that any of the programs requires.
fn glibc(bin: &Path) -> io::Result<String> {
    const MARK: &[u8] = b"GLIBC_2.";
    let mut newest = 0;
    for program in PROGRAMS {
        let bytes = fs::read(bin.join(program))?;
        for (place, _) in bytes.windows(MARK.len()).enumerate().filter(|(_, found)| *found == MARK)
        {
            let digits =
                bytes[place + MARK.len()..].iter().take_while(|byte| byte.is_ascii_digit());
            let minor = digits.fold(0, |minor, digit| minor * 10 + u32::from(digit - b'0'));
            newest = newest.max(minor);
        }
    }
    match newest {
        0 => Err(io::Error::other("the programs require no version of glibc")),
        minor => Ok(format!("2.{minor}")),
    }
}
