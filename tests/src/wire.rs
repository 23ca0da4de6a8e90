//! An independent reader of packets: written from the RFCs, sharing no code with
//! the engine. Whatever the engine emits has to pass [`read`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// TCP flags (RFC 9293 3.1).
pub const FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// Reset.
pub const RST: u8 = 0x04;
/// Push.
pub const PSH: u8 = 0x08;
/// The acknowledgement number is valid.
pub const ACK: u8 = 0x10;
/// The urgent pointer is valid.
pub const URG: u8 = 0x20;

/// IP protocol numbers.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// A packet as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Source.
    pub from: IpAddr,
    /// Destination.
    pub to: IpAddr,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// Bytes of the whole packet.
    pub length: usize,
    /// What it carries.
    pub body: Body,
}

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A TCP segment.
    Tcp(Tcp),
    /// A UDP datagram.
    Udp(Udp),
    /// An ICMP or ICMPv6 message.
    Icmp(Icmp),
    /// A piece of a larger packet: see [`reassemble`].
    Fragment(Fragment),
}

/// A piece of a larger packet (RFC 791 3.2, RFC 8200 4.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What the pieces of one packet have in common.
    pub id: u32,
    /// What the whole packet carries.
    pub protocol: u8,
    /// Where in the whole this piece lies, in bytes.
    pub offset: usize,
    /// Whether more follows.
    pub more: bool,
    /// The piece.
    pub payload: Vec<u8>,
}

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Source.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK, as it stands in the header.
    pub ack: u32,
    /// The flags.
    pub flags: u8,
    /// SEG.WND, unscaled.
    pub window: u16,
    /// Option 2.
    pub mss: Option<u16>,
    /// Option 3.
    pub window_scale: Option<u8>,
    /// Option 4.
    pub sack_permitted: bool,
    /// Option 5.
    pub sack: Vec<(u32, u32)>,
    /// Option 8.
    pub timestamps: Option<(u32, u32)>,
    /// The data.
    pub payload: Vec<u8>,
}

/// A UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Udp {
    /// Source.
    pub from: SocketAddr,
    /// Destination.
    pub to: SocketAddr,
    /// The data.
    pub payload: Vec<u8>,
}

/// An ICMP or ICMPv6 message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// The four bytes after the checksum.
    pub rest: [u8; 4],
    /// What follows: echo data, or the quoted packet.
    pub payload: Vec<u8>,
}

/// The internet checksum (RFC 1071) over several parts, each but the last of even
/// length.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        let (pairs, odd) = part.as_chunks();
        let words = pairs
            .iter()
            .map(|pair| u64::from(u16::from_be_bytes(*pair)));
        sum += words.sum::<u64>();
        if let [last] = odd {
            sum += u64::from(u16::from_be_bytes([*last, 0]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// The pseudo-header of TCP, UDP and ICMPv6 (RFC 9293 3.1, RFC 8200 8.1).
#[must_use]
pub fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut header = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.extend(from.octets());
            header.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.extend(from.octets());
            header.extend(to.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            panic!("{from} and {to} are of two families")
        }
    }
    header.extend(u32::try_from(length).expect("a packet").to_be_bytes());
    header.extend([0, 0, 0, protocol]);
    header
}

/// Reads a packet and checks all that an emitted packet has to hold: lengths,
/// checksums, well-formed options and extension headers.
pub fn read(packet: &[u8]) -> Result<Seen, String> {
    let version = packet.first().ok_or("empty")? >> 4;
    let layer = match version {
        4 => read_ipv4(packet)?,
        6 => read_ipv6(packet)?,
        other => return Err(format!("IP version {other}")),
    };
    ensure(layer.hop_limit > 0, || "hop limit 0".into())?;
    let body = match layer.piece {
        Some((id, offset, more)) => Body::Fragment(read_fragment(&layer, id, offset, more)?),
        None => read_body(layer.from, layer.to, layer.protocol, layer.payload)?,
    };
    Ok(Seen {
        from: layer.from,
        to: layer.to,
        hop_limit: layer.hop_limit,
        length: packet.len(),
        body,
    })
}

/// Puts the pieces of one packet together, in whatever order they came: complete,
/// without overlap (RFC 5722), and whole by the rules of its transport.
pub fn reassemble(pieces: &[Seen]) -> Result<Seen, String> {
    let first = pieces.first().ok_or("no fragments")?;
    let mut sorted = Vec::new();
    for piece in pieces {
        let Body::Fragment(fragment) = &piece.body else {
            return Err(format!("not a fragment: {piece}"));
        };
        sorted.push(fragment);
    }
    sorted.sort_by_key(|fragment| fragment.offset);
    let (id, protocol) = (sorted[0].id, sorted[0].protocol);
    let (mut whole, mut ended) = (Vec::new(), false);
    for fragment in sorted {
        ensure(fragment.id == id && fragment.protocol == protocol, || {
            "fragments of two packets".into()
        })?;
        ensure(fragment.offset == whole.len() && !ended, || {
            format!(
                "a fragment at {} after {} bytes",
                fragment.offset,
                whole.len()
            )
        })?;
        whole.extend_from_slice(&fragment.payload);
        ended = !fragment.more;
    }
    ensure(ended, || "the last fragment is missing".into())?;
    Ok(Seen {
        length: whole.len(),
        body: read_body(first.from, first.to, protocol, &whole)?,
        ..first.clone()
    })
}

fn read_body(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Result<Body, String> {
    match protocol {
        TCP => Ok(Body::Tcp(read_tcp(from, to, payload)?)),
        UDP => Ok(Body::Udp(read_udp(from, to, payload)?)),
        ICMP if from.is_ipv4() => Ok(Body::Icmp(read_icmp(&[], payload)?)),
        ICMPV6 if from.is_ipv6() => {
            let pseudo = pseudo_header(from, to, ICMPV6, payload.len());
            Ok(Body::Icmp(read_icmp(&pseudo, payload)?))
        }
        other => Err(format!("protocol {other}")),
    }
}

/// The IP layer of a packet, and what lies behind it.
struct Layer<'a> {
    from: IpAddr,
    to: IpAddr,
    hop_limit: u8,
    protocol: u8,
    /// Identification, offset in bytes, more fragments.
    piece: Option<(u32, usize, bool)>,
    payload: &'a [u8],
}

fn read_ipv4(packet: &[u8]) -> Result<Layer<'_>, String> {
    ensure(packet.len() >= 20, || "short IPv4 header".into())?;
    ensure(packet[0] & 15 == 5, || "IPv4 options".into())?;
    let total = usize::from(u16_at(packet, 2));
    ensure(total == packet.len(), || {
        format!("total length {total} of {} bytes", packet.len())
    })?;
    ensure(checksum(&[&packet[..20]]) == 0, || "IPv4 checksum".into())?;
    let address = |at: usize| {
        let octets: [u8; 4] = packet[at..at + 4].try_into().expect("four bytes");
        IpAddr::V4(Ipv4Addr::from(octets))
    };
    let word = u16_at(packet, 6);
    ensure(word & 0x8000 == 0, || "the reserved IPv4 flag".into())?;
    let (offset, more) = (usize::from(word & 0x1fff) * 8, word & 0x2000 != 0);
    let id = u32::from(u16_at(packet, 4));
    Ok(Layer {
        from: address(12),
        to: address(16),
        hop_limit: packet[8],
        protocol: packet[9],
        piece: (offset > 0 || more).then_some((id, offset, more)),
        payload: &packet[20..],
    })
}

fn read_ipv6(packet: &[u8]) -> Result<Layer<'_>, String> {
    ensure(packet.len() >= 40, || "short IPv6 header".into())?;
    let length = usize::from(u16_at(packet, 4));
    ensure(length + 40 == packet.len(), || {
        format!("payload length {length} of {} bytes", packet.len())
    })?;
    let address = |at: usize| {
        let octets: [u8; 16] = packet[at..at + 16].try_into().expect("sixteen bytes");
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let mut layer = Layer {
        from: address(8),
        to: address(24),
        hop_limit: packet[7],
        protocol: packet[6],
        piece: None,
        payload: &packet[40..],
    };
    while let 0 | 43 | 44 | 60 = layer.protocol {
        let bytes = layer.payload;
        ensure(bytes.len() >= 8, || "short extension header".into())?;
        let length = if layer.protocol == 44 {
            ensure(layer.piece.is_none(), || "two fragment headers".into())?;
            let word = u16_at(bytes, 2);
            ensure(bytes[1] == 0 && word & 6 == 0, || {
                "reserved bits of the fragment header".into()
            })?;
            layer.piece = Some((u32_at(bytes, 4), usize::from(word & !7), word & 1 != 0));
            8
        } else {
            8 + usize::from(bytes[1]) * 8
        };
        ensure(bytes.len() >= length, || "long extension header".into())?;
        (layer.protocol, layer.payload) = (bytes[0], &bytes[length..]);
        if layer.piece.is_some() {
            break;
        }
    }
    Ok(layer)
}

fn read_fragment(
    layer: &Layer<'_>,
    id: u32,
    offset: usize,
    more: bool,
) -> Result<Fragment, String> {
    let payload = layer.payload.to_vec();
    ensure(!payload.is_empty(), || "an empty fragment".into())?;
    ensure(!more || payload.len().is_multiple_of(8), || {
        format!("a fragment of {} bytes before others", payload.len())
    })?;
    ensure(offset + payload.len() <= 65_535, || {
        format!("a fragment that ends at {}", offset + payload.len())
    })?;
    Ok(Fragment {
        id,
        protocol: layer.protocol,
        offset,
        more,
        payload,
    })
}

fn read_tcp(from: IpAddr, to: IpAddr, bytes: &[u8]) -> Result<Tcp, String> {
    ensure(bytes.len() >= 20, || "short TCP header".into())?;
    let header = usize::from(bytes[12] >> 4) * 4;
    ensure((20..=bytes.len()).contains(&header), || {
        format!("TCP data offset {header} of {} bytes", bytes.len())
    })?;
    ensure(bytes[12] & 15 == 0, || "TCP reserved bits".into())?;
    let pseudo = pseudo_header(from, to, TCP, bytes.len());
    ensure(checksum(&[&pseudo, bytes]) == 0, || "TCP checksum".into())?;
    let mut segment = Tcp {
        from: SocketAddr::new(from, u16_at(bytes, 0)),
        to: SocketAddr::new(to, u16_at(bytes, 2)),
        seq: u32_at(bytes, 4),
        ack: u32_at(bytes, 8),
        flags: bytes[13],
        window: u16_at(bytes, 14),
        mss: None,
        window_scale: None,
        sack_permitted: false,
        sack: Vec::new(),
        timestamps: None,
        payload: bytes[header..].to_vec(),
    };
    read_options(&bytes[20..header], &mut segment)?;
    Ok(segment)
}

fn read_options(mut options: &[u8], segment: &mut Tcp) -> Result<(), String> {
    while let Some((&kind, rest)) = options.split_first() {
        match kind {
            0 => {
                return ensure(rest.iter().all(|&b| b == 0), || {
                    "after end of options".into()
                });
            }
            1 => options = rest,
            _ => {
                let length = usize::from(*rest.first().ok_or("option without length")?);
                ensure((2..=options.len()).contains(&length), || {
                    format!("TCP option {kind} of length {length}")
                })?;
                let (option, next) = options.split_at(length);
                match (kind, length) {
                    (2, 4) => segment.mss = Some(u16_at(option, 2)),
                    (3, 3) => segment.window_scale = Some(option[2]),
                    (4, 2) => segment.sack_permitted = true,
                    (5, _) if length % 8 == 2 => segment.sack.extend(
                        option[2..]
                            .chunks(8)
                            .map(|block| (u32_at(block, 0), u32_at(block, 4))),
                    ),
                    (8, 10) => segment.timestamps = Some((u32_at(option, 2), u32_at(option, 6))),
                    _ => return Err(format!("TCP option {kind} of length {length}")),
                }
                options = next;
            }
        }
    }
    Ok(())
}

fn read_udp(from: IpAddr, to: IpAddr, bytes: &[u8]) -> Result<Udp, String> {
    ensure(bytes.len() >= 8, || "short UDP header".into())?;
    let length = usize::from(u16_at(bytes, 4));
    ensure(length == bytes.len(), || {
        format!("UDP length {length} of {} bytes", bytes.len())
    })?;
    ensure(u16_at(bytes, 6) != 0, || "UDP checksum 0".into())?;
    let pseudo = pseudo_header(from, to, UDP, bytes.len());
    ensure(checksum(&[&pseudo, bytes]) == 0, || "UDP checksum".into())?;
    Ok(Udp {
        from: SocketAddr::new(from, u16_at(bytes, 0)),
        to: SocketAddr::new(to, u16_at(bytes, 2)),
        payload: bytes[8..].to_vec(),
    })
}

fn read_icmp(pseudo: &[u8], bytes: &[u8]) -> Result<Icmp, String> {
    ensure(bytes.len() >= 8, || "short ICMP header".into())?;
    ensure(checksum(&[pseudo, bytes]) == 0, || "ICMP checksum".into())?;
    Ok(Icmp {
        kind: bytes[0],
        code: bytes[1],
        rest: bytes[4..8].try_into().expect("four bytes"),
        payload: bytes[8..].to_vec(),
    })
}

fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Seen {
    /// The TCP segment, or a panic that shows what it is instead.
    #[must_use]
    pub fn tcp(self) -> Tcp {
        match self.body {
            Body::Tcp(segment) => segment,
            Body::Udp(_) | Body::Icmp(_) | Body::Fragment(_) => panic!("not TCP: {self}"),
        }
    }

    /// The UDP datagram.
    #[must_use]
    pub fn udp(self) -> Udp {
        match self.body {
            Body::Udp(datagram) => datagram,
            Body::Tcp(_) | Body::Icmp(_) | Body::Fragment(_) => panic!("not UDP: {self}"),
        }
    }

    /// The ICMP message.
    #[must_use]
    pub fn icmp(self) -> Icmp {
        match self.body {
            Body::Icmp(message) => message,
            Body::Tcp(_) | Body::Udp(_) | Body::Fragment(_) => panic!("not ICMP: {self}"),
        }
    }
}

impl Tcp {
    /// Whether all of `flags` are set.
    #[must_use]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// The sequence number after this segment.
    #[must_use]
    pub fn end(&self) -> u32 {
        let flags = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        let length = u32::try_from(self.payload.len()).expect("a packet");
        self.seq.wrapping_add(length).wrapping_add(flags)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.body {
            Body::Tcp(segment) => write!(f, "{segment}"),
            Body::Udp(datagram) => write!(
                f,
                "{} > {} udp length {}",
                datagram.from,
                datagram.to,
                datagram.payload.len()
            ),
            Body::Icmp(message) => write!(
                f,
                "{} > {} icmp {}/{} {:02x?} length {}",
                self.from,
                self.to,
                message.kind,
                message.code,
                message.rest,
                message.payload.len()
            ),
            Body::Fragment(fragment) => write!(
                f,
                "{} > {} protocol {} fragment {:x} at {}{} length {}",
                self.from,
                self.to,
                fragment.protocol,
                fragment.id,
                fragment.offset,
                if fragment.more { "+" } else { "" },
                fragment.payload.len()
            ),
        }
    }
}

impl fmt::Display for Tcp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} > {} tcp {}",
            self.from,
            self.to,
            flag_letters(self.flags)
        )?;
        write!(f, " seq {}", self.seq)?;
        if self.has(ACK) {
            write!(f, " ack {}", self.ack)?;
        }
        write!(f, " window {}", self.window)?;
        if let Some(mss) = self.mss {
            write!(f, " mss {mss}")?;
        }
        if let Some(shift) = self.window_scale {
            write!(f, " scale {shift}")?;
        }
        if self.sack_permitted {
            write!(f, " sack-permitted")?;
        }
        for (left, right) in &self.sack {
            write!(f, " sack {left}-{right}")?;
        }
        if let Some((value, echo)) = self.timestamps {
            write!(f, " timestamps {value} {echo}")?;
        }
        write!(f, " length {}", self.payload.len())
    }
}

/// As tcpdump prints them.
#[must_use]
pub fn flag_letters(flags: u8) -> String {
    let letters = [
        (SYN, 'S'),
        (FIN, 'F'),
        (RST, 'R'),
        (PSH, 'P'),
        (ACK, '.'),
        (URG, 'U'),
    ];
    letters
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .map(|(_, letter)| letter)
        .collect()
}
