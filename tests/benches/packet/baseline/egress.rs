//! Packets on their way to `l3_tx`: written once, lent to the host, kept when it
//! does not take them.

use l3l4_engine::{Callbacks, Checksum, Packet};

use super::Counters;

/// Packets lent to the host at once, at most. A call costs about 90 ns across
/// the border, so from here on it is lost in the cost of the packets.
const BATCH_PACKETS: usize = 64;
/// Bytes of packets lent at once, beyond which no further packet is begun.
const BATCH_BYTES: usize = 128 << 10;
/// The largest IP packet.
const PACKET_BYTES: usize = 65_535;
/// IPv6 header, TCP header with all options: what is zeroed before it is filled.
const HEADER_BYTES: usize = 40 + 60;

/// The batch being made.
#[derive(Debug)]
pub(super) struct Egress {
    bytes: Vec<u8>,
    used: usize,
    packets: Vec<Packet>,
}

impl Egress {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; BATCH_BYTES + 2 * PACKET_BYTES],
            used: 0,
            packets: Vec::with_capacity(BATCH_PACKETS),
        }
    }

    /// Makes room for one packet, lending the batch to the host if it is full.
    pub(super) fn make_room(&mut self, callbacks: &mut dyn Callbacks, counters: &mut Counters) {
        if self.packets.len() >= BATCH_PACKETS || self.used >= BATCH_BYTES {
            self.flush(callbacks, counters);
        }
    }

    /// Space for a packet of `length` bytes, its headers zeroed. It counts from
    /// `commit` on.
    pub(super) fn space(&mut self, length: usize) -> &mut [u8] {
        let space = &mut self.bytes[self.used..self.used + length];
        let headers = length.min(HEADER_BYTES);
        space[..headers].fill(0);
        space
    }

    /// The packet written to `space` joins the batch.
    pub(super) fn commit(&mut self, length: usize) {
        self.used += length;
        self.packets.push(Packet {
            length: length as u32,
            segment_size: 0,
            checksum: Checksum::Full,
        });
    }

    /// Lends the batch to the host, which takes all.
    pub(super) fn flush(&mut self, callbacks: &mut dyn Callbacks, counters: &mut Counters) {
        if self.packets.is_empty() {
            return;
        }
        let taken = callbacks.l3_tx(&self.bytes[..self.used], &self.packets);
        assert_eq!(taken, self.packets.len(), "the bench takes all");
        counters.l3_tx_packets += taken as u64;
        counters.l3_tx_bytes += self.used as u64;
        self.used = 0;
        self.packets.clear();
    }
}
