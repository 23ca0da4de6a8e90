//! Received packets on their way in.

use std::io;

use crate::types::{Checksum, Packet};

/// Received IP packets for one [`Engine::l3_rx`](crate::Engine::l3_rx): their
/// bytes end to end, and a small record for each. Reuse one: [`clear`](Self::clear)
/// keeps its memory.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The packets' bytes up to `end`; what lies behind is room that was zeroed
    /// once and is not zeroed again for each packet.
    buffer: Vec<u8>,
    end: usize,
    packets: Vec<Packet>,
}

impl Batch {
    /// Most bytes that one call takes, of packets and of their records (8 bytes
    /// each): some 512 packets of the longest kind. The guest holds a copy of the
    /// batch while the call runs.
    pub const MAX_BYTES: usize = 32 << 20;

    /// Bytes from which on a batch is better given to the engine than made longer: the
    /// guest's copy stays in a processor's second cache. 32 packets of 64 KiB at once
    /// come back from further away, which costs half as much again a packet (the packet
    /// bench's row `tcp 65535 in 1`).
    pub const GOOD_BYTES: usize = 128 << 10;

    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one packet that carries its checksums, from the IP header on.
    pub fn push(&mut self, packet: &[u8]) {
        self.push_described(packet, 0, Checksum::Full);
    }

    /// Appends one packet with what its device says about it: the payload bytes
    /// of each segment when it is a TCP super-segment (else 0), and the state of
    /// its checksums.
    ///
    /// A packet of more than `u32::MAX` bytes is cut there: no IP packet is.
    pub fn push_described(&mut self, packet: &[u8], segment_size: u16, checksum: Checksum) {
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let packet = &packet[..length as usize];
        self.room(packet.len()).copy_from_slice(packet);
        self.append(Packet {
            length,
            segment_size,
            checksum,
        });
    }

    /// Appends the packet that `read` writes to the front of a buffer of `max`
    /// bytes of unspecified content; `read` returns the packet's length. So a
    /// device reads straight into the batch. Returns that length.
    ///
    /// # Errors
    ///
    /// What `read` returns, and `InvalidData` when it claims more than `max`
    /// bytes. The batch is as before then.
    pub fn push_with(
        &mut self,
        max: usize,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let taken = read(self.room(max))?;
        let length = match u32::try_from(taken) {
            Ok(length) if taken <= max => length,
            Ok(_) | Err(_) => return Err(io::ErrorKind::InvalidData.into()),
        };
        self.append(Packet {
            length,
            segment_size: 0,
            checksum: Checksum::Full,
        });
        Ok(taken)
    }

    /// Room for `length` bytes behind the last packet.
    fn room(&mut self, length: usize) -> &mut [u8] {
        let end = self.end + length;
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        &mut self.buffer[self.end..end]
    }

    /// Makes the front of the room a packet.
    fn append(&mut self, packet: Packet) {
        self.end += packet.length as usize;
        self.packets.push(packet);
    }

    /// Removes all packets and keeps the memory.
    pub fn clear(&mut self) {
        self.end = 0;
        self.packets.clear();
    }

    /// How many packets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Bytes that the guest's copy takes.
    pub(crate) fn footprint(&self) -> usize {
        self.end + self.packets.len() * 8
    }

    /// The bytes of all packets, end to end.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.end]
    }

    /// The record of each packet, in order.
    #[must_use]
    pub fn packets(&self) -> &[Packet] {
        &self.packets
    }
}
