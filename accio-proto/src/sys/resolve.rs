//! Resolving host names.

use std::io;
use std::net::SocketAddr;

use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType, getaddrinfo};

/// A failed resolution.
#[derive(Debug)]
pub(crate) struct ResolveError {
    /// Whether the name may resolve later.
    pub(crate) is_temporary: bool,
    /// The error of the system.
    pub(crate) cause: io::Error,
}

/// Returns the addresses of `host` in the order of the system. Blocks until the system's resolver
/// returns.
pub(crate) fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = getaddrinfo(Some(host), None, Some(hints))?;
    let addresses = found.map(|entry| {
        let mut address = entry?.sockaddr;
        address.set_port(port);
        Ok(address)
    });
    addresses.collect::<io::Result<_>>().map_err(|error| LookupError::from(error).into())
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
