//! IP: one packet in, proven.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, IpVersion, Ipv4Packet, Ipv6Packet};

use super::checksum::Sum;

/// A received packet whose IP header is sound.
#[derive(Clone, Copy, Debug)]
pub(super) struct IpPacket<'a> {
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) protocol: IpProtocol,
    /// From the IP header to the end of the IP payload.
    pub(super) whole: &'a [u8],
    pub(super) payload: &'a [u8],
}

impl<'a> IpPacket<'a> {
    pub(super) fn parse(packet: &'a [u8], verify: bool) -> Option<Self> {
        let parsed = match version(packet)? {
            IpVersion::Ipv4 => Self::parse_v4(packet, verify)?,
            IpVersion::Ipv6 => Self::parse_v6(packet)?,
        };
        (!is_martian(parsed.src) && !is_martian(parsed.dst)).then_some(parsed)
    }

    fn parse_v4(packet: &'a [u8], verify: bool) -> Option<Self> {
        let header = Ipv4Packet::new_checked(packet).ok()?;
        if verify && !header.verify_checksum() {
            return None;
        }
        if header.more_frags() || header.frag_offset() != 0 {
            return None;
        }
        Some(Self {
            src: header.src_addr().into(),
            dst: header.dst_addr().into(),
            protocol: header.next_header(),
            whole: &packet[..usize::from(header.total_len())],
            payload: header.payload(),
        })
    }

    fn parse_v6(packet: &'a [u8]) -> Option<Self> {
        let header = Ipv6Packet::new_checked(packet).ok()?;
        Some(Self {
            src: header.src_addr().into(),
            dst: header.dst_addr().into(),
            protocol: header.next_header(),
            whole: &packet[..header.total_len()],
            payload: header.payload(),
        })
    }

    /// The sum over the pseudo-header and the payload.
    pub(super) fn transport_sum(&self) -> Sum {
        Sum::pseudo_header(self.src, self.dst, self.protocol.into(), self.payload.len())
            .add(self.payload)
    }
}

/// The version of a packet; none when it is neither 4 nor 6.
pub(super) fn version(packet: &[u8]) -> Option<IpVersion> {
    match packet.first()? >> 4 {
        4 => Some(IpVersion::Ipv4),
        6 => Some(IpVersion::Ipv6),
        _ => None,
    }
}

fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(address) => {
            address.is_unspecified() || address.is_loopback() || address.is_multicast()
        }
    }
}

pub(super) fn header_length(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}

/// smoltcp fills the IPv4 header's checksum; the rest is filled after it.
pub(super) fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::ignored();
    checksums.ipv4 = smoltcp::phy::Checksum::Tx;
    checksums
}
