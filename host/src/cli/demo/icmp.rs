//! Echo requests and replies, as both kinds of client exchange them.

use std::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, Ipv4Packet, Ipv6Address};

/// Says which replies are ours.
pub(super) const IDENTIFIER: u16 = 0x13_14;

/// An echo request for `to`, from the ICMP header on. That of ICMPv6 has no
/// checksum yet: who sends it knows the addresses and fills it in.
pub(super) fn request(to: IpAddr, sequence: u16, data: &[u8]) -> Vec<u8> {
    if to.is_ipv4() {
        let request = Icmpv4Repr::EchoRequest {
            ident: IDENTIFIER,
            seq_no: sequence,
            data,
        };
        let mut bytes = vec![0; request.buffer_len()];
        request.emit(
            &mut Icmpv4Packet::new_unchecked(&mut bytes),
            &ChecksumCapabilities::default(),
        );
        bytes
    } else {
        let request = Icmpv6Repr::EchoRequest {
            ident: IDENTIFIER,
            seq_no: sequence,
            data,
        };
        let mut bytes = vec![0; request.buffer_len()];
        request.emit(
            &Ipv6Address::UNSPECIFIED,
            &Ipv6Address::UNSPECIFIED,
            &mut Icmpv6Packet::new_unchecked(&mut bytes),
            &ChecksumCapabilities::ignored(),
        );
        bytes
    }
}

/// The data of the reply to `sequence`, if `message` (from the ICMP header on) is that.
pub(super) fn reply(from: IpAddr, sequence: u16, message: &[u8]) -> Option<Vec<u8>> {
    // Whoever received it has verified the checksum.
    let caps = ChecksumCapabilities::ignored();
    let unspecified = Ipv6Address::UNSPECIFIED;
    let (ident, seq_no, data) = if from.is_ipv4() {
        let packet = Icmpv4Packet::new_checked(message).ok()?;
        match Icmpv4Repr::parse(&packet, &caps).ok()? {
            Icmpv4Repr::EchoReply {
                ident,
                seq_no,
                data,
            } => (ident, seq_no, data.to_vec()),
            _ => return None,
        }
    } else {
        let packet = Icmpv6Packet::new_checked(message).ok()?;
        match Icmpv6Repr::parse(&unspecified, &unspecified, &packet, &caps).ok()? {
            Icmpv6Repr::EchoReply {
                ident,
                seq_no,
                data,
            } => (ident, seq_no, data.to_vec()),
            _ => return None,
        }
    };
    (ident == IDENTIFIER && seq_no == sequence).then_some(data)
}

/// What follows the IPv4 header that a raw socket of the kernel hands out.
pub(super) fn behind_ipv4_header(packet: &[u8]) -> Option<&[u8]> {
    Some(Ipv4Packet::new_checked(packet).ok()?.payload())
}
