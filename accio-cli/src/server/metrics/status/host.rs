//! The host names under which the status page answers requests.

use std::net::IpAddr;

/// The host names under which the page answers requests.
///
/// A web site can make its own host name resolve to this server's address; its scripts could then
/// read the answers (DNS rebinding). Addresses and names without a dot cannot belong to a web site.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    /// Allows the names that are always allowed, this machine's name, and `names`.
    pub(super) fn new(names: &[String]) -> Hosts {
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Hosts { names: names.iter().cloned().chain([machine]).collect() }
    }

    /// Returns whether to answer a request with this `Host` header. A request without the header
    /// does not come from a browser.
    pub(super) fn allows(&self, host: Option<&str>) -> bool {
        let Some(host) = host else { return true };
        let name = match host.strip_prefix('[') {
            Some(v6) => {
                return v6.split_once(']').is_some_and(|(ip, _)| ip.parse::<IpAddr>().is_ok());
            }
            None => host.split_once(':').map_or(host, |(name, _)| name),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_listed = || self.names.iter().any(|listed| listed.eq_ignore_ascii_case(name));
        let is_local = || {
            let lower = name.to_ascii_lowercase();
            !lower.contains('.') || lower.ends_with(".localhost")
        };
        !name.is_empty() && (name.parse::<IpAddr>().is_ok() || is_local() || is_listed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_names_of_web_sites() {
        let hosts = Hosts { names: vec!["drop.example.org".to_owned()] };
        for host in [
            "127.0.0.1:9090",
            "192.0.2.1",
            "[::1]:9090",
            "[fe80::1]",
            "localhost:9090",
            "receiver:9090",
            "receiver.",
            "app.localhost:1",
            "Drop.Example.org:9090",
            "drop.example.org.",
        ] {
            assert!(hosts.allows(Some(host)), "{host}");
        }
        for host in [
            "",
            ":9090",
            "evil.example.net:9090",
            "drop.example.org.evil.net",
            "127.0.0.1.evil.net:9090",
            "localhost.evil.net",
            "[evil.net]:9090",
            "[::1",
        ] {
            assert!(!hosts.allows(Some(host)), "{host}");
        }
        assert!(hosts.allows(None));
    }
}
