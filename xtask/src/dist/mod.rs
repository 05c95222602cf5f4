//! `cargo xtask dist`: packages the programs with their man pages, completions, systemd units and
//! licences, as a tarball, as Debian and RPM packages and as a container image.

mod build;
mod common;
mod image;
mod packages;
mod recipes;
mod sbom;
mod tarball;
mod tree;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use accio_harness::process::checked_output;
use accio_harness::{TROUBLE, tools};

use self::build::Target;
pub(crate) use self::common::VERSION;
use self::common::{LIMIT, STAGE};
use self::tree::Tree;

/// The options of `cargo xtask dist`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// Build for this target instead of this machine, e.g. x86_64-unknown-linux-musl
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// Package the programs in this directory instead of building them
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Directory for the packages
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    out: PathBuf,
    /// Write only the Homebrew formula and the Nix flake for the tarballs in the output directory
    #[arg(long, conflicts_with_all = ["target", "bin_dir"])]
    recipes: bool,
}

/// Builds the programs and packs them.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let out = &arguments.out;
    fs::create_dir_all(out)?;
    let mut stdout = io::stdout().lock();
    if arguments.recipes {
        return recipes::write(out, &mut stdout);
    }
    let target = Target::new(arguments.target.as_deref())?;
    let bin = match &arguments.bin_dir {
        Some(dir) => dir.clone(),
        None => match target.build()? {
            Some(dir) => dir,
            None => return Ok(ExitCode::from(TROUBLE)),
        },
    };
    let epoch = build::epoch()?;
    let generated = target.generators(&bin)?;

    let name = format!("accio-{VERSION}-{}", target.name());
    let work = tempfile::tempdir_in(out)?;
    let tree = Tree { root: work.path().join(&name), prefix: "" };
    tree.fill(&bin, &generated)?;
    let mut made = vec![tarball::write(&tree.root, out, epoch)?];

    if target.is_linux() {
        let stage = Path::new(STAGE);
        if stage.exists() {
            fs::remove_dir_all(stage)?;
        }
        let tree = Tree { root: stage.to_owned(), prefix: "usr/" };
        tree.fill(&bin, &generated)?;
        tree.add_system_files(epoch)?;
        for make in [packages::deb, packages::rpm, image::write] {
            made.extend(make(&target, out, epoch, &mut stdout)?);
        }
        fs::remove_dir_all(stage)?;
    }
    made.extend(sbom::write(&target, out, epoch, &mut stdout)?);
    for path in &made {
        writeln!(stdout, "{}", path.display())?;
    }
    sums(out)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the SHA-256 sums of all packages in the directory to `SHA256SUMS`.
fn sums(out: &Path) -> anyhow::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(out)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("accio") && out.join(&name).is_file() {
            names.push(name);
        }
    }
    names.sort();
    let mut sum = match tools::find("sha256sum") {
        Some(path) => Command::new(path),
        // macOS.
        None => {
            let mut command = Command::new("shasum");
            command.args(["--algorithm", "256"]);
            command
        }
    };
    sum.arg("--").args(&names).current_dir(out);
    fs::write(out.join("SHA256SUMS"), checked_output(sum, b"", LIMIT)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str) -> String {
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap()
    }

    /// Returns the number that follows `text`.
    fn number(file: &str, text: &str) -> u64 {
        let content = read(file);
        let (_, rest) = content.split_once(text).unwrap_or_else(|| panic!("{file}: no {text}"));
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_else(|_| panic!("{file}: no number after {text}"))
    }

    #[test]
    fn every_supervisor_waits_longer_than_the_server_drains() {
        const JSON: &str = "\"--drain\", \"";
        let (compose, kubernetes) =
            ("packaging/compose.yaml", "packaging/kubernetes/accio-server.yaml");
        let (service, image) =
            ("accio-server/dist/accio-server.service", "packaging/Containerfile");
        for (drain, limit) in [
            (number(compose, JSON), number(compose, "stop_grace_period: ")),
            (number(kubernetes, JSON), number(kubernetes, "terminationGracePeriodSeconds: ")),
            (number(service, "--drain "), number(service, "TimeoutStopSec=")),
            // The default of container engines.
            (number(image, JSON), 10),
        ] {
            assert!(drain < limit, "a drain of {drain} s is cut off after {limit} s");
        }
    }

    #[test]
    fn crates_are_published_after_those_that_they_depend_on() {
        let workflow = read(".github/workflows/release.yml");
        let (_, list) = workflow.split_once("for crate in ").unwrap();
        let (list, _) = list.split_once(';').unwrap();
        let order: Vec<&str> = list.split_whitespace().collect();
        for (index, name) in order.iter().enumerate() {
            let manifest = read(&format!("{name}/Cargo.toml"));
            let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
            let (dependencies, _) = dependencies.split_once("[dev-dependencies]").unwrap();
            for later in &order[index..] {
                assert!(!dependencies.contains(&format!("\n{later}")), "{name} needs {later}");
            }
        }
        let manifest = read("Cargo.toml");
        let (_, members) = manifest.split_once("members = [").unwrap();
        let (members, _) = members.split_once(']').unwrap();
        let published = members.split('"').filter(|name| name.starts_with("accio-"));
        for name in published {
            assert!(order.contains(&name), "{name} is not published");
        }
    }

    #[test]
    fn cargo_binstall_finds_the_programs_in_the_tarball() {
        let (version, target) = (VERSION, "x86_64-unknown-linux-musl");
        for package in ["accio-client", "accio-server", "accio-simplified"] {
            let manifest = read(&format!("{package}/Cargo.toml"));
            let value = |key: &str| {
                let (_, rest) = manifest.split_once(&format!("\n{key} = \"")).unwrap();
                let (value, _) = rest.split_once('"').unwrap();
                value.replace("{ version }", version).replace("{ target }", target)
            };
            // The names that `run` and `recipes` use.
            let root = format!("accio-{version}-{target}");
            let url = format!("{{ repo }}/releases/download/v{version}/{root}.tar.gz");
            assert_eq!(value("pkg-url"), url, "{package}");
            let bin = format!("{root}/bin/{{ bin }}{{ binary-ext }}");
            assert_eq!(value("bin-dir"), bin, "{package}");
        }
    }

    #[test]
    fn packages_contain_the_directories_of_the_stage() {
        let manifest = read("accio-server/Cargo.toml");
        for directory in [
            "usr/bin",
            "usr/lib/systemd/system",
            "usr/lib/sysusers.d",
            "usr/share/man/man1",
            "usr/share/bash-completion/completions",
            "usr/share/zsh/vendor-completions",
            "usr/share/fish/vendor_completions.d",
            "usr/share/doc/accio/examples",
            "etc/logrotate.d",
        ] {
            let source = format!("\"../{STAGE}/{directory}/*\"");
            assert_eq!(manifest.matches(&source).count(), 2, "{source}: Debian and RPM");
        }
    }
}
