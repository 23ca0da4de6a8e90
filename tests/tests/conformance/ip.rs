//! The IP header, its options, and the extension headers of IPv6.

use std::time::Duration;

use l3l4_tests::conformance::case::Case;
use l3l4_tests::conformance::exchange::{Exchange, Talk, stream};
use l3l4_tests::conformance::segment::{ack, syn, syn_ack};
use l3l4_tests::craft::{self, Family};
use l3l4_tests::wire::Body;

pub(crate) const CASES: &[Case] = &[
    Case::new(
        67,
        "1122 3.2.1, 791 3.1, 8200 3",
        "every truncation, a bad sum, version, length: silence; padding is ignored",
        broken_packets,
    ),
    Case::new(
        68,
        "1122 3.2.1.8",
        "IPv4 options (record route, timestamp, router alert, NOP): delivered",
        ip_options,
    )
    .v4(),
    Case::new(
        72,
        "8200 4.2, 4.3, 4.4, 4.5, 6946",
        "extension headers: by their action bits; payload behind them is delivered",
        extension_headers,
    )
    .v6(),
];

fn broken_packets(x: &mut Exchange<'_>) {
    let good = x.packet(syn().seq(0).mss(1400));
    let mut broken: Vec<Vec<u8>> = (0..good.len()).map(|end| good[..end].to_vec()).collect();
    let mut change = |at: usize, to: u8| {
        let mut packet = good.clone();
        packet[at] = to;
        broken.push(match at {
            0 | 10 => packet,
            _ => craft::seal(packet),
        });
    };
    match x.family {
        Family::V4 => {
            let sum = good[10];
            change(10, sum ^ 1);
            // Versions 0, 5 and 15; headers of 0 and 16 bytes and beyond the end.
            for byte in [0x05, 0x55, 0xf5, 0x40, 0x44, 0x4f] {
                change(0, byte);
            }
            // Total lengths of less than the header, and of more than the packet.
            for length in [0, 19, 200] {
                change(3, length);
            }
        }
        Family::V6 => {
            for byte in [0x00, 0x50, 0xf0] {
                change(0, byte);
            }
            // Payload lengths of nothing, less than a TCP header, and too much.
            for length in [0, 8, 19, 200] {
                change(5, length);
            }
        }
    }
    for packet in broken {
        x.inject(packet);
        x.silence();
        x.expect_no_flow();
    }
    let mut padded = good;
    padded.extend([0xaa; 30]);
    x.inject(padded);
    x.expect(syn_ack().ack(1));
    x.expect_flow();
}

fn ip_options(x: &mut Exchange<'_>) {
    let options: [&[u8]; 4] = [
        &[7, 7, 4, 0, 0, 0, 0],
        &[68, 12, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[148, 4, 0, 0],
        &[1, 1, 1, 1],
    ];
    let ports = 40_000..;
    for (port, option) in ports.zip(options) {
        x.turn_to(Talk::new(x.family, port));
        let first = x.packet(syn().mss(1400));
        x.inject(craft::with_ip_options(&first, option));
        x.expect(syn_ack().ack(1));
        let third = x.packet(ack());
        x.inject(craft::with_ip_options(&third, option));
        x.expect_flow();
        let datagram = craft::udp(x.family.peer(port), x.family.local(53), b"query");
        x.inject(craft::with_ip_options(&datagram, option));
        let (flow, _) = x.expect_flow();
        let delivered = x.datagrams(flow);
        x.require(
            delivered == [b"query"],
            format!("delivered behind {option:?}"),
        );
    }
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

fn extension_headers(x: &mut Exchange<'_>) {
    // Options that nobody knows, by their upper two bits (RFC 8200 4.2). A pointer
    // is the option's offset in the packet (RFC 4443 3.4).
    let unknown = |kind: u8| vec![0, kind, 4, 0, 0, 0, 0];
    let padding = vec![0, 1, 4, 0, 0, 0, 0];
    let mut rows = Vec::new();
    for header in [HOP_BY_HOP, DESTINATION] {
        rows.extend([
            (header, unknown(0x1e), Fate::Delivered),
            (header, unknown(0x5e), Fate::Dropped),
            (header, unknown(0x9e), Fate::Answered(2, 42)),
            (header, unknown(0xde), Fate::Answered(2, 42)),
            (header, padding.clone(), Fate::Delivered),
        ]);
    }
    // Types 0 (RFC 5095) and 253: no segment left, then one left.
    rows.extend([
        (ROUTING, vec![0, 0, 0, 0, 0, 0, 0], Fate::Delivered),
        (ROUTING, vec![0, 253, 0, 0, 0, 0, 0], Fate::Delivered),
        (ROUTING, vec![0, 253, 1, 0, 0, 0, 0], Fate::Answered(0, 42)),
    ]);
    let mut wrong = Vec::new();
    for (header, body, expected) in rows {
        let packet = datagram(x, 100);
        let fate = fate(x, 100, vec![craft::with_extension(&packet, header, &body)]);
        if fate != Some(expected) {
            let kind = body[1];
            wrong.push(format!(
                "header {header}, option or type {kind:#x}: {fate:?}"
            ));
        }
    }
    // An atomic fragment (RFC 6946) and real ones: 40 + 8 + 1448 B fit Ethernet.
    for length in [1440, 4000] {
        let packet = datagram(x, length);
        let pieces = craft::fragments(&packet, length, 1448);
        if fate(x, length, pieces) != Some(Fate::Delivered) {
            wrong.push(format!("fragments of {length} B"));
        }
    }
    let wrong = wrong.join("; ");
    x.require(wrong.is_empty(), format!("each by the rules; not {wrong}"));
}

/// What becomes of a datagram behind an extension header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Delivered,
    /// In silence.
    Dropped,
    /// With a parameter problem of this code and pointer.
    Answered(u8, u32),
}

/// None, when it is none of these.
fn fate(x: &mut Exchange<'_>, length: u32, packets: Vec<Vec<u8>>) -> Option<Fate> {
    x.inject_all(packets);
    let answers = x.packets_for(Duration::ZERO);
    let delivered = x.delivered();
    match (&answers[..], &delivered[..]) {
        ([], []) => Some(Fate::Dropped),
        ([], data) => (data == stream(0, length)).then_some(Fate::Delivered),
        ([(_, answer)], []) => match &answer.body {
            Body::Icmp(message) if message.kind == 4 => {
                let pointer = u32::from_be_bytes(message.rest);
                Some(Fate::Answered(message.code, pointer))
            }
            Body::Icmp(_) | Body::Tcp(_) | Body::Udp(_) | Body::Fragment(_) => None,
        },
        _ => None,
    }
}

/// A datagram of a new flow.
fn datagram(x: &mut Exchange<'_>, length: u32) -> Vec<u8> {
    let mut talk = Talk::new(x.family, x.talk.peer.port() + 1);
    talk.local.set_port(53);
    let packet = craft::udp(talk.peer, talk.local, &stream(0, length));
    x.turn_to(talk);
    packet
}
