//! Packets that cannot be used: each is counted under its reason, and is silence.

use std::net::IpAddr;

use l3l4_engine::{Config, DropReason, FlowOptions, IcmpEchoPolicy};
use l3l4_tests::craft::{
    FAMILIES, Family, Peer, fragment, icmp, ip, ping, seal, udp, unreachable, with_extension,
};
use l3l4_tests::scene::{Scene, config, on_both, on_both_families};
use l3l4_tests::wire;

#[test]
fn neither_ipv4_nor_ipv6() {
    on_both(config(), |scene| {
        for version in [0, 1, 5, 7, 15] {
            let mut packet = query(FAMILIES[0]);
            packet[0] = version << 4 | 5;
            dropped(scene, packet, DropReason::IpVersion);
        }
    });
}

#[test]
fn impossible_ip_headers() {
    on_both(config(), |scene| {
        for change in [
            |packet: &mut Vec<u8>| packet[0] = 0x44,     // IHL 4
            |packet: &mut Vec<u8>| packet[3] += 1,       // total length beyond the end
            |packet: &mut Vec<u8>| packet[2..4].fill(0), // total length 0
            |packet: &mut Vec<u8>| packet[2..4].copy_from_slice(&[0, 19]),
            |packet: &mut Vec<u8>| packet.truncate(19),
        ] {
            let mut packet = query(FAMILIES[0]);
            change(&mut packet);
            if packet.len() > 19 {
                packet[10..12].fill(0);
                let sum = wire::checksum(&[&packet[..20]]);
                packet[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            dropped(scene, packet, DropReason::Malformed);
        }
        let mut packet = query(FAMILIES[1]);
        packet[5] += 1;
        dropped(scene, packet, DropReason::Malformed);
        dropped(
            scene,
            query(FAMILIES[1])[..39].to_vec(),
            DropReason::Malformed,
        );
    });
}

#[test]
fn impossible_transport_headers() {
    on_both_families(config(), |scene, family| {
        let at = family.ip_header();
        for offset in [0, 4, 15] {
            let mut packet: Vec<u8> = Peer::new(family).syn().into();
            packet[at + 12] = offset << 4;
            dropped(scene, seal(packet), DropReason::Malformed);
        }
        for length in [0u16, 7, 14, 200] {
            let mut packet = query(family); // 13 bytes of UDP
            packet[at + 4..at + 6].copy_from_slice(&length.to_be_bytes());
            dropped(scene, seal(packet), DropReason::Malformed);
        }
        for (protocol, length) in [(wire::TCP, 19), (wire::UDP, 7)] {
            let (from, to) = (family.peer(0).ip(), family.local(0).ip());
            dropped(
                scene,
                ip_sealed(from, to, protocol, &vec![1; length]),
                DropReason::Malformed,
            );
        }
    });
}

#[test]
fn wrong_checksums() {
    on_both_families(config(), |scene, family| {
        let packets = [
            Peer::new(family).syn().into(),
            query(family),
            ping(family.peer(0).ip(), family.local(0).ip(), 1, 1, b"data"),
        ];
        for packet in packets {
            for at in [family.ip_header() + 1, packet.len() - 1] {
                let mut packet = packet.clone();
                packet[at] ^= 0x10;
                dropped(scene, packet, DropReason::TransportChecksum);
            }
        }
        if family == Family::V4 {
            let mut packet = query(family);
            packet[8] = 7; // another TTL
            dropped(scene, packet, DropReason::IpChecksum);
        }
    });
}

#[test]
fn fragments_of_no_datagram() {
    on_both_families(config(), |scene, family| {
        let ends = (family.peer(0).ip(), family.local(0).ip());
        let silent: [(u8, usize, bool, usize); 3] = [
            (wire::UDP, 8, false, 0),
            (wire::UDP, 0, true, 0),
            (wire::UDP, 800, true, 0),
        ];
        for (protocol, at, more, length) in silent {
            let piece = fragment(ends, protocol, 1, at, more, &vec![1; length]);
            dropped(scene, piece, DropReason::Fragment);
        }
        // In the middle of a unit of 8 bytes; beyond 65,535 bytes; without the whole
        // transport header (RFC 8200 4.5, RFC 7112, RFC 1858).
        let answered = [
            (wire::UDP, 0, true, 12, (0, 4)),
            (wire::UDP, 65_528, false, 8, (0, 42)),
            (wire::TCP, 0, true, 16, (3, 0)),
        ];
        for (protocol, at, more, length, (code, pointer)) in answered {
            let piece = fragment(ends, protocol, 1, at, more, &vec![0; length]);
            let answers = dropped_with_answers(scene, piece, DropReason::Fragment);
            match family {
                Family::V4 => assert!(answers.is_empty(), "{answers:?}"),
                Family::V6 => assert_eq!(answers, [(4, code, pointer)]),
            }
        }
        assert_eq!(scene.counters().flows, 0);
    });
    on_both(config(), |scene| {
        let ends = (FAMILIES[0].peer(0).ip(), FAMILIES[0].local(0).ip());
        // RFC 3128: the flags of a TCP header, for another first fragment.
        let rest = fragment(ends, wire::TCP, 1, 8, false, &[1; 32]);
        dropped(scene, rest, DropReason::Fragment);
    });
}

#[test]
fn other_protocols() {
    on_both_families(config(), |scene, family| {
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        for protocol in [2, 47, 50, 132, 255] {
            let packet = ip_sealed(from, to, protocol, &[0; 32]);
            let answers = dropped_with_answers(scene, packet, DropReason::UnsupportedProtocol);
            match family {
                Family::V4 => assert_eq!(answers, [(3, 2, 0)], "{protocol}"),
                Family::V6 => assert_eq!(answers, [(4, 1, 6)], "{protocol}"),
            }
        }
        // To and from the same address goes no answer.
        let packet = ip_sealed(to, to, 47, &[0; 32]);
        dropped(scene, packet, DropReason::UnsupportedProtocol);
    });
    on_both(config(), |scene| {
        let (from, to) = (FAMILIES[1].peer(0).ip(), FAMILIES[1].local(0).ip());
        let nothing_follows = ip(from, to, 59, &[]);
        dropped(scene, nothing_follows, DropReason::UnsupportedProtocol);
    });
}

#[test]
fn extension_headers_that_stop_a_packet() {
    on_both(config(), |scene| {
        let good = query(FAMILIES[1]);
        let unknown = |action: u8| with_extension(&good, 60, &[0, action | 0x1e, 4, 0, 0, 0, 0]);
        let reason = DropReason::ExtensionHeader;
        dropped(scene, unknown(0x40), reason);
        for action in [0x80, 0xc0] {
            let answers = dropped_with_answers(scene, unknown(action), reason);
            assert_eq!(answers, [(4, 2, 42)]);
        }
        // A router on the way that is not ours; type 0 too (RFC 5095).
        for kind in [0, 253] {
            let packet = with_extension(&good, 43, &[0, kind, 1, 0, 0, 0, 0]);
            let answers = dropped_with_answers(scene, packet, reason);
            assert_eq!(answers, [(4, 0, 42)]);
        }
        // Hop-by-hop options stand first or not at all (RFC 8200 4.1).
        let hop_by_hop = with_extension(&good, 0, &[0, 1, 4, 0, 0, 0, 0]);
        let second = with_extension(&hop_by_hop, 60, &[0, 1, 4, 0, 0, 0, 0]);
        let answers = dropped_with_answers(scene, second, DropReason::UnsupportedProtocol);
        assert_eq!(answers, [(4, 1, 40)]);
        let many = (0..8).fold(good, |packet, _| {
            with_extension(&packet, 60, &[0, 1, 4, 0, 0, 0, 0])
        });
        dropped(scene, many, reason);
    });
}

#[test]
fn an_error_is_not_answered_with_an_error() {
    on_both(config(), |scene| {
        let family = FAMILIES[1];
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        let question = udp(family.local(9), family.peer(9), b"?");
        let bad_option = [0, 0x9e, 4, 0, 0, 0, 0];
        let error = with_extension(&unreachable(from, to, 4, &question), 60, &bad_option);
        dropped(scene, error, DropReason::ExtensionHeader);
        let redirect = icmp(from, to, 137, 0, [0; 4], &[0; 32]);
        let redirect = with_extension(&redirect, 60, &bad_option);
        dropped(scene, redirect, DropReason::ExtensionHeader);
        // An echo request is none.
        let echo = with_extension(&ping(from, to, 1, 1, b"data"), 60, &bad_option);
        let answers = dropped_with_answers(scene, echo, DropReason::ExtensionHeader);
        assert_eq!(answers, [(4, 2, 42)]);
    });
}

#[test]
fn addresses_that_no_flow_can_have() {
    on_both(config(), |scene| {
        let good = |family: Family| (family.peer(5000), family.local(53));
        let (from_v4, to_v4) = good(FAMILIES[0]);
        let (from_v6, to_v6) = good(FAMILIES[1]);
        let sources = [
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "ff0e::1",
            "::1",
            "::ffff:198.51.100.2",
        ];
        let destinations = [
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "::ffff:192.0.2.1",
        ];
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut pairs = Vec::new();
        for source in sources.map(address) {
            let (mut from, to) = if source.is_ipv4() {
                (from_v4, to_v4)
            } else {
                (from_v6, to_v6)
            };
            from.set_ip(source);
            pairs.push((from, to));
        }
        for destination in destinations.map(address) {
            let (from, mut to) = if destination.is_ipv4() {
                (from_v4, to_v4)
            } else {
                (from_v6, to_v6)
            };
            to.set_ip(destination);
            pairs.push((from, to));
        }
        pairs.push((to_v4, to_v4));
        pairs.push((to_v6, to_v6));
        for (from, to) in pairs {
            dropped(scene, udp(from, to, b"query"), DropReason::Martian);
            let peer = Peer::new(FAMILIES[0]);
            let syn = peer.segment(wire::SYN).from(from).to(to);
            dropped(scene, syn.into(), DropReason::Martian);
            let stray = peer.segment(wire::ACK).from(from).to(to);
            dropped(scene, stray.into(), DropReason::Martian);
        }
    });
}

#[test]
fn bytes_after_the_ip_packet_are_padding() {
    on_both_families(config(), |scene, family| {
        let mut packet = query(family);
        packet.extend([0xee; 18]);
        scene.rx(packet);
        let (flow, _) = scene.announced();
        assert_eq!(scene.datagrams(flow), [b"query"]);
    });
}

#[test]
fn bytes_after_the_udp_length_are_not_data() {
    on_both_families(config(), |scene, family| {
        let whole = query(family);
        let at = family.ip_header();
        let mut transport = whole[at..].to_vec();
        transport.extend([0xee; 4]);
        // The checksum covers the UDP length only (RFC 768), so it still holds.
        let protocol = wire::UDP;
        let packet = ip(
            family.peer(0).ip(),
            family.local(0).ip(),
            protocol,
            &transport,
        );
        scene.rx(header_sealed(packet));
        let announced = std::mem::take(&mut scene.host().announced);
        for (flow, _) in announced {
            assert_eq!(
                scene.datagrams(flow),
                [b"query"],
                "or dropped, but not with the rest"
            );
        }
    });
}

#[test]
fn ipv4_options_are_skipped() {
    on_both(config(), |scene| {
        let plain = query(FAMILIES[0]);
        for options in [[1, 1, 1, 0], [0x94, 4, 0, 0]] {
            let mut packet = plain[..20].to_vec();
            packet.extend(options);
            packet.extend(&plain[20..]);
            packet[0] = 0x46;
            packet[3] += 4;
            scene.rx(header_sealed(packet));
        }
        let announced = std::mem::take(&mut scene.host().announced);
        assert_eq!(announced.len(), 1);
        assert_eq!(scene.datagrams(announced[0].0), [b"query", b"query"]);
    });
}

#[test]
fn every_truncation_of_every_packet_is_silence() {
    let config = Config {
        icmp_echo: IcmpEchoPolicy::Deliver,
        ..config()
    };
    on_both_families(config, |scene, family| {
        let mut peer = Peer::new(family);
        let packets: [Vec<u8>; 6] = [
            peer.syn().mss(1460).sack_permitted().scale(7).into(),
            peer.ack().into(),
            peer.data(b"some data").into(),
            query(family),
            ping(family.peer(0).ip(), family.local(0).ip(), 1, 1, b"data"),
            unreachable(family.peer(0).ip(), family.local(0).ip(), 3, &query(family)),
        ];
        for packet in packets {
            for length in 0..packet.len() {
                scene.rx(packet[..length].to_vec());
            }
        }
        scene.silence();
        scene.nobody_announced();
        assert!(scene.flows().is_empty());
        let counters = scene.counters();
        assert_eq!(counters.drops.iter().sum::<u64>(), counters.l3_rx_packets);
    });
}

#[test]
fn every_truncation_behind_a_good_ip_header_is_no_trap() {
    let config = Config {
        icmp_echo: IcmpEchoPolicy::Deliver,
        ..config()
    };
    on_both_families(config, |scene, family| {
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        let mut peer = Peer::new(family);
        let packets: [Vec<u8>; 4] = [
            peer.syn().mss(1460).sack_permitted().scale(7).into(),
            query(family),
            ping(from, to, 1, 1, b"data"),
            unreachable(from, to, 3, &query(family)),
        ];
        for packet in packets {
            let at = family.ip_header();
            let protocol = packet[if family == Family::V4 { 9 } else { 6 }];
            for length in 0..packet.len() - at {
                scene.rx(seal(ip(from, to, protocol, &packet[at..at + length])));
            }
        }
        let counters = scene.counters();
        let used = counters.flows_announced;
        assert!(used <= 8, "{used} flows of cut packets");
    });
}

#[test]
fn every_truncation_of_a_quoted_packet_is_no_trap() {
    on_both_families(config(), |scene, family| {
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        let flow = scene
            .open(&Peer::new(family).tuple(), FlowOptions::default())
            .unwrap();
        let syn = scene.host().sent.pop_front().expect("the SYN");
        // Ports and sequence number are 8 bytes: with less there is no telling.
        for length in 0..family.ip_header() + 8 {
            scene.rx(unreachable(from, to, 3, &syn[..length]));
        }
        scene.expect_events(flow, &[]);
        for length in 0..64 {
            scene.rx(unreachable(from, to, 3, &vec![0x45; length]));
            scene.rx(unreachable(from, to, 3, &vec![0x60; length]));
        }
        scene.expect_events(flow, &[]);
    });
}

#[test]
fn a_broken_packet_does_not_hurt_its_neighbours_in_the_batch() {
    on_both_families(config(), |scene, family| {
        let mut broken = query(family);
        *broken.last_mut().unwrap() ^= 1;
        scene.rx_batch(&[
            broken.clone(),
            query(family),
            Vec::new(),
            query(family),
            broken,
        ]);
        let (flow, _) = scene.announced();
        assert_eq!(scene.datagrams(flow), [b"query", b"query"]);
    });
}

/// One packet is dropped for one reason, and nothing else happens.
fn dropped(scene: &mut Scene, packet: Vec<u8>, reason: DropReason) {
    let answers = dropped_with_answers(scene, packet, reason);
    assert!(answers.is_empty(), "{answers:?}");
}

/// One packet is dropped for one reason, and nothing happens but ICMP errors about
/// it: type, code, and what follows the checksum.
fn dropped_with_answers(
    scene: &mut Scene,
    packet: Vec<u8>,
    reason: DropReason,
) -> Vec<(u8, u8, u32)> {
    let before = scene.counters();
    scene.rx(packet.clone());
    let after = scene.counters();
    let mut expected = before.drops;
    expected[reason as usize] += 1;
    assert_eq!(
        after.drops,
        expected,
        "{reason:?}\n{}",
        scene.host().trace.tail(5)
    );
    scene.nobody_announced();
    assert!(scene.events().is_empty());
    let errors = scene.sent_packets().into_iter().map(|answer| {
        let message = answer.icmp();
        assert!(packet.starts_with(&message.payload), "a quote of it");
        (message.kind, message.code, u32::from_be_bytes(message.rest))
    });
    errors.collect()
}

fn query(family: Family) -> Vec<u8> {
    udp(family.peer(5000), family.local(53), b"query")
}

fn ip_sealed(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    header_sealed(ip(from, to, protocol, payload))
}

/// Fills in the IPv4 header checksum alone.
fn header_sealed(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        packet[10..12].fill(0);
        let sum = wire::checksum(&[&packet[..header]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}
