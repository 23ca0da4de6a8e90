//! Opening: the SYN, its options, its repetition, its refusal.

use l3l4_engine::{CloseReason, Event, Timer};
use l3l4_tests::conformance::case::Case;
use l3l4_tests::conformance::exchange::{Exchange, Talk, ms, secs, stream};
use l3l4_tests::conformance::segment::{Kind, ack, data, fin, rst, seg, syn, syn_ack};
use l3l4_tests::wire::{ACK, SYN};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        1,
        "9293 3.7.1, 7323 2.2, 2018 2",
        "a SYN-ACK has the MSS of the MTU, and other options only if offered",
        options_only_if_offered,
    ),
    Case::new(
        2,
        "9293 3.7.1 MUST-15",
        "to a SYN without options: none but MSS, segments of at most 536 (IPv6 1,220)",
        no_options,
    ),
    Case::new(
        3,
        "9293 3.10.7.2",
        "data in the SYN is delivered exactly once",
        data_in_the_syn,
    ),
    Case::new(
        4,
        "9293 3.8.1, 6298",
        "the same SYN again: the same SYN-ACK within 1.1 s, one flow",
        the_same_syn_again,
    ),
    Case::new(
        5,
        "9293 MUST-20, MUST-23, 6298 5",
        "a SYN-ACK without an answer: backing off from 1 s, then freed",
        syn_ack_without_an_answer,
    ),
    Case::new(
        9,
        "9293 3.10.7.4",
        "SYN-RECEIVED: a wrong ACK is answered with RST and does no harm",
        a_wrong_ack,
    ),
    Case::new(
        10,
        "9293 3.10.7.4",
        "SYN-RECEIVED: an exact RST frees the flow, one out of window does not",
        reset_before_established,
    ),
    Case::new(
        59,
        "9293 3.10.4",
        "close in SYN-RECEIVED: the SYN-ACK is repeated, FIN follows the ACK",
        close_before_established,
    ),
];

fn options_only_if_offered(x: &mut Exchange<'_>) {
    for offered in 0..8u16 {
        x.turn_to(Talk::new(x.family, 40_000 + offered));
        let (scale, sack, ts) = (offered & 1 != 0, offered & 2 != 0, offered & 4 != 0);
        let (mut first, mut absent) = (syn().mss(1400), Vec::new());
        match scale {
            true => first = first.scale(7),
            false => absent.push(Kind::Scale),
        }
        match sack {
            true => first = first.sack_ok(),
            false => absent.push(Kind::SackPermitted),
        }
        match ts {
            true => first = first.ts(77, 0),
            false => absent.push(Kind::Timestamps),
        }
        x.inject(first);
        let usual = x.usual_mss();
        let answer = x.expect(syn_ack().ack(1).mss(usual).len(0).without(&absent));
        if let Some((_, echo)) = answer.timestamps {
            x.require(echo == 77, "the SYN's timestamp echoed");
        }
        x.inject(ack());
        x.expect_events(&[Event::Established]);
    }
}

fn no_options(x: &mut Exchange<'_>) {
    let most = if x.family.ip_header() == 20 {
        536
    } else {
        1220
    };
    x.inject(syn());
    x.expect(
        syn_ack()
            .ack(1)
            .without(&[Kind::Scale, Kind::SackPermitted, Kind::Timestamps]),
    );
    x.inject(ack());
    x.app_sends(&stream(0, 3000));
    for segment in x.receive_until(3001) {
        let length = segment.payload.len();
        x.require(
            length <= most,
            format!("segments of at most {most} B; {length} came"),
        );
    }
}

fn data_in_the_syn(x: &mut Exchange<'_>) {
    x.inject(syn().mss(1400).payload(b"hello"));
    let answer = x.expect(syn_ack());
    x.require(
        matches!(answer.ack, 1 | 6),
        "the SYN, with or without its data, acknowledged",
    );
    x.inject(ack().seq(answer.ack));
    x.inject(data(b"hello").seq(1));
    x.pass(secs(1));
    x.expect_delivered(b"hello");
    x.inject(data(b" again").seq(6));
    x.expect_delivered(b" again");
}

fn the_same_syn_again(x: &mut Exchange<'_>) {
    x.inject(syn().mss(1400));
    x.expect(syn_ack().seq(0).ack(1));
    x.pass(ms(200));
    x.inject(syn().mss(1400).seq(0));
    x.expect_within(ms(1100), syn_ack().seq(0).ack(1));
    x.expect_flow();
    x.inject(ack());
    x.expect_events(&[Event::Established]);
}

fn syn_ack_without_an_answer(x: &mut Exchange<'_>) {
    x.inject(syn().mss(1400));
    x.expect(syn_ack().seq(0).ack(1));
    let repeats = x.segments_for(secs(200));
    let mut last = 0.0;
    let mut pauses = Vec::new();
    for (at, segment) in &repeats {
        let same = segment.flags == SYN | ACK && segment.seq == 0;
        x.require(same, "only the same SYN-ACK");
        pauses.push(at.as_secs_f64() - last);
        last = at.as_secs_f64();
    }
    // MUST-23: a SYN is tried for at least 3 minutes; that is for active opens, and
    // Linux gives a SYN-ACK up after 5 repetitions.
    x.require(
        pauses.len() >= 3,
        format!("at least 3 repetitions; {}", pauses.len()),
    );
    x.require(
        (0.9..=1.1).contains(&pauses[0]),
        format!("the first after 1 s; {pauses:?}"),
    );
    // RFC 6298 2.5: a limit may be set, of at least 60 s.
    let doubled = pauses
        .windows(2)
        .all(|two| (1.8..=2.2).contains(&(two[1] / two[0])) || two[1] >= 59.0);
    x.require(doubled, format!("each pause twice the last; {pauses:?}"));
    x.expect_closed(CloseReason::TimedOut(Timer::Handshake));
    x.inject(ack());
    x.expect(rst().seq(1));
}

fn a_wrong_ack(x: &mut Exchange<'_>) {
    x.inject(syn().mss(1400));
    x.expect(syn_ack());
    x.inject(ack().ack(5001));
    x.expect(rst().seq(5001));
    x.expect_events(&[]);
    x.inject(ack().ack(1));
    x.expect_events(&[Event::Established]);
}

fn reset_before_established(x: &mut Exchange<'_>) {
    x.inject(syn().mss(1400));
    x.expect(syn_ack());
    x.inject(rst().seq(200_000));
    x.silence();
    x.inject(ack());
    x.expect_events(&[Event::Established]);

    x.turn_to(Talk::new(x.family, 40_001));
    x.inject(syn().mss(1400));
    x.expect(syn_ack());
    x.inject(rst().seq(1));
    x.expect_closed(CloseReason::ResetByPeer);
    x.silence_for(secs(10));
    x.inject(seg(ACK).seq(1).ack(1));
    x.expect(rst().seq(1));
}

fn close_before_established(x: &mut Exchange<'_>) {
    x.inject(syn().mss(1400));
    x.expect(syn_ack());
    x.app_finishes();
    x.expect_within(ms(1100), syn_ack().seq(0).ack(1));
    x.inject(ack());
    x.expect_within(ms(500), fin().seq(1).ack(1));
    x.inject(fin().ack(2));
    x.expect(ack().seq(2).ack(2));
    x.expect_events(&[
        Event::Established,
        Event::PeerFinished,
        Event::Closed(CloseReason::Finished),
    ]);
}
