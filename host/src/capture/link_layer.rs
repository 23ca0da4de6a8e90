//! From a frame of a link to the IP packet in it.
//!
//! The link types are those of <https://www.tcpdump.org/linktypes.html>.

use super::{Content, Direction, Other};

/// A link whose frames can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Ethernet,
    /// The packet and nothing else: raw IP, IPv4, IPv6.
    Raw,
    /// An address family, in one byte order or the other, and the packet.
    Null,
    Cooked,
    Cooked2,
    /// Its frames cannot be opened.
    Unsupported(u16),
}

impl Link {
    pub(super) fn new(number: u16) -> Self {
        match number {
            0 | 108 => Self::Null,
            1 => Self::Ethernet,
            12 | 14 | 101 | 228 | 229 => Self::Raw,
            113 => Self::Cooked,
            276 => Self::Cooked2,
            other => Self::Unsupported(other),
        }
    }

    /// What the captured part of a frame holds. `whole`: all of it was captured.
    pub(super) fn open(self, frame: &[u8], whole: bool) -> (Content<'_>, Option<Direction>) {
        let direction = self.direction(frame);
        let content = match self {
            Self::Ethernet => tagged(frame, 12, 14).map(unpadded),
            Self::Cooked => tagged(frame, 14, 16).map(unpadded),
            Self::Cooked2 => tagged(frame, 0, 20).map(unpadded),
            Self::Null => loopback(frame),
            Self::Raw => Ok(frame),
            Self::Unsupported(number) => Err(Other::LinkType(number)),
        };
        let content = match content {
            Ok(packet) if whole || is_complete(packet) => Content::Ip(packet),
            Ok(packet) => Content::Cut(packet),
            Err(other) => Content::Other(other),
        };
        (content, direction)
    }

    /// The packet type of the cooked headers: 4 is what this host sent.
    fn direction(self, frame: &[u8]) -> Option<Direction> {
        let kind = match self {
            Self::Cooked => be16(frame, 0)?,
            Self::Cooked2 => u16::from(*frame.get(10)?),
            Self::Ethernet | Self::Raw | Self::Null | Self::Unsupported(_) => return None,
        };
        Some(match kind {
            4 => Direction::Outbound,
            _ => Direction::Inbound,
        })
    }
}

/// What is behind a header with an EtherType at `kind`, and behind any VLAN tags
/// (IEEE 802.1Q, 802.1ad, and the older 0x9100), which each end in another.
fn tagged(frame: &[u8], kind: usize, header: usize) -> Result<&[u8], Other> {
    let mut ether_type = be16(frame, kind).ok_or(Other::TooShort)?;
    let mut rest = frame.get(header..).ok_or(Other::TooShort)?;
    while let 0x8100 | 0x88a8 | 0x9100 = ether_type {
        ether_type = be16(rest, 2).ok_or(Other::TooShort)?;
        rest = &rest[4..];
    }
    match ether_type {
        0x0800 | 0x86dd => Ok(rest),
        0x0806 => Err(Other::Arp),
        other => Err(Other::EtherType(other)),
    }
}

/// 2 is IPv4 everywhere. IPv6 is 24 on NetBSD and OpenBSD, 28 on FreeBSD, 30 on
/// macOS, 10 on Linux, 23 on Windows.
fn loopback(frame: &[u8]) -> Result<&[u8], Other> {
    let (family, packet) = frame.split_first_chunk::<4>().ok_or(Other::TooShort)?;
    let big = u32::from_be_bytes(*family);
    let little = u32::from_le_bytes(*family);
    match (big, little) {
        (2 | 10 | 23 | 24 | 28 | 30, _) | (_, 2 | 10 | 23 | 24 | 28 | 30) => Ok(packet),
        (big, little) => Err(Other::Family(big.min(little))),
    }
}

/// Without the padding of a short frame, when the packet's own length is credible.
/// When it is not, nothing is cut: the engine shall judge.
fn unpadded(packet: &[u8]) -> &[u8] {
    match claimed_length(packet) {
        Some(length) if length < packet.len() => &packet[..length],
        _ => packet,
    }
}

/// Whether the packet is here to its own end, though its frame may not be.
fn is_complete(packet: &[u8]) -> bool {
    claimed_length(packet).is_some_and(|length| length <= packet.len())
}

/// What the header says, if it can be so: an IPv4 header's 20 bytes at least, and
/// something behind an IPv6 header (0 there is a jumbogram, RFC 2675).
fn claimed_length(packet: &[u8]) -> Option<usize> {
    match packet.first()? >> 4 {
        4 => Some(usize::from(be16(packet, 2)?)).filter(|length| *length >= 20),
        6 => Some(usize::from(be16(packet, 4)?))
            .filter(|length| *length > 0)
            .map(|length| length + 40),
        _ => None,
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}
