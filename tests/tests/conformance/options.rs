//! TCP options at their limits and beyond.

use l3l4_engine::Event;
use l3l4_tests::conformance::case::Case;
use l3l4_tests::conformance::exchange::{Exchange, Talk, ms, stream};
use l3l4_tests::conformance::segment::{ack, syn, syn_ack};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        15,
        "9293 3.7.1, CVE-2019-11479",
        "an MSS of 0, 1 or 8 is taken as at least 48; never an empty stream",
        tiny_mss,
    ),
    Case::new(
        16,
        "7323 2.3, 2.2",
        "a window scale of 15 counts as 14; outside of a SYN it is ignored",
        window_scale,
    ),
    Case::new(
        17,
        "9293 MUST-6, MUST-7",
        "an unknown option is ignored; lengths 0, 1 and beyond the header do no harm",
        broken_options,
    ),
];

/// No RFC names a floor: 48 is Linux' TCP_MIN_SND_MSS, its answer to the CVE.
fn tiny_mss(x: &mut Exchange<'_>) {
    for mss in [0, 1, 8] {
        x.turn_to(Talk::new(x.family, 40_000 + mss));
        x.handshake_with(syn().mss(mss));
        let bytes = stream(0, 500);
        x.app_sends(&bytes);
        let segments = x.receive_until(501);
        let sent: Vec<_> = segments.iter().flat_map(|it| it.payload.clone()).collect();
        x.require(sent == bytes, "the 500 B, each once");
        let (last, full) = segments.split_last().expect("some");
        let floor = full.iter().all(|segment| segment.payload.len() >= 48);
        x.require(
            floor && !last.payload.is_empty(),
            "segments of at least 48 B",
        );
        let packets = x.packets_for(ms(1000)).len();
        x.require(
            packets == 0,
            format!("silence after the 500 B; {packets} packets"),
        );
    }
}

fn window_scale(x: &mut Exchange<'_>) {
    // 1 << 14 = 16,384 bytes in every segment but the SYN: the largest flight.
    x.talk.window = 1;
    let answer = x.handshake_with(syn().mss(1400).win(16_384).scale(15));
    x.require(
        answer.window_scale.is_some(),
        "a window scale in the SYN-ACK",
    );
    let (mut sent, mut most, mut acknowledged) = (0, 0, 1);
    while x.talk.heard < 150_000 {
        let piece = stream(sent, 16_384);
        x.app_sends(&piece);
        sent += 16_384;
        let before = x.talk.heard;
        while acknowledged < sent + 1 {
            x.pass(ms(1));
            most = most.max(x.talk.heard - acknowledged);
            acknowledged = x.talk.heard;
            x.inject(ack());
            let stuck = x.elapsed() > ms(60_000);
            x.require(!stuck, format!("the stream to go on after {before}"));
        }
    }
    x.ignore_sent();
    x.require(
        most <= 16_384,
        format!("at most 16,384 B in flight; {most}"),
    );
    x.require(
        most > 8192,
        format!("a flight of the window's size; {most} at most"),
    );

    x.turn_to(Talk::new(x.family, 40_001));
    x.talk.window = 1000;
    x.handshake_with(syn().mss(1400));
    x.inject(ack().scale(7));
    x.app_sends(&stream(0, 5000));
    let end = x.segments().last().map_or(0, l3l4_tests::wire::Tcp::end);
    x.require(
        (1..=1001).contains(&end),
        format!("1,000 B of window; sent to {end}"),
    );
}

fn broken_options(x: &mut Exchange<'_>) {
    // RFC 4727: kinds 253 and 254 are for experiments.
    x.inject(syn().raw_option(&[253, 4, 1, 2]).mss(1400));
    x.expect(syn_ack().ack(1));
    x.inject(ack());
    x.expect_events(&[Event::Established]);
    let broken: [&[u8]; 6] = [
        &[253, 0, 1, 1],
        &[253, 1, 1, 1],
        &[253, 40, 1, 1],
        &[2, 0, 1, 1],
        &[2, 1, 1, 1],
        &[1, 1, 1, 2],
    ];
    let ports = 40_001..;
    for (port, option) in ports.zip(broken) {
        x.turn_to(Talk::new(x.family, port));
        // What the answer is, is open: a SYN-ACK, a RST (RFC 9293 MUST-7 suggests
        // it) or silence.
        x.inject(syn().raw_option(option));
        let answers = x.segments().len();
        x.require(answers <= 1, format!("at most one answer; {answers}"));
    }
    x.turn_to(Talk::new(x.family, 41_000));
    x.handshake();
}
