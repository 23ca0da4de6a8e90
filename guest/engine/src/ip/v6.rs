//! The header of IPv6 and the extension headers behind it (RFC 8200 3, 4).

use core::net::IpAddr;

use smoltcp::wire::{IpProtocol, Ipv6Packet};

use super::extension::{self, MOST_HEADERS, Next};
use super::report::Fault;
use super::{Fragment, IpPacket, Received, Rejected, refuse_martians};
use crate::counters::DropReason;

/// Where the header names what follows it.
const NEXT_AT: usize = 6;
const HEADER: usize = 40;

pub(super) fn parse(packet: &[u8]) -> Result<Received<'_>, Rejected<'_>> {
    let header = Ipv6Packet::new_checked(packet).map_err(|_| DropReason::Malformed)?;
    let (src, dst) = (IpAddr::V6(header.src_addr()), IpAddr::V6(header.dst_addr()));
    // A packet to a multicast address goes no further, whatever its options say:
    // there is no address to answer from.
    refuse_martians(src, dst)?;
    let whole = &packet[..header.total_len()];
    let mut next = Next {
        protocol: header.next_header(),
        named_at: NEXT_AT,
        at: HEADER,
    };
    for _ in 0..=MOST_HEADERS {
        let step = match next.protocol {
            IpProtocol::HopByHop if next.named_at == NEXT_AT => next.options(whole),
            IpProtocol::Ipv6Opts => next.options(whole),
            IpProtocol::Ipv6Route => next.routing(whole),
            IpProtocol::Ipv6Frag => match fragment(src, dst, whole, &next) {
                Ok(Some(fragment)) => return fragment.proven().map(Received::Fragment),
                Ok(None) => next.skip(whole, extension::FRAGMENT),
                Err(fault) => Err(fault),
            },
            protocol => {
                return Ok(Received::Packet(IpPacket {
                    src,
                    dst,
                    protocol,
                    protocol_at: next.named_at,
                    whole,
                    payload: &whole[next.at..],
                }));
            }
        };
        next = step.map_err(|fault| fault.about(src, dst, whole))?;
    }
    Err(DropReason::ExtensionHeader.into())
}

/// The fragment behind the fragment header at `next`; none if it is the whole
/// datagram (RFC 6946: such a packet meets no other fragment).
fn fragment<'a>(
    src: IpAddr,
    dst: IpAddr,
    whole: &'a [u8],
    next: &Next,
) -> Result<Option<Fragment<'a>>, Fault> {
    let Some((header, payload)) = whole[next.at..].split_first_chunk::<8>() else {
        return Err(Fault::silent(DropReason::Malformed));
    };
    let [protocol, _, high, low, id @ ..] = *header;
    let word = u16::from_be_bytes([high, low]);
    let (offset, more) = (usize::from(word & !7), word & 1 != 0);
    if offset == 0 && !more {
        return Ok(None);
    }
    Ok(Some(Fragment {
        src,
        dst,
        protocol: protocol.into(),
        protocol_at: next.named_at,
        id: u32::from_be_bytes(id),
        offset,
        more,
        whole,
        payload,
    }))
}
