//! Loss and congestion: what is resent when, and how much is in flight.

use l3l4_engine::{CloseReason, Event};
use l3l4_tests::conformance::case::Case;
use l3l4_tests::conformance::exchange::{Exchange, Talk, ms, secs, stream};
use l3l4_tests::conformance::segment::{ack, fin, seg, syn};
use l3l4_tests::wire::{ACK, Tcp};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        40,
        "5681 3.2",
        "three duplicate ACKs: the first hole is resent at once",
        fast_retransmit,
    ),
    Case::new(
        41,
        "6582 3.2",
        "a partial ACK in recovery: the next hole is resent at once",
        partial_ack,
    ),
    Case::new(
        42,
        "6675 5",
        "SACK shows two holes: both are resent in the same round trip",
        two_holes,
    ),
    Case::new(
        43,
        "6298 2, 5.5, Karn",
        "silence: pauses double, no sample is taken of what was resent",
        silence_after_send,
    ),
    Case::new(
        44,
        "6298 2.3, Linux and gVisor floor of 200 ms",
        "20 samples of 10 ms, then loss: resent within 300 ms",
        short_timeout,
    ),
    Case::new(
        45,
        "5681 3.1, 6928 2",
        "the first flight of 60 kB: 10 segments, not more",
        initial_window,
    ),
    Case::new(
        46,
        "5681 3.1",
        "after a timeout the congestion window is one segment",
        loss_window,
    ),
    Case::new(
        78,
        "5681 3.1, 9438 4",
        "a new flow begins anew: nothing of an old one's congestion state",
        no_state_carried_over,
    ),
];

fn fast_retransmit(x: &mut Exchange<'_>) {
    x.handshake();
    let flight = flight(x, 6);
    let first = &flight[0];
    for _ in 0..2 {
        x.inject(ack().ack(first.seq));
        let early = x
            .segments()
            .iter()
            .any(|it| it.seq == first.seq && !it.payload.is_empty());
        x.require(!early, "nothing resent before the third duplicate");
    }
    x.inject(ack().ack(first.seq));
    x.expect_among(ms(0), seg(ACK).seq(first.seq).payload(&first.payload));
}

fn partial_ack(x: &mut Exchange<'_>) {
    x.handshake();
    let flight = flight(x, 8);
    let (first, second) = (&flight[0], &flight[2]);
    for _ in 0..6 {
        x.inject(ack().ack(first.seq));
    }
    x.expect_among(ms(0), seg(ACK).seq(first.seq).len(first.payload.len()));
    x.pass(ms(10));
    x.ignore_sent();
    x.inject(ack().ack(second.seq));
    x.expect_among(ms(0), seg(ACK).seq(second.seq).payload(&second.payload));
}

fn two_holes(x: &mut Exchange<'_>) {
    let mss = x.usual_mss();
    let answer = x.handshake_with(syn().mss(mss).sack_ok());
    x.require(answer.sack_permitted, "SACK permitted in the SYN-ACK");
    let flight = flight(x, 10);
    // The first and the fourth are lost, of the others comes an ACK each.
    let hole = &flight[3];
    let una = flight[0].seq;
    let lower = (flight[1].seq, hole.seq);
    x.inject(ack().ack(una).sack(&[(flight[1].seq, flight[1].end())]));
    x.inject(ack().ack(una).sack(&[lower]));
    for last in &flight[4..10] {
        x.inject(ack().ack(una).sack(&[(flight[4].seq, last.end()), lower]));
    }
    let resent = x.segments();
    for lost in [&flight[0], hole] {
        let again = resent
            .iter()
            .any(|it| it.seq == lost.seq && it.payload == lost.payload);
        x.require(again, format!("{} resent in the same round trip", lost.seq));
    }
}

/// RFC 6298 2.4 rounds a timeout up to 1 s (SHOULD); Linux' floor is 200 ms. Either
/// is taken here, case 44 asks for the second. A probe of the tail (RFC 8985 7) may
/// come before the first timeout.
fn silence_after_send(x: &mut Exchange<'_>) {
    x.handshake();
    let flow = x.flow();
    let sampled = |x: &mut Exchange<'_>| {
        let info = x.scene.info(flow);
        info.map(|info| info.round_trip_time)
    };
    let before = sampled(x);
    x.app_sends(&stream(0, 500));
    x.expect(seg(ACK).seq(1).len(500));
    let resent = x.segments_for(secs(35));
    let same = resent
        .iter()
        .all(|(_, it)| it.seq == 1 && it.payload.len() == 500);
    x.require(same, "nothing but the segment again");
    let mut times = vec![0.0];
    times.extend(resent.iter().map(|(at, _)| at.as_secs_f64()));
    let pauses: Vec<_> = times.windows(2).map(|two| two[1] - two[0]).collect();
    let first = pauses.first().copied().unwrap_or_default();
    x.require(
        (0.19..=1.1).contains(&first),
        format!("first after 1 s, or 0.2 s at least; {times:.2?}"),
    );
    let mut growth = pauses.windows(2).map(|two| two[1] / two[0]);
    let probed = growth.next().is_some_and(|first| first >= 0.9);
    let doubled = growth.all(|each| (1.8..=2.2).contains(&each));
    x.require(
        pauses.len() >= 5 && probed && doubled,
        format!("pauses that double; {times:.2?}"),
    );
    // Karn: the ACK may be of any of them.
    x.pass(ms(20));
    x.inject(ack().ack(501));
    let after = sampled(x);
    x.require(
        before == after,
        format!("no sample; {before:?}, then {after:?}"),
    );
    x.app_sends(&stream(500, 500));
    x.expect(seg(ACK).seq(501).len(500));
    x.pass(ms(10));
    x.inject(ack().ack(1001));
    let after = sampled(x);
    x.require(after != before, format!("a sample of 10 ms; {after:?}"));
}

/// The floor of 1 s is RFC 6298 2.4's SHOULD, and legal; the table asks for what the
/// large stacks do.
fn short_timeout(x: &mut Exchange<'_>) {
    x.handshake();
    for i in 0..20 {
        x.app_sends(&stream(i * 100, 100));
        x.expect(seg(ACK).seq(1 + i * 100).len(100));
        x.pass(ms(10));
        x.inject(ack());
    }
    x.app_sends(&stream(2000, 100));
    x.expect(seg(ACK).seq(2001).len(100));
    x.expect_within(ms(300), seg(ACK).seq(2001).len(100));
}

/// RFC 5681 sets the limit; ten segments are RFC 6928's MAY and the table's goal.
fn initial_window(x: &mut Exchange<'_>) {
    x.handshake();
    x.app_sends(&stream(0, 60_000));
    let segments = x.segments();
    let flight: usize = segments.iter().map(|it| it.payload.len()).sum();
    let goal = 10 * usize::from(x.usual_mss());
    x.require(flight <= goal, format!("at most 10 segments; {flight} B"));
    x.require(flight == goal, format!("{goal} B; {flight}"));
}

fn loss_window(x: &mut Exchange<'_>) {
    x.handshake();
    let flight = flight(x, 8);
    let una = flight[0].seq;
    let mss = flight[0].payload.len();
    // A probe of the tail (RFC 8985 7) may come before it.
    let again = x.expect_among(secs(3), seg(ACK).seq(una));
    x.require(again.payload.len() <= mss, "one segment");
    x.silence_for(ms(150));
    // The rest was lost too: slow start from one segment (RFC 5681 3.1 eq. 2).
    x.inject(ack().ack(again.end()));
    let next: usize = x.segments().iter().map(|it| it.payload.len()).sum();
    x.require(
        (1..=2 * mss).contains(&next),
        format!("one or two segments; {next} B"),
    );
}

fn no_state_carried_over(x: &mut Exchange<'_>) {
    x.handshake();
    let early = first_flight(x);
    let end = x.talk.heard;
    x.app_sends(&stream(0, 60_000));
    x.receive_until(end + 60_000);
    x.ignore_sent();
    // The peer closes first, so that the tuple is free at once (RFC 9293 3.3.2).
    x.inject(fin());
    x.app_finishes();
    x.inject(ack());
    x.pass(secs(1));
    let events = x.events();
    let closed = Event::Closed(CloseReason::Finished);
    x.require(
        events.last() == Some(&closed),
        format!("a clean end; {events:?}"),
    );
    x.ignore_sent();
    for port in [40_000, 40_001] {
        x.turn_to(Talk::new(x.family, port).isn(900_000_000));
        x.handshake();
        let flow = x.flow();
        let info = x.scene.info(flow);
        let counted = info.map(|info| (info.bytes_sent, info.retransmits));
        x.require(counted == Ok((0, 0)), format!("a fresh flow; {counted:?}"));
        let late = first_flight(x);
        x.require(
            late == early,
            format!("a first flight of {early} B; {late}"),
        );
    }
}

/// Bytes of the first flight; all is acknowledged in the end.
fn first_flight(x: &mut Exchange<'_>) -> usize {
    x.app_sends(&stream(0, 40_000));
    let segments = x.segments();
    x.inject(ack());
    x.receive_until(40_001);
    segments.iter().map(|it| it.payload.len()).sum()
}

/// A congestion window grown by 100 kB, then a flight of so many full segments.
fn flight(x: &mut Exchange<'_>, segments: u32) -> Vec<Tcp> {
    for _ in 0..2 {
        let at = x.talk.heard;
        x.app_sends(&stream(at - 1, 50_000));
        x.receive_until(at + 50_000);
    }
    x.pass(secs(1));
    x.ignore_sent();
    let at = x.talk.heard;
    let bytes = segments * u32::from(x.usual_mss());
    x.app_sends(&stream(at - 1, bytes));
    let flight = x.segments();
    let came = flight.len();
    let wanted = usize::try_from(segments).expect("a few");
    x.require(
        came == wanted,
        format!("a flight of {segments} segments; {came}"),
    );
    flight
}
