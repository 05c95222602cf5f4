//! Tests the HTML page of a class in a real browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use accio_harness::tools;

use crate::{kit, run, submit};

/// A script that clicks on the cell of the failed check and records what is visible before and
/// after.
const CLICK: &str = "<script>
const shown = () => [...document.querySelectorAll('section')]
    .filter(section => getComputedStyle(section).display !== 'none').map(section => section.id);
const before = shown();
document.querySelector('td.failed:not(.text) a').click();
setTimeout(() => {
    const text = document.querySelector('section:target').innerText;
    const wide = document.documentElement.scrollWidth > innerWidth;
    document.body.dataset.seen = JSON.stringify({ before, after: shown(), text, wide });
}, 100);
</script>";

#[test]
fn a_click_on_a_cell_shows_only_the_details_of_that_check() {
    let Some(browser) = browser() else {
        eprintln!("skipped: the page in a browser: chromium is not installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    submit(dir.path(), "class/ann", &["client"], "confirm", "none");
    submit(dir.path(), "class/ben & <co>", &["client"], "confirm", "no-usage");
    fs::create_dir(dir.path().join("class/cy")).unwrap();
    let page = dir.path().join("page.html");
    let status = run(kit()
        .args(["--filter", "client/2", "--filter", "client/4", "--submissions"])
        .arg(dir.path().join("class"))
        .arg("--results")
        .arg(dir.path().join("results"))
        .arg("--html")
        .arg(&page))
    .status;
    assert_eq!(status.code(), Some(1));
    let text = fs::read_to_string(&page).unwrap();
    assert!(!text.contains("http"), "the page must not refer to other files");
    assert!(text.contains(">nothing to grade: "), "{text}");
    fs::write(&page, text.replace("</body>", &format!("{CLICK}</body>"))).unwrap();

    for width in [1200, 390] {
        let seen = load(&browser, dir.path(), &page, width);
        assert_eq!(seen["before"], serde_json::json!([]));
        assert_eq!(seen["after"], serde_json::json!(["s1-client-2"]));
        assert_eq!(seen["wide"], false, "at {width} pixels only the table scrolls");
        let text = seen["text"].as_str().unwrap();
        for part in ["ben & <co>", "client/2", "expected", "actual", "rule", "accio-grade "] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }
}

fn browser() -> Option<PathBuf> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(tools::find)
}

/// Loads the page in a window of this width; returns what its script recorded.
fn load(browser: &Path, dir: &Path, page: &Path, width: u32) -> serde_json::Value {
    let mut command = Command::new(browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", dir.join(format!("profile-{width}")).display()))
        .arg(format!("--window-size={width},900"))
        .args(["--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("file://{}", page.display()));
    let output = run(&mut command);
    let text = String::from_utf8_lossy(&output.stdout);
    let seen = text.split("data-seen=\"").nth(1).and_then(|rest| rest.split('"').next());
    let seen =
        seen.unwrap_or_else(|| panic!("{text}\n{}", String::from_utf8_lossy(&output.stderr)));
    let seen = seen.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">");
    serde_json::from_str(&seen.replace("&amp;", "&")).unwrap()
}
