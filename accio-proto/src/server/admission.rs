//! Who may connect: networks that are allowed or denied, and a cap on connections per address.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    /// Connections in service by address; only kept when there is a cap.
    held: Mutex<HashMap<IpAddr, u32>>,
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
    #[error("it has {0} connections already")]
    TooMany(NonZeroU32),
}

impl Refusal {
    /// The limit that refuses, in a word.
    pub(super) fn limit(&self) -> &'static str {
        match self {
            Refusal::Unknown => "unknown",
            Refusal::Denied(_) => "deny",
            Refusal::NotAllowed => "allow",
            Refusal::TooMany(_) => "max-per-ip",
        }
    }
}

impl Admission {
    /// Lets a connection in, or says why not. One that is in holds a place until
    /// [`leave`](Admission::leave).
    pub(super) fn admit(&self, peer: Option<SocketAddr>) -> Result<(), Refusal> {
        if self.allow.is_empty() && self.deny.is_empty() && self.max_per_ip.is_none() {
            return Ok(());
        }
        let ip = peer.ok_or(Refusal::Unknown)?.ip().to_canonical();
        if let Some(network) = self.deny.iter().find(|network| network.contains(ip)) {
            return Err(Refusal::Denied(*network));
        }
        if !self.allow.is_empty() && !self.allow.iter().any(|network| network.contains(ip)) {
            return Err(Refusal::NotAllowed);
        }
        if let Some(max) = self.max_per_ip {
            let mut held = self.held();
            let count = held.entry(ip).or_insert(0);
            if *count >= max.get() {
                return Err(Refusal::TooMany(max));
            }
            *count += 1;
        }
        Ok(())
    }

    /// A connection that was let in has ended.
    pub(super) fn leave(&self, peer: Option<SocketAddr>) {
        let (Some(_), Some(peer)) = (self.max_per_ip, peer) else { return };
        let mut held = self.held();
        let ip = peer.ip().to_canonical();
        if let Some(count) = held.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                held.remove(&ip);
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        // Each change is one step, so a panic elsewhere leaves the counts right.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert_eq!(open.admit(None), Ok(()));
        let allow = networks(&["10.0.0.0/8", "::1"]);
        let deny = networks(&["10.6.6.0/24"]);
        let rules = Admission { allow, deny: deny.clone(), ..Admission::default() };
        assert_eq!(rules.admit(peer("10.1.1.1")), Ok(()));
        assert_eq!(rules.admit(peer("::1")), Ok(()));
        assert_eq!(rules.admit(peer("::ffff:10.6.6.1")), Err(Refusal::Denied(deny[0])));
        assert_eq!(rules.admit(peer("192.0.2.1")), Err(Refusal::NotAllowed));
        assert_eq!(rules.admit(None), Err(Refusal::Unknown));
    }

    #[test]
    fn an_address_holds_so_many_places_and_no_more() {
        let max = NonZeroU32::new(2).unwrap();
        let rules = Admission { max_per_ip: Some(max), ..Admission::default() };
        assert_eq!(rules.admit(peer("10.1.1.1")), Ok(()));
        assert_eq!(rules.admit(peer("::ffff:10.1.1.1")), Ok(()));
        assert_eq!(rules.admit(peer("10.1.1.1")), Err(Refusal::TooMany(max)));
        assert_eq!(rules.admit(peer("10.1.1.2")), Ok(()));
        rules.leave(peer("10.1.1.1"));
        assert_eq!(rules.admit(peer("10.1.1.1")), Ok(()));
        for ip in ["10.1.1.1", "10.1.1.1", "10.1.1.2"] {
            rules.leave(peer(ip));
        }
        assert!(rules.held().is_empty(), "no address is remembered for ever");
    }
}
