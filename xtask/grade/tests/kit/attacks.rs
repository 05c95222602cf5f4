//! Submissions that attack the kit, other submissions and the machine. Each attack is bounded: if
//! a protection is missing, the test fails, but the machine survives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use accio_harness::process::{Input, NO_OWNER, Process};
use serde_json::Value;

use crate::{add_faulty, kit, run, script, skips, submit};

/// Time limit for waits.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns whether this machine can create sandboxes; if not, prints that the test is skipped.
fn has_sandboxes(test: &str) -> bool {
    let output = run(kit().arg("__sandbox-probe"));
    if !output.status.success() {
        skips::tell(test, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    output.status.success()
}

/// Returns a word for the command lines of an attack's processes, to find them.
fn unique() -> String {
    format!("{}.{}", 1000 + fastrand::u32(..1000), fastrand::u32(..))
}

/// Returns the number of processes whose command line contains `text`.
pub(crate) fn running(text: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(text)).count()
}

/// Grades one check of a server-s that executes `text`; returns its results and the command.
fn attacked(dir: &Path, text: &str, more: &[&str]) -> (Value, Command) {
    script(&dir.join("attacker/server-s"), text);
    let mut command = kit();
    command
        .args(["--json", "--no-retry", "--network", "proxy", "--handshake", "confirm"])
        .args(["--filter", "server-s/4", "--subject"])
        .arg(dir.join("attacker"))
        .args(more);
    let output = run(&mut command);
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    (results["submissions"][0].clone(), command)
}

/// Returns what the program of the first check printed to stderr.
fn printed(results: &Value) -> String {
    let lines = results["checks"][0]["output"].as_array().expect("output of a failed check");
    lines.iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n")
}

#[test]
fn no_process_outlives_its_check_or_rewrites_results() {
    if !has_sandboxes("no_process_outlives_its_check_or_rewrites_results") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (results, word) = (dir.path().join("results.json"), unique());
    // A session of its own and no environment, so that neither the group nor the mark finds it.
    let rewrites = format!(
        "setsid env -i /bin/sh -c 'for i in 1 2 3 4 5 6 7 8 9; do sleep 0.2; \
         echo rewritten >{}; done; exec sleep {word}' >/dev/null 2>&1 & sleep 0.1",
        results.display()
    );
    let (graded, _) = attacked(dir.path(), &rewrites, &["--gradescope", results.to_str().unwrap()]);
    assert_eq!(graded["earned"], 0, "{graded:#}");
    assert_eq!(running(&word), 0);
    std::thread::sleep(Duration::from_millis(500));
    let text = fs::read_to_string(&results).unwrap();
    let written: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    assert_eq!(written["score"].as_f64(), Some(0.0));
    let protections = graded["protections"].to_string();
    assert!(protections.contains("namespaces: processes"), "{protections}");
}

#[test]
fn a_submission_cannot_kill_the_kit() {
    if !has_sandboxes("a_submission_cannot_kill_the_kit") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // It kills only processes that name this test's directory.
    let kills = format!(
        "for one in /proc/[0-9]*; do grep -q {0} $one/cmdline && kill -KILL ${{one#/proc/}}; \
         done; kill -KILL $PPID; kill -KILL 1; exit 1",
        dir.path().display()
    );
    let class = dir.path().join("class");
    script(&class.join("attacker/client"), &kills);
    submit(&class, "good", &["client"], "confirm", "none");
    let output = run(kit()
        .args(["--json", "--no-retry", "--handshake", "confirm", "--filter", "client/2"])
        .args(["--filter", "client/4", "--submissions"])
        .arg(&class)
        .arg("--results")
        .arg(dir.path().join("results")));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(results["submissions"][1]["earned"], 15, "{results:#}");
}

#[test]
fn programs_end_when_the_kit_is_killed() {
    if !has_sandboxes("programs_end_when_the_kit_is_killed") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let word = unique();
    script(&dir.path().join("attacker/server-s"), &format!("setsid sleep {word} & sleep {word}"));
    let mut command = kit();
    command.args(["--handshake", "confirm", "--filter", "server-s/4", "--subject"]);
    command.arg(dir.path().join("attacker"));
    let mut kit = Process::spawn(command, NO_OWNER, Input::Null).unwrap();
    let until = Instant::now() + TIMEOUT;
    while running(&word) < 2 {
        assert!(Instant::now() < until, "the programs did not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    kit.kill().unwrap();
    while running(&word) > 0 {
        assert!(Instant::now() < until, "processes outlive the kit");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn processes_and_memory_are_limited_whatever_their_group() {
    if !has_sandboxes("processes_and_memory_are_limited_whatever_their_group") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let word = unique();
    let forks =
        format!("i=0; while [ $i -lt 400 ]; do setsid sleep {word} & i=$((i+1)); done; sleep 600");
    script(&dir.path().join("attacker/server-s"), &forks);
    let mut command = kit();
    command.args(["--no-retry", "--handshake", "confirm", "--filter", "server-s/4", "--subject"]);
    command.arg(dir.path().join("attacker"));
    let mut kit = Process::spawn(command, NO_OWNER, Input::Null).unwrap();
    let mut most = 0;
    while !kit.has_ended().unwrap() {
        most = most.max(running(&word));
        // Reading all of /proc again and again takes CPU time from the kit.
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!((50..=200).contains(&most), "{most} processes at once, the limit is 200");
    assert_eq!(running(&word), 0);

    // Six processes, each in its own session and far below the limit of 64 MiB.
    let takes = "for i in 1 2 3 4 5 6; do setsid head -c 30000000 /dev/zero | tail & done; \
                 sleep 600";
    let (graded, _) = attacked(dir.path(), takes, &["--memory", "64"]);
    let actual = graded["checks"][0]["actual"].as_str().unwrap();
    assert!(actual.contains("the kit killed it: more than 64 MiB of memory"), "{actual}");
}

#[test]
fn files_are_limited_and_those_of_others_hidden() {
    if !has_sandboxes("files_are_limited_and_those_of_others_hidden") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("other/secret");
    fs::create_dir(dir.path().join("other")).unwrap();
    fs::write(&secret, "the secret").unwrap();
    let outside: Vec<PathBuf> = vec![
        dir.path().join("attacker/outside"),
        dir.path().join("outside"),
        PathBuf::from("/var/tmp").join(unique()),
        PathBuf::from("/dev/shm").join(unique()),
    ];
    let writes: String =
        outside.iter().map(|path| format!("echo outside >{}; ", path.display())).collect();
    let text = format!(
        "exec >&2; {writes} head -c 60000000 /dev/zero >big; \
         head -c 100000000 /dev/zero >/tmp/big; cat {}; ls -s --block-size=1M big /tmp/big; \
         echo token:$SECRET_TOKEN:; exit 1",
        secret.display()
    );
    let attacker = dir.path().join("attacker/server-s");
    script(&attacker, &text);
    let output = run(kit()
        .args(["--json", "--no-retry", "--handshake", "confirm", "--filter", "server-s/4"])
        .args(["--disk", "32", "--subject"])
        .arg(dir.path().join("attacker"))
        .env("SECRET_TOKEN", "xyzzy"));
    let results: Value = serde_json::from_slice(&output.stdout).unwrap();
    let printed = printed(&results["submissions"][0]);
    assert!(!printed.contains("the secret") && !printed.contains("xyzzy"), "{printed}");
    assert!(printed.contains("token::"), "{printed}");
    for path in outside {
        assert!(!path.exists(), "{} was written", path.display());
    }
    let size = |name: &str| -> u32 {
        let line = printed.lines().find(|line| line.ends_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {printed}"));
        line.trim_start_matches("  |").split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!((1..=32).contains(&size(" big")), "{printed}");
    assert!((1..=64).contains(&size(" /tmp/big")), "{printed}");
}

/// Grades one check of a server that executes `text`; returns the check's result.
fn attacked_server(dir: &Path, check: &str, text: &str) -> Value {
    add_faulty(&dir.join("attacker"));
    script(&dir.join("attacker/server"), text);
    let output = run(kit()
        .args(["--json", "--no-retry", "--network", "proxy", "--handshake", "confirm"])
        .args(["--filter", check, "--subject"])
        .arg(dir.join("attacker")));
    let results: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    results["submissions"][0]["checks"][0].clone()
}

/// Returns a server that speaks the dialect, and executes `first` when it starts.
fn faulty_server(first: &str) -> String {
    format!("{first}\nexec \"${{0%/*}}/.bin/faulty\" server confirm none \"$@\"")
}

#[test]
fn stored_files_that_are_links_or_pipes_are_neither_followed_nor_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, "the secret of another user").unwrap();
    // The server never gets as far as storing the file itself.
    let stops = "exec \"${0%/*}/.bin/faulty\" server confirm late \"$@\"";
    let began = Instant::now();
    for (attack, found) in [
        (format!("ln -s {} \"$2/1.file\"", secret.display()), "symbolic link"),
        ("mkfifo \"$2/1.file\"".to_owned(), "not a regular file"),
        (
            format!("rmdir \"$2\"; ln -s {} \"$2\"", dir.path().display()),
            // `late` cannot store its parts there.
            "",
        ),
        ("truncate -s 900M \"$2/1.file\"".to_owned(), "bytes"),
    ] {
        let check = attacked_server(dir.path(), "server/14", &format!("{attack}\n{stops}"));
        assert_eq!(check["outcome"], "failed", "{attack}: {check:#}");
        let text = check.to_string();
        assert!(!text.contains("the secret"), "{attack}: {text}");
        assert!(check["actual"].as_str().unwrap().contains(found), "{attack}: {check:#}");
    }
    assert!(began.elapsed() < Duration::from_secs(200), "{:?}", began.elapsed());
}

#[test]
fn a_guessed_name_does_not_make_the_kit_overwrite_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    // The kit writes the client's file into the directory of the check, when the server runs.
    let links = format!(
        "for i in 0 1 2 3 4 5 6 7 8 9; do for name in source large sparse; do \
         ln -s {} \"$2/../$i-$name\"; done; done 2>/dev/null",
        victim.display()
    );
    submit(dir.path(), "attacker", &["client"], "confirm", "none");
    let check = attacked_server(dir.path(), "server/11", &faulty_server(&links));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(check["outcome"], "failed", "{check:#}");
}

#[test]
fn outputs_cannot_fill_the_reports() {
    let dir = tempfile::tempdir().unwrap();
    let floods = "head -c 3000000 /dev/zero | tr '\\0' x; \
                  head -c 3000000 /dev/zero | tr '\\0' y >&2; exit 1";
    for program in ["client", "server", "server-s"] {
        script(&dir.path().join("class/attacker").join(program), floods);
    }
    let results = dir.path().join("results");
    run(kit()
        .args(["--no-retry", "--network", "proxy", "--handshake", "confirm", "--submissions"])
        .arg(dir.path().join("class"))
        .arg("--results")
        .arg(&results));
    for name in ["attacker.txt", "attacker.json"] {
        let size = fs::metadata(results.join(name)).unwrap().len();
        assert!((1_000..2 << 20).contains(&size), "{name} has {size} bytes");
    }
}

#[test]
fn a_sandbox_cannot_be_left_by_its_process_table_or_new_namespaces() {
    if !has_sandboxes("a_sandbox_cannot_be_left") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("other/secret");
    fs::create_dir(dir.path().join("other")).unwrap();
    fs::write(&secret, "the secret").unwrap();
    let secret = secret.display();
    let text = format!(
        "exec >&2
         for one in /proc/[0-9]*; do
             n=${{one#/proc/}}
             [ $n = $$ ] && continue
             (cat $one/root{secret} || cat $one/cwd{secret}) 2>/dev/null
             for fd in $one/fd/*; do [ $n = 1 ] && echo x >$fd && echo written:$fd; done 2>/dev/null
             [ $n = 1 ] && kill -STOP 1 && kill -KILL 1
         done
         unshare -Urm sh -c 'umount -l {other}; umount -l /tmp; umount -R /; cat {secret}; \
             mount -o remount,rw,bind / && touch /written && echo written:root' 2>/dev/null
         unshare -Urp --fork --mount-proc sh -c 'cat {secret}' 2>/dev/null
         nsenter -t 1 -a cat {secret} 2>/dev/null
         echo 1 2>/dev/null >/proc/sys/kernel/ns_last_pid && echo written:sys
         head -c 100 /proc/1/environ /proc/1/mem 2>/dev/null
         echo done; exit 1",
        other = dir.path().display()
    );
    let (graded, _) = attacked(dir.path(), &text, &[]);
    let printed = printed(&graded);
    assert!(printed.contains("done"), "{printed}");
    assert!(!printed.contains("the secret") && !printed.contains("written:"), "{printed}");
    assert!(!Path::new("/written").exists());
}
