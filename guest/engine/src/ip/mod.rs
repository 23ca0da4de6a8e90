//! IP: packets and fragments in, proven; packets and fragments out.

mod extension;
mod fragment;
pub(crate) mod identification;
mod outgoing;
pub(crate) mod reassembly;
mod report;
mod v4;
mod v6;

use core::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, IpVersion};

use crate::checksum::Sum;
use crate::counters::DropReason;

pub(crate) use self::extension::upper;
pub(crate) use self::fragment::Fragment;
pub(crate) use self::outgoing::{Datagram, send, write_header};
pub(crate) use self::report::{Problem, Rejected, Report};

/// The largest IPv4 packet, and the most that can follow the header of an IPv6
/// packet without jumbograms (RFC 791 3.1, RFC 8200 3).
pub(crate) const MOST_BYTES: usize = 65_535;

/// What a packet is, once its IP headers are proven.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Received<'a> {
    Packet(IpPacket<'a>),
    Fragment(Fragment<'a>),
}

/// A received packet whose IP headers are sound: version, lengths, checksum,
/// addresses and extension headers hold, and it is no fragment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IpPacket<'a> {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: IpProtocol,
    /// Where in `whole` the protocol is named.
    protocol_at: usize,
    /// From the IP header to the end of the IP payload; link padding is gone.
    pub(crate) whole: &'a [u8],
    /// What follows the last IP header.
    pub(crate) payload: &'a [u8],
}

/// Parses and proves one packet; `verify` says whether its checksums count.
pub(crate) fn parse(packet: &[u8], verify: bool) -> Result<Received<'_>, Rejected<'_>> {
    match version(packet) {
        Some(IpVersion::Ipv4) => v4::parse(packet, verify),
        Some(IpVersion::Ipv6) => v6::parse(packet),
        None => Err(DropReason::IpVersion.into()),
    }
}

impl<'a> IpPacket<'a> {
    /// The sum over the pseudo-header and the payload: correct for TCP, UDP and
    /// ICMPv6 when the transport's checksum is.
    pub(crate) fn transport_sum(&self) -> Sum {
        Sum::pseudo_header(self.src, self.dst, self.protocol.into(), self.payload.len())
            .add(self.payload)
    }

    /// The refusal of a protocol that nobody here speaks.
    pub(crate) fn unsupported(&self) -> Rejected<'a> {
        let problem = match (self.src, self.protocol) {
            // RFC 1122 3.2.2.1.
            (IpAddr::V4(_), _) => Some(Problem::Protocol),
            // RFC 8200 4.7: nothing follows, and nothing is wrong.
            (IpAddr::V6(_), IpProtocol::Ipv6NoNxt) => None,
            // RFC 4443 3.4, RFC 8200 4: also a hop-by-hop header that is not the
            // first.
            (IpAddr::V6(_), _) => Some(Problem::Parameter {
                code: 1,
                pointer: self.protocol_at,
            }),
        };
        Rejected {
            reason: DropReason::UnsupportedProtocol,
            report: problem.map(|problem| Report {
                src: self.src,
                dst: self.dst,
                problem,
                quote: self.whole,
            }),
        }
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

/// Whether an address cannot be an end of a flow. IPv4: this network, loopback,
/// multicast, reserved and the limited broadcast (RFC 1122 3.2.1.3, RFC 6890 2.2.2;
/// the broadcast addresses of subnets are not known to us). IPv6: unspecified,
/// loopback, multicast (RFC 4291 2.5, 2.7) and IPv4-mapped, which must not be on
/// the wire (RFC 6890 2.2.3) and would name the ends of an IPv4 flow.
pub(crate) fn is_martian(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => matches!(address.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(address) => {
            address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.to_ipv4_mapped().is_some()
        }
    }
}

fn refuse_martians(src: IpAddr, dst: IpAddr) -> Result<(), DropReason> {
    match is_martian(src) || is_martian(dst) {
        true => Err(DropReason::Martian),
        false => Ok(()),
    }
}

/// Bytes of the IP header that `send` writes.
pub(crate) fn header_length(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => 20,
        IpAddr::V6(_) => 40,
    }
}

/// Most bytes that can follow the IP header, in one packet or in fragments.
pub(crate) fn most_payload(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(_) => MOST_BYTES - 20,
        IpAddr::V6(_) => MOST_BYTES,
    }
}

/// An address in the bytes that both families share.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// smoltcp fills the IPv4 header's checksum; the rest is ours (`checksum.rs`),
/// verified before it sees a packet and filled after.
pub(crate) fn checksums() -> ChecksumCapabilities {
    let mut checksums = ChecksumCapabilities::ignored();
    checksums.ipv4 = smoltcp::phy::Checksum::Tx;
    checksums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flow_has_a_martian_for_an_end() {
        let martians = [
            "0.0.0.0",
            "0.255.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "224.0.0.0",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff00::",
            "ff02::1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "::ffff:192.0.2.1",
        ];
        for text in martians {
            assert!(is_martian(text.parse().unwrap()), "{text}");
        }
        let others = [
            "1.0.0.0",
            "10.0.0.255",
            "126.255.255.255",
            "128.0.0.1",
            "169.254.1.1",
            "192.0.2.255",
            "223.255.255.255",
            "::2",
            "::fffe:c000:201",
            "64:ff9b::192.0.2.1",
            "fe80::1",
            "fc00::1",
            "feff::1",
        ];
        for text in others {
            assert!(!is_martian(text.parse().unwrap()), "{text}");
        }
    }
}
