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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::Problem;
    use alloc::vec;
    use alloc::vec::Vec;

    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        packet.extend([first, 64]);
        packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xb]);
        packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xa]);
        packet.extend(rest);
        packet
    }

    fn problem(packet: &[u8]) -> (DropReason, Option<(u8, usize)>) {
        let rejected = parse(packet).expect_err("a fault");
        let problem = rejected.report.map(|report| match report.problem {
            Problem::Parameter { code, pointer } => (code, pointer),
            other => panic!("{other:?}"),
        });
        (rejected.reason, problem)
    }

    const PADDING: [u8; 8] = [60, 0, 1, 4, 0, 0, 0, 0];

    #[test]
    fn a_chain_leads_to_its_end() {
        let mut chain = vec![43, 0, 5, 2, 0, 0, 0, 0]; // hop by hop: router alert
        chain.extend([60, 0, 0, 0, 0, 0, 0, 0]); // routing, no segments left
        chain.extend([44, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        chain.extend([60, 0, 0, 0, 0, 0, 0, 9]); // an atomic fragment
        chain.extend([17, 0, 0, 0, 0, 0, 0, 0]);
        chain.extend([1, 2, 3]);
        let packet = packet(0, &chain);
        let Ok(Received::Packet(found)) = parse(&packet) else {
            panic!("a packet");
        };
        assert_eq!(found.protocol, IpProtocol::Udp);
        assert_eq!((found.payload, found.protocol_at), (&[1, 2, 3][..], 80));
        assert_eq!(
            extension::upper(IpProtocol::HopByHop, &packet[40..]),
            Some((IpProtocol::Udp, &[1, 2, 3][..]))
        );
    }

    #[test]
    fn chains_are_bounded() {
        for (count, allowed) in [(MOST_HEADERS, true), (MOST_HEADERS + 1, false)] {
            let mut chain = PADDING.repeat(count);
            chain[8 * count - 8] = 59;
            let packet = packet(60, &chain);
            assert_eq!(parse(&packet).is_ok(), allowed, "{count}");
        }
    }

    #[test]
    fn headers_cut_off_or_overlong_are_malformed() {
        let malformed = (DropReason::Malformed, None);
        for kind in [0, 43, 60] {
            for length in 0..8 {
                assert_eq!(problem(&packet(kind, &[59; 8][..length])), malformed);
            }
            assert_eq!(
                problem(&packet(kind, &[59, 1, 0, 0, 0, 0, 0, 0])),
                malformed
            );
        }
        for length in 0..8 {
            assert_eq!(problem(&packet(44, &[0; 8][..length])), malformed);
        }
        // Options that run over the end of their header, by type or by length.
        for options in [[0, 0, 0, 0, 0, 1], [1, 5, 0, 0, 0, 0], [5, 2, 0, 0, 5, 1]] {
            let mut header = vec![59, 0];
            header.extend(options);
            header.extend([0; 8]);
            assert_eq!(problem(&packet(60, &header)), malformed, "{options:?}");
        }
    }

    #[test]
    fn pointers_count_from_the_start_of_the_packet() {
        let mut chain = PADDING.to_vec();
        chain.extend([59, 0, 1, 0, 0x80, 2, 0, 0]);
        let reason = DropReason::ExtensionHeader;
        assert_eq!(problem(&packet(60, &chain)), (reason, Some((2, 52))));
        let mut chain = PADDING.to_vec();
        chain[0] = 43;
        chain.extend([59, 0, 0, 1, 0, 0, 0, 0]);
        assert_eq!(problem(&packet(60, &chain)), (reason, Some((0, 50))));
    }

    #[test]
    fn impossible_fragments_are_told_of() {
        let reason = DropReason::Fragment;
        let fragment = |word: u16, length: usize| {
            let [high, low] = word.to_be_bytes();
            let mut rest = vec![17, 0, high, low, 0, 0, 0, 1];
            rest.resize(8 + length, 0);
            packet(44, &rest)
        };
        assert_eq!(problem(&fragment(8, 0)), (reason, None));
        assert_eq!(problem(&fragment(9, 12)), (reason, Some((0, 4))));
        assert_eq!(problem(&fragment(65_528, 8)), (reason, Some((0, 42))));
        assert!(parse(&fragment(65_528, 7)).is_ok());
        assert!(parse(&fragment(1, 8)).is_ok());
        // UDP behind options, the header in another fragment (RFC 7112).
        let mut rest = vec![60, 0, 0, 1, 0, 0, 0, 1];
        rest.extend([17, 0, 1, 4, 0, 0, 0, 0]);
        assert_eq!(problem(&packet(44, &rest)), (reason, Some((3, 0))));
        rest.extend([0; 8]);
        assert!(parse(&packet(44, &rest)).is_ok());
    }
}
