//! Which side of a conversation is fed.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// One side, by its address, its address and port, or its network: `10.0.0.2`,
/// `10.0.0.2:443`, `10.0.0.0/8`, `fd00::2`, `[fd00::2]:443`, `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    address: IpAddr,
    prefix: u8,
    port: Option<u16>,
}

impl Side {
    /// Whether this end of a flow is on the side. An end without a port, of a
    /// protocol that has none, is when its address is.
    #[must_use]
    pub fn has(&self, address: IpAddr, port: Option<u16>) -> bool {
        let same_port = match (self.port, port) {
            (Some(wanted), Some(port)) => wanted == port,
            (None, _) | (_, None) => true,
        };
        let masked = |address: u128, bits: u32| {
            let kept = u32::from(self.prefix);
            address.checked_shr(bits - kept).unwrap_or(0)
        };
        let same_network = match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                masked(a.to_bits().into(), 32) == masked(b.to_bits().into(), 32)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => masked(a.to_bits(), 128) == masked(b.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        };
        same_port && same_network
    }
}

/// Not a [`Side`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not an address, an address and port, or a network (10.0.0.2, 10.0.0.2:443, [fd00::2]:443, 10.0.0.0/8)"
)]
pub struct NotASide;

impl FromStr for Side {
    type Err = NotASide;

    fn from_str(text: &str) -> Result<Self, NotASide> {
        if let Ok(socket) = text.parse::<SocketAddr>() {
            return Ok(Self {
                address: socket.ip(),
                prefix: bits(socket.ip()),
                port: Some(socket.port()),
            });
        }
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address = address.parse().map_err(|_| NotASide)?;
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| NotASide)?,
            None => bits(address),
        };
        if prefix > bits(address) {
            return Err(NotASide);
        }
        Ok(Self {
            address,
            prefix,
            port: None,
        })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(f),
            None if self.prefix == bits(self.address) => self.address.fmt(f),
            None => write!(f, "{}/{}", self.address, self.prefix),
        }
    }
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::Side;

    #[test]
    fn a_side_is_an_address_a_socket_or_a_network() {
        let has = |side: &str, address: &str, port| {
            let side: Side = side.parse().expect(side);
            side.has(address.parse().expect(address), port)
        };
        assert!(has("10.0.0.2", "10.0.0.2", Some(1)));
        assert!(!has("10.0.0.2", "10.0.0.3", Some(1)));
        assert!(has("10.0.0.2:443", "10.0.0.2", Some(443)));
        assert!(!has("10.0.0.2:443", "10.0.0.2", Some(80)));
        assert!(has("10.0.0.0/8", "10.255.0.2", None));
        assert!(!has("10.0.0.0/8", "11.0.0.2", None));
        assert!(has("0.0.0.0/0", "11.0.0.2", None));
        assert!(!has("0.0.0.0/0", "fd00::1", None));
        assert!(has("::/0", "fd00::1", None));
        assert!(has("[fd00::2]:443", "fd00::2", Some(443)));
        assert!(!has("fd00::/16", "fd01::2", None));
        for bad in ["", "10.0.0", "10.0.0.0/33", "host", "10.0.0.1:99999"] {
            assert!(bad.parse::<Side>().is_err(), "{bad}");
        }
        for text in ["10.0.0.2", "10.0.0.2:443", "10.0.0.0/8", "[fd00::2]:443"] {
            let side: Side = text.parse().expect(text);
            assert_eq!(side.to_string(), text);
        }
    }
}
