//! ICMP (RFC 792) and ICMPv6 (RFC 4443): echo, the errors that we send, and those
//! about packets of ours.

use core::net::IpAddr;

use smoltcp::wire::{IpProtocol, IpRepr, IpVersion, Ipv4Packet, Ipv6Packet};

use crate::checksum::Sum;
use crate::counters::DropReason;
use crate::ip::{self, IpPacket, Problem, Report};
use crate::tcp::{Syn, segment};
use crate::tuple::Tuple;
use crate::turn::Turn;
use crate::types::{Protocol, Refusal, Unreachable};

/// Type, code, checksum, and four bytes that depend on the type.
pub(crate) const HEADER: usize = 8;
/// What of a packet an error must quote beyond its IP header (RFC 792).
const QUOTED: usize = 8;
/// No path is believed to be narrower: every IPv4 host takes 576 bytes (RFC 791
/// 3.1), and lower claims make many small packets of a flow (RFC 5927 7).
const LEAST_MTU_V4: u16 = 576;
/// RFC 8200 5.
const LEAST_MTU_V6: u32 = 1280;

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
    /// A packet of ours was too big for a link on the way.
    PacketTooBig {
        tuple: Tuple,
        /// As of `Unreachable`.
        seq: u32,
        /// What the link takes; at least what every link has to.
        mtu: u32,
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
            (IpAddr::V4(_), 3) if code == 4 => {
                let quoted = Quoted::read(rest).ok_or(DropReason::IcmpIgnored)?;
                let mtu = match u16::from_be_bytes([header[6], header[7]]) {
                    0 => plateau_below(quoted.length),
                    mtu => mtu,
                };
                Ok(Self::PacketTooBig {
                    tuple: quoted.tuple,
                    seq: quoted.seq,
                    mtu: mtu.max(LEAST_MTU_V4).into(),
                })
            }
            (IpAddr::V6(_), 2) => {
                let quoted = Quoted::read(rest).ok_or(DropReason::IcmpIgnored)?;
                let mtu = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                // RFC 8201 4: one below the least that every link has to take is
                // discarded.
                if mtu < LEAST_MTU_V6 {
                    return Err(DropReason::IcmpIgnored);
                }
                Ok(Self::PacketTooBig {
                    tuple: quoted.tuple,
                    seq: quoted.seq,
                    mtu,
                })
            }
            (IpAddr::V4(_), 3) | (IpAddr::V6(_), 1) => {
                let reason = match packet.src {
                    IpAddr::V4(_) => reason_v4(code),
                    IpAddr::V6(_) => reason_v6(code),
                };
                let quoted = Quoted::read(rest).ok_or(DropReason::IcmpIgnored)?;
                Ok(Self::Unreachable {
                    tuple: quoted.tuple,
                    seq: quoted.seq,
                    reason,
                })
            }
            _ => Err(DropReason::IcmpIgnored),
        }
    }
}

/// The codes of RFC 792, RFC 1122 3.2.2.1 and RFC 1812 5.2.7.1, without 4.
fn reason_v4(code: u8) -> Unreachable {
    match code {
        0 | 6 | 11 => Unreachable::Network,
        1 | 7 | 8 | 12 => Unreachable::Host,
        2 => Unreachable::Protocol,
        3 => Unreachable::Port,
        9 | 10 | 13 => Unreachable::Prohibited,
        _ => Unreachable::Other,
    }
}

/// What a router's MTU probably is that does not tell it, and to which a packet of
/// this length was too long (RFC 1191 7.1, table 7-1).
fn plateau_below(length: u16) -> u16 {
    const PLATEAUS: [u16; 10] = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
    let below = PLATEAUS.into_iter().find(|plateau| *plateau < length);
    below.unwrap_or(LEAST_MTU_V4)
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

/// The packet of ours that an error quotes; the quote may be cut off anywhere after
/// the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Quoted {
    tuple: Tuple,
    /// The sequence number, if it is TCP.
    seq: u32,
    /// How long the packet was, as far as IPv4 says it.
    length: u16,
}

impl Quoted {
    fn read(quote: &[u8]) -> Option<Self> {
        let (local, peer, length, transport) = match ip::version(quote)? {
            IpVersion::Ipv4 if quote.len() >= 20 => {
                let header = Ipv4Packet::new_unchecked(quote);
                let payload = quote.get(usize::from(header.header_len())..)?;
                // The ports are in the first fragment only.
                let transport = match header.frag_offset() {
                    0 => Some((header.next_header(), payload)),
                    _ => None,
                };
                (
                    IpAddr::V4(header.src_addr()),
                    IpAddr::V4(header.dst_addr()),
                    header.total_len(),
                    transport,
                )
            }
            IpVersion::Ipv6 if quote.len() >= 40 => {
                let header = Ipv6Packet::new_unchecked(quote);
                (
                    IpAddr::V6(header.src_addr()),
                    IpAddr::V6(header.dst_addr()),
                    0,
                    ip::upper(header.next_header(), &quote[40..]),
                )
            }
            IpVersion::Ipv4 | IpVersion::Ipv6 => return None,
        };
        let (protocol, payload) = transport?;
        let protocol = match protocol {
            IpProtocol::Tcp => Protocol::Tcp,
            IpProtocol::Udp => Protocol::Udp,
            _ => return None,
        };
        let [p0, p1, p2, p3, seq @ ..] = *payload.first_chunk::<QUOTED>()?;
        Some(Self {
            tuple: Tuple {
                protocol,
                local,
                peer,
                local_port: u16::from_be_bytes([p0, p1]),
                peer_port: u16::from_be_bytes([p2, p3]),
            },
            seq: u32::from_be_bytes(seq),
            length,
        })
    }
}

/// Answers an echo request with this identifier (the tuple's peer port) and body
/// (sequence number and data). The caller has made room.
pub(crate) fn send_echo_reply(turn: &mut Turn<'_>, tuple: &Tuple, body: &[u8]) {
    let (kind, protocol) = match tuple.local {
        IpAddr::V4(_) => (0, IpProtocol::Icmp),
        IpAddr::V6(_) => (129, IpProtocol::Icmpv6),
    };
    // Parser and `DatagramFlow::may_take` have seen to it that there is one.
    let Some((sequence, data)) = body.split_first_chunk::<2>() else {
        return;
    };
    let [id, id_low] = tuple.peer_port.to_be_bytes();
    let mut header = [kind, 0, 0, 0, id, id_low, sequence[0], sequence[1]];
    let length = HEADER + data.len();
    let sum = checksum_start(tuple.local, tuple.peer, protocol, length);
    let checksum = sum.add(&header).add(data).finish();
    header[2..4].copy_from_slice(&checksum);
    let reply = ip::Datagram {
        src: tuple.local,
        dst: tuple.peer,
        protocol,
        header,
        data,
    };
    let mtu = turn.config.mtu as usize;
    reply.send(turn, mtu);
}

/// Tells the peer that its packet `quote` went nowhere. The caller has made room.
pub(crate) fn send_unreachable(turn: &mut Turn<'_>, tuple: &Tuple, refusal: Refusal, quote: &[u8]) {
    let head = match tuple.local {
        IpAddr::V4(_) => [3, code_v4(tuple.protocol, refusal)],
        IpAddr::V6(_) => [1, code_v6(tuple.protocol, refusal)],
    };
    send_error(turn, tuple.local, tuple.peer, head, [0; 4], quote);
}

/// Tells a sender what is wrong with its packet. The caller has made room.
pub(crate) fn send_report(turn: &mut Turn<'_>, report: &Report<'_>) {
    let (head, rest) = match (report.problem, report.src) {
        (Problem::Parameter { code, pointer }, _) => {
            let pointer = u32::try_from(pointer).unwrap_or(u32::MAX);
            ([4, code], pointer.to_be_bytes())
        }
        (Problem::Protocol, _) => ([3, 2], [0; 4]),
        (Problem::ReassemblyTime, IpAddr::V4(_)) => ([11, 1], [0; 4]),
        (Problem::ReassemblyTime, IpAddr::V6(_)) => ([3, 1], [0; 4]),
    };
    send_error(turn, report.dst, report.src, head, rest, report.quote);
}

/// One error: type and code, what depends on them, and as much of the packet as an
/// error holds.
fn send_error(
    turn: &mut Turn<'_>,
    src: IpAddr,
    dst: IpAddr,
    head: [u8; 2],
    rest: [u8; 4],
    quote: &[u8],
) {
    let most = match src {
        // RFC 1812 4.3.2.3: no longer than 576 bytes.
        IpAddr::V4(_) => 576,
        // RFC 4443 2.4(c): no longer than the minimum MTU.
        IpAddr::V6(_) => 1280,
    };
    let quote = &quote[..quote.len().min(most - ip::header_length(src) - HEADER)];
    let protocol = match src {
        IpAddr::V4(_) => IpProtocol::Icmp,
        IpAddr::V6(_) => IpProtocol::Icmpv6,
    };
    let length = HEADER + quote.len();
    ip::send(turn.egress, src, dst, protocol, length, |space| {
        space[..2].copy_from_slice(&head);
        space[2..4].fill(0);
        space[4..HEADER].copy_from_slice(&rest);
        space[HEADER..].copy_from_slice(quote);
        let sum = checksum_start(src, dst, protocol, length);
        let checksum = sum.add(space).finish();
        space[2..4].copy_from_slice(&checksum);
    });
}

/// The sum over what a message's checksum covers beside the message.
fn checksum_start(src: IpAddr, dst: IpAddr, protocol: IpProtocol, length: usize) -> Sum {
    match src {
        IpAddr::V4(_) => Sum::default(),
        IpAddr::V6(_) => Sum::pseudo_header(src, dst, protocol.into(), length),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_that_tells_no_mtu_has_the_next_plateau() {
        for (length, plateau) in [
            (65_535, 32_000),
            (1500, 1492),
            (1492, 1006),
            (577, 508),
            (68, LEAST_MTU_V4),
            (0, LEAST_MTU_V4),
        ] {
            assert_eq!(plateau_below(length), plateau, "{length}");
        }
    }
}
