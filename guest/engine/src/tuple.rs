//! The identity of a flow as the engine keeps and hashes it.

use core::net::{IpAddr, SocketAddr};

use crate::siphash::Key;
use crate::types::{FiveTuple, Protocol};

/// A five-tuple in 40 bytes. Both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tuple {
    pub(crate) local: IpAddr,
    pub(crate) peer: IpAddr,
    pub(crate) local_port: u16,
    pub(crate) peer_port: u16,
    pub(crate) protocol: Protocol,
}

impl Tuple {
    /// The keyed hash, with `salt` mixed in.
    pub(crate) fn hash(&self, key: &Key, salt: u64) -> u64 {
        let mut message = [0; 48];
        put(&mut message, 0, &salt.to_le_bytes());
        put(&mut message, 8, &self.local_port.to_be_bytes());
        put(&mut message, 10, &self.peer_port.to_be_bytes());
        put(&mut message, 12, &[self.protocol as u8]);
        match (self.local, self.peer) {
            (IpAddr::V4(local), IpAddr::V4(peer)) => {
                put(&mut message, 16, &local.octets());
                put(&mut message, 20, &peer.octets());
                // Shorter than any IPv6 message: the two cannot meet.
                key.hash(&message[..24])
            }
            (local, peer) => {
                put(&mut message, 16, &v6_octets(local));
                put(&mut message, 32, &v6_octets(peer));
                key.hash(&message)
            }
        }
    }
}

fn put(message: &mut [u8; 48], at: usize, bytes: &[u8]) {
    message[at..at + bytes.len()].copy_from_slice(bytes);
}

fn v6_octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

impl From<&FiveTuple> for Tuple {
    fn from(tuple: &FiveTuple) -> Self {
        Self {
            local: tuple.local.ip(),
            peer: tuple.peer.ip(),
            local_port: tuple.local.port(),
            peer_port: tuple.peer.port(),
            protocol: tuple.protocol,
        }
    }
}

impl From<&Tuple> for FiveTuple {
    fn from(tuple: &Tuple) -> Self {
        Self {
            protocol: tuple.protocol,
            local: SocketAddr::new(tuple.local, tuple.local_port),
            peer: SocketAddr::new(tuple.peer, tuple.peer_port),
        }
    }
}
