//! The IP header, its options, and the extension headers of IPv6.

use l3l4_tests::case::Case;
use l3l4_tests::craft::{self, Family};
use l3l4_tests::exchange::{Exchange, Talk};
use l3l4_tests::segment::{ack, syn, syn_ack};

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
    // Options that nobody knows, by their upper two bits (RFC 8200 4.2).
    let unknown = |kind: u8| [0, kind, 4, 0, 0, 0, 0];
    for header in [HOP_BY_HOP, DESTINATION] {
        delivered(x, "an option to skip", header, &unknown(0x1e));
        dropped(x, header, &unknown(0x5e), None);
        for kind in [0x9e, 0xde] {
            // The option's offset in the packet (RFC 4443 3.4).
            dropped(x, header, &unknown(kind), Some((2, 42)));
        }
        delivered(x, "padding", header, &[0, 1, 4, 0, 0, 0, 0]);
    }
    // Types 0 (RFC 5095) and 253, no segments left; then one left.
    delivered(x, "routing type 0", ROUTING, &[0, 0, 0, 0, 0, 0, 0]);
    delivered(x, "routing type 253", ROUTING, &[0, 253, 0, 0, 0, 0, 0]);
    dropped(x, ROUTING, &[0, 253, 1, 0, 0, 0, 0], Some((0, 42)));

    // An atomic fragment (RFC 6946) and real ones.
    let atomic = datagram(x, 1480);
    x.inject_all(craft::fragments(&atomic, 1, 1488));
    arrived(x, "an atomic fragment", 1480);
    let large = datagram(x, 4000);
    x.inject_all(craft::fragments(&large, 2, 1448));
    arrived(x, "three fragments", 4000);
}

/// A datagram of a new flow.
fn datagram(x: &mut Exchange<'_>, length: u32) -> Vec<u8> {
    let port = x.talk.peer.port() + 1;
    x.turn_to(Talk::new(x.family, port));
    let data = l3l4_tests::exchange::stream(0, length);
    craft::udp(x.family.peer(port), x.family.local(53), &data)
}

fn delivered(x: &mut Exchange<'_>, what: &str, header: u8, body: &[u8]) {
    let packet = datagram(x, 100);
    x.inject(craft::with_extension(&packet, header, body));
    arrived(x, what, 100);
}

fn arrived(x: &mut Exchange<'_>, what: &str, length: u32) {
    x.note(what);
    x.silence();
    let (flow, _) = x.expect_flow();
    let datagrams = x.datagrams(flow);
    let expected = l3l4_tests::exchange::stream(0, length);
    x.require(
        datagrams == [expected],
        format!("{what}: {length} B delivered"),
    );
}

/// Dropped, in silence or with a parameter problem of this code and pointer.
fn dropped(x: &mut Exchange<'_>, header: u8, body: &[u8], answer: Option<(u8, u32)>) {
    let packet = datagram(x, 100);
    x.inject(craft::with_extension(&packet, header, body));
    x.expect_no_flow();
    match answer {
        None => x.silence(),
        Some((code, expected)) => {
            let message = x.expect_icmp(4, code);
            let pointer = u32::from_be_bytes(message.rest);
            x.require(
                pointer == expected,
                format!("header {header}: a pointer of {expected}; {pointer}"),
            );
        }
    }
}
