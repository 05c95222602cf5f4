//! The container image, an archive in the OCI format. buildah makes it without a daemon. Like the
//! archives of `docker save`, it also has a `manifest.json`, because `docker load` reads nothing else
//! unless Docker uses the image store of containerd.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use accio_harness::process::checked_output;
use anyhow::Context as _;
use serde_json::{Value, json};

use super::build::Target;
use super::common::{LIMIT, STAGE, VERSION, tool};
use super::tarball;

/// Makes the image, for static programs only.
pub(super) fn write(
    target: &Target,
    out: &Path,
    epoch: u64,
    stdout: &mut dyn Write,
) -> anyhow::Result<Option<PathBuf>> {
    if !target.name().contains("musl") {
        writeln!(
            stdout,
            "skipped: the image: it needs static programs (--target x86_64-unknown-linux-musl)"
        )?;
        return Ok(None);
    }
    let Some(buildah) = tool("buildah", "the image", "apt install buildah", stdout)? else {
        return Ok(None);
    };
    let architecture = target.debian_arch();
    // The image has an empty directory for the user of the volume.
    let data = Path::new(STAGE).join("data");
    fs::create_dir_all(&data)?;
    let work = tempfile::tempdir_in(out)?;
    let name = format!("accio-{VERSION}-{architecture}.oci");
    let layout = work.path().join(&name);
    let mut build = Command::new(buildah);
    build.args(["build", "--file", "packaging/Containerfile", "--arch", architecture]);
    build.args(["--timestamp", &epoch.to_string(), "--no-cache", "--quiet"]);
    build.args(["--identity-label=false", "--build-arg", &format!("VERSION={VERSION}"), "--tag"]);
    build.arg(format!("oci:{}:accio:{VERSION}", layout.display())).arg(STAGE);
    checked_output(build, b"", LIMIT)?;
    fs::remove_dir(data)?;
    add_docker_manifest(&layout)?;
    let archive = out.join(format!("{name}.tar"));
    fs::write(&archive, tarball::pack(&layout, Path::new(""), epoch)?)?;
    Ok(Some(archive))
}

/// Adds the description of the image for Docker to an OCI layout.
fn add_docker_manifest(layout: &Path) -> anyhow::Result<()> {
    let read = |path: &str| -> anyhow::Result<Value> {
        let text = fs::read(layout.join(path)).with_context(|| format!("read {path}"))?;
        serde_json::from_slice(&text).with_context(|| format!("parse {path}"))
    };
    let blob = |descriptor: &Value| -> anyhow::Result<String> {
        let digest = descriptor["digest"].as_str().context("a descriptor without a digest")?;
        Ok(format!("blobs/{}", digest.replace(':', "/")))
    };
    let index = read("index.json")?;
    let manifest = read(&blob(&index["manifests"][0])?)?;
    let layers = manifest["layers"].as_array().context("a manifest without layers")?;
    let description = json!([{
        "Config": blob(&manifest["config"])?,
        "RepoTags": [format!("accio:{VERSION}")],
        "Layers": layers.iter().map(blob).collect::<anyhow::Result<Vec<_>>>()?,
    }]);
    fs::write(layout.join("manifest.json"), description.to_string())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_gets_the_paths_of_the_blobs() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, content: Value| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content.to_string()).unwrap();
        };
        write("index.json", json!({"manifests": [{"digest": "sha256:aa"}]}));
        let layers = json!([{"digest": "sha256:cc"}, {"digest": "sha256:dd"}]);
        let manifest = json!({"config": {"digest": "sha256:bb"}, "layers": layers});
        write("blobs/sha256/aa", manifest);
        add_docker_manifest(dir.path()).unwrap();
        let text = fs::read(dir.path().join("manifest.json")).unwrap();
        let found: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(found[0]["Config"], "blobs/sha256/bb");
        assert_eq!(found[0]["Layers"], json!(["blobs/sha256/cc", "blobs/sha256/dd"]));
        assert_eq!(found[0]["RepoTags"], json!([format!("accio:{VERSION}")]));
    }
}
