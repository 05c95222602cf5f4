//! The Homebrew formula and the Nix flake, which install the tarballs of a release. Both are made
//! from one list of tarballs and one description.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};

use super::common::VERSION;
use crate::release::repository;

const DESCRIPTION: &str = "File drop over raw TCP";

/// The targets with a tarball, and the systems of both recipes.
const SYSTEMS: [(&str, &str, &str); 4] = [
    ("aarch64-apple-darwin", "on_macos/on_arm", "aarch64-darwin"),
    ("x86_64-apple-darwin", "on_macos/on_intel", "x86_64-darwin"),
    ("aarch64-unknown-linux-musl", "on_linux/on_arm", "aarch64-linux"),
    ("x86_64-unknown-linux-musl", "on_linux/on_intel", "x86_64-linux"),
];

/// A tarball of the release.
struct Tarball {
    homebrew: &'static str,
    nix: &'static str,
    url: String,
    sha256: String,
}

/// Writes `accio.rb` and `flake.nix` for the tarballs listed in `out/SHA256SUMS`.
pub(super) fn write(out: &Path, stdout: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let sums = out.join("SHA256SUMS");
    let sums = fs::read_to_string(&sums).with_context(|| {
        format!("cannot read {}: run `cargo xtask dist` for each target first", sums.display())
    })?;
    let repository = repository()?;
    let tarballs = tarballs(&sums, &repository)?;
    for (name, text) in
        [("accio.rb", formula(&repository, &tarballs)?), ("flake.nix", flake(&tarballs)?)]
    {
        let path = out.join(name);
        fs::write(&path, text)?;
        writeln!(stdout, "{}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tarballs(sums: &str, repository: &str) -> anyhow::Result<Vec<Tarball>> {
    let mut tarballs = Vec::new();
    for (target, homebrew, nix) in SYSTEMS {
        let name = format!("accio-{VERSION}-{target}.tar.gz");
        let sum = sums.lines().find_map(|line| {
            let (sum, file) = line.split_once("  ")?;
            (file == name).then(|| sum.to_owned())
        });
        let Some(sha256) = sum else {
            bail!("SHA256SUMS does not list {name}: run `cargo xtask dist --target {target}`");
        };
        let url = format!("{repository}/releases/download/v{VERSION}/{name}");
        tarballs.push(Tarball { homebrew, nix, url, sha256 });
    }
    Ok(tarballs)
}

fn formula(repository: &str, tarballs: &[Tarball]) -> anyhow::Result<String> {
    let mut text = format!(
        "class Accio < Formula\n  desc \"{DESCRIPTION}\"\n  homepage \"{repository}\"\n  \
         version \"{VERSION}\"\n  license any_of: [\"MIT\", \"Apache-2.0\"]\n"
    );
    for system in ["on_macos", "on_linux"] {
        write!(text, "\n  {system} do\n")?;
        for tarball in tarballs {
            if let Some(("", processor)) =
                tarball.homebrew.strip_prefix(system).and_then(|rest| rest.split_once('/'))
            {
                write!(
                    text,
                    "    {processor} do\n      url \"{}\"\n      sha256 \"{}\"\n    end\n",
                    tarball.url, tarball.sha256
                )?;
            }
        }
        text.push_str("  end\n");
    }
    text.push_str(
        r##"
  def install
    bin.install Dir["bin/*"]
    man1.install Dir["share/man/man1/*"]
    bash_completion.install Dir["share/bash-completion/completions/*"]
    zsh_completion.install Dir["share/zsh/vendor-completions/*"]
    fish_completion.install Dir["share/fish/vendor_completions.d/*"]
    doc.install Dir["share/doc/accio/*"]
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/accio-client --version")
  end
end
"##,
    );
    Ok(text)
}

fn flake(tarballs: &[Tarball]) -> anyhow::Result<String> {
    let mut list = String::new();
    for tarball in tarballs {
        let Tarball { nix, url, sha256, .. } = tarball;
        write!(
            list,
            "        {nix} = {{\n          url = \"{url}\";\n          sha256 = \"{sha256}\";\n        }};\n"
        )?;
    }
    Ok(format!(
        r#"{{
  description = "{DESCRIPTION}";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = {{ self, nixpkgs }}:
    let
      tarballs = {{
{list}      }};
      package = system:
        let pkgs = nixpkgs.legacyPackages.${{system}};
        in pkgs.stdenvNoCC.mkDerivation {{
          pname = "accio";
          version = "{VERSION}";
          src = pkgs.fetchurl tarballs.${{system}};
          # The programs are static on Linux and use only the system's libraries on macOS.
          dontFixup = true;
          installPhase = ''
            mkdir -p $out
            cp -R bin share $out/
          '';
          meta = {{
            description = "{DESCRIPTION}";
            license = with pkgs.lib.licenses; [ mit asl20 ];
            mainProgram = "accio-client";
          }};
        }};
    in {{
      packages = builtins.mapAttrs (system: _: {{ default = package system; }}) tarballs;
    }};
}}
"#
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums() -> String {
        let line = |(index, (target, ..)): (usize, &(&str, &str, &str))| {
            format!("{:064}  accio-{VERSION}-{target}.tar.gz\n", index + 1)
        };
        SYSTEMS.iter().enumerate().map(line).collect()
    }

    #[test]
    fn both_recipes_have_every_tarball_and_its_sum() {
        let repository = "https://repository.example/accio";
        let tarballs = tarballs(&sums(), repository).unwrap();
        let texts = [formula(repository, &tarballs).unwrap(), flake(&tarballs).unwrap()];
        for text in &texts {
            for (index, (target, ..)) in SYSTEMS.iter().enumerate() {
                let url = format!(
                    "{repository}/releases/download/v{VERSION}/accio-{VERSION}-{target}.tar.gz"
                );
                let place = text.find(&url).unwrap_or_else(|| panic!("no {target}: {text}"));
                let sum = format!("{:064}", index + 1);
                assert!(text[place..place + 300].contains(&sum), "{target}: {text}");
            }
        }
        let lines = |end: &str| texts[0].lines().filter(|line| line.trim().ends_with(end)).count();
        assert_eq!(lines("end"), lines(" do") + ["class", "def"].len());
    }

    #[test]
    fn a_missing_tarball_is_named() {
        let sums = sums();
        let (rest, _) = sums.trim_end().rsplit_once('\n').unwrap();
        let error = tarballs(rest, "https://repository.example/accio").err().unwrap();
        assert!(error.to_string().contains("--target x86_64-unknown-linux-musl"), "{error}");
    }
}
