//! Tests the HTML page of a class in a real browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use accio_harness::tools;

use crate::{kit, run, skips, submit};

/// A script that clicks on the cell of the failed check and records what is visible before and
/// after, and what is too hard to read.
const CLICK: &str = "<script>
const shown = () => [...document.querySelectorAll('section')]
    .filter(section => getComputedStyle(section).display !== 'none').map(section => section.id);
const rgb = color => color.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = element => {
    for (; element; element = element.parentElement) {
        const color = rgb(getComputedStyle(element).backgroundColor);
        if (color.length < 4 || color[3] > 0) return color;
    }
    const canvas = document.body.appendChild(document.createElement('i'));
    canvas.style.background = 'Canvas';
    const color = rgb(getComputedStyle(canvas).backgroundColor);
    canvas.remove();
    return color;
};
// The contrast that WCAG 2 asks for is 4.5.
const faint = () => [...document.querySelectorAll('body *')].filter(element => {
    const text = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!text || !element.checkVisibility() || !element.getClientRects().length) return false;
    const [one, other] = [rgb(getComputedStyle(element).color), behind(element)].map(light);
    return (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05) < 4.5;
}).map(element => element.outerHTML.slice(0, 100));
const names = () => [...document.querySelectorAll('table.class tbody tr:not([hidden]) th')]
    .map(cell => cell.innerText);
const before = shown();
const sorted = [...document.querySelectorAll('thead button')].slice(1, 2)
    .flatMap(button => [0, 1].map(() => (button.click(), names())));
const field = document.querySelector('input');
field.value = 'BEN';
field.dispatchEvent(new Event('input'));
const found = names().concat(document.querySelector('[role=status]').innerText);
field.value = '';
field.dispatchEvent(new Event('input'));
const cell = document.querySelector('td.failed:not(.text) a');
cell.click();
setTimeout(() => {
    const section = document.querySelector('section:target');
    const seen = {
        before, after: shown(), text: section.innerText, sorted, found, faint: faint(),
        wide: document.documentElement.scrollWidth > innerWidth,
        focused: document.activeElement === section,
        dark: matchMedia('(prefers-color-scheme: dark)').matches,
        column: document.querySelector('table.class tbody th').offsetWidth,
        cut: [...document.querySelectorAll('table.class th[scope=row]')]
            .filter(cell => cell.scrollWidth > cell.clientWidth).length,
        unreachable: [...document.querySelectorAll('td a, thead button, .scroll')]
            .filter(element => element.tabIndex < 0).length,
    };
    section.querySelector('a').click();
    setTimeout(() => {
        seen.returned = document.activeElement === cell && !shown().length;
        document.body.dataset.seen = JSON.stringify(seen);
    }, 100);
}, 100);
</script>";

#[test]
fn the_page_is_sorted_filtered_and_read_in_light_and_dark_mode() {
    let Some(browser) = browser() else {
        skips::tell("the page in a browser", "chromium is not installed");
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

    for (width, dark) in [(1200, false), (390, false), (1200, true), (390, true)] {
        let seen = load(&browser, dir.path(), &page, width, dark);
        assert_eq!(seen["dark"], dark);
        assert_eq!(seen["faint"], serde_json::json!([]), "{width} pixels, dark: {dark}");
        assert_eq!((&seen["focused"], &seen["unreachable"]), (&true.into(), &0.into()));
        assert_eq!(seen["returned"], true, "to the cell that was selected");
        let (ann, ben, cy) = ("ann (confirm)", "ben & <co> (confirm)", "cy (confirm)");
        let sorted = serde_json::json!([[cy, ben, ann], [ann, ben, cy]]);
        assert_eq!(seen["sorted"], sorted, "by points");
        assert_eq!(seen["found"], serde_json::json!([ben, "1 of 3 submissions"]));
        assert_eq!(seen["before"], serde_json::json!([]));
        assert_eq!(seen["after"], serde_json::json!(["s1-client-2"]));
        assert_eq!(seen["wide"], false, "at {width} pixels only the table scrolls");
        assert_eq!(seen["cut"], 0, "names are shown in full");
        let column = seen["column"].as_u64().unwrap();
        assert!(column * 5 < u64::from(width) * 2, "names take {column} of {width} pixels");
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
fn load(browser: &Path, dir: &Path, page: &Path, width: u32, dark: bool) -> serde_json::Value {
    let mut command = Command::new(browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", dir.join(format!("profile-{width}-{dark}")).display()))
        .arg(format!("--window-size={width},900"))
        .arg(format!("--blink-settings=preferredColorScheme={}", if dark { 0 } else { 1 }))
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
