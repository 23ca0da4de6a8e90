//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echo, and destination unreachable both
//! ways.

use core::net::IpAddr;

use smoltcp::wire::{IpProtocol, IpRepr, IpVersion, Ipv4Packet, Ipv6Packet};

use crate::checksum::Sum;
use crate::counters::DropReason;
use crate::ip::{self, IpPacket};
use crate::tcp::{Syn, segment};
use crate::tuple::Tuple;
use crate::turn::Turn;
use crate::types::{Protocol, Refusal, Unreachable};

/// Type, code, checksum, and four bytes that depend on the type.
pub(crate) const HEADER: usize = 8;
/// What of a packet an error must quote beyond its IP header (RFC 792).
const QUOTED: usize = 8;

/// A received message that means something to us, checksum verified.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Message<'a> {
    /// An echo request: its identifier is the peer's port; the body is the
    /// sequence number and the data.
    EchoRequest { tuple: Tuple, body: &'a [u8] },
    /// An error about a packet of ours.
    Unreachable {
        tuple: Tuple,
        /// The sequence number of the quoted segment, if TCP.
        seq: u32,
        reason: Unreachable,
    },
}

impl<'a> Message<'a> {
    pub(crate) fn parse(packet: &IpPacket<'a>, verify: bool) -> Result<Self, DropReason> {
        let payload = packet.payload;
        let Some((header, rest)) = payload.split_first_chunk::<HEADER>() else {
            return Err(DropReason::Malformed);
        };
        let sum = match packet.src {
            IpAddr::V4(_) => Sum::default().add(payload),
            IpAddr::V6(_) => packet.transport_sum(),
        };
        if verify && !sum.is_correct() {
            return Err(DropReason::TransportChecksum);
        }
        let [kind, code, ..] = *header;
        match (packet.src, kind) {
            (IpAddr::V4(_), 8) | (IpAddr::V6(_), 128) if packet.src == packet.dst => {
                Err(DropReason::Martian)
            }
            (IpAddr::V4(_), 8) | (IpAddr::V6(_), 128) if code == 0 => Ok(Self::EchoRequest {
                tuple: Tuple {
                    protocol: Protocol::IcmpEcho,
                    local: packet.dst,
                    peer: packet.src,
                    local_port: 0,
                    peer_port: u16::from_be_bytes([header[4], header[5]]),
                },
                body: &payload[6..],
            }),
            (IpAddr::V4(_), 3) | (IpAddr::V6(_), 1) => {
                let reason = match packet.src {
                    IpAddr::V4(_) => reason_v4(code)?,
                    IpAddr::V6(_) => reason_v6(code),
                };
                let (tuple, seq) = quoted(rest).ok_or(DropReason::IcmpIgnored)?;
                Ok(Self::Unreachable { tuple, seq, reason })
            }
            _ => Err(DropReason::IcmpIgnored),
        }
    }
}

/// The codes of RFC 792, RFC 1122 3.2.2.1 and RFC 1812 5.2.7.1. Code 4 is about
/// the size of the packet, not about the destination.
fn reason_v4(code: u8) -> Result<Unreachable, DropReason> {
    match code {
        0 | 6 | 11 => Ok(Unreachable::Network),
        1 | 7 | 8 | 12 => Ok(Unreachable::Host),
        2 => Ok(Unreachable::Protocol),
        3 => Ok(Unreachable::Port),
        4 => Err(DropReason::IcmpIgnored),
        9 | 10 | 13 => Ok(Unreachable::Prohibited),
        _ => Ok(Unreachable::Other),
    }
}

/// The codes of RFC 4443 3.1.
fn reason_v6(code: u8) -> Unreachable {
    match code {
        0 => Unreachable::Network,
        1 | 5 | 6 => Unreachable::Prohibited,
        3 => Unreachable::Host,
        4 => Unreachable::Port,
        _ => Unreachable::Other,
    }
}

/// The tuple of the packet of ours that an error quotes, and, if it is TCP, the
/// sequence number. The quote may be cut off anywhere after the ports.
fn quoted(quote: &[u8]) -> Option<(Tuple, u32)> {
    let (local, peer, protocol, payload) = match ip::version(quote)? {
        IpVersion::Ipv4 if quote.len() >= 20 => {
            let header = Ipv4Packet::new_unchecked(quote);
            let payload = quote.get(usize::from(header.header_len())..)?;
            (
                IpAddr::V4(header.src_addr()),
                IpAddr::V4(header.dst_addr()),
                header.next_header(),
                payload,
            )
        }
        IpVersion::Ipv6 if quote.len() >= 40 => {
            let header = Ipv6Packet::new_unchecked(quote);
            (
                IpAddr::V6(header.src_addr()),
                IpAddr::V6(header.dst_addr()),
                header.next_header(),
                &quote[40..],
            )
        }
        IpVersion::Ipv4 | IpVersion::Ipv6 => return None,
    };
    let protocol = match protocol {
        IpProtocol::Tcp => Protocol::Tcp,
        IpProtocol::Udp => Protocol::Udp,
        _ => return None,
    };
    let [p0, p1, p2, p3, seq @ ..] = *payload.first_chunk::<QUOTED>()?;
    let tuple = Tuple {
        protocol,
        local,
        peer,
        local_port: u16::from_be_bytes([p0, p1]),
        peer_port: u16::from_be_bytes([p2, p3]),
    };
    Some((tuple, u32::from_be_bytes(seq)))
}

/// Answers an echo request with this identifier (the tuple's peer port) and body
/// (sequence number and data). The caller has made room.
pub(crate) fn send_echo_reply(turn: &mut Turn<'_>, tuple: &Tuple, body: &[u8]) {
    let kind = match tuple.local {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => 129,
    };
    send(
        turn,
        tuple.local,
        tuple.peer,
        HEADER - 2 + body.len(),
        |space| {
            space[0] = kind;
            space[4..6].copy_from_slice(&tuple.peer_port.to_be_bytes());
            space[6..].copy_from_slice(body);
        },
    );
}

/// Tells the peer that its packet `quote` went nowhere. The caller has made room.
pub(crate) fn send_unreachable(turn: &mut Turn<'_>, tuple: &Tuple, refusal: Refusal, quote: &[u8]) {
    let (kind, code, most) = match tuple.local {
        // RFC 1812 4.3.2.3: no longer than 576 bytes.
        IpAddr::V4(_) => (3, code_v4(tuple.protocol, refusal), 576),
        // RFC 4443 3.1: no longer than the minimum MTU.
        IpAddr::V6(_) => (1, code_v6(tuple.protocol, refusal), 1280),
    };
    let quote = &quote[..quote
        .len()
        .min(most - ip::header_length(tuple.local) - HEADER)];
    send(
        turn,
        tuple.local,
        tuple.peer,
        HEADER + quote.len(),
        |space| {
            space[..2].copy_from_slice(&[kind, code]);
            space[HEADER..].copy_from_slice(quote);
        },
    );
}

fn code_v4(protocol: Protocol, refusal: Refusal) -> u8 {
    match (refusal, protocol) {
        (Refusal::NetworkUnreachable, _) => 0,
        (Refusal::HostUnreachable, _) => 1,
        (Refusal::Reset, Protocol::Tcp | Protocol::Udp) | (Refusal::PortUnreachable, _) => 3,
        (Refusal::Reset, Protocol::IcmpEcho) | (Refusal::Prohibited, _) => 13,
    }
}

fn code_v6(protocol: Protocol, refusal: Refusal) -> u8 {
    match (refusal, protocol) {
        (Refusal::NetworkUnreachable, _) => 0,
        (Refusal::HostUnreachable, _) => 3,
        (Refusal::Reset, Protocol::Tcp | Protocol::Udp) | (Refusal::PortUnreachable, _) => 4,
        (Refusal::Reset, Protocol::IcmpEcho) | (Refusal::Prohibited, _) => 1,
    }
}

/// The peer's first packet as far as a flow that waited remembers it: enough for
/// the peer to tell which of its packets an error is about.
pub(crate) fn recall(tuple: &Tuple, syn: Option<&Syn>) -> ([u8; 80], usize) {
    let mut packet = [0; 80];
    let (protocol, length) = match (tuple.protocol, syn) {
        (Protocol::Tcp, _) => (
            IpProtocol::Tcp,
            syn.map_or(20, |syn| syn.repr(tuple).buffer_len()),
        ),
        (Protocol::Udp, _) => (IpProtocol::Udp, QUOTED),
        (Protocol::IcmpEcho, _) if tuple.local.is_ipv4() => (IpProtocol::Icmp, QUOTED),
        (Protocol::IcmpEcho, _) => (IpProtocol::Icmpv6, QUOTED),
    };
    let header = IpRepr::new(tuple.peer.into(), tuple.local.into(), protocol, length, 64);
    let (ip, rest) = packet.split_at_mut(header.header_len());
    header.emit(ip, &ip::checksums());
    match (tuple.protocol, syn) {
        (Protocol::Tcp, Some(syn)) => {
            segment::emit(
                &syn.repr(tuple),
                &mut rest[..length],
                tuple.peer,
                tuple.local,
            );
        }
        (Protocol::Tcp, None) | (Protocol::Udp, _) => {
            rest[..2].copy_from_slice(&tuple.peer_port.to_be_bytes());
            rest[2..4].copy_from_slice(&tuple.local_port.to_be_bytes());
            rest[5] = 8;
        }
        (Protocol::IcmpEcho, _) => {
            rest[0] = if tuple.local.is_ipv4() { 8 } else { 128 };
            rest[4..6].copy_from_slice(&tuple.peer_port.to_be_bytes());
        }
    }
    (packet, header.header_len() + length)
}

/// Makes one message; `fill` writes all but the checksum.
fn send(
    turn: &mut Turn<'_>,
    src: IpAddr,
    dst: IpAddr,
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) {
    let protocol = match src {
        IpAddr::V4(_) => IpProtocol::Icmp,
        IpAddr::V6(_) => IpProtocol::Icmpv6,
    };
    ip::send(turn, src, dst, protocol, length, |space| {
        fill(space);
        let sum = match src {
            IpAddr::V4(_) => Sum::default(),
            IpAddr::V6(_) => Sum::pseudo_header(src, dst, protocol.into(), length),
        };
        let checksum = sum.add(space).finish();
        space[2..4].copy_from_slice(&checksum);
    });
}
