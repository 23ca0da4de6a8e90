//! IP: one packet in, proven; one header out.

use core::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, IpRepr, IpVersion, Ipv4Packet, Ipv6Packet};

use crate::checksum::Sum;
use crate::counters::DropReason;
use crate::turn::Turn;

/// TTL and hop limit of all we send (RFC 1700).
const HOP_LIMIT: u8 = 64;

/// A received packet whose IP header is sound: version, lengths, checksum and
/// addresses hold, and it is no fragment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IpPacket<'a> {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: IpProtocol,
    /// From the IP header to the end of the IP payload; link padding is gone.
    pub(crate) whole: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> IpPacket<'a> {
    /// Parses and proves one packet; `verify` says whether its checksums count.
    pub(crate) fn parse(packet: &'a [u8], verify: bool) -> Result<Self, DropReason> {
        let parsed = match version(packet) {
            Some(IpVersion::Ipv4) => Self::parse_v4(packet, verify)?,
            Some(IpVersion::Ipv6) => Self::parse_v6(packet)?,
            None => return Err(DropReason::IpVersion),
        };
        if is_martian(parsed.src) || is_martian(parsed.dst) {
            return Err(DropReason::Martian);
        }
        Ok(parsed)
    }

    fn parse_v4(packet: &'a [u8], verify: bool) -> Result<Self, DropReason> {
        let header = Ipv4Packet::new_checked(packet).map_err(|_| DropReason::Malformed)?;
        if verify && !header.verify_checksum() {
            return Err(DropReason::IpChecksum);
        }
        if header.more_frags() || header.frag_offset() != 0 {
            return Err(DropReason::Fragment);
        }
        Ok(Self {
            src: header.src_addr().into(),
            dst: header.dst_addr().into(),
            protocol: header.next_header(),
            whole: &packet[..usize::from(header.total_len())],
            payload: header.payload(),
        })
    }

    fn parse_v6(packet: &'a [u8]) -> Result<Self, DropReason> {
        let header = Ipv6Packet::new_checked(packet).map_err(|_| DropReason::Malformed)?;
        if header.next_header() == IpProtocol::Ipv6Frag {
            return Err(DropReason::Fragment);
        }
        Ok(Self {
            src: header.src_addr().into(),
            dst: header.dst_addr().into(),
            protocol: header.next_header(),
            whole: &packet[..header.total_len()],
            payload: header.payload(),
        })
    }

    /// The sum over the pseudo-header and the payload: correct for TCP, UDP and
    /// ICMPv6 when the transport's checksum is.
    pub(crate) fn transport_sum(&self) -> Sum {
        Sum::pseudo_header(self.src, self.dst, self.protocol.into(), self.payload.len())
            .add(self.payload)
    }
}

/// The version of a packet that may be of any length; none when it is neither 4
/// nor 6.
pub(crate) fn version(packet: &[u8]) -> Option<IpVersion> {
    match packet.first()? >> 4 {
        4 => Some(IpVersion::Ipv4),
        6 => Some(IpVersion::Ipv6),
        _ => None,
    }
}

/// Whether an address cannot be an end of a flow: unspecified, this network,
/// loopback, multicast, reserved and broadcast (RFC 1122 3.2.1.3, RFC 6890, RFC
/// 4291 2.4).
pub(crate) fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(address) => {
            address.is_unspecified() || address.is_loopback() || address.is_multicast()
        }
    }
}

/// Bytes of the IP header that `send` writes.
pub(crate) fn header_length(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}

/// Makes one packet: the header, and the payload by `fill`, which gets its space
/// (the first bytes zeroed). The caller has made room.
pub(crate) fn send(
    turn: &mut Turn<'_>,
    src: IpAddr,
    dst: IpAddr,
    protocol: IpProtocol,
    payload_length: usize,
    fill: impl FnOnce(&mut [u8]),
) {
    let header = IpRepr::new(src.into(), dst.into(), protocol, payload_length, HOP_LIMIT);
    let length = header.header_len() + payload_length;
    let space = turn.egress.space(length);
    header.emit(&mut space[..], &checksums());
    fill(&mut space[header.header_len()..]);
    turn.egress.commit(length);
}

/// smoltcp fills the IPv4 header's checksum; the rest is ours (`checksum.rs`),
/// verified before it sees a packet and filled after.
pub(crate) fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::ignored();
    checksums.ipv4 = smoltcp::phy::Checksum::Tx;
    checksums
}
