//! The sending side: the peer's window and its acknowledgements.

use std::time::Duration;

use l3l4_engine::{CloseReason, Event};
use l3l4_tests::conformance::case::Case;
use l3l4_tests::conformance::exchange::{Exchange, ms, secs, stream};
use l3l4_tests::conformance::segment::{ack, data, fin, seg, syn};
use l3l4_tests::wire::{ACK, Tcp};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        36,
        "9293 3.7.1, 3.8.6",
        "an MSS of 512 and a window of 3,000: 10 kB go beyond neither",
        within_mss_and_window,
    ),
    Case::new(
        37,
        "9293 MUST-36, MUST-37, SHLD-30",
        "a window of 0 for 400 s: probes back off, never give up, find a lost update",
        closed_window,
    ),
    Case::new(
        38,
        "9293 MUST-34, MUST-35",
        "a window that closes on data in flight: probes go on after the timeout",
        window_closed_in_flight,
    ),
    Case::new(
        39,
        "9293 SHLD-16, MAY-7",
        "a flight of two, the first ACKed with window 0, then 256: the second is resent",
        flight_meets_closed_window,
    ),
    Case::new(
        47,
        "9293 MUST-38, 3.8.6.2.1",
        "a window that opens by 10 B: wait for more, but not for ever",
        silly_send,
    ),
    Case::new(
        48,
        "9293 3.10.7.4, 5961 5",
        "an ACK of what was not sent: answered and dropped, the queue intact",
        ack_of_the_unsent,
    ),
    Case::new(
        49,
        "5961 5.2",
        "data whose ACK is older than the largest window: dropped and answered",
        ancient_ack,
    ),
    Case::new(
        50,
        "9293 3.10.7.4",
        "an older segment that comes late does not set the window (WL1, WL2)",
        stale_window,
    ),
    Case::new(
        51,
        "9293 MUST-20, SHLD-11, 3.8.3",
        "the peer vanishes with data queued: given up after 100 s or more, reported",
        vanished_peer,
    ),
    Case::new(
        52,
        "9293 MUST-25, 5482",
        "idle for 2 hours with a user timeout of 30 s: nothing sent, not killed",
        idle,
    )
    .with(|config| config.user_timeout = Duration::from_secs(30)),
    Case::new(
        53,
        "7323 3.2, 4.3, 5.3",
        "timestamps: echoed, PAWS, not moved out of order, missing ones dropped",
        timestamps,
    ),
    Case::new(
        54,
        "9293 3.10.7.4, 3.4",
        "500 B both ways, a pure ACK lost each way: ACKs at SND.NXT, both finish",
        lost_acks,
    ),
];

fn within_mss_and_window(x: &mut Exchange<'_>) {
    x.talk.window = 3000;
    x.handshake_with(syn().mss(512));
    x.app_sends(&stream(0, 10_000));
    let mut acknowledged = 1;
    while acknowledged < 10_001 {
        x.pass(ms(1));
        for segment in x.segments() {
            let (length, end) = (segment.payload.len(), segment.end());
            x.require(
                length <= 512,
                format!("at most 512 B in a segment; {length}"),
            );
            let edge = acknowledged + 3000;
            x.require(end <= edge, format!("nothing beyond {edge}; {end}"));
        }
        let stuck = acknowledged == x.talk.heard && x.elapsed() > secs(60);
        x.require(!stuck, "10 kB in a minute");
        acknowledged = x.talk.heard;
        x.inject(ack());
    }
}

fn closed_window(x: &mut Exchange<'_>) {
    x.handshake();
    x.inject(ack().win(0));
    x.app_sends(&stream(0, 1000));
    let mut probes = vec![x.elapsed()];
    while x.elapsed() < secs(400) {
        for (at, probe) in x.segments_for(ms(500)) {
            let length = probe.payload.len();
            x.require(length <= 1, format!("a probe of at most 1 B; {length}"));
            probes.push(at);
            x.inject(ack().ack(1).win(0));
        }
    }
    x.expect_events(&[]);
    x.require(
        probes.len() > 5,
        format!("5 probes in 400 s; {}", probes.len() - 1),
    );
    let pauses: Vec<_> = probes.windows(2).map(|two| two[1] - two[0]).collect();
    let growing = pauses.windows(2).all(|two| two[1] + ms(100) >= two[0]);
    x.require(growing, format!("pauses that grow; {pauses:?}"));
    x.require(
        *pauses.last().expect("some") > 2 * pauses[0],
        format!("pauses that back off; {pauses:?}"),
    );
    // The update is lost: the answer to the next probe tells of the window.
    let probe = x.expect_within(secs(130), seg(ACK));
    // A probe may carry a byte, or none and an old number.
    x.inject(ack().ack(probe.end().clamp(1, 2)).win(5000));
    let rest = x.receive_until(1001);
    x.require(!rest.is_empty(), "the data");
}

fn window_closed_in_flight(x: &mut Exchange<'_>) {
    x.handshake();
    x.app_sends(&stream(0, 1000));
    x.expect(seg(ACK).seq(1).len(1000));
    x.inject(ack().ack(1).win(0));
    let probes = x.segments_for(secs(100));
    let late = probes.iter().filter(|(at, _)| *at > secs(10)).count();
    x.require(
        probes.len() >= 3 && late >= 1,
        format!("probes; {}", probes.len()),
    );
    x.inject(ack().ack(1));
    x.expect_among(secs(100), seg(ACK).seq(1).len(1000));
}

fn flight_meets_closed_window(x: &mut Exchange<'_>) {
    x.handshake();
    grow(x, 20_000);
    let at = x.talk.heard;
    x.app_sends(&stream(at - 1, 2000));
    let flight = x.segments();
    x.require(
        flight.len() == 2,
        format!("a flight of two; {}", flight.len()),
    );
    let second = flight[1].seq;
    x.inject(ack().ack(second).win(0));
    x.pass(ms(100));
    x.ignore_sent();
    x.inject(ack().ack(second).win(256));
    let limit = x.elapsed() + secs(10);
    let resent = loop {
        x.require(x.elapsed() < limit, "the second segment again within 10 s");
        let segments = x.segments_for(ms(100));
        let found = segments.into_iter().find(|(_, it)| !it.payload.is_empty());
        if let Some((_, segment)) = found {
            break segment;
        }
    };
    // More than 256 B is legal, since it was offered before (MAY-7).
    let from = resent.seq;
    x.require(from == second, format!("from {second}; from {from}"));
    x.talk.heard = resent.end();
    x.inject(ack());
    x.receive_until(at + 2000);
}

fn silly_send(x: &mut Exchange<'_>) {
    x.handshake();
    x.inject(ack().win(0));
    x.app_sends(&stream(0, 3000));
    // A probe may go at once (SHLD-29: after a timeout), of which nothing is taken.
    x.ignore_sent();
    x.inject(ack().ack(1).win(10));
    // RFC 9293 3.8.6.2.1: the override timeout is 0.1 to 1 s.
    x.silence_for(ms(90));
    // After it, or with the next probe, something goes.
    let some = x.expect_among(secs(10), seg(ACK).seq(1));
    let length = some.payload.len();
    x.require((1..=10).contains(&length), format!("1 to 10 B; {length}"));
    x.talk.heard = some.end();
    x.inject(ack().win(64_000));
    x.receive_until(3001);
}

fn ack_of_the_unsent(x: &mut Exchange<'_>) {
    x.handshake();
    x.inject(ack().win(100));
    x.talk.window = 100;
    x.app_sends(&stream(0, 500));
    x.expect_within(secs(2), seg(ACK).seq(1).payload(&stream(0, 100)));
    // Of bytes that are queued, and of bytes that nobody has.
    for beyond in [300, 5000] {
        x.inject(ack().ack(beyond));
        x.expect_among(ms(0), ack().seq(101).ack(1));
        // Challenge ACKs may be limited (RFC 5961 7).
        x.pass(secs(1));
    }
    x.ignore_sent();
    x.talk.window = 64_000;
    x.inject(ack().ack(101));
    let rest: Vec<_> = x
        .receive_until(501)
        .into_iter()
        .flat_map(|it| it.payload)
        .collect();
    x.require(rest == stream(100, 400), "the queue intact");
}

fn ancient_ack(x: &mut Exchange<'_>) {
    x.talk.window = 1000;
    x.handshake_with(syn().mss(500));
    x.app_sends(&stream(0, 5000));
    x.receive_until(5001);
    x.pass(secs(10));
    x.ignore_sent();
    x.inject(data(b"blind").seq(1).ack(1));
    x.expect(ack().seq(5001).ack(1));
    x.pass(secs(1));
    x.expect_delivered(b"");
    x.inject(data(b"good").seq(1));
    x.expect_delivered(b"good");
}

fn stale_window(x: &mut Exchange<'_>) {
    x.handshake();
    grow(x, 20_000);
    let at = x.talk.heard;
    // The update overtakes the data before it, which offers a smaller window.
    x.inject(ack().seq(11).win(60_000));
    x.inject(data(&stream(0, 10)).seq(1).win(100));
    // And so does a duplicate of it.
    x.inject(data(&stream(0, 10)).seq(1).win(100));
    x.expect_delivered(&stream(0, 10));
    x.pass(ms(500));
    x.ignore_sent();
    x.app_sends(&stream(at - 1, 3000));
    let flight: usize = x.segments().iter().map(|it| it.payload.len()).sum();
    x.require(flight == 3000, format!("3,000 B at once; {flight}"));
}

fn vanished_peer(x: &mut Exchange<'_>) {
    x.handshake();
    x.app_sends(&stream(0, 1000));
    x.pass(secs(99));
    x.expect_events(&[]);
    x.pass(secs(901));
    let events = x.events();
    let told = matches!(events[..], [Event::Closed(CloseReason::TimedOut(_))]);
    x.require(told, format!("a timeout; {events:?}"));
}

fn idle(x: &mut Exchange<'_>) {
    x.handshake();
    x.silence_for(secs(7200));
    x.expect_events(&[]);
    x.inject(data(b"back"));
    x.expect_delivered(b"back");
    x.pass(ms(500));
    x.ignore_sent();
    x.app_sends(b"welcome");
    x.expect(seg(ACK).seq(1).payload(b"welcome"));
}

fn timestamps(x: &mut Exchange<'_>) {
    let answer = x.handshake_with(syn().mss(1400).ts(1000, 0));
    let echoes = |it: &Tcp, value: u32| it.timestamps.is_some_and(|(_, echo)| echo == value);
    x.require(echoes(&answer, 1000), "the SYN's timestamp echoed");
    let theirs = answer.timestamps.map_or(0, |(value, _)| value);
    // The ACK of the handshake had 1001.
    x.inject(data(&stream(0, 100)).seq(1).ts(1002, theirs));
    let first = x.expect_within(ms(500), ack().ack(101));
    x.require(echoes(&first, 1002), "the data's timestamp echoed");
    // Old: PAWS drops and answers (RFC 7323 5.3 R1).
    x.inject(data(b"old").seq(101).ts(500, theirs));
    let paws = x.expect(ack().ack(101));
    x.require(echoes(&paws, 1002), "TS.Recent unmoved by an old segment");
    // Out of order: TS.Recent stays (RFC 7323 4.3 (2)).
    x.inject(data(&stream(200, 100)).seq(201).ts(2000, theirs));
    let duplicate = x.expect(ack().ack(101));
    x.require(echoes(&duplicate, 1002), "TS.Recent unmoved out of order");
    // Without: dropped in silence (RFC 7323 3.2).
    x.inject(data(b"none").seq(101));
    x.silence();
    x.inject(data(&stream(100, 100)).seq(101).ts(2001, theirs));
    x.pass(secs(1));
    x.expect_delivered(&stream(0, 300));
    x.ignore_sent();
    x.app_sends(b"data");
    let sent = x.expect(seg(ACK).payload(b"data"));
    x.require(echoes(&sent, 2001), "every segment has the timestamps");
}

/// The hang: an endpoint that sends a pure ACK at SND.UNA, or at what it
/// retransmits, has it dropped as a duplicate by a peer that has more.
fn lost_acks(x: &mut Exchange<'_>) {
    x.handshake();
    x.app_sends(&stream(0, 500));
    x.expect(seg(ACK).seq(1).len(500));
    // The peer's own data crosses it. Our ACK of it is lost, and so is the peer's.
    let theirs = data(&stream(0, 500)).seq(1);
    x.inject(theirs.clone().ack(1));
    x.expect_delivered(&stream(0, 500));
    // Alone at SND.NXT, or with our data when its timeout is shorter.
    x.expect_among(ms(500), seg(ACK).ack(501));
    // Ours fires first, then the peer's, then ours again.
    x.expect_within(secs(3), seg(ACK).seq(1).ack(501).len(500));
    x.inject(theirs.clone().ack(1));
    x.expect_among(ms(500), ack().seq(501).ack(501));
    x.expect_among(secs(7), seg(ACK).seq(1).ack(501).len(500));
    x.inject(theirs.ack(501));
    x.expect_among(ms(500), ack().seq(501).ack(501));
    x.inject(ack().seq(501).ack(501));
    x.expect_delivered(b"");
    x.silence_for(secs(60));
    x.talk.next = 501;
    x.app_finishes();
    x.expect(fin().seq(501).ack(501));
    x.inject(fin().ack(502));
    x.expect(ack().seq(502).ack(502));
    x.expect_events(&[Event::PeerFinished, Event::Closed(CloseReason::Finished)]);
}

/// So much data sent and acknowledged, for a larger congestion window.
fn grow(x: &mut Exchange<'_>, bytes: u32) {
    let at = x.talk.heard;
    x.app_sends(&stream(at - 1, bytes));
    x.receive_until(at + bytes);
    x.pass(secs(2));
    x.ignore_sent();
}
