//! The status page in headless Chromium, at the width of a desk and of a phone, during an upload.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use accio_harness::{process, tools};

use super::harness::{Place, Server, StopOnDrop, command, connect, upload};
use super::metrics::address;

/// Longer than the browser takes by far.
const LIMIT: Duration = Duration::from_secs(60);

fn chromium() -> Option<PathBuf> {
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(tools::find)
}

/// Opens a page for some seconds of the browser's time. Returns its document and what the browser
/// said.
fn open(browser: &Path, place: &Path, width: u32, url: &str) -> (String, String) {
    let mut command = command(browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
        .args(["--enable-logging=stderr", "--virtual-time-budget=6000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", place.join("profile").display()))
        .arg(format!("--window-size={width},900"))
        .arg(url);
    let output = process::output(command, b"", LIMIT).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

/// Returns the number between two texts.
fn number(document: &str, before: &str, after: &str) -> u64 {
    let rest = document.split_once(before).unwrap_or_else(|| panic!("no {before} in {document}")).1;
    rest.split_once(after).unwrap().0.parse().unwrap()
}

#[test]
fn updates_without_console_errors() {
    let Some(browser) = chromium() else {
        // Printed past the test harness, which would capture it.
        let _ = writeln!(std::io::stderr(), "SKIPPED: no Chromium: apt-get install chromium");
        return;
    };
    let place = Place::new();
    let server = Server::start(&place, &["--metrics", "0"]);
    let url = format!("http://{}/", address(&server));
    upload(server.address(), b"<script>document.title = 'broken'</script>").unwrap();
    let mut stream = connect(server.address()).unwrap();
    let stop = AtomicBool::new(false);
    let bound = Instant::now() + 4 * LIMIT;
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let stop = &stop;
        scope.spawn(move || {
            while !stop.load(Ordering::SeqCst) && Instant::now() < bound {
                stream.write_all(&[b'x'; 1000]).unwrap();
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let mut before = 0;
        for width in [1280, 390] {
            let (document, said) = open(&browser, &place.path("log"), width, &url);
            // Whatever the content security policy refuses, and every error of a script.
            let console: Vec<_> = said.lines().filter(|line| line.contains("CONSOLE")).collect();
            assert!(console.is_empty(), "{width}: {console:#?}");
            assert!(number(&document, "data-updates=\"", "\"") >= 2, "{document}");
            assert!(document.contains("<title>Accio: 1 in progress, 1 complete, 0 failed</title>"));
            let received = number(&document, "data-key=\"u2\" data-bytes=\"", "\"");
            assert!(received > before, "{received} after {before}");
            before = received;
            assert!(document.contains("data-key=\"e1\""), "{document}");
            // The button needs the script, which has shown it.
            assert!(document.contains("<button id=\"pause\" type=\"button\">Pause</button>"));
        }
        let (document, _) = open(&browser, &place.path("log"), 390, &format!("{url}?q=1"));
        assert!(document.contains("data-key=\"e1\"") && !document.contains("data-key=\"u2\""));
    });
}
