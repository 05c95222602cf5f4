//! The host names under which the status page answers requests.

use std::net::{IpAddr, Ipv6Addr};

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
        if let Some(v6) = host.strip_prefix('[') {
            let address = v6.split_once(']');
            return address.is_some_and(|(ip, rest)| {
                let has_port = rest.strip_prefix(':').is_some_and(is_port);
                ip.parse::<Ipv6Addr>().is_ok() && (rest.is_empty() || has_port)
            });
        }
        let name = match host.split_once(':') {
            Some((_, port)) if !is_port(port) => return false,
            Some((name, _)) => name,
            None => host,
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !name.bytes().all(is_letter) || name.split('.').any(str::is_empty) {
            return false;
        }
        let is_listed = || self.names.iter().any(|listed| listed.eq_ignore_ascii_case(name));
        let is_local = || {
            let lower = name.to_ascii_lowercase();
            !lower.contains('.') || lower.ends_with(".localhost")
        };
        name.parse::<IpAddr>().is_ok() || is_local() || is_listed()
    }
}

/// Returns whether `text` is a port, or empty, which means the default port.
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.is_empty() || text.parse::<u16>().is_ok())
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
            "[::1].evil.net",
            "[::1]evil.net",
            "[::1]:x",
            "[192.0.2.1]",
            "evil.net#.localhost",
            "evil.net/.localhost",
            "user@localhost",
            "localhost:99999",
            "localhost:x",
            "localhost:+1",
            "localhost..",
            ".localhost",
            "local host",
        ] {
            assert!(!hosts.allows(Some(host)), "{host}");
        }
        assert!(hosts.allows(None));
    }
}
