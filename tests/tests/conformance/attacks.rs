//! Blind attackers who know the tuple, and what they may achieve: nothing.

use std::net::SocketAddr;

use l3l4_engine::{CloseReason, Event};
use l3l4_tests::conformance::case::Case;
use l3l4_tests::conformance::exchange::{Exchange, Talk, ms, secs};
use l3l4_tests::conformance::isn::{Hits, foretell};
use l3l4_tests::conformance::segment::{ack, data, rst, seg, syn, syn_ack};
use l3l4_tests::craft::Peer;
use l3l4_tests::trace::digest;
use l3l4_tests::wire::{self, ACK, Body, PSH};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        18,
        "9293 MUST-8, MUST-9, 6528 3",
        "initial sequence numbers: no step, congruence or recovered state foretells one",
        sequence_numbers,
    ),
    Case::new(
        61,
        "5961 3.2",
        "RST: exact resets, in the window is challenged, outside is ignored",
        resets,
    ),
    Case::new(
        62,
        "5961 4.2",
        "a SYN on a connection is challenged; the rebooted peer's RST recovers",
        syn_on_a_connection,
    ),
    Case::new(
        63,
        "5961 7, CVE-2016-5696",
        "1,000 ACKs and 1,000 data out of window: at most 10 answers a second and flow",
        challenge_limit,
    ),
    Case::new(
        64,
        "5961 5.2, 9293 3.10.7.4",
        "data with a wrong ACK or none is dropped",
        blind_data,
    ),
];

/// The table asks for none in 10^6. Here are 10,000 of as many tuples, at one instant
/// and over time: what repeats, steps or has 64 bits of linear state shows in those.
fn sequence_numbers(x: &mut Exchange<'_>) {
    x.scene.host().silent = true;
    for pause in [ms(0), ms(10)] {
        let mut numbers = Vec::new();
        for i in 0..5000u16 {
            let mut peer = Peer::new(x.family).from_port(10_000 + i);
            if pause.is_zero() {
                peer.local = SocketAddr::new(peer.local.ip(), 8);
            }
            x.scene.rx(peer.syn().mss(1400));
            let answers = std::mem::take(&mut x.scene.host().sent);
            let answer =
                answers
                    .iter()
                    .map(|packet| wire::read(packet))
                    .find_map(|read| match read.expect("checked").body {
                        Body::Tcp(tcp) if tcp.to == peer.peer => Some(tcp),
                        Body::Tcp(_) | Body::Udp(_) | Body::Icmp(_) | Body::Fragment(_) => None,
                    });
            let Some(answer) = answer else {
                x.fail("expected a SYN-ACK; none came");
            };
            numbers.push(answer.seq);
            x.scene.rx(peer.rst());
            x.scene.host().sent.clear();
            x.pass(pause);
        }
        let bytes: Vec<_> = numbers
            .iter()
            .flat_map(|number| number.to_be_bytes())
            .collect();
        x.scene.host().trace.note(digest(&bytes));
        let hits = foretell(&numbers);
        x.require(hits == Hits::default(), format!("none foretold; {hits:?}"));
    }
}

fn resets(x: &mut Exchange<'_>) {
    let answer = x.handshake();
    let window = u32::from(answer.window);
    // Outside of the window: silence (RFC 9293 3.10.7.4), the flow lives.
    for seq in [1 + window + 1, 1 + 1_000_000, 0, 0xffff_0000] {
        x.inject(rst().seq(seq));
        x.silence();
    }
    x.expect_events(&[]);
    // In the window, not exact: challenged.
    x.inject(rst().seq(1 + window / 2));
    x.expect_events(&[]);
    x.expect(ack().seq(1).ack(1));
    x.inject(data(b"alive"));
    x.expect_delivered(b"alive");
    x.pass(secs(1));
    x.ignore_sent();
    x.inject(rst().seq(6));
    x.expect_closed(CloseReason::ResetByPeer);
    x.silence();
}

fn syn_on_a_connection(x: &mut Exchange<'_>) {
    x.handshake();
    // In the window and far from it.
    for seq in [100, 5_000_000] {
        x.inject(syn().seq(seq).mss(1400));
        x.expect(ack().seq(1).ack(1));
        x.expect_events(&[]);
        x.pass(secs(10));
    }
    // The peer rebooted: it knows no connection, so that it resets by the challenge.
    let challenged = Talk::new(x.family, 40_000).isn(77_000_000);
    x.inject(rst().seq(1));
    x.expect_closed(CloseReason::ResetByPeer);
    x.turn_to(challenged);
    x.handshake();
    x.inject(data(b"again"));
    x.expect_delivered(b"again");
}

/// Jitter and the absence of a global counter are seen as far as this: the first
/// flow's flood leaves the second flow its challenge ACK.
fn challenge_limit(x: &mut Exchange<'_>) {
    x.handshake();
    for (what, segment) in [
        ("ACKs", seg(ACK).seq(900_000)),
        ("data", seg(ACK | PSH).seq(900_000).payload(b"blind")),
    ] {
        for _ in 0..1000 {
            x.inject(segment.clone());
            x.pass(ms(1));
        }
        let answers = x.segments().len();
        x.require(answers >= 1, format!("an ACK to {what} out of window"));
        x.require(
            answers <= 10,
            format!("at most 10 answers to 1,000 {what}; {answers}"),
        );
        x.pass(secs(10));
        x.ignore_sent();
    }
    for _ in 0..1000 {
        x.inject(seg(ACK).seq(900_000));
    }
    x.ignore_sent();
    let first = x.turn_to(Talk::new(x.family, 40_001));
    x.handshake();
    x.inject(seg(ACK).seq(900_000));
    x.expect(ack().seq(1).ack(1));
    x.turn_to(first);
    x.inject(data(b"unharmed"));
    x.expect_delivered(b"unharmed");
}

fn blind_data(x: &mut Exchange<'_>) {
    x.handshake();
    let blind = [
        seg(ACK | PSH).ack(100_000),
        seg(ACK | PSH).ack(0x8000_0000),
        seg(ACK | PSH).ack(0u32.wrapping_sub(200_000)),
        seg(PSH),
        seg(0),
    ];
    for segment in blind {
        x.inject(segment.seq(1).payload(b"evil"));
        x.pass(secs(1));
        x.expect_delivered(b"");
    }
    x.inject(data(b"good"));
    x.expect_delivered(b"good");
    x.expect_events(&[]);
    x.turn_to(Talk::new(x.family, 40_001));
    x.inject(syn().mss(1400));
    x.expect_among(secs(1), syn_ack());
    x.inject(seg(PSH).seq(1).payload(b"evil"));
    x.inject(ack().seq(1));
    x.expect_events(&[Event::Established]);
    x.expect_delivered(b"");
}
