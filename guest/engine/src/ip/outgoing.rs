//! Packets out: one header, or as many as a datagram needs fragments.

use core::net::IpAddr;

use smoltcp::wire::{IPV4_HEADER_LEN, IpProtocol, IpRepr, Ipv4Packet};

use super::extension::FRAGMENT;
use super::{checksums, header_length};
use crate::checksum::Sum;
use crate::egress::Egress;
use crate::turn::Turn;

/// TTL and hop limit of all we send (RFC 1700).
const HOP_LIMIT: u8 = 64;

/// Makes one packet: the header, and the payload by `fill`, which gets its space
/// to write all of it. The caller has made room.
pub(crate) fn send(
    egress: &mut Egress,
    src: IpAddr,
    dst: IpAddr,
    protocol: IpProtocol,
    payload_length: usize,
    fill: impl FnOnce(&mut [u8]),
) {
    let length = header_length(src) + payload_length;
    let space = egress.space(length);
    write_header(space, src, dst, protocol);
    fill(&mut space[header_length(src)..]);
    egress.commit(length);
}

/// Writes the header of a packet that fills `space`.
pub(crate) fn write_header(space: &mut [u8], src: IpAddr, dst: IpAddr, protocol: IpProtocol) {
    let (IpAddr::V4(src), IpAddr::V4(dst)) = (src, dst) else {
        let payload_length = space.len() - header_length(src);
        let header = IpRepr::new(src.into(), dst.into(), protocol, payload_length, HOP_LIMIT);
        header.emit(space, &checksums());
        return;
    };
    // In an array of its own it is a few words in registers, checksum and all.
    let mut bytes = [0; IPV4_HEADER_LEN];
    let mut header = Ipv4Packet::new_unchecked(&mut bytes[..]);
    header.set_version(4);
    header.set_header_len(20); // `IPV4_HEADER_LEN`
    header.set_total_len(u16::try_from(space.len()).unwrap_or(u16::MAX));
    header.set_dont_frag(true);
    header.set_hop_limit(HOP_LIMIT);
    header.set_next_header(protocol);
    header.set_src_addr(src);
    header.set_dst_addr(dst);
    let sum = Sum::default().add(&bytes);
    bytes[10..12].copy_from_slice(&sum.finish());
    space[..IPV4_HEADER_LEN].copy_from_slice(&bytes);
}

/// A datagram to send, in one packet or in fragments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Datagram<'a> {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) protocol: IpProtocol,
    /// Of UDP or ICMP, with the checksum over header and data.
    pub(crate) header: [u8; 8],
    pub(crate) data: &'a [u8],
}

impl Datagram<'_> {
    /// Sends it in packets of at most `mtu` bytes. The caller has made room, which
    /// is room for all fragments: none is sent without the others.
    pub(crate) fn send(&self, turn: &mut Turn<'_>, mtu: usize) {
        if header_length(self.src) + self.length() <= mtu {
            let length = self.length();
            let egress = &mut *turn.egress;
            send(egress, self.src, self.dst, self.protocol, length, |space| {
                self.copy(0, space);
            });
            return;
        }
        let id = turn.identifications.next(self.src, self.dst);
        let overhead = match self.src {
            IpAddr::V4(_) => 20,
            IpAddr::V6(_) => 40 + FRAGMENT,
        };
        // All but the last carry a multiple of 8 bytes (RFC 791 3.2, RFC 8200 4.5).
        let most = (mtu - overhead) & !7;
        for offset in (0..self.length()).step_by(most) {
            let length = most.min(self.length() - offset);
            let more = offset + length < self.length();
            let space = turn.egress.space(overhead + length);
            match self.src {
                IpAddr::V4(_) => self.write_header_v4(space, id, offset, more),
                IpAddr::V6(_) => self.write_headers_v6(space, id, offset, more),
            }
            self.copy(offset, &mut space[overhead..]);
            turn.egress.commit(overhead + length);
        }
    }

    fn length(&self) -> usize {
        self.header.len() + self.data.len()
    }

    /// What begins at `offset`, as much as there is space for.
    fn copy(&self, offset: usize, space: &mut [u8]) {
        let header = self.header.get(offset..).unwrap_or(&[]);
        let header = &header[..header.len().min(space.len())];
        let (front, rest) = space.split_at_mut(header.len());
        front.copy_from_slice(header);
        let at = (offset + header.len()).saturating_sub(self.header.len());
        rest.copy_from_slice(&self.data[at..at + rest.len()]);
    }

    /// Without "don't fragment": a narrower link on the way may cut again.
    fn write_header_v4(&self, space: &mut [u8], id: u32, offset: usize, more: bool) {
        write_header(space, self.src, self.dst, self.protocol);
        let mut header = Ipv4Packet::new_unchecked(space);
        let [_, _, high, low] = id.to_be_bytes();
        header.set_ident(u16::from_be_bytes([high, low]));
        header.set_dont_frag(false);
        header.set_more_frags(more);
        header.set_frag_offset(u16::try_from(offset).unwrap_or(u16::MAX));
        header.fill_checksum();
    }

    fn write_headers_v6(&self, space: &mut [u8], id: u32, offset: usize, more: bool) {
        write_header(space, self.src, self.dst, IpProtocol::Ipv6Frag);
        let word = u16::try_from(offset).unwrap_or(u16::MAX) & !7 | u16::from(more);
        let header = &mut space[40..40 + FRAGMENT];
        header[..2].copy_from_slice(&[self.protocol.into(), 0]);
        header[2..4].copy_from_slice(&word.to_be_bytes());
        header[4..].copy_from_slice(&id.to_be_bytes());
    }
}
