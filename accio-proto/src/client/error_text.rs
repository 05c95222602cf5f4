//! Texts of addresses in the client's errors.

use std::io;
use std::net::SocketAddr;

use crate::os_error::reason;

/// Returns the address, with the port if one was chosen.
pub(super) fn source_address(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V6(v6) if v6.port() == 0 && v6.scope_id() > 0 => {
            format!("{}%{}", v6.ip(), v6.scope_id())
        }
        address if address.port() == 0 => address.ip().to_string(),
        address => address.to_string(),
    }
}

/// Returns one reason if all addresses failed alike, otherwise each address with its reason.
pub(super) fn reasons(failures: &[(SocketAddr, io::Error)]) -> String {
    let mut reasons = failures.iter().map(|(address, error)| (address, reason(error)));
    let Some((_, first)) = reasons.next() else { return "it has no address".into() };
    if reasons.all(|(_, other)| other == first) {
        return first;
    }
    let each =
        failures.iter().map(|(address, error)| format!("{} {}", address.ip(), reason(error)));
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::error::ClientError;
    use super::*;
    use crate::sys::client::{refused, timed_out};

    #[test]
    fn formats_refused_connections() {
        let failure = |ip: &str, error: io::Error| (SocketAddr::new(ip.parse().unwrap(), 9), error);
        let error = |failures| ClientError::Connect { host: "h\x1b".into(), port: 9, failures };
        let both = vec![failure("::1", refused()), failure("127.0.0.1", refused())];
        assert_eq!(error(both).to_string(), r"connect to h\u{1b} port 9: connection refused");
        let mixed = vec![failure("::1", timed_out()), failure("127.0.0.1", refused())];
        assert_eq!(
            error(mixed).to_string(),
            r"connect to h\u{1b} port 9: ::1 connection timed out, 127.0.0.1 connection refused"
        );
        assert_eq!(error(vec![]).to_string(), r"connect to h\u{1b} port 9: it has no address");
    }
}
