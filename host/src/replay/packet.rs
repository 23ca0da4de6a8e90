//! The headers of a captured packet, for a reader that neither trusts nor judges
//! them: what is wrong with a packet is for the engine to find. And changes to a
//! TCP header that keep a right checksum right and a wrong one wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

/// IP protocol numbers.
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// TCP flags (RFC 9293 3.1).
pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

/// TCP options: maximum segment size, window scale, SACK permitted, SACK,
/// timestamps (RFC 9293 3.2, RFC 2018, RFC 7323).
pub(crate) const NO_OPERATION: u8 = 1;
pub(crate) const MAXIMUM_SEGMENT_SIZE: u8 = 2;
pub(crate) const WINDOW_SCALE: u8 = 3;
pub(crate) const SACK_PERMITTED: u8 = 4;
pub(crate) const SACK: u8 = 5;
pub(crate) const TIMESTAMPS: u8 = 8;

/// Where the parts of an IP packet are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    /// What follows the IP header and the extension headers of IPv6.
    pub(crate) protocol: u8,
    /// Where that starts.
    pub(crate) transport: usize,
    /// Where the packet ends, as its header has it. The bytes at hand may end
    /// before (they were cut) or after (a link's padding).
    pub(crate) end: usize,
    /// A part of a larger packet.
    pub(crate) fragment: bool,
}

impl Headers {
    /// `None` when there are not even addresses.
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::ipv4(packet),
            6 => Self::ipv6(packet),
            _ => None,
        }
    }

    fn ipv4(packet: &[u8]) -> Option<Self> {
        let header = packet.get(..20)?;
        let transport = usize::from(header[0] & 15) * 4;
        let total = usize::from(u16_at(header, 2));
        Some(Self {
            from: Ipv4Addr::from(array(header, 12)).into(),
            to: Ipv4Addr::from(array(header, 16)).into(),
            protocol: header[9],
            transport,
            // 0: the kernel's segmentation offload, of a packet above 64 KiB.
            end: if total == 0 { packet.len() } else { total },
            fragment: u16_at(header, 6) & 0x3fff != 0,
        })
    }

    fn ipv6(packet: &[u8]) -> Option<Self> {
        let header = packet.get(..40)?;
        let length = usize::from(u16_at(header, 4));
        let mut headers = Self {
            from: Ipv6Addr::from(array(header, 8)).into(),
            to: Ipv6Addr::from(array(header, 24)).into(),
            protocol: header[6],
            transport: 40,
            end: if length == 0 {
                packet.len()
            } else {
                40 + length
            },
            fragment: false,
        };
        // Hop-by-hop, routing and destination options, and fragment (RFC 8200 4).
        while let 0 | 43 | 44 | 60 = headers.protocol {
            let extension = packet.get(headers.transport..headers.transport + 8)?;
            let is_fragment = headers.protocol == 44;
            headers.fragment |= is_fragment && u16_at(extension, 2) & 0xfff9 != 0;
            headers.transport += match is_fragment {
                true => 8,
                false => (usize::from(extension[1]) + 1) * 8,
            };
            headers.protocol = extension[0];
        }
        Some(headers)
    }

    /// Both ends, for TCP and UDP with their ports at hand. Not for a fragment:
    /// only the first has ports, and the rest would be without it.
    pub(crate) fn sockets(&self, packet: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
        if self.fragment || !matches!(self.protocol, TCP | UDP) {
            return None;
        }
        let ports = packet.get(self.transport..self.transport + 4)?;
        Some((
            SocketAddr::new(self.from, u16_at(ports, 0)),
            SocketAddr::new(self.to, u16_at(ports, 2)),
        ))
    }

    /// The TCP segment in a packet that is one, with its header at hand.
    pub(crate) fn tcp(&self, packet: &[u8]) -> Option<Segment> {
        if self.protocol != TCP || self.fragment {
            return None;
        }
        let end = self.end.max(self.transport);
        let bytes = packet.get(self.transport..packet.len().min(end))?;
        let fixed = bytes.get(..20)?;
        let header = usize::from(fixed[12] >> 4) * 4;
        if header < 20 || header > bytes.len() {
            return None;
        }
        Some(Segment {
            header: self.transport..self.transport + header,
            seq: u32_at(fixed, 4),
            ack: u32_at(fixed, 8),
            flags: fixed[13],
            window: u16_at(fixed, 14),
            length: end - self.transport - header,
        })
    }

    /// The sum over the pseudo-header, folded and not inverted: what a sender
    /// leaves in the checksum field when its device is to complete it.
    pub(crate) fn pseudo_sum(&self) -> u16 {
        let length = self.end.saturating_sub(self.transport) as u64;
        let mut total = u64::from(self.protocol) + (length & 0xffff) + (length >> 16);
        for address in [self.from, self.to] {
            total += match address {
                IpAddr::V4(address) => sum(&address.octets()),
                IpAddr::V6(address) => sum(&address.octets()),
            };
        }
        fold(total)
    }

    /// Whether the transport's checksum is no more than that of the pseudo-header:
    /// captured on the sending machine, before its device completed it.
    pub(crate) fn is_offloaded(&self, packet: &[u8]) -> bool {
        let at = match self.protocol {
            TCP => 16,
            UDP => 6,
            _ => return false,
        };
        let Some(field) = packet.get(self.transport + at..self.transport + at + 2) else {
            return false;
        };
        !self.fragment && u16_at(field, 0) == self.pseudo_sum()
    }
}

/// A TCP segment, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Where its header is in the packet.
    pub(crate) header: Range<usize>,
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// Bytes of data, also those that were cut off.
    pub(crate) length: usize,
}

impl Segment {
    pub(crate) fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// The sequence number after this segment.
    pub(crate) fn next(&self) -> u32 {
        let flags = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        // No packet is longer than 4 GiB.
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        self.seq.wrapping_add(length).wrapping_add(flags)
    }

    /// The data at hand.
    pub(crate) fn payload<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        let end = packet.len().min(self.header.end + self.length);
        packet.get(self.header.end..end).unwrap_or_default()
    }

    /// The options in the segment's header.
    pub(crate) fn options<'a>(&self, packet: &'a [u8]) -> Options<'a> {
        let header = packet.get(self.header.clone()).unwrap_or_default();
        Options::of(header)
    }
}

/// The options of a TCP header: the kind of each, and where its bytes are in the
/// header. Ends where they make no sense.
#[derive(Clone, Debug)]
pub(crate) struct Options<'a> {
    header: &'a [u8],
    at: usize,
}

impl<'a> Options<'a> {
    pub(crate) fn of(header: &'a [u8]) -> Self {
        Self { header, at: 20 }
    }

    /// The first one of this kind.
    pub(crate) fn find(mut self, kind: u8) -> Option<Range<usize>> {
        self.find_map(|(found, range)| (found == kind).then_some(range))
    }
}

impl Iterator for Options<'_> {
    type Item = (u8, Range<usize>);

    fn next(&mut self) -> Option<Self::Item> {
        while *self.header.get(self.at)? == NO_OPERATION {
            self.at += 1;
        }
        let kind = self.header[self.at];
        let length = usize::from(*self.header.get(self.at + 1)?);
        let range = self.at..self.at + length;
        if kind == 0 || length < 2 || range.end > self.header.len() {
            return None;
        }
        self.at = range.end;
        Some((kind, range))
    }
}

/// Changes the header of a TCP segment, or any run of bytes that starts at an even
/// place of what its checksum covers. The checksum at `field` in it is brought
/// along (RFC 1624), so that one which was right stays right and one which was
/// wrong stays wrong; one that is left to the device covers none of this.
pub(crate) fn edit(
    bytes: &mut [u8],
    field: Range<usize>,
    offloaded: bool,
    change: impl FnOnce(&mut [u8]),
) {
    let before = sum(bytes);
    change(bytes);
    let after = sum(bytes);
    if offloaded || before == after {
        return;
    }
    let old = !u16_at(bytes, field.start);
    let removed = !fold(before);
    let new = !fold(u64::from(old) + u64::from(removed) + after);
    bytes[field].copy_from_slice(&new.to_be_bytes());
}

/// The checksum of a whole transport packet whose field is zero.
pub(crate) fn checksum(headers: &Headers, transport: &[u8]) -> u16 {
    !fold(u64::from(headers.pseudo_sum()) + sum(transport))
}

/// The sum of 16-bit words (RFC 1071), not folded.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    let total: u64 = words.by_ref().map(|word| u64::from(u16_at(word, 0))).sum();
    match words.remainder() {
        [last] => total + (u64::from(*last) << 8),
        _ => total,
    }
}

pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

/// `N` bytes from `at`; the caller has checked that they are there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

/// How far `a` is after `b` in the sequence (RFC 9293 3.4); negative: before.
pub(crate) fn distance(a: u32, b: u32) -> i64 {
    i64::from(a.wrapping_sub(b).cast_signed())
}
