//! The layers of each crate: no two files import each other, and in `accio-proto` only `sys` names
//! system calls.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Crates that are only used to call the operating system.
const SYSTEM_CALLS: [&str; 5] = ["rustix::", "socket2::", "nix::", "dns_lookup::", "libc::"];

/// The crates, each with the minimum number of imports that the search must find.
const CRATES: [(&str, usize); 14] = [
    ("accio-proto", 150),
    ("accio-cli", 20),
    ("accio-client", 10),
    ("accio-server", 10),
    ("accio-simplified", 0),
    ("accio-store", 10),
    ("accio-tokio", 10),
    ("xtask", 3),
    ("xtask/bench", 10),
    ("xtask/cluster", 5),
    ("xtask/e2e", 3),
    ("xtask/grade", 10),
    ("xtask/harness", 10),
    ("xtask/torture", 10),
];

/// Modules that import from their submodules and are imported by them. ARCHITECTURE.md has the
/// reasons.
const MUTUAL_IMPORTS: [(&str, &str); 2] =
    [("accio-proto", "server::reactor"), ("accio-proto", "sink::dir")];

/// The path of a module, from the root of the crate.
type Module = Vec<String>;

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the files of a crate by module, without comments and tests. Of modules with one file per
/// system, only that of Linux is used.
fn modules(package: &str) -> BTreeMap<Module, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(package).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut modules = BTreeMap::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap().with_extension("");
        let mut module: Module =
            relative.iter().map(|part| part.to_str().unwrap().into()).collect();
        let is_of_another_system = module.starts_with(&["sys".into(), "portable".into()])
            || module.ends_with(&["unavailable".into()]);
        let is_test = module.iter().any(|part| part == "tests" || part.ends_with("_test"));
        if is_of_another_system || is_test {
            continue;
        }
        if module.last().is_some_and(|last| last == "mod" || last == "lib" || last == "main") {
            module.pop();
        }
        if module.starts_with(&["sys".into(), "linux".into()]) {
            module.remove(1);
        }
        let text = code(&fs::read_to_string(&file).unwrap());
        // sys/mod.rs and sys/linux/mod.rs are treated as one module.
        let whole: &mut String = modules.entry(module).or_default();
        whole.push_str(&text);
    }
    modules
}

/// Returns the text without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    let text = lines.collect::<Vec<_>>().join("\n");
    let end = text.match_indices("#[cfg(test)]").map(|(at, _)| at).find(|at| {
        let mut rest = text[*at..].lines().filter(|line| !line.starts_with("#["));
        rest.next().is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    });
    text[..end.unwrap_or(text.len())].to_owned()
}

/// Expands a `use` tree into its paths.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim();
    let Some((prefix, rest)) = tree.split_once('{') else {
        let tree = tree.split(" as ").next().unwrap();
        let parts = tree.split("::").map(|part| part.trim().to_owned());
        return vec![parts.filter(|part| !part.is_empty() && part != "self").collect()];
    };
    let prefix: Vec<String> = prefix
        .split("::")
        .map(|part| part.trim().to_owned())
        .filter(|part| !part.is_empty() && part != "self")
        .collect();
    // Otherwise it is a line of a text.
    let Some(inside) = rest.trim_end().strip_suffix('}') else { return Vec::new() };
    let (mut depth, mut start, mut paths) = (0, 0, Vec::new());
    for (at, letter) in inside.char_indices().chain([(inside.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = &inside[start..at];
                start = at + 1;
                if !item.trim().is_empty() {
                    paths.extend(expand(item).into_iter().map(|path| [&*prefix, &*path].concat()));
                }
            }
            _ => {}
        }
    }
    paths
}

/// Returns the `use` items of a file: whether each is a re-export, and its path from the root of
/// the crate.
fn imports(
    module: &Module,
    text: &str,
    modules: &BTreeMap<Module, String>,
) -> Vec<(bool, Vec<String>)> {
    let mut imports = Vec::new();
    for item in text.split(';') {
        let Some((before, tree)) = item.rsplit_once("use ") else { continue };
        // Skip words in strings: an item begins its line.
        let line = match before.rsplit_once('\n') {
            Some((_, line)) => line.trim(),
            None if before.is_empty() => "",
            None => continue,
        };
        if !line.is_empty() && !line.starts_with("pub") {
            continue;
        }
        let is_public = !line.is_empty();
        for path in expand(tree) {
            let mut base = module.clone();
            let mut rest = &path[..];
            match path.first().map(String::as_str) {
                Some("crate") => (base, rest) = (Vec::new(), &path[1..]),
                Some("super") => {
                    while rest.first().is_some_and(|part| part == "super") {
                        base.pop();
                        rest = &rest[1..];
                    }
                }
                Some(child) => {
                    if !modules.contains_key(&[&**module, &[child.to_owned()]].concat()) {
                        continue;
                    }
                }
                None => continue,
            }
            let path = [&*base, rest].concat();
            if modules.contains_key(&path) {
                imports.extend(paths_through(&path, text).map(|path| (false, path)));
            }
            imports.push((is_public, path));
        }
    }
    imports
}

/// Returns the paths in a file that begin with the name of an imported module, such as
/// `sys::wait::readable`.
fn paths_through<'a>(module: &'a Module, text: &'a str) -> impl Iterator<Item = Vec<String>> + 'a {
    let is_path = |letter: char| letter.is_alphanumeric() || "_:".contains(letter);
    text.split(move |letter| !is_path(letter)).filter_map(move |path| {
        let mut parts = path.split("::").map(str::to_owned);
        (parts.next().as_ref() == module.last())
            .then(|| module.iter().cloned().chain(parts).collect())
    })
}

/// Returns the module that defines the item of a path, following re-exports.
fn definition(
    mut path: Vec<String>,
    exports: &BTreeMap<Module, BTreeMap<String, Vec<String>>>,
    modules: &BTreeMap<Module, String>,
) -> Module {
    loop {
        let mut base = path.clone();
        while !modules.contains_key(&base) {
            base.pop();
        }
        let next = path.get(base.len()).and_then(|item| exports.get(&base)?.get(item));
        match next {
            Some(next) if *next != path => path = [next, &path[base.len() + 1..]].concat(),
            _ => return base,
        }
    }
}

/// Returns whether a file uses an item, in addition to importing it. The name of a function may also
/// be a word in a string or a variable, so only its calls count.
fn is_used(item: &str, text: &str) -> bool {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let is_function = item.starts_with(char::is_lowercase);
    let uses = text.match_indices(item).filter(|(at, _)| {
        let (before, after) = (&text[..*at], &text[at + item.len()..]);
        let is_whole = !before.ends_with(is_word) && !after.starts_with(is_word);
        is_whole && (!is_function || (after.starts_with('(') && !before.ends_with("fn ")))
    });
    uses.count() > usize::from(!is_function)
}

/// Returns the modules that each module imports from. A module that only re-exports an item of a
/// submodule does not import it.
fn edges(modules: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let all: BTreeMap<_, _> = modules
        .iter()
        .map(|(module, text)| (module.clone(), imports(module, text, modules)))
        .collect();
    // A submodule can also use what its module imports for itself.
    let exports = all
        .iter()
        .map(|(module, imports)| {
            let named =
                imports.iter().filter_map(|(_, path)| Some((path.last()?.clone(), path.clone())));
            (module.clone(), named.collect())
        })
        .collect();
    let mut edges = BTreeMap::new();
    for (module, imports) in &all {
        let text = &modules[module];
        let mut targets = BTreeSet::new();
        for (is_public, path) in imports {
            let target = definition(path.clone(), &exports, modules);
            let item = path.last().cloned().unwrap_or_default();
            let is_only_exported = *is_public && !is_used(&item, text);
            if target != *module && !(is_only_exported && target.starts_with(module)) {
                targets.insert(target);
            }
        }
        edges.insert(module.clone(), targets);
    }
    edges
}

/// Repeatedly removes modules that import none of the remaining ones; the rest is in a cycle or
/// imports from one.
fn cycles(mut edges: BTreeMap<Module, BTreeSet<Module>>) -> BTreeMap<Module, BTreeSet<Module>> {
    loop {
        let left = edges.len();
        let known: BTreeSet<_> = edges.keys().cloned().collect();
        edges.retain(|_, targets| targets.iter().any(|target| known.contains(target)));
        let used: BTreeSet<_> = edges.values().flatten().cloned().collect();
        edges.retain(|module, _| used.contains(module));
        if edges.len() == left {
            return edges;
        }
    }
}

#[test]
fn only_sys_names_system_calls() {
    let modules = modules("accio-proto");
    assert!(modules.len() > 60, "{}", modules.len());
    let is_sys = |module: &Module| module.first().is_some_and(|part| part == "sys");
    for (module, text) in modules.iter().filter(|(module, _)| !is_sys(module)) {
        for name in SYSTEM_CALLS {
            // Match a whole word only: `unix::` is not `nix::`.
            let found = text.match_indices(name).any(|(at, _)| {
                !text[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_')
            });
            assert!(!found, "{}: {name}", module.join("::"));
        }
    }
    let mut in_sys = modules.iter().filter(|(module, _)| is_sys(module));
    assert!(in_sys.any(|(_, text)| text.contains("rustix::")), "the search finds known uses");
}

#[test]
fn no_two_files_import_each_other() {
    for (package, least) in CRATES {
        let mut edges = edges(&modules(package));
        for (module, targets) in &mut edges {
            targets.retain(|target| {
                let is_exempt = MUTUAL_IMPORTS.contains(&(package, &target.join("::")));
                !(is_exempt && module.starts_with(target))
            });
        }
        let count: usize = edges.values().map(BTreeSet::len).sum();
        assert!(count >= least, "{package}: only {count} imports found");
        let cycles = cycles(edges);
        assert!(cycles.is_empty(), "{package}: {cycles:#?}");
    }
}

#[test]
fn finds_a_cycle_through_a_reexport() {
    let module = |path: &str| -> Module { path.split("::").map(str::to_owned).collect() };
    let modules = BTreeMap::from([
        (Vec::new(), String::new()),
        (module("a"), "mod b;\npub use self::b::{B, D};\nuse crate::c::C;\n".to_owned()),
        (module("a::b"), "use crate::c::{self, C};\nstruct B;\n".to_owned()),
        (module("c"), "use crate::a::B;\nstruct C;\n".to_owned()),
        (module("d"), "use crate::a::B;\n".to_owned()),
    ]);
    let found: Vec<_> = cycles(edges(&modules)).into_keys().collect();
    assert_eq!(found, [module("a::b"), module("c")]);
}

#[test]
fn finds_a_cycle_through_an_import_of_the_parent() {
    let module = |path: &str| -> Module { path.split("::").map(str::to_owned).collect() };
    let modules = BTreeMap::from([
        (Vec::new(), String::new()),
        (module("a"), "use b::B;\nfn f() -> B {}\n".to_owned()),
        (module("a::b"), "use super::c::C;\nstruct B(C);\n".to_owned()),
        (module("a::c"), "use super::B;\nstruct C(B);\n".to_owned()),
    ]);
    let found: Vec<_> = cycles(edges(&modules)).into_keys().collect();
    assert_eq!(found, [module("a::b"), module("a::c")]);
}

#[test]
fn a_cycle_through_an_imported_module_is_found() {
    let module = |path: &str| -> Module { path.split("::").map(str::to_owned).collect() };
    let modules = BTreeMap::from([
        (Vec::new(), String::new()),
        (module("a"), "use crate::b;\nfn f() {\n    b::c::g()\n}\nstruct A;\n".to_owned()),
        (module("b"), "pub mod c;\n".to_owned()),
        (module("b::c"), "use crate::a::A;\n".to_owned()),
    ]);
    let found: Vec<_> = cycles(edges(&modules)).into_keys().collect();
    assert_eq!(found, [module("a"), module("b::c")]);
}
