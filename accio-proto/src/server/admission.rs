//! Who may connect: networks that are allowed or denied, and a cap on connections per address.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};

/// A range of addresses: a network in CIDR notation such as `10.0.0.0/8` or `fd00::/8`, or one
/// address.
///
/// IPv4 addresses in their IPv6 form (`::ffff:10.0.0.1`) count as the IPv4 addresses that they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "network {0:?}: neither an address nor a network; use one such as 192.0.2.7, 10.0.0.0/8 or fd00::/8"
)]
pub struct InvalidNetwork(String);

impl Network {
    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(value: &str) -> Result<Self, InvalidNetwork> {
        let network = value
            .parse::<IpNet>()
            .or_else(|_| value.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| InvalidNetwork(value.to_owned()))?;
        Ok(Network(canonical(network)))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The IPv4 network that an IPv6 one within `::ffff:0:0/96` stands for.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        // At most 32 is left of a prefix of at most 128, so this always succeeds.
        (Some(v4), Some(length)) => Ipv4Net::new(v4, length).map_or(network, IpNet::V4),
        _ => network,
    }
}

/// The rules of a server, and who holds how many places under them.
#[derive(Debug, Default)]
pub(super) struct Admission {
    pub(super) allow: Vec<Network>,
    pub(super) deny: Vec<Network>,
    pub(super) max_per_ip: Option<NonZeroU32>,
    pub(super) max_new_per_ip: Option<NonZeroU32>,
    /// Connections in service by address; only kept when there is a limit.
    held: Mutex<HashMap<IpAddr, u32>>,
    /// Connections of the current second by address; only kept when there is a limit.
    recent: Mutex<Recent>,
}

/// The connections of one second.
#[derive(Debug, Default)]
struct Recent {
    since: Option<Instant>,
    counts: HashMap<IpAddr, u32>,
}

/// Why a connection is turned away.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("its address is unknown")]
    Unknown,
    #[error("it is in the denied network {0}")]
    Denied(Network),
    #[error("it is in none of the allowed networks")]
    NotAllowed,
    #[error("its address has {0} connections already")]
    TooMany(NonZeroU32),
    #[error("its address has opened {0} connections within a second")]
    TooFast(NonZeroU32),
}

impl Refusal {
    /// The limit that refuses, in a word.
    pub(super) fn limit(&self) -> &'static str {
        match self {
            Refusal::Unknown => "unknown",
            Refusal::Denied(_) => "deny",
            Refusal::NotAllowed => "allow",
            Refusal::TooMany(_) => "max-per-ip",
            Refusal::TooFast(_) => "max-new-per-ip",
        }
    }
}

impl Admission {
    /// Admits a connection, or returns the reason for refusing it. One that is admitted counts
    /// until [`leave`](Admission::leave).
    pub(super) fn admit(&self, peer: Option<SocketAddr>, now: Instant) -> Result<(), Refusal> {
        let is_limited = self.max_per_ip.is_some() || self.max_new_per_ip.is_some();
        if self.allow.is_empty() && self.deny.is_empty() && !is_limited {
            return Ok(());
        }
        let ip = peer.ok_or(Refusal::Unknown)?.ip().to_canonical();
        if let Some(network) = self.deny.iter().find(|network| network.contains(ip)) {
            return Err(Refusal::Denied(*network));
        }
        if !self.allow.is_empty() && !self.allow.iter().any(|network| network.contains(ip)) {
            return Err(Refusal::NotAllowed);
        }
        let client = client(ip);
        if let Some(max) = self.max_new_per_ip {
            self.recent().count(client, max, now)?;
        }
        if let Some(max) = self.max_per_ip {
            let mut held = self.held();
            let count = held.entry(client).or_insert(0);
            if *count >= max.get() {
                return Err(Refusal::TooMany(max));
            }
            *count += 1;
        }
        Ok(())
    }

    /// A connection that was admitted has ended.
    pub(super) fn leave(&self, peer: Option<SocketAddr>) {
        let (Some(_), Some(peer)) = (self.max_per_ip, peer) else { return };
        let mut held = self.held();
        let client = client(peer.ip().to_canonical());
        if let Some(count) = held.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                held.remove(&client);
            }
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // A second that was counted in part is as good as a new one.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        // Each change is one step, so a panic elsewhere leaves the counts right.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    /// Counts one more connection. The counts start again every second, so that they never take
    /// more memory than the connections of a second are worth.
    fn count(&mut self, client: IpAddr, max: NonZeroU32, now: Instant) -> Result<(), Refusal> {
        let is_over = |since| now.saturating_duration_since(since) >= Duration::from_secs(1);
        if self.since.is_none_or(is_over) {
            self.counts.clear();
            self.since = Some(now);
        }
        let count = self.counts.entry(client).or_insert(0);
        if *count >= max.get() {
            return Err(Refusal::TooFast(max));
        }
        *count += 1;
        Ok(())
    }
}

/// The address that limits count: an IPv6 host usually has a whole /64 network to choose from.
fn client(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn peer(text: &str) -> Option<SocketAddr> {
        Some(SocketAddr::new(text.parse().unwrap(), 1))
    }

    #[test]
    fn networks_parse_and_contain() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.1.2.3", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.0.0.0"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("fd00::/8", "fd00::1", "fe80::1"),
            ("0.0.0.0/0", "1.2.3.4", "::1"),
            ("::/0", "::1", "1.2.3.4"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{network} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{network} {outside}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0", "localhost", "::/129", "10.0.0.0/", "/8"] {
            let error = bad.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn denied_wins_over_allowed_and_no_rule_lets_everyone_in() {
        let open = Admission::default();
        assert_eq!(open.admit(None, Instant::now()), Ok(()));
        let allow = networks(&["10.0.0.0/8", "::1"]);
        let deny = networks(&["10.6.6.0/24"]);
        let rules = Admission { allow, deny: deny.clone(), ..Admission::default() };
        assert_eq!(rules.admit(peer("10.1.1.1"), Instant::now()), Ok(()));
        assert_eq!(rules.admit(peer("::1"), Instant::now()), Ok(()));
        assert_eq!(
            rules.admit(peer("::ffff:10.6.6.1"), Instant::now()),
            Err(Refusal::Denied(deny[0]))
        );
        assert_eq!(rules.admit(peer("192.0.2.1"), Instant::now()), Err(Refusal::NotAllowed));
        assert_eq!(rules.admit(None, Instant::now()), Err(Refusal::Unknown));
    }

    #[test]
    fn an_address_holds_so_many_places_and_no_more() {
        let max = NonZeroU32::new(2).unwrap();
        let rules = Admission { max_per_ip: Some(max), ..Admission::default() };
        assert_eq!(rules.admit(peer("10.1.1.1"), Instant::now()), Ok(()));
        assert_eq!(rules.admit(peer("::ffff:10.1.1.1"), Instant::now()), Ok(()));
        assert_eq!(rules.admit(peer("10.1.1.1"), Instant::now()), Err(Refusal::TooMany(max)));
        assert_eq!(rules.admit(peer("10.1.1.2"), Instant::now()), Ok(()));
        rules.leave(peer("10.1.1.1"));
        assert_eq!(rules.admit(peer("10.1.1.1"), Instant::now()), Ok(()));
        for ip in ["10.1.1.1", "10.1.1.1", "10.1.1.2"] {
            rules.leave(peer(ip));
        }
        assert!(rules.held().is_empty(), "no address is remembered for ever");
    }

    #[test]
    fn the_addresses_of_an_ipv6_network_of_64_bits_count_as_one() {
        let max = NonZeroU32::new(2).unwrap();
        let rules = Admission { max_per_ip: Some(max), ..Admission::default() };
        let now = Instant::now();
        assert_eq!(rules.admit(peer("2001:db8:0:1::1"), now), Ok(()));
        assert_eq!(rules.admit(peer("2001:db8:0:1:ffff::2"), now), Ok(()));
        assert_eq!(rules.admit(peer("2001:db8:0:1::3"), now), Err(Refusal::TooMany(max)));
        assert_eq!(rules.admit(peer("2001:db8:0:2::1"), now), Ok(()));
        for ip in ["2001:db8:0:1:ffff::2", "2001:db8:0:1::1", "2001:db8:0:2::1"] {
            rules.leave(peer(ip));
        }
        assert!(rules.held().is_empty());
    }

    #[test]
    fn an_address_opens_so_many_connections_in_a_second_and_no_more() {
        let max = NonZeroU32::new(2).unwrap();
        let rules = Admission { max_new_per_ip: Some(max), ..Admission::default() };
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        for (millis, ip, admitted) in [
            (0, "2001:db8::1", Ok(())),
            (900, "2001:db8::2", Ok(())),
            (999, "2001:db8::1", Err(Refusal::TooFast(max))),
            (999, "192.0.2.1", Ok(())),
            (1000, "2001:db8::1", Ok(())),
        ] {
            assert_eq!(rules.admit(peer(ip), at(millis)), admitted, "{ip} after {millis} ms");
            rules.leave(peer(ip));
        }
        assert_eq!(rules.recent().counts.len(), 1, "earlier seconds are forgotten");
    }
}
