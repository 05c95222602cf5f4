//! The HTML of the status page.

use std::fmt::{self, Write};
use std::time::Duration;

use super::history::KEPT;
use super::report::{Ended, Limits, Report, Totals, Upload};
use super::text::{Html, grouped, size, span};

pub(super) const STYLE: &str = include_str!("page.css");
pub(super) const SCRIPT: &str = include_str!("page.js");

/// The content security policy: allows only the style and the script of the page, by their digests.
pub(super) const POLICY: &str = "default-src 'none'; \
     style-src 'sha256-RfQdxfJYjqOm/KyBY2cvnMZQK3Z+liDag4FuvJE18Zg='; \
     script-src 'sha256-Gl7lbFKUyrZSk3aBoQZzbtCp9qr8OqetuJZxGS7oTnQ='; \
     img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const LOGO: &str = "<svg viewBox=\"0 0 32 32\" aria-hidden=\"true\"><rect width=\"32\" height=\"32\" rx=\"8\" \
     fill=\"#0b63c5\"/><path d=\"M16 6v12m-5-5 5 5 5-5M7 19v4a3 3 0 0 0 3 3h12a3 3 0 0 0 3-3v-4\" \
     fill=\"none\" stroke=\"#fff\" stroke-width=\"2.6\" stroke-linecap=\"round\" stroke-linejoin=\"round\"/></svg>";

/// The icon for the browser's tab.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E\
     %3Crect width='32' height='32' rx='8' fill='%230b63c5'/%3E%3Cpath d='M16 6v12m-5-5 5 5 5-5M7 19v4a3 \
     3 0 0 0 3 3h12a3 3 0 0 0 3-3v-4' fill='none' stroke='%23fff' stroke-width='2.6'/%3E%3C/svg%3E";

/// Idle time after which an upload is marked, in seconds.
const SILENT: f64 = 2.0;

/// Renders the page for a report.
pub(super) fn html(report: &Report) -> String {
    let mut page = String::with_capacity(64 << 10);
    // Writing to a string cannot fail.
    let _ = write_page(&mut page, report);
    page
}

fn write_page(page: &mut String, report: &Report) -> fmt::Result {
    let totals = &report.totals;
    let query = report.filter.as_deref().unwrap_or_default();
    writeln!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Accio: {} in progress, {} complete, {} failed</title>\n\
         <link rel=\"icon\" href=\"{ICON}\">\n\
         <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n\
         <header>{LOGO}<h1 id=\"title\">Accio <span>{}</span></h1>\n\
         <p id=\"stamp\">Updated {}</p>\
         <button id=\"pause\" type=\"button\" hidden>Pause</button></header>\n<main>",
        totals.in_service,
        totals.complete,
        totals.error,
        Html(&report.listening.join(", ")),
        Time(&report.time),
    )?;
    write_totals(page, report)?;
    writeln!(
        page,
        "<form role=\"search\"><label for=\"filter\">Filter</label>\
         <input id=\"filter\" name=\"q\" type=\"search\" value=\"{}\" \
         placeholder=\"number, address or name\" autocomplete=\"off\" maxlength=\"64\">\
         <button>Filter</button></form>",
        Html(query)
    )?;
    write_uploads(page, report)?;
    write_outcomes(page, report)?;
    write_limits(page, &report.limits)?;
    writeln!(
        page,
        "</main>\n<footer><p>accio {} · up since {} · the same for scripts: \
         <a href=\"status.json\">status.json</a></p></footer>\n\
         <p id=\"said\" class=\"hidden\" role=\"status\"></p>\n\
         <script>{SCRIPT}</script>\n</body>\n</html>",
        report.version,
        Time(&report.started),
    )
}

fn write_totals(page: &mut String, report: &Report) -> fmt::Result {
    let Totals { in_service, complete, error, refused, bytes, .. } = report.totals;
    write!(
        page,
        "<dl id=\"totals\" data-counts=\"{complete} {error}\" \
         data-said=\"{in_service} in progress, {complete} complete, {error} failed\">"
    )?;
    let busy = if in_service > 0 { "busy" } else { "" };
    let bad = if error > 0 { "bad" } else { "" };
    for (class, name, value) in [
        (busy, "in progress", grouped(in_service)),
        ("", "complete", grouped(complete)),
        (bad, "failed", grouped(error)),
        ("", "refused", grouped(refused)),
        ("", "received", size(bytes as f64)),
        ("", "running for", span(Duration::from_secs(report.uptime as u64))),
    ] {
        write!(page, "<div class=\"{class}\"><dt>{name}</dt><dd>{value}</dd></div>")?;
    }
    page.write_str("</dl>\n")
}

fn write_uploads(page: &mut String, report: &Report) -> fmt::Result {
    let count = report.uploads.len() as u64 + report.more_uploads;
    write!(page, "<section id=\"uploads\"><h2 id=\"uploads-title\">In progress ")?;
    match report.filter {
        None => write!(page, "<small>{}</small></h2>", grouped(count))?,
        Some(_) => write!(page, "<small>{} match the filter</small></h2>", grouped(count))?,
    }
    if report.uploads.is_empty() {
        let text =
            if report.filter.is_some() { "No upload matches." } else { "No upload right now." };
        return writeln!(page, "<p class=\"empty\">{text}</p></section>");
    }
    page.write_str(
        "<div class=\"table\"><table role=\"table\" aria-labelledby=\"uploads-title\">\
         <thead role=\"rowgroup\"><tr role=\"row\"><th role=\"columnheader\">No.</th>\
         <th role=\"columnheader\">State</th><th role=\"columnheader\">Client</th>\
         <th role=\"columnheader\" class=\"number\">Received</th>\
         <th role=\"columnheader\" class=\"number\">Rate</th>\
         <th role=\"columnheader\" class=\"number\">Age</th></tr></thead>\
         <tbody role=\"rowgroup\">\n",
    )?;
    for upload in &report.uploads {
        write_upload(page, upload, report.limits.timeout)?;
    }
    page.write_str("</tbody></table></div>")?;
    if report.more_uploads > 0 {
        write!(page, "<p class=\"more\">and {} more</p>", grouped(report.more_uploads))?;
    }
    page.write_str("</section>\n")
}

fn write_upload(page: &mut String, upload: &Upload, timeout: f64) -> fmt::Result {
    let Upload { id, phase, bytes, .. } = upload;
    write!(
        page,
        "<tr role=\"row\" data-key=\"u{id}\" data-bytes=\"{bytes}\"><th role=\"rowheader\" class=\"no\">{id}</th>\
         <td role=\"cell\" class=\"state\"><span class=\"badge {phase}\">{phase}</span>"
    )?;
    if upload.idle >= SILENT && *phase != "finishing" {
        write!(
            page,
            "<small class=\"silent\">silent for {:.0} s of {timeout:.0} s</small>",
            upload.idle.floor()
        )?;
    }
    page.write_str("</td>")?;
    write_client(page, upload.peer.as_deref(), upload.identity.as_deref(), upload.dialect)?;
    writeln!(
        page,
        "<td role=\"cell\" class=\"number size\" title=\"{} bytes\">{}</td>\
         <td role=\"cell\" class=\"number rate\">{}/s</td>\
         <td role=\"cell\" class=\"number time\" data-label=\"age\">{}</td></tr>",
        grouped(*bytes),
        size(*bytes as f64),
        size(upload.rate),
        age(upload.age),
    )
}

fn write_outcomes(page: &mut String, report: &Report) -> fmt::Result {
    let count = report.outcomes.len();
    page.write_str("<section id=\"outcomes\"><h2 id=\"outcomes-title\">Ended ")?;
    match report.filter {
        None if count < KEPT => write!(page, "<small>{count}</small></h2>")?,
        None => write!(page, "<small>the last {count}</small></h2>")?,
        Some(_) => write!(page, "<small>{count} match the filter</small></h2>")?,
    }
    if count == 0 {
        let text = if report.filter.is_some() { "No connection matches." } else { "None so far." };
        return writeln!(page, "<p class=\"empty\">{text}</p></section>");
    }
    page.write_str(
        "<div class=\"table\"><table role=\"table\" aria-labelledby=\"outcomes-title\">\
         <thead role=\"rowgroup\"><tr role=\"row\"><th role=\"columnheader\">No.</th>\
         <th role=\"columnheader\">Time</th><th role=\"columnheader\">Result</th>\
         <th role=\"columnheader\">Client</th><th role=\"columnheader\" class=\"number\">Bytes</th>\
         <th role=\"columnheader\" class=\"number\">Took</th></tr></thead><tbody role=\"rowgroup\">\n",
    )?;
    for ended in &report.outcomes {
        write_ended(page, ended)?;
    }
    page.write_str("</tbody></table></div></section>\n")
}

fn write_ended(page: &mut String, ended: &Ended) -> fmt::Result {
    let Ended { outcome, time, bytes, .. } = ended;
    let peer = ended.peer.as_deref();
    match ended.id {
        Some(id) => write!(
            page,
            "<tr role=\"row\" data-key=\"e{id}\"><th role=\"rowheader\" class=\"no\">{id}</th>"
        )?,
        None => write!(
            page,
            "<tr role=\"row\" data-key=\"r{time} {}\"><th role=\"rowheader\" class=\"no\">–</th>",
            Html(peer.unwrap_or_default())
        )?,
    }
    let word = if *outcome == "error" { "ERROR" } else { outcome };
    write!(
        page,
        "<td role=\"cell\" class=\"clock\">{}</td>\
         <td role=\"cell\" class=\"what\"><span class=\"badge {outcome}\">{word}</span>",
        Time(time)
    )?;
    if let Some(reason) = ended.reason {
        write!(page, " <code>{reason}</code>")?;
    }
    if let Some(explanation) = &ended.explanation {
        write!(page, "<p>{}</p>", Html(explanation))?;
    }
    if let (Some(expected), Some(received)) = (&ended.expected, &ended.received) {
        write!(
            page,
            "<dl class=\"bytes\"><dt>expected</dt><dd><code>{}</code></dd>\
             <dt>received</dt><dd><code>{}</code></dd></dl>",
            Html(expected),
            Html(received)
        )?;
    }
    if let Some(unmarked) = &ended.unmarked {
        write!(page, "<p>Not even ERROR could be stored: {}.</p>", Html(unmarked))?;
    }
    if let Some(digest) = &ended.digest {
        write!(page, "<small><code>{digest}</code></small>")?;
    }
    if let Some(note) = &ended.note {
        write!(page, "<small>{}</small>", Html(note))?;
    }
    page.write_str("</td>")?;
    write_client(page, peer, ended.identity.as_deref(), ended.dialect)?;
    write!(
        page,
        "<td role=\"cell\" class=\"number size\" data-label=\"bytes\">{}",
        grouped(*bytes)
    )?;
    if *bytes >= 1 << 20 {
        write!(page, "<small>{}</small>", size(*bytes as f64))?;
    }
    writeln!(
        page,
        "</td><td role=\"cell\" class=\"number time\" data-label=\"took\">{}</td></tr>",
        age(ended.duration)
    )
}

/// Writes the cell of a client: its name, address and dialect.
fn write_client(
    page: &mut String,
    peer: Option<&str>,
    identity: Option<&str>,
    dialect: Option<&str>,
) -> fmt::Result {
    let peer = peer.unwrap_or("unknown");
    page.write_str("<td role=\"cell\" class=\"client\">")?;
    let details: Vec<_> = identity.map(|_| peer).into_iter().chain(dialect).collect();
    write!(page, "{}", Html(identity.unwrap_or(peer)))?;
    if !details.is_empty() {
        write!(page, "<small>{}</small>", Html(&details.join(" · ")))?;
    }
    page.write_str("</td>")
}

fn write_limits(page: &mut String, limits: &Limits) -> fmt::Result {
    page.write_str("<section id=\"limits\"><h2>Limits</h2><dl>")?;
    let seconds = |limit: f64| span(Duration::from_secs_f64(limit));
    let limits = [
        ("handshake", Some(limits.handshake.clone())),
        ("silence", Some(seconds(limits.timeout))),
        ("connections", Some(grouped(limits.max_connections as u64))),
        ("per address", limits.max_per_ip.map(|limit| grouped(limit.into()))),
        ("new per address and second", limits.max_new_per_ip.map(|limit| grouped(limit.into()))),
        ("file size", limits.max_size.map(|limit| size(limit as f64))),
        ("duration", limits.max_duration.map(seconds)),
        ("minimum rate", limits.min_rate.map(|limit| format!("{}/s", size(limit as f64)))),
    ];
    for (name, limit) in limits {
        if let Some(limit) = limit {
            write!(page, "<div><dt>{name}</dt><dd>{limit}</dd></div>")?;
        }
    }
    page.write_str("</dl></section>\n")
}

fn age(seconds: f64) -> String {
    span(Duration::from_secs_f64(seconds))
}

/// A time, shown in UTC unless a script converts it to local time.
struct Time<'a>(&'a str);

impl fmt::Display for Time<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // For example 2026-11-21T01:25:02.118Z: ASCII, with the time of day after the T.
        let clock = self.0.split('T').nth(1).and_then(|clock| clock.get(..8)).unwrap_or(self.0);
        write!(f, "<time datetime=\"{}\">{clock} UTC</time>", self.0)
    }
}
