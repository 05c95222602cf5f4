//! IP addresses with a zone: the interface that a link-local address belongs to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::str::FromStr;

/// An IP address, with a zone if it is link-local: `192.0.2.1`, `::1`, `fe80::1%eth0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZonedAddress {
    ip: IpAddr,
    /// The index of the interface, or 0 without a zone.
    scope_id: u32,
}

impl ZonedAddress {
    /// Returns the address without its zone.
    pub fn ip(self) -> IpAddr {
        self.ip
    }

    /// Returns the index of the zone's interface, or 0 without a zone.
    pub fn scope_id(self) -> u32 {
        self.scope_id
    }

    /// Returns the address with a port.
    pub fn with_port(self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(ip) => SocketAddr::new(ip.into(), port),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.scope_id).into(),
        }
    }
}

impl From<IpAddr> for ZonedAddress {
    fn from(ip: IpAddr) -> Self {
        ZonedAddress { ip, scope_id: 0 }
    }
}

impl fmt::Display for ZonedAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope_id {
            0 => self.ip.fmt(f),
            scope_id => write!(f, "{}%{}", self.ip, zone_name(scope_id)),
        }
    }
}

impl FromStr for ZonedAddress {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        let Some((address, zone)) = value.split_once('%') else {
            let ip = value.parse::<IpAddr>().map_err(|_| {
                "not an IP address, such as 192.0.2.1, ::1 or fe80::1%eth0".to_owned()
            })?;
            return Ok(ip.into());
        };
        let ip: Ipv6Addr = address
            .parse()
            .map_err(|_| "only an IPv6 address has a zone, as in fe80::1%eth0".to_owned())?;
        if !ip.is_unicast_link_local() && !ip.is_multicast() {
            return Err("only a link-local address, fe80::/10, has a zone".to_owned());
        }
        // The system resolves the name of the interface. Because the host is an address, no name
        // server is asked.
        let no_zone = || format!("this machine has no network interface {zone:?}");
        let mut found = (value, 0).to_socket_addrs().map_err(|_| no_zone())?;
        match found.next() {
            Some(SocketAddr::V6(found)) if *found.ip() == ip && found.scope_id() != 0 => {
                Ok(ZonedAddress { ip: ip.into(), scope_id: found.scope_id() })
            }
            _ => Err(no_zone()),
        }
    }
}

/// Parses an address and a port such as `192.0.2.1:9090`, `[::1]:9090` or `[fe80::1%eth0]:9090`.
///
/// # Errors
///
/// Returns an error if the value has another form or names an interface that this machine does not
/// have.
pub fn address_and_port(value: &str) -> Result<SocketAddr, String> {
    let form =
        || "use a port such as 9090, or an address and a port such as 192.0.2.1:9090".to_owned();
    match value.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        Some((address, port)) if address.contains('%') => {
            let port = port.parse().map_err(|_| form())?;
            Ok(address.parse::<ZonedAddress>()?.with_port(port))
        }
        _ => value.parse().map_err(|_| form()),
    }
}

/// Formats a peer's address and port for journals and commands: the address of an IPv4 client
/// always as IPv4, and a link-local address with the name of its zone.
pub fn peer_text(peer: SocketAddr) -> String {
    match peer {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => {
            format!("[{}%{}]:{}", v6.ip(), zone_name(v6.scope_id()), v6.port())
        }
        _ => SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string(),
    }
}

/// Returns the name of an interface, or its index if it no longer has a name.
fn zone_name(scope_id: u32) -> String {
    interface_name(scope_id).unwrap_or_else(|| scope_id.to_string())
}

/// Opens the socket for looking up the names of zones, which the sandbox would forbid later.
#[cfg(all(target_os = "linux", feature = "operations"))]
pub(crate) fn prepare_zone_names() {
    let _ = interface_socket();
}

#[cfg(target_os = "linux")]
fn interface_name(scope_id: u32) -> Option<String> {
    rustix::net::netdevice::index_to_name(interface_socket()?, scope_id).ok()
}

/// Returns a socket for queries about interfaces. Any type works; this one cannot send anything.
#[cfg(target_os = "linux")]
fn interface_socket() -> Option<&'static std::os::fd::OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    static SOCKET: std::sync::OnceLock<Option<std::os::fd::OwnedFd>> = std::sync::OnceLock::new();
    let open = || {
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        socket_with(family, kind, SocketFlags::CLOEXEC, None).ok()
    };
    SOCKET.get_or_init(open).as_ref()
}

#[cfg(not(target_os = "linux"))]
fn interface_name(_: u32) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_zone() {
        // The loopback interface, index 1, is the only one that every Linux system has.
        for zone in ["lo", "1"] {
            let address: ZonedAddress = format!("fe80::1%{zone}").parse().unwrap();
            assert_eq!(address.scope_id(), 1);
            let SocketAddr::V6(socket) = address.with_port(80) else { panic!() };
            assert_eq!((socket.scope_id(), socket.port()), (1, 80));
            let endpoint = address_and_port(&format!("[fe80::1%{zone}]:80"));
            assert_eq!(endpoint, Ok(socket.into()));
        }
        for bad in ["fe80::1%", "fe80::1%nope", "::1%lo", "127.0.0.1%lo", "%lo", "x", ""] {
            bad.parse::<ZonedAddress>().unwrap_err();
        }
        for bad in ["[fe80::1%nope]:80", "[fe80::1%lo]", "[fe80::1%lo]:x", "fe80::1%lo:80"] {
            address_and_port(bad).unwrap_err();
        }
    }

    #[test]
    fn formats_addresses_as_they_were_given() {
        for text in ["192.0.2.1", "::1", "fe80::1"] {
            assert_eq!(text.parse::<ZonedAddress>().unwrap().to_string(), text);
        }
        let v6 = |ip: &str, scope| SocketAddrV6::new(ip.parse().unwrap(), 9, 0, scope).into();
        assert_eq!(peer_text(v6("::ffff:192.0.2.1", 0)), "192.0.2.1:9");
        assert_eq!(peer_text(v6("::1", 0)), "[::1]:9");
        assert_eq!(peer_text(v6("fe80::1", 4_000_000)), "[fe80::1%4000000]:9");
        #[cfg(target_os = "linux")]
        assert_eq!(peer_text(v6("fe80::1", 1)), "[fe80::1%lo]:9");
    }
}
