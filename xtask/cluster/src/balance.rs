//! Load balancers in front of the receivers: the kernel's address translation, haproxy or Envoy.
//!
//! A balancer below TCP passes on what ends a connection as it is. Here nftables gives each new
//! connection to the next receiver, in a network namespace of the run's own, in which everything
//! happens: this program starts itself again within.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use accio_harness::namespace::PrivateNamespace;
use accio_harness::verdict::Verdict;

/// The load balancer between clients and receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Balancer {
    /// Each connection's addresses are translated, as LVS, ECMP or a cloud's balancer would
    Nft,
    /// haproxy in TCP mode, which ends a connection in the same way whatever ended its other side
    Haproxy,
    /// Envoy, 1.40 or later, which passes on what ended the other side
    Envoy,
    /// Connect to the receivers in turn
    Direct,
}

/// Distributes connections to `port` over the receivers in turn from now on. Existing connections
/// stay where they are.
pub(super) fn spread(port: u16, receivers: &[u16]) -> Verdict {
    PrivateNamespace::set_rules(&rules(port, receivers))
}

/// Returns a way to make a namespace in which [`spread`] works.
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

/// Envoy's configuration, as it comes with the server, for these receivers and the ports where they
/// tell how they are.
pub(super) fn envoys(port: u16, receivers: &[(u16, u16)], admin: &Path) -> String {
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

/// haproxy's log line for each client connection: source, receiver, start and duration.
pub(super) const LOG_FORMAT: &str = "session %ci %s %Ts.%ms %Tt";

/// The address upload `index` comes from through haproxy, so that its log tells which it was.
pub(super) fn source(index: u64) -> Ipv4Addr {
    // The first of 127/8 are used by others.
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 16, 0, 1)) + (index as u32 & 0xf_ffff))
}

/// The uploads that haproxy had open at `server` at a moment, by its log.
pub(super) fn open_at(log: &str, server: &str, moment: SystemTime) -> Vec<u64> {
    // Its clock is read before a connection is handed on, and counts in milliseconds.
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
    fn the_log_tells_what_was_open_where() {
        let log = "session 127.16.0.1 r1 1000.100 500\nsession 127.16.0.2 r1 1000.100 10\n\
                   <134>session 127.16.0.3 r2 1000.100 500\nsession 127.16.1.1 r1 1000.700 90\n\
                   session 127.16.0.6 r1 1000.290 1\nnoise\n";
        let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_300);
        assert_eq!(open_at(log, "r1", moment), [0, 5]);
    }

    #[test]
    fn envoys_configuration_is_the_shipped_one_with_these_ports() {
        let text = envoys(7, &[(8, 18), (9, 19), (10, 20)], Path::new("here"));
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
    fn every_receiver_has_its_turn() {
        assert!(rules(7, &[8, 9]).contains("numgen inc mod 2 map { 0 : 8, 1 : 9 }"));
    }
}
