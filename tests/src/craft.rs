//! Packets made by hand. A [`Peer`] keeps the sequence numbers of one
//! conversation, so that a story reads like the exchange:
//!
//! ```text
//! scene.rx(peer.syn().mss(1460));
//! let syn_ack = scene.tcp();
//! peer.hear(&syn_ack);
//! scene.rx(peer.ack());
//! scene.rx(peer.data(b"hello"));
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use l3l4_engine::{FiveTuple, Protocol};

use crate::wire::{self, ACK, FIN, PSH, RST, SYN, checksum, pseudo_header};

/// Which IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Both families, for stories that hold for both.
pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    /// The side that the engine speaks for (documentation addresses, RFC 5737
    /// and RFC 3849).
    #[must_use]
    pub fn local(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address([192, 0, 2, 1], 0xa), port)
    }

    /// The host beyond the packets.
    #[must_use]
    pub fn peer(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address([198, 51, 100, 2], 0xb), port)
    }

    fn address(self, v4: [u8; 4], v6: u16) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from(v4).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, v6).into(),
        }
    }

    /// Bytes of the IP header.
    #[must_use]
    pub fn ip_header(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

/// An IP packet around a transport's bytes; the transport's checksum is the
/// caller's business (see [`seal`]).
#[must_use]
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let total = u16::try_from(20 + payload.len()).expect("fits IPv4");
            let mut header = vec![0x45, 0];
            header.extend(total.to_be_bytes());
            header.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = u16::try_from(payload.len()).expect("fits IPv6");
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length.to_be_bytes());
            header.extend([protocol, 64]);
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            panic!("{from} and {to} are of two families")
        }
    };
    packet.extend_from_slice(payload);
    packet
}

/// Fills in every checksum of a packet, so that a header field changed by hand is
/// the packet's only fault. What is too short for one, or behind IPv6 extension
/// headers, stays as it is.
#[must_use]
pub fn seal(mut packet: Vec<u8>) -> Vec<u8> {
    let least = match packet.first() {
        Some(first) if first >> 4 == 4 => usize::from(first & 15).max(5) * 4,
        Some(first) if first >> 4 == 6 => 40,
        Some(_) | None => return packet,
    };
    if packet.len() < least {
        return packet;
    }
    let (header, protocol, from, to) = match packet[0] >> 4 {
        4 => {
            let header = usize::from(packet[0] & 15) * 4;
            packet[10..12].fill(0);
            let sum = checksum(&[&packet[..header]]);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            let octets = |at: usize| -> [u8; 4] { packet[at..at + 4].try_into().unwrap() };
            (
                header,
                packet[9],
                IpAddr::from(octets(12)),
                IpAddr::from(octets(16)),
            )
        }
        6 => {
            let octets = |at: usize| -> [u8; 16] { packet[at..at + 16].try_into().unwrap() };
            (
                40,
                packet[6],
                IpAddr::from(octets(8)),
                IpAddr::from(octets(24)),
            )
        }
        other => panic!("IP version {other}"),
    };
    let at = match protocol {
        wire::TCP => 16,
        wire::UDP => 6,
        wire::ICMP | wire::ICMPV6 => 2,
        _ => return packet,
    };
    let transport = &mut packet[header..];
    if transport.len() < at + 2 {
        return packet;
    }
    transport[at..at + 2].fill(0);
    let pseudo = match protocol {
        wire::ICMP => Vec::new(),
        _ => pseudo_header(from, to, protocol, transport.len()),
    };
    let sum = match (checksum(&[&pseudo, transport]), protocol) {
        (0, wire::UDP) => 0xffff, // RFC 768: 0 means none
        (sum, _) => sum,
    };
    transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A UDP datagram.
#[must_use]
pub fn udp(from: SocketAddr, to: SocketAddr, data: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    datagram.extend(from.port().to_be_bytes());
    datagram.extend(to.port().to_be_bytes());
    datagram.extend(
        u16::try_from(8 + data.len())
            .expect("fits UDP")
            .to_be_bytes(),
    );
    datagram.extend([0, 0]);
    datagram.extend_from_slice(data);
    seal(ip(from.ip(), to.ip(), wire::UDP, &datagram))
}

/// An ICMP or ICMPv6 message, by the family of the addresses.
#[must_use]
pub fn icmp(from: IpAddr, to: IpAddr, kind: u8, code: u8, rest: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut message = vec![kind, code, 0, 0];
    message.extend(rest);
    message.extend_from_slice(data);
    let protocol = if from.is_ipv4() {
        wire::ICMP
    } else {
        wire::ICMPV6
    };
    seal(ip(from, to, protocol, &message))
}

/// An echo request.
#[must_use]
pub fn ping(from: IpAddr, to: IpAddr, identifier: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let mut rest = [0; 4];
    rest[..2].copy_from_slice(&identifier.to_be_bytes());
    rest[2..].copy_from_slice(&sequence.to_be_bytes());
    icmp(
        from,
        to,
        if from.is_ipv4() { 8 } else { 128 },
        0,
        rest,
        data,
    )
}

/// A destination unreachable that quotes `packet`, with the code of the family.
#[must_use]
pub fn unreachable(from: IpAddr, to: IpAddr, code: u8, packet: &[u8]) -> Vec<u8> {
    let quoted = &packet[..packet.len().min(if from.is_ipv4() { 548 } else { 1232 })];
    icmp(
        from,
        to,
        if from.is_ipv4() { 3 } else { 1 },
        code,
        [0; 4],
        quoted,
    )
}

/// The same packet with options in its IPv4 header, padded with end-of-list.
#[must_use]
pub fn with_ip_options(packet: &[u8], options: &[u8]) -> Vec<u8> {
    let padded = options.len().next_multiple_of(4);
    let words = u8::try_from(5 + padded / 4).expect("a header");
    let total = u16::try_from(packet.len() + padded).expect("fits IPv4");
    let mut longer = packet[..20].to_vec();
    longer[0] = 0x40 | words;
    longer[2..4].copy_from_slice(&total.to_be_bytes());
    longer.extend_from_slice(options);
    longer.resize(20 + padded, 0);
    longer.extend_from_slice(&packet[20..]);
    seal(longer)
}

/// The same IPv6 packet with an extension header of this kind before all that
/// follows the fixed header. `body` is what comes after the next-header byte: for
/// most kinds a length byte and the options.
#[must_use]
pub fn with_extension(packet: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(packet.len() - 40 + 1 + body.len()).expect("fits IPv6");
    let mut longer = packet[..40].to_vec();
    longer[4..6].copy_from_slice(&length.to_be_bytes());
    longer[6] = kind;
    longer.push(packet[6]);
    longer.extend_from_slice(body);
    longer.extend_from_slice(&packet[40..]);
    longer
}

/// One fragment: any bytes at any offset, which must be a multiple of 8.
#[must_use]
pub fn fragment(
    (from, to): (IpAddr, IpAddr),
    protocol: u8,
    id: u32,
    offset: usize,
    more: bool,
    payload: &[u8],
) -> Vec<u8> {
    let word = u16::try_from(offset).expect("below 64 KiB");
    if from.is_ipv4() {
        let mut packet = ip(from, to, protocol, payload);
        packet[4..6].copy_from_slice(&id.to_be_bytes()[2..]);
        let more = if more { 0x2000 } else { 0 };
        let word = (word / 8) | more;
        packet[6..8].copy_from_slice(&word.to_be_bytes());
        packet[10..12].fill(0);
        let sum = checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        return packet;
    }
    let mut header = vec![0];
    header.extend((word | u16::from(more)).to_be_bytes());
    header.extend(id.to_be_bytes());
    with_extension(&ip(from, to, protocol, payload), 44, &header)
}

/// A packet without options or extension headers, cut into pieces of `size` bytes
/// of payload (a multiple of 8).
#[must_use]
pub fn fragments(packet: &[u8], id: u32, size: usize) -> Vec<Vec<u8>> {
    let (header, protocol) = match packet[0] >> 4 {
        4 => (20, packet[9]),
        _ => (40, packet[6]),
    };
    let ends = ends(packet);
    let payload = &packet[header..];
    let pieces = payload.chunks(size).enumerate();
    pieces
        .map(|(i, piece)| {
            let offset = i * size;
            let more = offset + piece.len() < payload.len();
            fragment(ends, protocol, id, offset, more, piece)
        })
        .collect()
}

/// Source and destination of a packet.
#[must_use]
pub fn ends(packet: &[u8]) -> (IpAddr, IpAddr) {
    let v4 = |at: usize| -> [u8; 4] { packet[at..at + 4].try_into().expect("four bytes") };
    let v6 = |at: usize| -> [u8; 16] { packet[at..at + 16].try_into().expect("sixteen") };
    match packet[0] >> 4 {
        4 => (v4(12).into(), v4(16).into()),
        _ => (v6(8).into(), v6(24).into()),
    }
}

/// The far end of one TCP conversation.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The engine's side.
    pub local: SocketAddr,
    /// This side.
    pub peer: SocketAddr,
    /// The next sequence number to send.
    pub next: u32,
    /// The next sequence number expected from the engine.
    pub expected: u32,
    /// The window offered.
    pub window: u16,
}

impl Peer {
    /// Port 40000 to port 7, first sequence number 1000.
    #[must_use]
    pub fn new(family: Family) -> Self {
        Self {
            local: family.local(7),
            peer: family.peer(40_000),
            next: 1000,
            expected: 0,
            window: 64_000,
        }
    }

    /// The same from another port.
    #[must_use]
    pub fn from_port(mut self, port: u16) -> Self {
        self.peer.set_port(port);
        self
    }

    /// The identity of the flow.
    #[must_use]
    pub fn tuple(&self) -> FiveTuple {
        FiveTuple {
            protocol: Protocol::Tcp,
            local: self.local,
            peer: self.peer,
        }
    }

    /// A segment with these flags that uses up nothing of the sequence.
    #[must_use]
    pub fn segment(&self, flags: u8) -> Segment {
        Segment {
            from: self.peer,
            to: self.local,
            seq: self.next,
            ack: if flags & ACK == 0 { 0 } else { self.expected },
            flags,
            window: self.window,
            urgent: 0,
            options: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// The next byte of the sequence, for the connection.
    pub fn syn(&mut self) -> Segment {
        let segment = self.segment(SYN);
        self.next = self.next.wrapping_add(1);
        segment
    }

    /// SYN-ACK, when the engine opens.
    pub fn syn_ack(&mut self) -> Segment {
        let segment = self.segment(SYN | ACK);
        self.next = self.next.wrapping_add(1);
        segment
    }

    /// A bare acknowledgement of all that was heard.
    #[must_use]
    pub fn ack(&self) -> Segment {
        self.segment(ACK)
    }

    /// The next bytes of the stream.
    pub fn data(&mut self, data: &[u8]) -> Segment {
        let segment = self.segment(ACK | PSH).payload(data);
        let length = u32::try_from(data.len()).expect("a segment");
        self.next = self.next.wrapping_add(length);
        segment
    }

    /// The end of the stream.
    pub fn fin(&mut self) -> Segment {
        let segment = self.segment(FIN | ACK);
        self.next = self.next.wrapping_add(1);
        segment
    }

    /// A reset, exactly at the next sequence number.
    #[must_use]
    pub fn rst(&self) -> Segment {
        self.segment(RST)
    }

    /// Takes note of a segment of the engine, in order.
    pub fn hear(&mut self, segment: &wire::Tcp) {
        assert_eq!(
            (segment.from, segment.to),
            (self.local, self.peer),
            "a segment of another conversation: {segment}"
        );
        self.expected = segment.end();
    }
}

/// One TCP segment under construction.
#[derive(Clone, Debug)]
pub struct Segment {
    from: SocketAddr,
    to: SocketAddr,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK.
    pub ack: u32,
    flags: u8,
    window: u16,
    urgent: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
}

impl Segment {
    /// From elsewhere.
    #[must_use]
    pub fn from(mut self, from: SocketAddr) -> Self {
        self.from = from;
        self
    }

    /// To elsewhere.
    #[must_use]
    pub fn to(mut self, to: SocketAddr) -> Self {
        self.to = to;
        self
    }

    /// With another sequence number.
    #[must_use]
    pub fn seq(mut self, seq: u32) -> Self {
        self.seq = seq;
        self
    }

    /// With another acknowledgement number (the flag stays as it is).
    #[must_use]
    pub fn acking(mut self, ack: u32) -> Self {
        self.ack = ack;
        self
    }

    /// With more flags.
    #[must_use]
    pub fn with(mut self, flags: u8) -> Self {
        self.flags |= flags;
        self
    }

    /// With another window.
    #[must_use]
    pub fn window(mut self, window: u16) -> Self {
        self.window = window;
        self
    }

    /// With data (the peer's sequence does not move: see [`Peer::data`]).
    #[must_use]
    pub fn payload(mut self, data: &[u8]) -> Self {
        self.payload = data.to_vec();
        self
    }

    /// With an option, padded to a multiple of four bytes.
    #[must_use]
    pub fn option(mut self, option: &[u8]) -> Self {
        self.options.extend_from_slice(option);
        while !self.options.len().is_multiple_of(4) {
            self.options.push(1);
        }
        self
    }

    /// Maximum segment size.
    #[must_use]
    pub fn mss(self, mss: u16) -> Self {
        let [high, low] = mss.to_be_bytes();
        self.option(&[2, 4, high, low])
    }

    /// Window scale.
    #[must_use]
    pub fn scale(self, shift: u8) -> Self {
        self.option(&[3, 3, shift])
    }

    /// SACK permitted.
    #[must_use]
    pub fn sack_permitted(self) -> Self {
        self.option(&[4, 2])
    }

    /// SACK blocks (RFC 2018), left and right edges.
    #[must_use]
    pub fn sack(self, blocks: &[(u32, u32)]) -> Self {
        let length = u8::try_from(2 + 8 * blocks.len()).expect("at most four blocks");
        let mut option = vec![5, length];
        for (left, right) in blocks {
            option.extend(left.to_be_bytes());
            option.extend(right.to_be_bytes());
        }
        self.option(&option)
    }

    /// Timestamps (RFC 7323): our value, and the echo of theirs.
    #[must_use]
    pub fn timestamps(self, value: u32, echo: u32) -> Self {
        let mut option = vec![8, 10];
        option.extend(value.to_be_bytes());
        option.extend(echo.to_be_bytes());
        self.option(&option)
    }

    /// With an urgent pointer; the flag is a flag of its own.
    #[must_use]
    pub fn urgent(mut self, pointer: u16) -> Self {
        self.urgent = pointer;
        self
    }
}

impl From<Segment> for Vec<u8> {
    fn from(segment: Segment) -> Self {
        let header = u8::try_from(20 + segment.options.len()).expect("options fit");
        let mut bytes = Vec::new();
        bytes.extend(segment.from.port().to_be_bytes());
        bytes.extend(segment.to.port().to_be_bytes());
        bytes.extend(segment.seq.to_be_bytes());
        bytes.extend(segment.ack.to_be_bytes());
        bytes.extend([header / 4 * 16, segment.flags]);
        bytes.extend(segment.window.to_be_bytes());
        bytes.extend([0; 2]);
        bytes.extend(segment.urgent.to_be_bytes());
        bytes.extend(&segment.options);
        bytes.extend(&segment.payload);
        seal(ip(segment.from.ip(), segment.to.ip(), wire::TCP, &bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Body, read, reassemble};

    #[test]
    fn fragments_are_read_and_make_the_packet_again() {
        for family in FAMILIES {
            let data: Vec<u8> = (0..=255).cycle().take(4000).collect();
            let whole = udp(family.peer(5000), family.local(53), &data);
            let mut pieces: Vec<_> = fragments(&whole, 0x0102, 1448)
                .iter()
                .map(|piece| read(piece).unwrap())
                .collect();
            assert_eq!(pieces.len(), 3);
            pieces.rotate_left(1);
            let again = reassemble(&pieces).unwrap();
            assert_eq!(again.body, read(&whole).unwrap().body);

            let error = reassemble(&pieces[..2]).unwrap_err();
            assert!(error.contains("at") || error.contains("missing"), "{error}");
            let twice = [&pieces[..], &pieces[..1]].concat();
            assert!(reassemble(&twice).is_err(), "{family:?}");
        }
    }

    #[test]
    fn a_fragment_that_no_sender_may_make_is_refused() {
        for family in FAMILIES {
            let ends = (family.peer(0).ip(), family.local(0).ip());
            for (offset, more, length) in [(0, true, 12), (65_528, false, 16), (8, false, 0)] {
                let piece = fragment(ends, wire::UDP, 1, offset, more, &vec![0; length]);
                assert!(read(&piece).is_err(), "{offset} {more} {length}");
            }
        }
    }

    #[test]
    fn extension_headers_are_read_through() {
        let family = Family::V6;
        let packet = udp(family.peer(5000), family.local(53), b"hello");
        let bare = read(&packet).unwrap().body;
        for kind in [0, 43, 60] {
            let longer = with_extension(&packet, kind, &[0, 1, 4, 0, 0, 0, 0]);
            assert_eq!(longer.len(), packet.len() + 8);
            assert_eq!(read(&longer).unwrap().body, bare);
        }
    }

    #[test]
    fn ip_options_leave_the_checksum_right() {
        let packet = udp(Family::V4.peer(5000), Family::V4.local(53), b"hello");
        let longer = with_ip_options(&packet, &[7, 7, 4, 0, 0, 0, 0]);
        assert_eq!((longer[0], longer.len()), (0x47, packet.len() + 8));
        assert_eq!(checksum(&[&longer[..28]]), 0);
        assert_eq!(longer[28..], packet[20..]);
    }

    #[test]
    fn options_of_a_segment_are_read_back() {
        for family in FAMILIES {
            let peer = Peer::new(family);
            let segment = peer.ack().timestamps(7, 9).sack(&[(10, 20), (30, 40)]);
            let Body::Tcp(seen) = read(&Vec::from(segment)).unwrap().body else {
                panic!("a segment");
            };
            assert_eq!(seen.timestamps, Some((7, 9)));
            assert_eq!(seen.sack, [(10, 20), (30, 40)]);
        }
    }
}
