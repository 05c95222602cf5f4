//! Admission of connections: allowed and denied networks, and limits per address.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};

use crate::limits;

/// A range of addresses: a network in CIDR notation such as `10.0.0.0/8` or `fd00::/8`, or a single
/// address.
///
/// IPv4-mapped IPv6 addresses (`::ffff:10.0.0.1`) count as IPv4 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// A string that is not a valid network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "network {0:?}: neither an address nor a network; use one such as 192.0.2.7, 10.0.0.0/8 or fd00::/8"
)]
pub struct InvalidNetwork(String);

impl Network {
    /// Returns whether the network contains `address`.
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

/// Converts an IPv6 network within `::ffff:0:0/96` to the IPv4 network that it represents.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        // A prefix of at most 128 leaves at most 32, so this always succeeds.
        (Some(v4), Some(length)) => Ipv4Net::new(v4, length).map_or(network, IpNet::V4),
        _ => network,
    }
}

/// The admission rules of a server, and the counts that they need.
#[derive(Debug, Default)]
pub(super) struct Admission {
    pub(super) allow: Vec<Network>,
    pub(super) deny: Vec<Network>,
    pub(super) max_per_ip: Option<NonZeroU32>,
    /// Whether `max_per_ip` is the default share of an address. Connections without a known address
    /// are exempt from it.
    pub(super) is_default_share: bool,
    pub(super) max_new_per_ip: Option<NonZeroU32>,
    /// Connections in service by address; empty without a limit.
    held: Mutex<HashMap<Client, u32>>,
    /// Connections of the current second by address; empty without a limit.
    recent: Mutex<Recent>,
}

/// The connections of one second, by address.
#[derive(Debug, Default)]
struct Recent {
    since: Option<Instant>,
    counts: HashMap<Client, u32>,
}

/// The reason for refusing a connection.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("its address is unknown")]
    Unknown,
    #[error("it is in the denied network {0}")]
    Denied(Network),
    #[error("it is in none of the allowed networks")]
    NotAllowed,
    #[error("its address has {0} {noun} already", noun = connections(*.0))]
    TooMany(NonZeroU32),
    #[error("its address has opened {0} {noun} within a second", noun = connections(*.0))]
    TooFast(NonZeroU32),
}

/// Returns the noun for this number of connections.
fn connections(count: NonZeroU32) -> &'static str {
    if count == NonZeroU32::MIN { "connection" } else { "connections" }
}

impl Refusal {
    /// Returns a word for the limit, for the log.
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
    /// Admits a connection, or returns the reason for refusing it. An admitted connection counts
    /// until [`leave`](Admission::leave).
    pub(super) fn admit(&self, peer: Option<SocketAddr>, now: Instant) -> Result<(), Refusal> {
        let has_rules = !self.allow.is_empty()
            || !self.deny.is_empty()
            || self.max_new_per_ip.is_some()
            || (self.max_per_ip.is_some() && !self.is_default_share);
        let ip = match peer {
            Some(_) if !has_rules && self.max_per_ip.is_none() => return Ok(()),
            Some(peer) => peer.ip().to_canonical(),
            None if has_rules => return Err(Refusal::Unknown),
            None => return Ok(()),
        };
        if let Some(network) = self.deny.iter().find(|network| network.contains(ip)) {
            return Err(Refusal::Denied(*network));
        }
        if !self.allow.is_empty() && !self.allow.iter().any(|network| network.contains(ip)) {
            return Err(Refusal::NotAllowed);
        }
        let client = Client::of(ip);
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

    /// Records the end of an admitted connection.
    pub(super) fn leave(&self, peer: Option<SocketAddr>) {
        let (Some(_), Some(peer)) = (self.max_per_ip, peer) else { return };
        let mut held = self.held();
        let client = Client::of(peer.ip().to_canonical());
        if let Some(count) = held.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                held.remove(&client);
            }
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        // Each change is one assignment; a partly counted second does no harm.
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Client, u32>> {
        // Each change is one assignment, so the counts are correct even if another thread panics.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    /// Counts one more connection. All counts restart every second, so that they need only as much
    /// memory as the connections of one second.
    fn count(&mut self, client: Client, max: NonZeroU32, now: Instant) -> Result<(), Refusal> {
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

/// Returns the default limit per address of a server with this connection limit.
pub(super) fn default_share(max_connections: usize) -> Option<NonZeroU32> {
    if max_connections < limits::SHARED_CONNECTIONS {
        return None;
    }
    NonZeroU32::new(u32::try_from(max_connections / 4 * 3).unwrap_or(u32::MAX))
}

/// The address for which connections are counted, as a number, which is faster to hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Client(u128);

impl Client {
    /// Returns the client with this canonical address. For IPv6 it is the /64 network, because a single
    /// host can usually use all of its addresses.
    fn of(ip: IpAddr) -> Client {
        Client(match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            // Never the same as for IPv4, whose upper half is 0 and whose lower half is not.
            IpAddr::V6(v6) => v6.to_bits() >> 64 << 64,
        })
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
    fn parses_networks_and_checks_addresses() {
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
    fn deny_takes_precedence_and_no_rule_allows_all() {
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
    fn limits_connections_per_address() {
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
        assert!(rules.held().is_empty(), "ended connections leave no entry");
    }

    #[test]
    fn a_default_share_exempts_connections_without_an_address() {
        assert_eq!(default_share(limits::SHARED_CONNECTIONS - 1), None);
        let max_per_ip = default_share(limits::SHARED_CONNECTIONS);
        assert_eq!(max_per_ip, NonZeroU32::new(48));
        assert_eq!(default_share(limits::MAX_CONNECTIONS), NonZeroU32::new(786_432));
        let now = Instant::now();
        let rules = Admission { max_per_ip, is_default_share: true, ..Admission::default() };
        for _ in 0..48 {
            assert_eq!(rules.admit(peer("10.1.1.1"), now), Ok(()));
            assert_eq!(rules.admit(None, now), Ok(()));
        }
        let too_many = Err(Refusal::TooMany(NonZeroU32::new(48).unwrap()));
        assert_eq!(rules.admit(peer("10.1.1.1"), now), too_many);
        assert_eq!(rules.admit(peer("10.1.1.2"), now), Ok(()));
        assert_eq!(rules.admit(None, now), Ok(()));
        let rules = Admission { is_default_share: false, ..rules };
        assert_eq!(rules.admit(None, now), Err(Refusal::Unknown));
    }

    #[test]
    fn addresses_of_an_ipv6_64_network_count_as_one() {
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
    fn limits_new_connections_per_second() {
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
