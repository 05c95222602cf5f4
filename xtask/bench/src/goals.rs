//! The performance goals, and whether a run meets them.

use super::report::{Figure, Goal, Report};
use super::stats::Sample;

enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

use Limit::{AtLeast, AtMost};

/// Third-party programs that store uploads.
const THIRD_PARTY: &[&str] = &["nginx", "nc", "ncat", "socat", "rsync", "vsftpd", "python"];

/// Returns the goals for which the run has figures.
pub(super) fn of(report: &Report) -> Vec<Goal> {
    let sample =
        |workload: &str, peer: &str, figure| report.workload(workload)?.sample(peer, figure);
    let ratio = |workload: &str, ours: &str, theirs: &str, figure| {
        Some(sample(workload, ours, figure)?.ratio_to(sample(workload, theirs, figure)?))
    };
    let best = |workload: &str, of: &[&str], figure| best_of(report, workload, of, figure);
    let mut goals = Vec::new();
    let mut goal = |id: &str, what: String, figure: Option<Sample>, limit: Limit| {
        let Some(figure) = figure else { return };
        let (at_least, at_most) = match limit {
            AtLeast(limit) => (Some(limit), None),
            AtMost(limit) => (None, Some(limit)),
        };
        goals.push(Goal { id: id.into(), what, figure, at_least, at_most });
    };

    let disk = "disk-256m";
    if let Some(fastest) = best(disk, THIRD_PARTY, Figure::Throughput) {
        let figure = ratio(disk, "accio", &fastest, Figure::Throughput);
        goal("P1", format!("256 MiB to the disk, against {fastest}"), figure, AtLeast(2.0));
    }
    let figure = ratio(disk, "accio", "nc", Figure::Throughput);
    goal("P1", "256 MiB to the disk, against nc".into(), figure, AtLeast(5.0));
    let figure = ratio(disk, "accio", "server-s", Figure::Throughput);
    goal("P2", "256 MiB to the disk, relative to server-s".into(), figure, AtLeast(0.85));
    let figure = ratio(disk, "accio", "nginx", Figure::ServerCpu);
    goal("P3", "server CPU per GB, against nginx".into(), figure, AtMost(0.5));
    let figure = ratio("count", "server-s", "iperf3", Figure::Throughput);
    goal("P4", "server-s against iperf3".into(), figure, AtLeast(1.0));
    if report.missing.iter().any(|missing| missing.starts_with("iperf3")) {
        // A stand-in that does the same as iperf3 --skip-rx-copy.
        let figure = ratio("count", "server-s", "limit", Figure::Throughput);
        goal("P4", "server-s against sendfile → MSG_TRUNC alone".into(), figure, AtLeast(1.0));
    }
    let small = "small-1k";
    if let Some(nginx) = best(small, &["nginx"], Figure::Rate) {
        let figure = ratio(small, "accio", &nginx, Figure::Rate);
        goal("P5", format!("1 KiB uploads per second, against {nginx}"), figure, AtLeast(1.5));
        let figure = ratio(small, "accio", &nginx, Figure::ServerCpu);
        goal("P5", format!("server CPU per 1 KiB upload, against {nginx}"), figure, AtMost(0.7));
    }
    if let Some(floor) = best(small, &["floor"], Figure::Rate) {
        let figure = ratio(small, "accio", &floor, Figure::Rate);
        goal("P6", format!("1 KiB uploads per second, against {floor}"), figure, AtLeast(0.6));
    }
    let many = "at-once-100";
    let figure = ratio(many, "accio", "accio, one alone", Figure::Throughput);
    goal("P7", "100 files at once against one alone".into(), figure, AtLeast(1.2));
    let figure = sample(many, "accio", Figure::LastToFirst).cloned();
    goal("P7", "duration of the last of 100 against the first".into(), figure, AtMost(1.5));
    let figure = sample("idle", "accio", Figure::PerConnection).cloned();
    goal("P8", "user memory per idle connection".into(), figure, AtMost(1024.0));
    let figure = sample("idle", "accio", Figure::ServerCpu).cloned();
    goal("P8", "CPU while all connections are idle".into(), figure, AtMost(1.0));
    let figure = sample("idle", "accio", Figure::Slowdown).cloned();
    goal("P8", "256 MiB among idle connections, against none".into(), figure, AtMost(1.1));
    let (few, many) = ("accio, 16 at a time", "accio, 5000 at a time");
    let figure = ratio("crowd", many, few, Figure::ServerCpu);
    goal("P9", "CPU per 1 KiB upload, 5,000 at a time against 16".into(), figure, AtMost(1.2));
    for program in ["curl", "nc"] {
        let figure = ratio("client", "accio-client", program, Figure::ClientCpu);
        goal("P10", format!("client CPU per GB, against {program}"), figure, AtMost(0.6));
    }
    let (small, plain) = ("durable-1k", "accio, 128 at a time");
    let figure = ratio(small, "accio, durable, 128 at a time", plain, Figure::Rate);
    goal(
        "P12",
        "128 durable 1 KiB uploads at a time, against not durable".into(),
        figure,
        AtLeast(0.6),
    );
    let bare = "bare loop, durable, 1 at a time";
    let figure = ratio(small, "accio, durable, 1 at a time", bare, Figure::Rate);
    goal(
        "P12",
        "one durable 1 KiB upload at a time, against a bare loop".into(),
        figure,
        AtLeast(0.9),
    );
    let figure = ratio("durable-1g", "accio, durable", "dd", Figure::Throughput);
    goal("P13", "a durable file of 1 GiB, against dd".into(), figure, AtLeast(0.9));
    let digest = "digest-256m";
    let figure = ratio(digest, "accio, blake3", "accio", Figure::Throughput);
    goal("P15", "256 MiB with BLAKE3, against without".into(), figure, AtLeast(0.6));
    let secure = "tls-256m";
    let figure = ratio(secure, "accio, TLS", "nginx, TLS", Figure::Throughput);
    goal("P14", "256 MiB with TLS to the disk, against nginx".into(), figure, AtLeast(1.5));
    let figure = ratio(secure, "accio, TLS", "nginx, TLS", Figure::ServerCpu);
    goal("P14", "server CPU per GB with TLS, against nginx".into(), figure, AtMost(0.8));
    if let Some(nginx) = best("tls-1k", &["nginx"], Figure::Rate) {
        let figure = ratio("tls-1k", "accio, TLS", &nginx, Figure::Rate);
        goal("P14", format!("1 KiB with TLS per second, against {nginx}"), figure, AtLeast(1.0));
    }
    let figure = sample("tls-idle", "accio, TLS", Figure::PerConnection).cloned();
    goal("P14", "user memory per idle TLS connection".into(), figure, AtMost(16_384.0));
    let start = |figure| sample("start", "accio-server", figure).cloned();
    goal("P11", "start to listening".into(), start(Figure::Start), AtMost(5.0));
    goal("P11", "idle memory".into(), start(Figure::ServerMemory), AtMost(4.0));
    // 2 MiB without TLS; rustls and ring add the rest.
    goal("P11", "size of accio-server".into(), start(Figure::Size), AtMost(4.0));
    goals
}

/// Returns the peer with the highest median, among those whose names start with one of `of`.
fn best_of(report: &Report, workload: &str, of: &[&str], figure: Figure) -> Option<String> {
    let rows = &report.workload(workload)?.rows;
    let medians = rows.iter().filter_map(|row| {
        let first = row.peer.split([' ', ',']).next()?;
        let median = row.figures.get(&figure)?.median;
        of.contains(&first).then_some((median, &row.peer))
    });
    medians.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, peer)| peer.clone())
}
