//! Reassembly, its limits and its end.

use l3l4_engine::FlowId;
use l3l4_tests::conformance::case::Case;
use l3l4_tests::conformance::exchange::{Exchange, Talk, secs, stream};
use l3l4_tests::craft::{self, Family};
use l3l4_tests::wire::{ICMP, ICMPV6, TCP, UDP};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        69,
        "815, 791 3.2, 8200 4.5",
        "fragments in four orders, with duplicates: one datagram each",
        any_order,
    ),
    Case::new(
        70,
        "1858, 3128, 5722, CVE-2018-5391",
        "teardrop, ping of death, tiny, floods, 201 pieces: a good datagram survives each",
        hostile_fragments,
    ),
    Case::new(
        71,
        "1122 3.3.2, 792, 4443 3.3",
        "reassembly times out: the memory is freed, the sender is told",
        timeout,
    ),
];

/// A multiple of 8 that fits Ethernet behind either IP.
const PIECE: usize = 1448;

fn datagram(x: &Exchange<'_>, length: u32) -> Vec<u8> {
    craft::udp(x.family.peer(5000), x.family.local(53), &stream(0, length))
}

/// A flow of datagrams.
fn opened(x: &mut Exchange<'_>) -> FlowId {
    let mut talk = Talk::new(x.family, 5000);
    talk.local.set_port(53);
    x.turn_to(talk);
    x.inject(datagram(x, 10));
    let (flow, _) = x.expect_flow();
    x.datagrams(flow);
    flow
}

fn any_order(x: &mut Exchange<'_>) {
    let flow = opened(x);
    let whole = datagram(x, 4000);
    let orders: [&[usize]; 5] = [
        &[0, 1, 2],
        &[2, 1, 0],
        &[1, 0, 2],
        &[2, 0, 1],
        &[0, 0, 1, 1, 0, 2],
    ];
    for (id, order) in (1..).zip(orders) {
        let pieces = craft::fragments(&whole, id, PIECE);
        x.require(pieces.len() == 3, "three pieces");
        for piece in order {
            x.inject(pieces[*piece].clone());
        }
        let delivered = x.datagrams(flow);
        x.require(
            delivered == [stream(0, 4000)],
            format!(
                "one datagram of 4,000 B in order {order:?}; {}",
                delivered.len()
            ),
        );
        x.silence();
    }
}

/// What a case does to the flow of datagrams; whether all went as it should.
type Attack = fn(&mut Exchange<'_>, FlowId) -> bool;

/// Every attack is made, also where nothing is reassembled.
fn hostile_fragments(x: &mut Exchange<'_>) {
    let flow = opened(x);
    let attacks: [(&str, Attack); 5] = [
        ("teardrop", teardrop),
        ("ping of death", ping_of_death),
        ("tiny fragments", tiny_fragments),
        ("64 first pieces", first_pieces),
        ("201 pieces of 8 B", many_pieces),
    ];
    let mut wrong = Vec::new();
    for (id, (name, attack)) in (1..).zip(attacks) {
        x.note(name);
        if !attack(x, flow) {
            wrong.push(name.to_owned());
        }
        x.ignore_sent();
        x.datagrams(flow);
        let whole = datagram(x, 4000);
        x.inject_all(craft::fragments(&whole, id, PIECE));
        if x.datagrams(flow) != [stream(0, 4000)] {
            wrong.push(format!("a good datagram after {name}"));
        }
    }
    let wrong = wrong.join(", ");
    x.require(
        wrong.is_empty(),
        format!("each to be survived; not {wrong}"),
    );
}

/// A piece inside of another. RFC 5722 3: all of it is dropped over IPv6, and so is
/// what comes of it.
fn teardrop(x: &mut Exchange<'_>, flow: FlowId) -> bool {
    let whole = datagram(x, 28);
    let (ends, transport) = (craft::ends(&whole), &whole[x.family.ip_header()..]);
    for (at, end, more) in [(0, 32, true), (24, 28, false), (32, 36, false)] {
        let piece = &transport[at..end];
        x.inject(craft::fragment(ends, UDP, 100, at, more, piece));
    }
    x.family == Family::V4 || x.datagrams(flow).is_empty()
}

/// An echo request of 66,904 B: the last piece begins where the offset ends.
fn ping_of_death(x: &mut Exchange<'_>, _: FlowId) -> bool {
    let ends = (x.family.peer(0).ip(), x.family.local(0).ip());
    let (echo, protocol) = match x.family {
        Family::V4 => (8, ICMP),
        Family::V6 => (128, ICMPV6),
    };
    let mut whole = vec![0; 66_904];
    whole[0] = echo;
    let (most, last) = whole.split_at(65_528);
    for (i, piece) in most.chunks(1480).enumerate() {
        let at = i * 1480;
        x.inject(craft::fragment(ends, protocol, 101, at, true, piece));
    }
    x.inject(craft::fragment(ends, protocol, 101, 65_528, false, last));
    // IPv6 says so (RFC 8200 4.5); an echo of it nobody may send.
    let answers = x.packets_for(secs(0));
    answers.len() <= 1
}

/// A TCP header in two pieces, the second written over (RFC 1858, RFC 3128).
fn tiny_fragments(x: &mut Exchange<'_>, _: FlowId) -> bool {
    let first = Vec::from(craft::Peer::new(x.family).syn().mss(1400));
    let (ends, transport) = (craft::ends(&first), &first[x.family.ip_header()..]);
    for piece in [&transport[8..16], &[0xff; 8]] {
        x.inject(craft::fragment(ends, TCP, 103, 0, true, &transport[..8]));
        x.inject(craft::fragment(ends, TCP, 103, 8, true, piece));
    }
    true
}

fn first_pieces(x: &mut Exchange<'_>, _: FlowId) -> bool {
    let ends = (x.family.peer(0).ip(), x.family.local(0).ip());
    for id in 1000..1064 {
        x.inject(craft::fragment(ends, UDP, id, 0, true, &[1; PIECE]));
    }
    true
}

/// Every other one first. RFC 815 sets no limit to the holes.
fn many_pieces(x: &mut Exchange<'_>, flow: FlowId) -> bool {
    let whole = datagram(x, 1600);
    let pieces = craft::fragments(&whole, 104, 8);
    x.require(pieces.len() == 201, "201 pieces");
    let (even, odd): (Vec<_>, Vec<_>) = (0..201).partition(|i| i % 2 == 0);
    for i in even.into_iter().chain(odd) {
        x.inject(pieces[i].clone());
    }
    x.datagrams(flow) == [stream(0, 1600)]
}

fn timeout(x: &mut Exchange<'_>) {
    opened(x);
    let baseline = x.scene.counters().memory_bytes;
    let whole = datagram(x, 4000);
    let pieces = craft::fragments(&whole, 1, PIECE);
    x.inject(pieces[0].clone());
    x.silence();
    // RFC 1122: 60 to 120 s; RFC 8200: 60 s.
    x.pass(secs(125));
    match x.family {
        Family::V4 => drop(x.expect_icmp(11, 1)),
        Family::V6 => drop(x.expect_icmp(3, 1)),
    }
    let memory = x.scene.counters().memory_bytes;
    x.require(memory <= baseline, format!("{baseline} B again; {memory}"));
    // Without the first piece nobody is told (RFC 792, RFC 4443 2.4).
    x.inject(craft::fragments(&whole, 2, PIECE)[1].clone());
    x.silence_for(secs(125));
    let memory = x.scene.counters().memory_bytes;
    x.require(memory <= baseline, format!("{baseline} B again; {memory}"));
}
