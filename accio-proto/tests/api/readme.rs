//! The README and the documentation of the crate show the same code.

use std::fs;
use std::path::Path;

/// Returns the Rust code of a text, block by block, without the lines that rustdoc hides.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        match (&mut block, line.starts_with("```")) {
            (None, true) if ["```", "```rust", "```no_run"].contains(&line) => {
                block = Some(String::new());
            }
            (Some(code), false) if !line.starts_with("# ") => *code += &format!("{line}\n"),
            (Some(_), true) => blocks.extend(block.take()),
            _ => {}
        }
    }
    blocks
}

#[test]
fn the_code_of_the_readme_is_documented_and_so_compiled() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("../README.md")).unwrap();
    let section = readme.split("## The library").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let shown = blocks(section);
    let source = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let docs = source.lines().filter_map(|line| line.strip_prefix("//!"));
    let docs: String =
        docs.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect();
    let documented = blocks(&docs);
    assert_eq!(shown.len(), 1, "{section}");
    for code in shown {
        assert!(documented.contains(&code), "not in lib.rs:\n{code}{documented:#?}");
    }
}

#[test]
fn each_feature_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for library in ["accio-proto", "accio-tokio", "accio-store"] {
        let read = |file| fs::read_to_string(root.join(library).join(file)).unwrap();
        let (manifest, docs) = (read("Cargo.toml"), read("src/lib.rs"));
        let section = manifest.split("[features]\n").nth(1).unwrap();
        let lines = section.lines().take_while(|line| !line.starts_with('['));
        let features: Vec<_> = lines.filter_map(|line| line.split_once(" = ")).collect();
        assert!(!features.is_empty(), "{library}");
        for (feature, _) in features.into_iter().filter(|(feature, _)| *feature != "default") {
            let is_listed =
                |line: &str| line.starts_with("//! |") && line.contains(&format!("| `{feature}`"));
            assert!(docs.lines().any(is_listed), "{library} does not document {feature}");
        }
    }
}
