//! Digests: those of both ends are the same.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::tls::{PATIENCE, printed_pin};
use crate::runner::{Scenario, works};
use accio_harness::context::{Context, ensure_success, wait_until};
use accio_harness::process;
use accio_harness::tools::require;
use accio_harness::verdict::{Stop, Verdict, ensure};

pub(super) static SCENARIOS: &[Scenario] = &[
    works("digests/both-ends", "both ends report the same digest everywhere", both_ends),
    works("digests/tls", "the same with TLS, where the bytes on the network differ", with_tls),
];

/// Returns the digests in a text: words of an algorithm, a colon and 64 digits.
fn digests(text: &str) -> Vec<String> {
    let is_digest = |word: &&str| {
        word.split_once(':').is_some_and(|(algorithm, digits)| {
            ["sha256", "blake3"].contains(&algorithm) && digits.len() == 64
        })
    };
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':');
    words.filter(is_digest).map(str::to_owned).collect()
}

/// Waits until a file of a server names a digest for each of `count` files, and returns them.
fn written(path: &Path, count: usize) -> Verdict<Vec<String>> {
    let read = || digests(&fs::read_to_string(path).unwrap_or_default());
    wait_until(PATIENCE, || read().len() >= count);
    Ok(read())
}

fn both_ends(context: &Context) -> Verdict {
    compare(context, false)
}

fn with_tls(context: &Context) -> Verdict {
    compare(context, true)
}

/// Sends files of several sizes, and compares what the client and the server report of each.
fn compare(context: &Context, is_tls: bool) -> Verdict {
    let reviews = super::require_linux_programs(context).is_ok();
    let state = format!("XDG_STATE_HOME={}", context.fresh("state").display());
    for algorithm in ["sha256", "blake3"] {
        let name = |what: &str| context.fresh(&format!("{algorithm}-{what}"));
        let (journal, before, after) = (name("journal"), name("accept"), name("commit"));
        let to = |path: &Path| format!("sh -c 'echo $ACCIO_FILE_DIGEST >>{}'", path.display());
        let (accept_if, on_commit, lines) = (to(&before), to(&after), journal.to_string_lossy());
        let mut flags = vec!["--digest", algorithm, "--journal", &lines, "--on-commit-jobs", "1"];
        flags.extend(["--on-commit", &on_commit]);
        if reviews {
            flags.extend(["--accept-if", &accept_if]);
        }
        flags.extend(is_tls.then_some("--tls"));
        let server = context.server_wrapped(&["env", &state], &flags)?;
        let pin = match is_tls {
            true => Some(printed_pin(|| server.process.stderr().text())?),
            false => None,
        };
        let trust = pin.iter().flat_map(|pin| ["--tls-pin", pin]);
        let flags: Vec<&str> = ["--digest", algorithm].into_iter().chain(trust).collect();
        let mut sent = Vec::new();
        for (tag, size) in [(1, 0), (2, 1), (3, 65_536), (4, 1 << 20), (5, 5_000_003)] {
            let file = context.large_file(tag, size)?;
            for more in [&["--json"][..], &[]] {
                let flags = [&flags[..], more].concat();
                let mut client = context.client("127.0.0.1", server.port, &file, &flags)?;
                let exit = client.wait(PATIENCE)?;
                ensure_success(&client, exit)?;
                let text = client.stdout().text() + &client.stderr().text();
                let found = digests(&text);
                let Some(digest) = found.first().filter(|first| found.iter().all(|d| d == *first))
                else {
                    return Err(Stop::fault("one digest in the client's output", text));
                };
                sent.push(digest.clone());
            }
            if algorithm == "sha256" {
                let mut command = Command::new(require("sha256sum")?);
                command.arg(&file);
                let output = process::checked_output(command, b"", PATIENCE)?;
                let text = String::from_utf8_lossy(&output).into_owned();
                let due = format!("sha256:{}", text.split(' ').next().unwrap_or_default());
                let is_same = sent.iter().rev().take(2).all(|digest| *digest == due);
                ensure(is_same, format!("the client to report {due}"), || format!("{sent:?}"))?;
            }
        }
        for path in [&journal, &after].into_iter().chain(reviews.then_some(&before)) {
            let found = written(path, sent.len())?;
            ensure(found == sent, format!("{} to have {sent:?}", path.display()), || {
                format!("{found:?}")
            })?;
        }
        server.stop()?;
    }
    Ok(())
}
