//! Load balancers in front of the receivers: the kernel's address translation, haproxy or Envoy.
//!
//! A balancer below TCP forwards FIN and reset unchanged. Here nftables redirects each new
//! connection to the next receiver. This happens in a private network namespace, in which this
//! program runs again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use accio_harness::namespace::PrivateNamespace;
use accio_harness::verdict::Verdict;

/// The load balancer between clients and receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Balancer {
    /// nftables translates the addresses of each connection, like LVS, ECMP or a cloud's balancer
    Nft,
    /// haproxy in TCP mode, which turns a reset into an orderly end
    Haproxy,
    /// Envoy 1.40 or later, which forwards a reset as a reset
    Envoy,
    /// No balancer: clients connect to the receivers in turn
    Direct,
}

/// Distributes new connections to `port` over the receivers in turn. Existing connections stay with
/// their receiver.
pub(super) fn spread(port: u16, receivers: &[u16]) -> Verdict {
    PrivateNamespace::set_rules(&rules(port, receivers))
}

/// Finds a command that creates a namespace in which [`spread`] works.
pub(super) fn namespace() -> Verdict<PrivateNamespace> {
    PrivateNamespace::find(&rules(1, &[2, 3]))
}

fn rules(port: u16, receivers: &[u16]) -> String {
    let map: Vec<_> =
        receivers.iter().enumerate().map(|(index, port)| format!("{index} : {port}")).collect();
    format!(
        "add table ip accio\nflush table ip accio\ntable ip accio {{\n chain out {{\n  \
         type nat hook output priority -100\n  \
         ip daddr 127.0.0.1 tcp dport {port} redirect to :numgen inc mod {} map {{ {} }}\n }}\n}}\n",
        receivers.len(),
        map.join(", ")
    )
}

/// Returns the Envoy configuration shipped with the server, for these receivers and the ports of
/// their health checks.
pub(super) fn envoy_config(port: u16, receivers: &[(u16, u16)], admin: &Path) -> String {
    let mut text = include_str!("../../../accio-server/dist/envoy.yaml")
        .replace("0.0.0.0, port_value: 5000", &format!("127.0.0.1, port_value: {port}"))
        .replace("interval: 2s", "interval: 0.3s")
        .replace("/run/envoy/admin.sock", &admin.to_string_lossy());
    for (index, (receiver, health)) in receivers.iter().enumerate() {
        let shipped = format!("192.0.2.1{}, port_value: 5000", index + 1);
        text = text.replace(&shipped, &format!("127.0.0.1, port_value: {receiver}")).replacen(
            "port_value: 9090",
            &format!("port_value: {health}"),
            1,
        );
    }
    text
}

/// Format of haproxy's log lines, one for each client connection: source, receiver, start,
/// duration.
pub(super) const LOG_FORMAT: &str = "session %ci %s %Ts.%ms %Tt";

/// Returns the source address of upload `index`, which identifies the upload in haproxy's log.
pub(super) fn source(index: u64) -> Ipv4Addr {
    // Other programs use the first addresses of 127.0.0.0/8.
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 16, 0, 1)) + (index as u32 & 0xf_ffff))
}

/// Returns the uploads that, according to its log, haproxy had open at `server` at this moment.
pub(super) fn open_at(log: &str, server: &str, moment: SystemTime) -> Vec<u64> {
    // haproxy reads the clock before it forwards a connection, and logs milliseconds.
    const SLACK: f64 = 0.05;
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let moment = since.as_secs_f64();
    let mut sessions = BTreeMap::new();
    for line in log.lines() {
        let Some((_, rest)) = line.split_once("session ") else { continue };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [from, at, began, lasted] = words[..] else { continue };
        let (Ok(from), Ok(began), Ok(lasted)) =
            (from.parse::<Ipv4Addr>(), began.parse::<f64>(), lasted.parse::<f64>())
        else {
            continue;
        };
        let index = u32::from(from).wrapping_sub(u32::from(source(0)));
        let open = began - SLACK <= moment && moment <= began + lasted / 1000.0 + SLACK;
        sessions.insert(u64::from(index), at == server && open);
    }
    sessions.into_iter().filter(|(_, open)| *open).map(|(index, _)| index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_uploads_that_were_open_at_a_server() {
        let log = "session 127.16.0.1 r1 1000.100 500\nsession 127.16.0.2 r1 1000.100 10\n\
                   <134>session 127.16.0.3 r2 1000.100 500\nsession 127.16.1.1 r1 1000.700 90\n\
                   session 127.16.0.6 r1 1000.290 1\nnoise\n";
        let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_300);
        assert_eq!(open_at(log, "r1", moment), [0, 5]);
    }

    #[test]
    fn the_envoy_config_is_the_shipped_one_with_other_ports() {
        let text = envoy_config(7, &[(8, 18), (9, 19), (10, 20)], Path::new("here"));
        let of = |text: &str| {
            let ports = text.split("port_value: ").skip(1).map(|rest| {
                rest.split([' ', '}']).next().and_then(|port| port.parse::<u16>().ok())
            });
            ports.map(Option::unwrap_or_default).collect::<Vec<_>>()
        };
        assert_eq!(of(&text), [7, 8, 18, 9, 19, 10, 20]);
        assert!(text.contains("path: here,"));
    }

    #[test]
    fn nftables_rules_select_receivers_in_turn() {
        assert!(rules(7, &[8, 9]).contains("numgen inc mod 2 map { 0 : 8, 1 : 9 }"));
    }
}
