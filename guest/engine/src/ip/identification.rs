//! Identifications of the datagrams that we cut into fragments.

use core::net::IpAddr;

use super::octets;
use crate::siphash::Key;

/// How many pairs of ends count apart. Two that share a counter skip numbers, which
/// tells each that the other has sent something, not whom to.
const COUNTERS: usize = 256;

/// The generator of RFC 7739 5.3: for each pair of ends numbers from an
/// unpredictable start on, none of which comes again before all others have. For
/// IPv4, whose packets in one piece need none (RFC 6864 4.1), the lower half.
#[derive(Debug)]
pub(crate) struct Identifications {
    key: Key,
    counters: [u32; COUNTERS],
}

impl Identifications {
    pub(crate) fn new(key: Key) -> Self {
        Self {
            key,
            counters: [0; COUNTERS],
        }
    }

    /// The next for a datagram between these ends.
    pub(crate) fn next(&mut self, src: IpAddr, dst: IpAddr) -> u32 {
        let mut message = [0; 40];
        message[..8].copy_from_slice(b"identify");
        message[8..24].copy_from_slice(&octets(src));
        message[24..].copy_from_slice(&octets(dst));
        let [a, b, c, d, .., which] = self.key.hash(&message).to_le_bytes();
        let start = u32::from_le_bytes([a, b, c, d]);
        let counter = &mut self.counters[usize::from(which)];
        *counter = counter.wrapping_add(1);
        start.wrapping_add(*counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;

    #[test]
    fn each_pair_counts_from_a_start_of_its_own() {
        let [key, other_key] = Key::pair(&core::array::from_fn(|i| i.to_le_bytes()[0]));
        let mut ids = Identifications::new(key);
        let local: IpAddr = "192.0.2.1".parse().unwrap();
        let peers: [IpAddr; 2] = ["198.51.100.1", "198.51.100.2"].map(|it| it.parse().unwrap());
        let starts = peers.map(|peer| ids.next(local, peer));
        assert!(starts[0].abs_diff(starts[1]) > 1000, "{starts:x?}");
        let mut seen = BTreeSet::from([starts[0] & 0xffff]);
        for _ in 1..0x1_0000u32 {
            assert!(seen.insert(ids.next(local, peers[0]) & 0xffff), "again");
        }
        let elsewhere = Identifications::new(other_key).next(local, peers[0]);
        assert_ne!(elsewhere, starts[0], "another seed");
    }
}
