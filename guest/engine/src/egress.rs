//! Packets on their way to `l3_tx`: written once, lent to the host, kept when it
//! does not take them.

use alloc::vec;
use alloc::vec::Vec;

use crate::counters::CounterSnapshot;
use crate::types::{Callbacks, Checksum, Packet};

/// Packets lent to the host at once, beyond which no further packet or datagram is
/// begun. A call costs about 90 ns across the border, so from here on it is lost in
/// the cost of the packets.
const BATCH_PACKETS: usize = 64;
/// Bytes of packets lent at once, beyond which no further packet is begun.
const BATCH_BYTES: usize = 128 << 10;
/// The largest IP packet.
const PACKET_BYTES: usize = 65_535;
/// The largest datagram in fragments, at the lowest path MTU: 119 headers of IPv4 at
/// 576 bytes, or 54 of IPv6 at 1,280 bytes, are less than 4 KiB.
const FRAGMENTS_BYTES: usize = PACKET_BYTES + (4 << 10);

/// The batch being made. Its memory is fixed: a batch, the packet or the fragments
/// that take it beyond its bound, and a packet that is written and given up.
#[derive(Debug)]
pub(crate) struct Egress {
    bytes: Vec<u8>,
    used: usize,
    packets: Vec<Packet>,
    /// The host took fewer than it was lent.
    refused: bool,
}

impl Egress {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; BATCH_BYTES + FRAGMENTS_BYTES + PACKET_BYTES],
            used: 0,
            packets: Vec::with_capacity(BATCH_PACKETS),
            refused: false,
        }
    }

    /// Whether the host has refused packets that are still here.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Makes room for one packet, or for all fragments of one datagram, lending the
    /// batch to the host if it is full.
    pub(crate) fn make_room(
        &mut self,
        callbacks: &mut dyn Callbacks,
        counters: &mut CounterSnapshot,
    ) -> bool {
        let is_full = self.packets.len() >= BATCH_PACKETS || self.used >= BATCH_BYTES;
        if is_full && !self.refused {
            self.flush(callbacks, counters);
        }
        !self.refused
    }

    /// Lends the batch to the host, so that a packet may follow it that is lent from
    /// elsewhere.
    pub(crate) fn make_way(
        &mut self,
        callbacks: &mut dyn Callbacks,
        counters: &mut CounterSnapshot,
    ) -> bool {
        if !self.packets.is_empty() && !self.refused {
            self.flush(callbacks, counters);
        }
        !self.refused
    }

    /// Lends a packet from where it lies. The caller has made way for it; if the host
    /// does not take it, it is kept here.
    pub(crate) fn lend(
        &mut self,
        packet: &[u8],
        callbacks: &mut dyn Callbacks,
        counters: &mut CounterSnapshot,
    ) {
        let lent = described(packet.len());
        if callbacks.l3_tx(packet, &[lent]) == 0 {
            self.space(packet.len()).copy_from_slice(packet);
            self.commit(packet.len());
            self.refused = true;
            return;
        }
        counters.l3_tx_packets += 1;
        counters.l3_tx_bytes += packet.len() as u64;
    }

    /// Space for a packet of `length` bytes, which holds anything. It counts from
    /// `commit` on; what is not committed is overwritten. There is space also
    /// when no room could be made.
    pub(crate) fn space(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.used..self.used + length]
    }

    /// The packet written to `space` joins the batch.
    pub(crate) fn commit(&mut self, length: usize) {
        self.used += length;
        self.packets.push(described(length));
    }

    /// Lends the batch to the host and keeps what it does not take.
    pub(crate) fn flush(&mut self, callbacks: &mut dyn Callbacks, counters: &mut CounterSnapshot) {
        if self.packets.is_empty() {
            self.refused = false;
            return;
        }
        let taken = callbacks
            .l3_tx(&self.bytes[..self.used], &self.packets)
            .min(self.packets.len());
        let taken_bytes = self.packets[..taken]
            .iter()
            .map(|packet| packet.length as usize)
            .sum();
        counters.l3_tx_packets += taken as u64;
        counters.l3_tx_bytes += taken_bytes as u64;
        self.bytes.copy_within(taken_bytes..self.used, 0);
        self.used -= taken_bytes;
        self.packets.drain(..taken);
        self.refused = !self.packets.is_empty();
    }
}

/// What the host is told of a packet.
fn described(length: usize) -> Packet {
    Packet {
        length: u32::try_from(length).unwrap_or(u32::MAX),
        segment_size: 0,
        checksum: Checksum::Full,
    }
}
