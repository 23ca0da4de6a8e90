//! ICMP and ICMPv6: what is believed of it, and what is said in it.

use std::net::IpAddr;

use l3l4_engine::{Refusal, Verdict};
use l3l4_tests::conformance::case::Case;
use l3l4_tests::conformance::exchange::{Exchange, ms, secs, stream};
use l3l4_tests::conformance::segment::{data, seg};
use l3l4_tests::craft::{self, Family, Peer};
use l3l4_tests::wire::{ACK, Body};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        65,
        "5927 5, 1122 4.2.3.9",
        "a port unreachable that quotes an established flow does not end it",
        port_unreachable,
    ),
    Case::new(
        66,
        "1191 6, 8201 4, 5927 7",
        "a valid too-big lowers the segments to 576 (IPv6 1,280), no further; others do not",
        path_mtu,
    ),
    Case::new(
        73,
        "4443 2.4, 3.4, 1122 3.2.2",
        "an unknown protocol is answered; errors, crowds, fragments and nobody are not",
        unknown_protocol,
    ),
    Case::new(
        74,
        "4443 2.4(f), 1812 4.3.2.8",
        "10,000 datagrams to closed ports at once: 50 answers, then 1,000 a second",
        error_limit,
    ),
];

/// A segment of the engine in this conversation, as a router quotes it.
fn quote(x: &Exchange<'_>, seq: u32) -> Vec<u8> {
    let mut engine = Peer::new(x.family);
    (engine.local, engine.peer) = (x.talk.peer, x.talk.local);
    let first = x.talk.irs.unwrap_or(0);
    let segment = engine.segment(ACK).seq(first.wrapping_add(seq));
    segment.payload(&stream(seq, 400)).into()
}

fn port_unreachable(x: &mut Exchange<'_>) {
    x.handshake();
    x.app_sends(&stream(0, 100));
    x.expect(seg(ACK).seq(1).len(100));
    // RFC 5927 5.2: hard errors about an established connection are taken as soft.
    let codes: &[u8] = if x.family == Family::V4 {
        &[3, 2]
    } else {
        &[4, 1]
    };
    for code in codes {
        let (router, local) = (x.talk.peer.ip(), x.talk.local.ip());
        let quoted = quote(x, 1);
        x.inject(craft::unreachable(router, local, *code, &quoted));
        x.expect_events(&[]);
    }
    x.inject(data(b"alive").ack(101));
    x.expect_delivered(b"alive");
    x.pass(secs(1));
    x.ignore_sent();
    x.app_sends(b"as are we");
    x.expect(seg(ACK).seq(101).payload(b"as are we"));
}

/// The floor for IPv4 is Linux' 552 (RFC 5927 7 asks for one); RFC 8201 4 allows none
/// below 1,280.
fn path_mtu(x: &mut Exchange<'_>) {
    x.handshake();
    let full = usize::from(x.usual_mss());
    let headers = x.family.ip_header() + 20;
    let (mtu, floor) = match x.family {
        Family::V4 => (576, 552),
        Family::V6 => (1280, 1280),
    };
    x.app_sends(&stream(0, 4000));
    x.expect(seg(ACK).seq(1).len(full));
    // About no segment in flight: nothing changes, the resent one is as large.
    too_big(x, mtu, 1_000_000);
    x.expect_among(secs(3), seg(ACK).seq(1).len(full));

    too_big(x, mtu, 1);
    let limit = x.elapsed() + secs(20);
    let most = usize::from(mtu) - headers;
    let small = loop {
        x.require(
            x.elapsed() < limit,
            format!("the first segment again in {most} B"),
        );
        let segments = x.segments_for(ms(100));
        let found = segments
            .into_iter()
            .find(|(_, it)| it.seq == 1 && it.payload.len() <= most);
        if let Some((_, segment)) = found {
            break segment;
        }
    };
    x.require(!small.payload.is_empty(), "some data");
    x.ignore_sent();
    x.talk.heard = small.end();
    x.inject(l3l4_tests::conformance::segment::ack());
    for segment in x.receive_until(4001) {
        let length = segment.payload.len();
        x.require(length <= most, format!("at most {most} B; {length}"));
    }

    let at = x.talk.heard;
    x.app_sends(&stream(at - 1, 1000));
    too_big(x, if x.family == Family::V4 { 68 } else { 600 }, at);
    x.receive_until(at + 1000);
    let at = x.talk.heard;
    x.app_sends(&stream(at - 1, 8000));
    let segments = x.receive_until(at + 8000);
    let least = floor - headers;
    // The end of the data and of a congestion window may be smaller.
    let small = segments
        .iter()
        .filter(|it| it.payload.len() < least)
        .count();
    x.require(
        small <= 2,
        format!("segments of at least {least} B; {small} smaller"),
    );
}

/// A router's word about a segment of the engine.
fn too_big(x: &mut Exchange<'_>, mtu: u16, seq: u32) {
    let (router, local) = (x.talk.peer.ip(), x.talk.local.ip());
    let [high, low] = mtu.to_be_bytes();
    let rest = [0, 0, high, low];
    let quoted = quote(x, seq);
    let message = match x.family {
        Family::V4 => craft::icmp(router, local, 3, 4, rest, &quoted),
        Family::V6 => craft::icmp(router, local, 2, 0, rest, &quoted),
    };
    x.inject(message);
}

fn unknown_protocol(x: &mut Exchange<'_>) {
    /// For experiments (RFC 3692).
    const UNKNOWN: u8 = 253;
    x.verdict_on_new(Verdict::Refuse(Refusal::PortUnreachable));
    let (peer, local) = (x.family.peer(0).ip(), x.family.local(0).ip());
    let unknown = |from, to| craft::seal(craft::ip(from, to, UNKNOWN, &[1; 40]));
    x.inject(unknown(peer, local));
    match x.family {
        Family::V4 => drop(x.expect_icmp(3, 2)),
        Family::V6 => {
            let message = x.expect_icmp(4, 1);
            let pointer = u32::from_be_bytes(message.rest);
            // The next-header field of the IPv6 header itself (RFC 4443 3.4).
            x.require(pointer == 6, format!("a pointer of 6; {pointer}"));
        }
    }

    let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let (crowd, nobody) = match x.family {
        Family::V4 => (address("224.0.0.5"), address("0.0.0.0")),
        Family::V6 => (address("ff02::5"), address("::")),
    };
    x.pass(secs(1));
    let question = craft::udp(x.family.local(9), x.family.peer(9), b"?");
    let error = craft::unreachable(peer, local, 1, &question);
    x.inject(error);
    x.silence();
    let ends = (peer, local);
    x.inject(craft::fragment(ends, UNKNOWN, 77, 800, true, &[1; 64]));
    x.silence();
    for (from, to) in [(peer, crowd), (nobody, local), (crowd, local)] {
        x.inject(unknown(from, to));
        x.silence();
        let (from, to) = ((from, 9).into(), (to, 9).into());
        x.inject(craft::udp(from, to, b"?"));
        x.silence();
    }
}

/// RFC 4443 makes a limit a MUST and leaves the numbers open; those are Linux' and
/// gVisor's.
fn error_limit(x: &mut Exchange<'_>) {
    x.verdict_on_new(Verdict::Refuse(Refusal::PortUnreachable));
    let (from, to) = (x.family.peer(5000), x.family.local(0));
    let datagrams = |first: u16, last: u16| -> Vec<Vec<u8>> {
        let to = |port| (to.ip(), port).into();
        (first..last)
            .map(|port| craft::udp(from, to(port), b"?"))
            .collect()
    };
    x.inject_all(datagrams(10_000, 20_000));
    let answers = x.packets_for(ms(0));
    let errors = answers
        .iter()
        .all(|(_, it)| matches!(it.body, Body::Icmp(_)));
    let count = answers.len();
    x.require(
        errors && (1..=50).contains(&count),
        format!("1 to 50 answers; {count}"),
    );
    let mut count = 0;
    for tenth in 0..20 {
        x.pass(ms(100));
        x.inject_all(datagrams(20_000 + tenth * 500, 20_500 + tenth * 500));
        count += x.packets_for(ms(0)).len();
    }
    x.require(
        (1..=2050).contains(&count),
        format!("at most 2,050 answers in 2 s; {count}"),
    );
}
