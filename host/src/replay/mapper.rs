//! One TCP connection's fed segments, so that they speak to our engine.
//!
//! The peer of a capture acknowledged the sequence numbers of the server that it
//! spoke with. Ours begin elsewhere (RFC 6528), so acknowledgements and SACK
//! blocks are moved by the difference of the two initial sequence numbers; or,
//! where the application sends other data than the captured one, acknowledgements
//! say that everything arrived. The peer's own sequence numbers stay as they are:
//! the engine learns them from its SYN.

use std::net::SocketAddr;
use std::ops::Range;

use super::packet::{
    self, ACK, Headers, NO_OPERATION, Options, SACK, SACK_PERMITTED, SYN, Segment, TCP, TIMESTAMPS,
    WINDOW_SCALE, distance, u32_at,
};

/// Where the checksum of a TCP header is.
pub(crate) const CHECKSUM: Range<usize> = 16..18;

/// What the peer's acknowledgements are made to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Moved by the difference of the initial sequence numbers.
    Shifted,
    /// All that the engine has sent so far, whatever they said.
    Everything,
}

/// What was changed in the fed segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MappingCounts {
    /// Acknowledgements that were moved.
    pub acknowledgements: u64,
    /// Those among them that spoke of data which the engine had not sent yet.
    pub clamped: u64,
    /// Acknowledgements that the replay made itself: for what was clamped, and for
    /// what the application sent that the captured one did not.
    pub added: u64,
    /// SACK blocks that were moved.
    pub sack_blocks: u64,
    /// SACK blocks that were removed: they spoke of data that the engine had not
    /// sent, or of other data.
    pub sack_removed: u64,
    /// Options that the captured server declined, or the engine did not offer,
    /// and that were removed from the peer's SYN or SYN-ACK.
    pub options_removed: u64,
    /// Segments with data that were fed again because the engine had no use for
    /// them when they came: the captured server's window was larger, or it
    /// remembered more.
    pub repeated: u64,
}

/// The options that the two SYNs of a connection agree on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offers {
    pub(crate) scale: Option<u8>,
    pub(crate) sack: bool,
    pub(crate) timestamps: bool,
}

impl Offers {
    pub(crate) fn of(segment: &Segment, packet: &[u8]) -> Self {
        let header = packet.get(segment.header.clone()).unwrap_or_default();
        let mut offers = Self::default();
        for (kind, range) in segment.options(packet) {
            match (kind, range.len()) {
                (WINDOW_SCALE, 3) => offers.scale = Some(header[range.start + 2].min(14)),
                (SACK_PERMITTED, 2) => offers.sack = true,
                (TIMESTAMPS, 10) => offers.timestamps = true,
                _ => {}
            }
        }
        offers
    }

    fn has(self, kind: u8) -> bool {
        match kind {
            WINDOW_SCALE => self.scale.is_some(),
            SACK_PERMITTED => self.sack,
            TIMESTAMPS => self.timestamps,
            _ => true,
        }
    }

    /// Those that `other` has too.
    fn and(self, other: Self) -> Self {
        Self {
            scale: self.scale.filter(|_| other.scale.is_some()),
            sack: self.sack && other.sack,
            timestamps: self.timestamps && other.timestamps,
        }
    }

    pub(crate) const ALL: Self = Self {
        scale: Some(14),
        sack: true,
        timestamps: true,
    };
}

/// An acknowledgement that is owed to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owed {
    Nothing,
    /// The capture has it already.
    AtOnce,
    /// A segment of the capture may come and bring it.
    Soon,
}

#[derive(Debug)]
pub(crate) struct Mapper {
    mapping: Mapping,
    /// The initial sequence number of the local side in the capture.
    captured_isn: Option<u32>,
    /// What the local side of the capture offered in its SYN or SYN-ACK.
    captured_offers: Option<Offers>,
    /// What the peer offered, and what of that was fed.
    peer_offers: Offers,
    fed_offers: Offers,
    /// What the engine says.
    engine: Option<Sender>,
    /// The highest acknowledgement of the capture beyond what the engine has sent.
    wanted: Option<u32>,
    /// The window field last fed, and the largest.
    window: u16,
    widest: u16,
    /// The peer's latest timestamp.
    timestamp: Option<u32>,
}

/// The engine's side.
#[derive(Clone, Copy, Debug)]
struct Sender {
    isn: u32,
    offers: Offers,
    /// The sequence number after all that was sent.
    next: u32,
    /// The acknowledgement last fed.
    acked: u32,
    timestamp: Option<u32>,
}

impl Mapper {
    pub(crate) fn new(mapping: Mapping) -> Self {
        Self {
            mapping,
            captured_isn: None,
            captured_offers: None,
            peer_offers: Offers::default(),
            fed_offers: Offers::default(),
            engine: None,
            wanted: None,
            window: 0,
            widest: 0,
            timestamp: None,
        }
    }

    /// The local side's SYN or SYN-ACK in the capture.
    pub(crate) fn captured_syn(&mut self, isn: u32, offers: Offers) {
        self.captured_isn = Some(isn);
        self.captured_offers = Some(offers);
    }

    /// What the local side agreed to, seen by reading ahead.
    pub(crate) fn captured_agreed(&mut self, offers: Offers) {
        self.captured_offers.get_or_insert(offers);
    }

    pub(crate) fn captured_isn(&self) -> Option<u32> {
        self.captured_isn
    }

    /// By how much the engine's sequence numbers are above the captured ones.
    pub(crate) fn shift(&self) -> Option<u32> {
        Some(self.engine?.isn.wrapping_sub(self.captured_isn?))
    }

    /// The engine sent a segment.
    pub(crate) fn engine_sent(&mut self, segment: &Segment, packet: &[u8]) {
        let header = &packet[segment.header.clone()];
        let timestamp = timestamps(header).map(|at| u32_at(header, at));
        if segment.has(SYN) && self.engine.is_none_or(|engine| engine.isn != segment.seq) {
            self.engine = Some(Sender {
                isn: segment.seq,
                offers: Offers::of(segment, packet),
                next: segment.next(),
                acked: segment.seq,
                timestamp,
            });
            self.wanted = None;
            return;
        }
        let Some(engine) = &mut self.engine else {
            return;
        };
        engine.timestamp = timestamp.or(engine.timestamp);
        if distance(segment.next(), engine.next) > 0 {
            engine.next = segment.next();
        }
    }

    /// Makes a segment of the peer fit.
    pub(crate) fn rewrite(
        &mut self,
        packet: &mut [u8],
        segment: &Segment,
        offloaded: bool,
        counts: &mut MappingCounts,
    ) {
        if segment.has(ACK) && !segment.has(packet::RST) {
            // Where the SYN-ACK was not captured: the handshake's last segment.
            self.captured_isn.get_or_insert(segment.ack.wrapping_sub(1));
        }
        let header = &mut packet[segment.header.clone()];
        packet::edit(header, CHECKSUM, offloaded, |header| {
            if segment.has(SYN) {
                self.syn(header, segment, counts);
            }
            if segment.has(ACK) {
                self.acknowledge(header, segment.ack, counts);
            }
            self.stamp(header);
            self.scale(header, segment);
        });
    }

    /// A segment that is fed once more: the acknowledgement and the timestamp are
    /// the latest ones, and what came with a SYN comes by itself.
    pub(crate) fn refresh(&self, packet: &mut [u8], segment: &Segment, offloaded: bool) {
        let header = &mut packet[segment.header.clone()];
        packet::edit(header, CHECKSUM, offloaded, |header| {
            if segment.has(SYN) {
                header[4..8].copy_from_slice(&segment.seq.wrapping_add(1).to_be_bytes());
                header[13] = segment.flags & !SYN | ACK;
                header[20..].fill(NO_OPERATION);
            }
            if let Some(engine) = &self.engine {
                header[8..12].copy_from_slice(&engine.acked.to_be_bytes());
                header[14..16].copy_from_slice(&self.window.to_be_bytes());
            }
            if let (Some(at), Some(timestamp)) = (timestamps(header), self.timestamp) {
                header[at..at + 4].copy_from_slice(&timestamp.to_be_bytes());
            }
        });
    }

    /// Offers the engine nothing that the rest of the capture does without.
    fn syn(&mut self, header: &mut [u8], segment: &Segment, counts: &mut MappingCounts) {
        let offers = offers_in(header);
        let known = match segment.has(ACK) {
            true => self.engine.map(|engine| engine.offers),
            false => self.captured_offers,
        };
        let agreed = known.unwrap_or(Offers::ALL);
        for kind in [WINDOW_SCALE, SACK_PERMITTED, TIMESTAMPS] {
            if offers.has(kind) && !agreed.has(kind) {
                remove(header, kind);
                counts.options_removed += 1;
            }
        }
        self.peer_offers = offers;
        self.fed_offers = offers.and(agreed);
    }

    fn acknowledge(&mut self, header: &mut [u8], captured: u32, counts: &mut MappingCounts) {
        let Some(shift) = self.shift() else { return };
        let Some(engine) = &mut self.engine else {
            return;
        };
        let mut ack = captured.wrapping_add(shift);
        if self.mapping == Mapping::Everything {
            ack = engine.next;
        } else if distance(ack, engine.next) > 0 {
            counts.clamped += 1;
            if self.wanted.is_none_or(|wanted| distance(ack, wanted) > 0) {
                self.wanted = Some(ack);
            }
            ack = engine.next;
        }
        if distance(ack, engine.acked) > 0 {
            engine.acked = ack;
        }
        counts.acknowledgements += 1;
        header[8..12].copy_from_slice(&ack.to_be_bytes());
        let known = match self.mapping {
            Mapping::Shifted => Some((shift, engine.next)),
            Mapping::Everything => None,
        };
        move_sack(header, known, counts);
    }

    fn stamp(&mut self, header: &mut [u8]) {
        let Some(at) = timestamps(header) else { return };
        self.timestamp = Some(u32_at(header, at));
        if let Some(timestamp) = self.engine.and_then(|engine| engine.timestamp) {
            header[at + 4..at + 8].copy_from_slice(&timestamp.to_be_bytes());
        }
    }

    /// The window says as many bytes as it did, however the two agreed to count
    /// (RFC 7323 2.2). The field in a SYN is never scaled.
    fn scale(&mut self, header: &mut [u8], segment: &Segment) {
        if segment.has(packet::RST) {
            return;
        }
        if !segment.has(SYN) {
            let bytes = u32::from(segment.window) << self.captured_scale();
            let window = bytes.div_ceil(1 << self.engine_scale());
            let window = u16::try_from(window).unwrap_or(u16::MAX);
            header[14..16].copy_from_slice(&window.to_be_bytes());
            self.window = window;
            self.widest = self.widest.max(window);
        } else if self.widest == 0 {
            self.window = segment.window;
        }
    }

    fn captured_scale(&self) -> u8 {
        let agreed = self.captured_offers.unwrap_or(Offers::ALL);
        self.peer_offers.and(agreed).scale.unwrap_or(0)
    }

    fn engine_scale(&self) -> u8 {
        let agreed = self.engine.map_or(Offers::ALL, |engine| engine.offers);
        self.fed_offers.and(agreed).scale.unwrap_or(0)
    }

    /// Whether the engine waits for an acknowledgement that no segment brings.
    pub(crate) fn owed(&self) -> Owed {
        let Some(engine) = &self.engine else {
            return Owed::Nothing;
        };
        match (self.mapping, self.wanted) {
            _ if distance(engine.next, engine.acked) <= 0 => Owed::Nothing,
            (Mapping::Everything, _) => Owed::Soon,
            (Mapping::Shifted, Some(wanted)) if distance(wanted, engine.acked) > 0 => Owed::AtOnce,
            (Mapping::Shifted, _) => Owed::Nothing,
        }
    }

    /// The acknowledgement that is owed, as a packet from `peer`, whose next
    /// sequence number is `seq`, to `local`.
    pub(crate) fn acknowledgement(
        &mut self,
        peer: SocketAddr,
        local: SocketAddr,
        seq: u32,
    ) -> Option<Vec<u8>> {
        let engine = self.engine.as_mut()?;
        let (ack, window) = match (self.mapping, self.wanted) {
            (Mapping::Shifted, Some(wanted)) if distance(wanted, engine.next) < 0 => {
                (wanted, self.window)
            }
            (Mapping::Shifted, _) => (engine.next, self.window),
            // A peer that the replay plays to the end goes on taking.
            (Mapping::Everything, _) => (engine.next, self.window.max(self.widest)),
        };
        engine.acked = ack;
        let mut tcp = Vec::with_capacity(32);
        tcp.extend(peer.port().to_be_bytes());
        tcp.extend(local.port().to_be_bytes());
        tcp.extend(seq.to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        tcp.extend([5 << 4, ACK]);
        tcp.extend(window.to_be_bytes());
        tcp.extend([0; 4]);
        if let (Some(value), Some(echo)) = (self.timestamp, engine.timestamp) {
            tcp[12] = 8 << 4;
            tcp.extend([NO_OPERATION, NO_OPERATION, TIMESTAMPS, 10]);
            tcp.extend(value.to_be_bytes());
            tcp.extend(echo.to_be_bytes());
        }
        Some(ip_packet(peer, local, &mut tcp))
    }
}

/// An IP packet around a TCP segment, with its checksums.
fn ip_packet(from: SocketAddr, to: SocketAddr, tcp: &mut [u8]) -> Vec<u8> {
    // A header and its options.
    let length = u16::try_from(tcp.len()).unwrap_or(u16::MAX);
    let mut packet = Vec::with_capacity(40 + tcp.len());
    match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            packet.extend([0x45, 0]);
            packet.extend((length + 20).to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 64, TCP, 0, 0]);
            packet.extend(from.ip().octets());
            packet.extend(to.ip().octets());
            let sum = !packet::fold(packet::sum(&packet));
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (from, to) => {
            packet.extend([0x60, 0, 0, 0]);
            packet.extend(length.to_be_bytes());
            packet.extend([TCP, 64]);
            for end in [from, to] {
                let address = match end {
                    SocketAddr::V4(end) => end.ip().to_ipv6_mapped(),
                    SocketAddr::V6(end) => *end.ip(),
                };
                packet.extend(address.octets());
            }
        }
    }
    packet.extend_from_slice(tcp);
    if let Some(headers) = Headers::read(&packet) {
        let sum = packet::checksum(&headers, tcp);
        let at = headers.transport + CHECKSUM.start;
        packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

fn offers_in(header: &[u8]) -> Offers {
    let segment = Segment {
        header: 0..header.len(),
        seq: 0,
        ack: 0,
        flags: 0,
        window: 0,
        length: 0,
    };
    Offers::of(&segment, header)
}

/// Where the timestamp value is in a header that has one; the echo follows it.
fn timestamps(header: &[u8]) -> Option<usize> {
    let range = Options::of(header).find(TIMESTAMPS)?;
    (range.len() == 10).then_some(range.start + 2)
}

fn remove(header: &mut [u8], kind: u8) {
    if let Some(range) = Options::of(header).find(kind) {
        header[range].fill(NO_OPERATION);
    }
}

/// Moves each SACK block by the difference in `known`, and removes those that end
/// behind the number beside it; all of them when nothing is known.
fn move_sack(header: &mut [u8], known: Option<(u32, u32)>, counts: &mut MappingCounts) {
    let Some(range) = Options::of(header).find(SACK) else {
        return;
    };
    let old = header[range.clone()].to_vec();
    let mut kept = Vec::with_capacity(old.len());
    for edges in old[2..].chunks_exact(8) {
        let moved = known.and_then(|(shift, next)| {
            let left = u32_at(edges, 0).wrapping_add(shift);
            let right = u32_at(edges, 4).wrapping_add(shift);
            (distance(right, next) <= 0).then_some([left.to_be_bytes(), right.to_be_bytes()])
        });
        match moved {
            Some(edges) => kept.extend(edges.concat()),
            None => counts.sack_removed += 1,
        }
    }
    counts.sack_blocks += (kept.len() / 8) as u64;
    header[range.clone()].fill(NO_OPERATION);
    if kept.is_empty() {
        return;
    }
    let length = kept.len() + 2;
    header[range.start] = SACK;
    // An option is no longer than 40 bytes.
    header[range.start + 1] = u8::try_from(length).unwrap_or(u8::MAX);
    header[range.start + 2..range.start + length].copy_from_slice(&kept);
}

/// An ICMP error that quotes a segment of ours speaks of the captured sequence
/// number: it is moved, so that the engine knows its own (RFC 5927 4). `message`
/// starts at the ICMP header, `quoted` is where the quoted TCP header is in it.
pub(crate) fn move_quote(message: &mut [u8], quoted: usize, shift: u32) {
    packet::edit(message, 2..4, false, |message| {
        if let Some(seq) = message.get_mut(quoted + 4..quoted + 8) {
            let moved = u32_at(seq, 0).wrapping_add(shift);
            seq.copy_from_slice(&moved.to_be_bytes());
        }
    });
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{Mapper, Mapping, MappingCounts, Owed, ip_packet, timestamps};
    use crate::replay::packet::{ACK, Headers, PSH, SYN, Segment, checksum, u16_at, u32_at};

    const ISN: u32 = 0xffff_fff0;

    fn ends() -> (SocketAddr, SocketAddr) {
        (
            ([198, 51, 100, 2], 40_000).into(),
            ([192, 0, 2, 1], 80).into(),
        )
    }

    /// A segment with timestamps, and data if the flags say PSH.
    fn packet(from: SocketAddr, to: SocketAddr, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(from.port().to_be_bytes());
        tcp.extend(to.port().to_be_bytes());
        tcp.extend(seq.to_be_bytes());
        tcp.extend(ack.to_be_bytes());
        tcp.extend([8 << 4, flags, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10]);
        tcp.extend(from.port().to_be_bytes());
        tcp.extend([0, 1, 0, 0, 0, 9]);
        tcp.extend_from_slice(if flags & PSH == 0 { &[] } else { &[7; 100] });
        ip_packet(from, to, &mut tcp)
    }

    fn segment(packet: &[u8]) -> Option<Segment> {
        let headers = Headers::read(packet)?;
        assert_eq!(checksum(&headers, &packet[headers.transport..]), 0);
        headers.tcp(packet)
    }

    /// The engine, which has timestamps, has sent its SYN-ACK and 100 bytes; the
    /// capture acknowledges twice as much.
    fn mapped(mapping: Mapping) -> Option<(Mapper, Vec<u8>, MappingCounts)> {
        let (peer, local) = ends();
        let mut mapper = Mapper::new(mapping);
        let mut counts = MappingCounts::default();
        let mut syn = packet(peer, local, SYN, 5, 0);
        let read = segment(&syn)?;
        mapper.rewrite(&mut syn, &read, false, &mut counts);
        let answer = packet(local, peer, SYN | ACK, ISN, 6);
        mapper.engine_sent(&segment(&answer)?, &answer);
        let data = packet(local, peer, PSH | ACK, ISN.wrapping_add(1), 6);
        mapper.engine_sent(&segment(&data)?, &data);
        let offers = super::Offers::ALL;
        mapper.captured_syn(1_000, offers);

        let mut ack = packet(peer, local, ACK, 6, 1_201);
        let read = segment(&ack)?;
        mapper.rewrite(&mut ack, &read, false, &mut counts);
        Some((mapper, ack, counts))
    }

    #[test]
    fn an_acknowledgement_is_moved_clamped_and_made_up_for() {
        let (mut mapper, ack, counts) = mapped(Mapping::Shifted).expect("a segment");
        let read = segment(&ack).expect("a right checksum");
        assert_eq!(read.ack, ISN.wrapping_add(101), "all that was sent");
        assert_eq!((counts.acknowledgements, counts.clamped), (1, 1));
        let header = &ack[read.header];
        let at = timestamps(header).expect("timestamps");
        assert_eq!(u16_at(header, at), 40_000, "the peer's stay");
        assert_eq!(u32_at(header, at + 4), (80 << 16) + 1, "ours is echoed");
        assert_eq!(mapper.owed(), Owed::Nothing);

        let (peer, local) = ends();
        let more = packet(local, peer, PSH | ACK, ISN.wrapping_add(101), 6);
        mapper.engine_sent(&segment(&more).expect("a segment"), &more);
        assert_eq!(mapper.owed(), Owed::AtOnce);
        let made = mapper.acknowledgement(peer, local, 6).expect("one is owed");
        let read = segment(&made).expect("a right checksum");
        assert_eq!((read.seq, read.ack), (6, ISN.wrapping_add(201)));
        assert!(timestamps(&made[read.header]).is_some());
        assert_eq!(mapper.owed(), Owed::Nothing);
    }

    #[test]
    fn everything_is_acknowledged_whatever_was_captured() {
        let (mut mapper, ack, _) = mapped(Mapping::Everything).expect("a segment");
        let read = segment(&ack).expect("a right checksum");
        assert_eq!(read.ack, ISN.wrapping_add(101));
        let (peer, local) = ends();
        let more = packet(local, peer, PSH | ACK, ISN.wrapping_add(101), 6);
        mapper.engine_sent(&segment(&more).expect("a segment"), &more);
        assert_eq!(mapper.owed(), Owed::Soon);
    }

    /// RFC 1624: what is wrong stays wrong by as much.
    #[test]
    fn a_wrong_checksum_stays_wrong() {
        let (peer, local) = ends();
        let (mut mapper, _, mut counts) = mapped(Mapping::Shifted).expect("a segment");
        let mut ack = packet(peer, local, ACK, 6, 1_101);
        let read = segment(&ack).expect("a segment");
        ack[read.header.start + 14] ^= 0x40;
        mapper.rewrite(&mut ack, &read, false, &mut counts);
        let headers = Headers::read(&ack).expect("a packet");
        assert_ne!(checksum(&headers, &ack[headers.transport..]), 0);
    }
}
