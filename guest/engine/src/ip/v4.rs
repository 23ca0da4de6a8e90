//! The header of IPv4 (RFC 791 3.1). Options are passed over (RFC 1122 3.2.1.8).

use core::net::IpAddr;

use smoltcp::wire::Ipv4Packet;

use super::{Fragment, IpPacket, Received, Rejected, refuse_martians};
use crate::checksum::Sum;
use crate::counters::DropReason;

/// Where the header names the protocol.
const PROTOCOL_AT: usize = 9;

pub(super) fn parse(packet: &[u8], verify: bool) -> Result<Received<'_>, Rejected<'_>> {
    let header = Ipv4Packet::new_checked(packet).map_err(|_| DropReason::Malformed)?;
    let header_bytes = &packet[..usize::from(header.header_len())];
    if verify && !Sum::default().add(header_bytes).is_correct() {
        return Err(DropReason::IpChecksum.into());
    }
    let (src, dst) = (IpAddr::V4(header.src_addr()), IpAddr::V4(header.dst_addr()));
    refuse_martians(src, dst)?;
    let whole = &packet[..usize::from(header.total_len())];
    let payload = &whole[usize::from(header.header_len())..];
    if header.more_frags() || header.frag_offset() != 0 {
        let fragment = Fragment {
            src,
            dst,
            protocol: header.next_header(),
            protocol_at: PROTOCOL_AT,
            id: header.ident().into(),
            offset: header.frag_offset().into(),
            more: header.more_frags(),
            whole,
            payload,
        };
        return fragment.proven().map(Received::Fragment);
    }
    Ok(Received::Packet(IpPacket {
        src,
        dst,
        protocol: header.next_header(),
        protocol_at: PROTOCOL_AT,
        whole,
        payload,
    }))
}
