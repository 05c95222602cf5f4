//! Compares the man page of a program with its `--help`, flag by flag. The tests of each program
//! include this file, because only they know the path of the program.

use std::collections::BTreeMap;

use accio_harness::program::{command, run};

/// Fails unless the man page of `program` contains each flag and argument of `--help` with its full
/// text and each line that follows them, and no empty section.
pub(crate) fn compare(program: &str) {
    let (help, page) = (output(program, "--help"), output(program, "--generate=man"));
    let page: String = plain(&page);
    let (flags, end) = help_entries(&help);
    let described = man_entries(&page);
    assert!(flags.len() >= 10 && flags.contains_key("--version"), "{flags:?}");
    for (name, text) in &flags {
        assert!(!text.is_empty(), "--help has no text for {name}");
        let described = described.get(name).unwrap_or_else(|| panic!("no {name} in the man page"));
        // The man page shows the default value next to the flag's name.
        let text = text.split(" [default: ").next().unwrap_or(text);
        assert!(described.contains(text), "{name}: {described:?} instead of {text:?}");
    }
    assert_eq!(flags.len(), described.len(), "{described:?}");
    assert!(!page.contains(".SH EXTRA"), "a section without a meaning");
    let (squeezed, upper) = (squeeze(&page), page.to_uppercase().replace('"', ""));
    for line in end.lines().filter(|line| !line.is_empty()) {
        let heading = line.strip_suffix(':').unwrap_or(line);
        let heading = heading.split(", ").next().unwrap_or(heading).to_uppercase();
        assert!(
            squeezed.contains(&squeeze(line)) || upper.contains(&format!("\n.SH {heading}\n")),
            "{line:?} is not in the man page"
        );
    }
}

fn output(program: &str, argument: &str) -> String {
    let mut command = command(program);
    command.arg(argument).env("NO_COLOR", "1");
    let output = run(command).expect("the program runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

/// Returns the flags and arguments with their text, and the text that follows them.
fn help_entries(help: &str) -> (BTreeMap<String, String>, String) {
    let (mut entries, mut current) = (BTreeMap::<String, String>::new(), None);
    let mut lines = help.lines().skip_while(|line| !line.starts_with("Arguments:")).peekable();
    while let Some(line) =
        lines.next_if(|line| !line.starts_with("Examples:") && !line.starts_with("Exit codes"))
    {
        let indent = line.len() - line.trim_start().len();
        if line.ends_with(':') && indent == 0 {
            current = None;
        } else if (1..8).contains(&indent) {
            let key = name(line);
            entries.insert(key.clone(), String::new());
            current = Some(key);
        } else if let Some(entry) = current.as_ref().and_then(|key| entries.get_mut(key)) {
            *entry = squeeze(&format!("{entry} {line}"));
        }
    }
    (entries, lines.collect::<Vec<_>>().join("\n"))
}

fn man_entries(page: &str) -> BTreeMap<String, String> {
    let mut entries = BTreeMap::new();
    for part in page.split("\n.TP\n").skip(1) {
        let part = part.split("\n.SH").next().unwrap_or(part);
        let (head, text) = part.split_once('\n').unwrap_or((part, ""));
        // List items begin with a request instead of a hyphen; the other requests only concern the
        // layout.
        let text = text.lines().map(|line| if line.starts_with(".IP ") { "-" } else { line });
        let text: Vec<_> = text.filter(|line| !line.starts_with('.')).collect();
        entries.insert(name(head), squeeze(&text.join(" ")));
    }
    entries
}

/// Returns the long name of a flag, or the name of an argument.
fn name(head: &str) -> String {
    let mut words = head.split([' ', ',', '=']).filter(|word| !word.is_empty());
    let long = words.clone().find(|word| word.starts_with("--"));
    let name = long.or_else(|| words.next()).unwrap_or_default();
    name.trim_matches(['<', '>', '[', ']', '.']).to_owned()
}

/// Returns the text of the page without roff escapes.
fn plain(page: &str) -> String {
    let mut page = page.to_owned();
    for (escape, text) in
        [("\\fB", ""), ("\\fI", ""), ("\\fR", ""), ("\\-", "-"), ("\\*(Aq", "'"), ("\\&", "")]
    {
        page = page.replace(escape, text);
    }
    page.replace("\\\\", "\\").replace("\\.", ".")
}

/// Collapses white space, because the two texts break lines differently.
fn squeeze(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
