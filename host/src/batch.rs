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
    /// Most bytes that one `l3_rx` takes, of packets and of their records (8 bytes
    /// each): some 512 packets of the longest kind. The guest holds a copy of each
    /// part of them while it works on it.
    pub const MAX_BYTES: usize = 32 << 20;

    /// Bytes up to which a batch crosses the border at once; a longer one goes in parts.
    /// So what is copied into the guest is still in a processor's second cache when the
    /// guest reads it.
    pub const PART_BYTES: usize = 128 << 10;

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

    /// What one call after the other gives to the guest: the bytes of some packets, at
    /// most [`PART_BYTES`](Self::PART_BYTES) unless a single packet has more, and their
    /// records. An empty batch has one part, which is empty.
    pub fn parts(&self) -> impl Iterator<Item = (&[u8], &[Packet])> {
        let mut rest = Some((self.bytes(), self.packets()));
        std::iter::from_fn(move || {
            let (bytes, packets) = rest.take()?;
            let (length, count) = part(packets);
            let (part_bytes, bytes) = bytes.split_at(length);
            let (part_packets, packets) = packets.split_at(count);
            rest = (!packets.is_empty()).then_some((bytes, packets));
            Some((part_bytes, part_packets))
        })
    }
}

/// How many bytes and packets go first.
fn part(packets: &[Packet]) -> (usize, usize) {
    let mut length = 0;
    for (count, packet) in packets.iter().enumerate() {
        let with = length + packet.length as usize;
        if with > Batch::PART_BYTES && count > 0 {
            return (length, count);
        }
        length = with;
    }
    (length, packets.len())
}

#[cfg(test)]
mod tests {
    use super::Batch;

    fn parts(lengths: &[u32]) -> Vec<Vec<u32>> {
        let mut batch = Batch::new();
        for (at, length) in lengths.iter().enumerate() {
            batch.push(&vec![at.to_le_bytes()[0]; *length as usize]);
        }
        let mut all = Vec::new();
        let parts = batch.parts().map(|(bytes, packets)| {
            let lengths: Vec<_> = packets.iter().map(|packet| packet.length).collect();
            assert_eq!(bytes.len(), lengths.iter().sum::<u32>() as usize);
            all.extend_from_slice(bytes);
            lengths
        });
        let parts = parts.collect();
        assert_eq!(all, batch.bytes());
        parts
    }

    #[test]
    fn every_packet_is_in_one_part_and_in_its_place() {
        let most = u32::try_from(Batch::PART_BYTES).unwrap();
        assert_eq!(parts(&[]), [[0u32; 0]]);
        assert_eq!(parts(&[1, 2]), [[1, 2]]);
        assert_eq!(parts(&[most - 1, 1]), [[most - 1, 1]]);
        assert_eq!(parts(&[most, 0, 1]), [vec![most, 0], vec![1]]);
        assert_eq!(parts(&[most + 7]), [[most + 7]]);
        assert_eq!(parts(&[1, most + 7, 1]), [[1], [most + 7], [1]]);
        assert_eq!(
            parts(&[65_000; 5]),
            [vec![65_000; 2], vec![65_000; 2], vec![65_000]]
        );
    }
}
