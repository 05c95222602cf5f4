use std::time::Duration;

use accio_proto::{MemorySink, Server};
use base64::Engine;
use sha2::Digest;

use super::history::{Failure, KEPT};
use super::*;

/// Markup, quotes, a line break, an escape sequence for terminals, and a bidirectional override.
const HOSTILE: &str = "<script>alert(1)</script><img src=x onerror=\"x\">'&\n\u{1b}[2J\u{202e}";

fn page() -> RunningStatus {
    let server = Server::builder(MemorySink::new()).bind("127.0.0.1:0").unwrap();
    let addresses = server.local_addrs().to_vec();
    Status::new(&[]).run(server.handle(), addresses)
}

fn record(id: Option<u64>, text: &str) -> Record {
    let text = text::clip(text);
    Record {
        time: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        id,
        peer: Some("192.0.2.7:4000".parse().unwrap()),
        identity: Some(text.as_str().into()),
        dialect: None,
        bytes: 5,
        digest: None,
        duration: Duration::from_millis(1500),
        failure: Some(Box::new(Failure {
            reason: "rejected",
            error: text.clone(),
            explanation: text.clone(),
            expected: Some("confirm-accio\\r\\n".to_owned()),
            received: Some("<b>".to_owned()),
            unmarked: Some(text.clone()),
        })),
        note: Some(text.into()),
    }
}

fn get(page: &RunningStatus, path: &str) -> String {
    let request = Request::of(path, Some("127.0.0.1"));
    let answer = page.answer(&request).unwrap();
    assert_eq!(answer.status, "200 OK");
    answer.body
}

fn json(page: &RunningStatus, path: &str) -> serde_json::Value {
    serde_json::from_str(&get(page, path)).unwrap()
}

#[test]
fn escapes_peer_text_in_html_and_json() {
    let page = page();
    page.history.push(record(Some(1), HOSTILE));
    page.history.push(record(None, HOSTILE));
    let encoded = "%3Cscript%3Ealert(1)%3C/script%3E";
    for path in ["/", &format!("/?q={encoded}"), &format!("/?q=%22+autofocus+onfocus=x{encoded}")] {
        let html = get(&page, path);
        let own = html.matches("<script>").count();
        assert_eq!(own, 1, "the page's own script alone: {path}");
        assert!(!html.contains("<img") && !html.contains("<b>"), "{html}");
        assert!(!html.contains("\" autofocus"), "{html}");
        let bad = html.chars().find(|c| *c != '\n' && crate::is_unprintable(*c));
        assert_eq!(bad, None, "{path}");
    }
    let html = get(&page, "/");
    assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "{html}");
    assert!(html.contains("<code>&lt;b&gt;</code>"), "{html}");

    let text = get(&page, "/status.json");
    assert_eq!(text.chars().find(|c| *c != '\n' && crate::is_unprintable(*c)), None);
    let outcome = &json(&page, "/status.json")["outcomes"][1];
    assert_eq!(outcome["identity"], text::clip_to(&text::clip(HOSTILE), 64));
    assert_eq!(outcome["error"], text::clip(HOSTILE));
}

#[test]
fn policy_contains_the_digests_of_style_and_script() {
    for (name, text) in [("style", page::STYLE), ("script", page::SCRIPT)] {
        let digest = sha2::Sha256::digest(text.as_bytes());
        let digest = base64::engine::general_purpose::STANDARD.encode(digest);
        let source = format!("{name}-src 'sha256-{digest}';");
        assert!(page::POLICY.contains(&source), "put {source} into POLICY");
    }
    let html = get(&page(), "/");
    assert!(!html.contains(" style=") && !html.contains(" onclick="), "inline, which is refused");
    assert!(html.contains(&format!("<style>{}</style>", page::STYLE)));
    assert!(html.contains(&format!("<script>{}</script>", page::SCRIPT)));
}

#[test]
fn bounds_the_size_of_the_page() {
    let page = page();
    for id in 0..2 * KEPT as u64 {
        page.history.push(record(Some(u64::MAX - id), &"\"\u{202e}".repeat(10_000)));
    }
    let (html, json) = (get(&page, "/").len(), get(&page, "/status.json").len());
    assert!(html < 2 << 20, "{html}");
    assert!(json < 2 << 20, "{json}");
}

#[test]
fn json_has_the_documented_fields() {
    let page = page();
    page.history.push(record(Some(1), "text"));
    let json = json(&page, "/status.json");
    let names = |value: &serde_json::Value| {
        value.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    let documented = |text: &str| {
        let mut names: Vec<_> = text.split_whitespace().collect();
        names.sort_unstable();
        names.join(" ")
    };
    assert_eq!(
        names(&json),
        documented(
            "time started uptime version listening filter limits totals uploads more_uploads outcomes"
        )
    );
    assert_eq!(
        names(&json["limits"]),
        documented(
            "handshake timeout max_connections max_per_ip max_new_per_ip max_size max_duration min_rate"
        )
    );
    assert_eq!(
        names(&json["totals"]),
        documented("accepted in_service complete error refused accept_errors bytes")
    );
    assert_eq!(
        names(&json["outcomes"][0]),
        documented(
            "time id peer identity dialect bytes digest duration outcome reason error explanation \
             expected received unmarked note"
        )
    );
    assert_eq!(json["outcomes"][0]["duration"], 1.5);
    assert_eq!(json["outcomes"][0]["time"], "2026-01-02T03:04:05.678Z");
}

#[test]
fn filters_by_number_address_and_name() {
    let page = page();
    for id in 1..=12 {
        page.history.push(record(Some(id), if id == 3 { "ada" } else { "bob" }));
    }
    let ids = |query: &str| {
        let json = json(&page, &format!("/status.json?q={query}"));
        let outcomes = json["outcomes"].as_array().unwrap().clone();
        outcomes.iter().map(|outcome| outcome["id"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ids("ada"), [3]);
    assert_eq!(ids("1"), [1]);
    assert_eq!(ids("192.0.2.7").len(), 12);
    assert!(ids("nobody").is_empty());
    let html = get(&page, "/?q=ada");
    assert!(html.contains("value=\"ada\"") && html.contains("1 match the filter"), "{html}");
    assert_eq!(html.matches("data-key=\"e").count(), 1);
}
