//! `cargo xtask features`: checks that every set of features compiles, and which dependencies the
//! library has without any feature.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use accio_harness::cargo::cargo;
use accio_harness::process::{self, checked_output};

/// Time limit for cargo to describe the workspace.
const LIMIT: Duration = Duration::from_secs(300);
/// The library's run-time dependencies without any feature.
const HANDSHAKE_ONLY: [&str; 2] = ["accio-proto", "thiserror"];

/// The features of a package, each with the features of the same package that it enables.
type Features = BTreeMap<String, BTreeSet<String>>;

/// Checks each set of features of each published package.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let mut good = true;
    for (package, features) in packages()? {
        for set in sets(&features) {
            let list = set.iter().map(String::as_str).collect::<Vec<_>>().join(",");
            writeln!(io::stdout().lock(), "{package} [{list}]")?;
            let mut check = cargo();
            check.args(["clippy", "--quiet", "--no-default-features", "--package", &package]);
            check.args(["--features", &list, "--", "-Dwarnings"]);
            good &= process::foreground(&mut check)?.success();
        }
    }
    let dependencies = handshake_only()?;
    if dependencies != HANDSHAKE_ONLY {
        let text = dependencies.join(", ");
        writeln!(io::stdout().lock(), "FAIL: without features accio-proto depends on {text}")?;
        good = false;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the distinct sets of features, each with all features that its members enable.
fn sets(features: &Features) -> BTreeSet<BTreeSet<String>> {
    let mut sets = BTreeSet::from([BTreeSet::new()]);
    for feature in features.keys() {
        for set in sets.clone() {
            let mut set = set;
            enable(feature, features, &mut set);
            sets.insert(set);
        }
    }
    sets
}

fn enable(feature: &str, features: &Features, set: &mut BTreeSet<String>) {
    if set.insert(feature.to_owned()) {
        for implied in &features[feature] {
            enable(implied, features, set);
        }
    }
}

/// Returns the features of the published packages, except for `default`, which is a set like
/// others.
fn packages() -> anyhow::Result<BTreeMap<String, Features>> {
    let mut metadata = cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
    let text = checked_output(metadata, b"", LIMIT)?;
    let metadata: serde_json::Value = serde_json::from_slice(&text)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let published = packages.filter(|package| package["publish"].is_null());
    let read = published.map(|package| {
        let all = package["features"].as_object().into_iter().flatten();
        let own = all.filter(|(name, _)| *name != "default");
        let features: Features = own
            .map(|(name, enables)| {
                let enables = enables.as_array().into_iter().flatten();
                let names = enables.filter_map(|value| value.as_str());
                let same_package = |name: &&str| !name.contains(['/', ':']);
                (name.clone(), names.filter(same_package).map(str::to_owned).collect())
            })
            .collect();
        (package["name"].as_str().unwrap_or_default().to_owned(), features)
    });
    Ok(read.collect())
}

/// Returns the dependencies of `accio-proto` without any feature, except for procedural macros.
fn handshake_only() -> anyhow::Result<Vec<String>> {
    let mut tree = cargo();
    tree.args(["tree", "--package", "accio-proto", "--no-default-features"]);
    tree.args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{lib}"]);
    let text = String::from_utf8_lossy(&checked_output(tree, b"", LIMIT)?).replace('_', "-");
    Ok(text.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_include_implied_features_and_are_distinct() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let features: Features = [("io", &[][..]), ("client", &["io"]), ("server", &["io"])]
            .map(|(name, implied)| (name.to_owned(), names(implied)))
            .into();
        let expected: [&[&str]; 5] =
            [&[], &["io"], &["client", "io"], &["io", "server"], &["client", "io", "server"]];
        assert_eq!(sets(&features), expected.map(names).into());
    }

    #[test]
    fn the_handshake_alone_depends_on_thiserror_only() {
        assert_eq!(handshake_only().unwrap(), HANDSHAKE_ONLY);
    }
}
