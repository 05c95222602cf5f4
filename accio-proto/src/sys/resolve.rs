//! Resolving host names.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType, getaddrinfo};

/// A failed resolution.
#[derive(Debug)]
pub(crate) struct ResolveError {
    /// Whether the name may resolve later.
    pub(crate) is_temporary: bool,
    /// The error of the system.
    pub(crate) cause: io::Error,
}

/// File with the host names of the system.
const HOSTS: &str = "/etc/hosts";

/// Returns the addresses of `host` in the order of the system. Blocks until the system's resolver
/// returns.
pub(crate) fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    if is_localhost(host) {
        let hosts = fs::read(HOSTS).unwrap_or_default();
        if !lists(&String::from_utf8_lossy(&hosts), host) {
            return Ok(loopback(port).into());
        }
    }
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = getaddrinfo(Some(host), None, Some(hints))?;
    let addresses = found.map(|entry| {
        let mut address = entry?.sockaddr;
        address.set_port(port);
        Ok(address)
    });
    addresses.collect::<io::Result<_>>().map_err(|error| LookupError::from(error).into())
}

/// Returns whether the name always means this machine, which RFC 6761 says of `localhost` and the
/// names below it. A container may have no [`HOSTS`], and a statically linked resolver would then ask
/// a name server for the name.
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// Returns whether the text of a hosts file has the name: `address name...  # comment`.
fn lists(hosts: &str, name: &str) -> bool {
    hosts.lines().any(|line| {
        let line = line.split('#').next().unwrap_or_default();
        line.split_ascii_whitespace().skip(1).any(|word| word.eq_ignore_ascii_case(name))
    })
}

fn loopback(port: u16) -> [SocketAddr; 2] {
    [(Ipv6Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, port).into()]
}

impl From<LookupError> for ResolveError {
    fn from(error: LookupError) -> Self {
        let is_temporary = matches!(error.kind(), LookupErrorKind::Again);
        let cause = io::Error::from(error);
        // The crate prefixes every message of the system with the same words.
        let text = cause.to_string();
        let cause = match text.strip_prefix("failed to lookup address information: ") {
            Some(text) => io::Error::other(text),
            None => cause,
        };
        ResolveError { is_temporary, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_a_name_with_a_port() {
        let addresses = resolve("localhost", 80).unwrap();
        assert!(!addresses.is_empty());
        assert!(addresses.iter().all(|address| address.ip().is_loopback() && address.port() == 80));
    }

    #[test]
    fn localhost_needs_no_hosts_file_and_no_name_server() {
        for name in ["localhost", "LocalHost.", "a.localhost"] {
            assert!(is_localhost(name), "{name}");
        }
        for name in ["localhost.example", "mylocalhost", "", "."] {
            assert!(!is_localhost(name), "{name}");
        }
        let hosts = "# localhost\n127.0.0.1 here # localhost\n::1\tLOCALHOST ip6-localhost\n";
        assert!(lists(hosts, "localhost") && lists(hosts, "here"));
        assert!(!lists(hosts, "::1") && !lists("127.0.0.1 here # localhost", "localhost"));
        // No system lists this name, so the system's resolver is not asked.
        let resolved = resolve("accio-test.localhost", 80).unwrap();
        assert_eq!(resolved, loopback(80));
    }

    #[test]
    fn rejects_a_name_with_a_nul_byte_permanently() {
        assert!(!resolve("nul\0nul", 80).unwrap_err().is_temporary);
    }

    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "the numbers are those of Linux")]
    fn recognises_temporary_failures() {
        const EAI_NONAME: i32 = -2;
        const EAI_AGAIN: i32 = -3;
        let temporary = ResolveError::from(LookupError::new(EAI_AGAIN));
        assert!(temporary.is_temporary);
        assert!(!temporary.cause.to_string().contains("lookup"), "{}", temporary.cause);
        assert!(!ResolveError::from(LookupError::new(EAI_NONAME)).is_temporary);
    }
}
