//! What nobody should send.

use std::net::{IpAddr, SocketAddr};

use l3l4_tests::craft::{FAMILIES, Family, Peer, icmp, ip, ping, seal, udp, unreachable};
use l3l4_tests::wire::{ACK, FIN, PSH, RST, SYN, TCP, UDP, URG};

/// Bytes of a fragment, in the unit of its offset.
const UNIT: usize = 8;

/// Every hostile packet, of both families.
pub(crate) fn packets() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = FAMILIES.into_iter().flat_map(of_family).collect();
    all.extend(of_ipv4());
    all.extend(of_ipv6());
    // No IP at all.
    all.push(vec![0x45]);
    all.push(vec![0x00; 20]);
    all.push(vec![0xff; 40]);
    all
}

fn of_family(family: Family) -> Vec<Vec<u8>> {
    let header = family.ip_header();
    let peer = Peer::new(family);
    let (from, to) = (peer.peer, peer.local);
    let datagram = || udp(from, to, b"to be damaged");
    let syn = || Vec::from(peer.segment(SYN).mss(1460));
    let flags = |flags: u8| Vec::from(peer.segment(flags));
    let changed = |mut packet: Vec<u8>, at: usize, value: u8| {
        packet[header + at] = value;
        packet
    };
    let of = |from: SocketAddr, to: SocketAddr| Vec::from(peer.segment(SYN).from(from).to(to));
    let elsewhere = |v4: [u8; 4], v6: [u16; 8]| -> SocketAddr {
        let address: IpAddr = match family {
            Family::V4 => v4.into(),
            Family::V6 => v6.into(),
        };
        SocketAddr::new(address, 40_000)
    };
    vec![
        // Checksums: of TCP, of UDP.
        changed(syn(), 16, 0xba),
        changed(datagram(), 6, 0xba),
        // Land: from the one it is sent to.
        of(to, to),
        // Flags that exclude each other, or none; for a flow that is not there.
        flags(FIN | PSH | URG),
        flags(0),
        flags(SYN | FIN),
        flags(SYN | RST),
        flags(FIN | ACK),
        flags(RST),
        // Data offset of 4 words, and beyond the end.
        seal(changed(syn(), 12, 0x40)),
        seal(changed(syn(), 12, 0xf0)),
        // An option of no length, and one beyond the header.
        Vec::from(peer.segment(SYN).option(&[2, 0, 5, 0xb4])),
        Vec::from(peer.segment(SYN).option(&[2, 40, 5, 0xb4])),
        // UDP's own length: below its header, beyond the packet.
        seal(changed(datagram(), 5, 7)),
        seal(changed(datagram(), 5, 200)),
        // A transport header that is not all there.
        ip(from.ip(), to.ip(), TCP, &syn()[header..header + 13]),
        ip(from.ip(), to.ip(), UDP, &datagram()[header..header + 5]),
        // Cut in the midst: the IP length claims more.
        datagram()[..header + 3].to_vec(),
        datagram()[..header - 1].to_vec(),
        // From loopback, from multicast, from nowhere.
        of(elsewhere([127, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0, 1]), to),
        of(elsewhere([224, 0, 0, 1], [0xff02, 0, 0, 0, 0, 0, 0, 1]), to),
        of(elsewhere([0, 0, 0, 0], [0; 8]), to),
        // An error about a flow that is not there, one about nothing, and one about
        // an error.
        unreachable(from.ip(), to.ip(), 1, &udp(to, from, b"never sent")),
        unreachable(from.ip(), to.ip(), 1, &[]),
        unreachable(
            from.ip(),
            to.ip(),
            1,
            &unreachable(to.ip(), from.ip(), 1, &[]),
        ),
        // A message of a kind that does not exist; an echo with a bad checksum.
        icmp(from.ip(), to.ip(), 77, 7, [0; 4], b"?"),
        changed(ping(from.ip(), to.ip(), 1, 1, b"ping"), 2, 0xba),
        // A protocol that is not there.
        seal(ip(from.ip(), to.ip(), 253, b"experiment")),
    ]
}

fn of_ipv4() -> Vec<Vec<u8>> {
    let (from, to) = (Family::V4.peer(40_000), Family::V4.local(7));
    let datagram = || udp(from, to, b"to be damaged");
    let changed = |at: usize, value: u8| {
        let mut packet = datagram();
        packet[at] = value;
        packet
    };
    let fragment = |identification: u8, offset: usize, more: bool, length: usize| {
        let mut packet = ip(from.ip(), to.ip(), UDP, &vec![identification; length]);
        let field = u16::try_from(offset / UNIT).unwrap() | if more { 0x2000 } else { 0 };
        packet[4..6].copy_from_slice(&[0, identification]);
        packet[6..8].copy_from_slice(&field.to_be_bytes());
        seal(packet)
    };
    vec![
        // The header's checksum.
        changed(10, 0xba),
        // A version and header lengths that cannot be.
        changed(0, 0x55),
        changed(0, 0x44),
        changed(0, 0x4f),
        // A total length below the header, and one below the transport's.
        changed(3, 19),
        seal(changed(3, 24)),
        // Teardrop: the second fragment lies within the first.
        fragment(1, 0, true, 48),
        fragment(1, 24, false, 8),
        // Ping of death: the end lies beyond 65,535.
        fragment(2, 65_528, false, 400),
        // The first fragment holds less than a transport header (RFC 1858).
        fragment(3, 0, true, 8),
        // An overlap that would rewrite the header (RFC 3128).
        fragment(3, 8, false, 40),
        // No payload, and more to come.
        fragment(4, 0, true, 0),
        // To a broadcast.
        udp(from, "255.255.255.255:7".parse().unwrap(), b"all"),
    ]
}

fn of_ipv6() -> Vec<Vec<u8>> {
    let (from, to) = (Family::V6.peer(40_000), Family::V6.local(7));
    let with = |next: u8, payload: &[u8]| ip(from.ip(), to.ip(), next, payload);
    let datagram = udp(from, to, b"behind");
    let transport = &datagram[40..];
    let behind = |header: &[u8]| [header, transport].concat();
    vec![
        // Extension headers: hop by hop, routing of type 0, a fragment at 8 with
        // more to come, an atomic fragment, one that runs beyond the end.
        with(0, &behind(&[UDP, 0, 1, 4, 0, 0, 0, 0])),
        with(43, &behind(&[UDP, 0, 0, 1, 0, 0, 0, 0])),
        with(44, &behind(&[UDP, 0, 0, 9, 0, 0, 0, 1])),
        with(44, &behind(&[UDP, 0, 0, 0, 0, 0, 0, 2])),
        with(60, &[UDP, 200, 1, 4, 0, 0, 0, 0]),
        // No next header, with something behind it.
        with(59, b"nothing"),
        // UDP without a checksum, which IPv6 does not allow (RFC 8200 8.1).
        with(UDP, &[&transport[..6], &[0, 0], &transport[8..]].concat()),
        // A payload length beyond the packet.
        {
            let mut packet = datagram.clone();
            packet[4..6].fill(0xff);
            packet
        },
    ]
}
