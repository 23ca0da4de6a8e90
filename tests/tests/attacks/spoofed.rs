//! Packets of senders that do not exist.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use l3l4_tests::craft::{FAMILIES, Family, Peer};
use l3l4_tests::random::Random;
use l3l4_tests::scene::Scene;
use l3l4_tests::wire::ACK;

/// Chooses the tuples of an attack.
#[derive(Debug)]
pub(crate) struct Spoofed {
    pub(crate) random: Random,
}

impl Spoofed {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
        }
    }

    /// A peer of either family at an address and port of its own (RFC 5737, RFC 3849),
    /// with any sequence numbers.
    pub(crate) fn peer(&mut self) -> Peer {
        let family = FAMILIES[self.random.below(2)];
        let mut peer = Peer::new(family);
        peer.peer = SocketAddr::new(
            match family {
                Family::V4 => Ipv4Addr::new(203, 0, 113, self.random.byte().max(1)).into(),
                Family::V6 => {
                    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, u16::from(self.random.byte()))
                        .into()
                }
            },
            self.port(),
        );
        peer.local.set_port(self.port());
        peer.next = self.number();
        peer.expected = self.number();
        peer
    }

    /// So many SYNs.
    pub(crate) fn syns(&mut self, count: usize) -> Vec<Vec<u8>> {
        (0..count)
            .map(|_| self.peer().syn().mss(1460).into())
            .collect()
    }

    /// So many segments with these flags, of no connection.
    pub(crate) fn segments(&mut self, count: usize, flags: u8) -> Vec<Vec<u8>> {
        (0..count)
            .map(|_| {
                let peer = self.peer();
                // Without the flag too, a stack might look at the number.
                let segment = peer.segment(flags);
                if flags & ACK == 0 {
                    segment.acking(peer.expected).into()
                } else {
                    segment.into()
                }
            })
            .collect()
    }

    /// Any sequence number.
    pub(crate) fn number(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.random.word().to_le_bytes();
        u32::from_le_bytes([a, b, c, d])
    }

    fn port(&mut self) -> u16 {
        u16::try_from(1 + self.random.below(65_535)).expect("a port")
    }
}

/// Packets arrive in one batch that the trace leaves out, so that it holds what
/// matters.
pub(crate) fn flood(scene: &mut Scene, batch: &[Vec<u8>]) {
    scene.host().silent = true;
    scene.rx_batch(batch);
    scene.host().silent = false;
}
