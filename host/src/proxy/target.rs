//! Where a flow goes to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

/// Where a flow is dialled to, which need not be where its peer sent it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address.
    Address(SocketAddr),
    /// A name and a port: the peer was told an address of the virtual pool.
    Name(Arc<str>, u16),
    /// Nowhere: the proxy itself answers, as it does DNS with virtual addresses.
    Here,
}

impl Target {
    /// The port; 0 where there is none.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Name(_, port) => *port,
            Self::Here => 0,
        }
    }
}

/// `192.0.2.7:443`, `[2001:db8::7]:443`, `example.org:443`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Here => f.write_str("here"),
        }
    }
}

/// Flows to one address are dialled to another: `10.0.2.2=127.0.0.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The address that peers use.
    pub from: IpAddr,
    /// The address that is dialled in its place, with the same port.
    pub to: IpAddr,
}

impl std::str::FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not ADDRESS=ADDRESS, such as 10.0.2.2=127.0.0.1");
        let (from, to) = text.split_once('=').ok_or_else(wrong)?;
        Ok(Self {
            from: from.parse().map_err(|_| wrong())?,
            to: to.parse().map_err(|_| wrong())?,
        })
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.from, self.to)
    }
}

/// Whether one of the networks holds the address.
pub(super) fn is_within(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// Addresses of this very host, or of nobody or of many. A packet cannot ask for
/// them (the engine drops it as a martian), so a name must not lead to them either.
pub(super) fn is_of_this_host(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || address == IpAddr::V4(std::net::Ipv4Addr::BROADCAST)
}

#[cfg(test)]
mod tests {
    use super::{Mapping, is_of_this_host};

    #[test]
    fn a_mapping_reads_as_it_prints() {
        let mapping: Mapping = "10.0.2.2=127.0.0.1".parse().unwrap();
        assert_eq!(mapping.to_string(), "10.0.2.2=127.0.0.1");
        for wrong in ["10.0.2.2", "a=b", "10.0.2.2=", "10.0.2.2=127.0.0.1:80"] {
            assert!(wrong.parse::<Mapping>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_ipv4_address_in_ipv6_clothes_is_seen_through() {
        for address in [
            "127.0.0.1",
            "::ffff:127.0.0.1",
            "::",
            "0.0.0.0",
            "224.0.0.1",
        ] {
            assert!(is_of_this_host(address.parse().unwrap()), "{address}");
        }
        assert!(!is_of_this_host("::ffff:192.0.2.1".parse().unwrap()));
    }
}
