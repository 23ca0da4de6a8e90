//! The receiving side: acknowledgements, gaps, the window that we offer.

use l3l4_engine::Event;
use l3l4_tests::conformance::case::Case;
use l3l4_tests::conformance::exchange::{Exchange, Talk, ms, secs, stream};
use l3l4_tests::conformance::segment::{Kind, Segment, ack, data, fin, seg, syn, syn_ack};
use l3l4_tests::craft;
use l3l4_tests::random::Random;
use l3l4_tests::wire::{ACK, FIN, PSH};

pub(crate) const CASES: &[Case] = &[
    Case::new(
        19,
        "9293 MUST-40, SHLD-19, 5681 4.2",
        "data in order: delivered, acknowledged within 500 ms and every 2nd segment",
        in_order,
    ),
    Case::new(
        20,
        "5681 4.2, 2018 4",
        "a segment out of order: a duplicate ACK at once, with SACK if negotiated",
        out_of_order,
    ),
    Case::new(
        21,
        "2018 4",
        "three holes: three SACK blocks, the newest first",
        three_holes,
    ),
    Case::new(
        22,
        "9293 3.10.7.4, 5681 4.2",
        "overlapping and duplicate segments: the stream intact, duplicates ACKed at once",
        overlaps,
    ),
    Case::new(
        23,
        "9293 3.10.7.4",
        "a segment over the right edge is trimmed; one beyond is ACKed and dropped",
        right_edge,
    )
    .with(|config| config.tcp_receive_buffer = 4096),
    Case::new(
        24,
        "9293 3.10.7.4, SHLD-31",
        "FIN before a gap, FIN on duplicate data: the end when the gap is filled",
        fin_before_a_gap,
    ),
    Case::new(
        25,
        "9293 3.10.7.4",
        "FIN on data that overruns the window: no end before the last byte",
        fin_over_the_edge,
    )
    .with(|config| config.tcp_receive_buffer = 4096),
    Case::new(
        26,
        "9293 3.10.7.4",
        "data after the peer's FIN is ignored",
        data_after_fin,
    ),
    Case::new(
        27,
        "7323 2.2, 9293 3.10.7.4",
        "data past the largest buffer before our first ACK: trimmed, no foreign byte",
        past_the_largest_buffer,
    )
    .with(|config| config.tcp_receive_buffer = 65_535),
    Case::new(
        28,
        "9293 3.8.6.1 MUST-37",
        "our window 0: each probe is ACKed; the update follows the read",
        our_window_closed,
    )
    .with(|config| config.tcp_receive_buffer = 4096),
    Case::new(
        29,
        "9293 SHLD-14, 7323 2.4",
        "200 segments and reads: the right edge never moves left",
        edge_moves_right,
    )
    .with(|config| config.tcp_receive_buffer = 16_384),
    Case::new(
        30,
        "9293 MUST-39, 3.8.6.2.2",
        "a full buffer, 10 B read: no window below min(MSS, half the buffer)",
        silly_window,
    )
    .with(|config| config.tcp_receive_buffer = 8192),
    Case::new(
        31,
        "9293 3.4",
        "20 kB over the wrap of the sequence numbers",
        wrap,
    ),
    Case::new(
        32,
        "9293 3.10.7.4",
        "data whose ACK is older than SND.UNA: the text is accepted",
        old_ack,
    ),
    Case::new(33, "9293 MUST-31", "urgent data: no byte lost", urgent),
    Case::new(
        34,
        "9293 MUST-3, 3.1",
        "a bad checksum, a data offset of 0, 4 or 15: silence",
        broken_headers,
    ),
    Case::new(
        35,
        "5681 4.2",
        "64 holes: a duplicate ACK for each segment",
        many_holes,
    ),
];

/// This part of the stream, at its place.
fn piece(from: u32, to: u32) -> Segment {
    data(&stream(from, to - from)).seq(from + 1)
}

fn in_order(x: &mut Exchange<'_>) {
    x.handshake();
    x.inject(piece(0, 100));
    x.expect_delivered(&stream(0, 100));
    x.expect_within(ms(500), ack().seq(1).ack(101));
    let full = u32::from(x.usual_mss());
    let mut at = 100;
    for _ in 0..5 {
        x.inject(piece(at, at + full));
        x.inject(piece(at + full, at + 2 * full));
        at += 2 * full;
        let last = x.segments().pop();
        let last = last.map_or(0, |answer| answer.ack);
        // SHLD-19: at least every second full-sized segment.
        x.require(
            last > at - full,
            format!("an ACK of more than {}; {last}", at - full),
        );
    }
    x.expect_delivered(&stream(100, 10 * full));
    x.pass(ms(500));
    x.ignore_sent();
    x.inject(ack().seq(at + 1));
    x.silence_for(secs(1));
}

fn out_of_order(x: &mut Exchange<'_>) {
    let answer = x.handshake_with(syn().mss(1400).sack_ok());
    x.require(answer.sack_permitted, "SACK permitted in the SYN-ACK");
    x.inject(piece(100, 200));
    x.expect(ack().seq(1).ack(1).sack(&[(101, 201)]));
    x.inject(piece(0, 100));
    x.expect_within(ms(500), ack().ack(201).without(&[Kind::Sack]));
    x.expect_delivered(&stream(0, 200));

    x.turn_to(Talk::new(x.family, 40_001));
    x.handshake();
    x.inject(piece(100, 200));
    x.expect(ack().seq(1).ack(1).without(&[Kind::Sack]));
}

fn three_holes(x: &mut Exchange<'_>) {
    x.handshake_with(syn().mss(1400).sack_ok());
    for from in [100, 300, 500] {
        x.inject(piece(from, from + 100));
    }
    x.expect(ack().ack(1).sack(&[(101, 201)]));
    x.expect(ack().ack(1).sack(&[(301, 401), (101, 201)]));
    x.expect(ack().ack(1).sack(&[(501, 601), (301, 401), (101, 201)]));
}

fn overlaps(x: &mut Exchange<'_>) {
    x.handshake();
    x.inject(piece(0, 100));
    x.expect_within(ms(500), ack().ack(101));
    // Out of order, then around it; then duplicates, in part and as a whole.
    for (from, to, acknowledged) in [
        (200, 300, 101),
        (150, 350, 101),
        (250, 300, 101),
        (50, 100, 101),
        (0, 100, 101),
    ] {
        x.inject(piece(from, to));
        x.expect(ack().ack(acknowledged));
        // Answers to what lies outside of the window may be limited (RFC 5961 7).
        x.pass(secs(1));
    }
    x.inject(piece(50, 250));
    x.expect_within(ms(500), ack().ack(351));
    x.inject(piece(340, 600));
    x.expect_within(ms(500), ack().ack(601));
    x.expect_delivered(&stream(0, 600));
}

fn right_edge(x: &mut Exchange<'_>) {
    x.handshake();
    x.app_takes(0);
    x.inject(piece(0, 1400));
    x.inject(piece(1400, 2800));
    x.inject(piece(2800, 4000));
    x.inject(piece(4000, 5000));
    x.pass(ms(500));
    let edge = x.segments().pop().map_or(0, |answer| x.right_edge(&answer));
    x.require(edge == 4097, format!("a right edge of 4097; {edge}"));
    x.inject(piece(4096, 5000));
    x.expect(ack().ack(4097).win(0));
    // Such answers may be limited (RFC 5961 7).
    x.pass(secs(1));
    x.inject(piece(20_000, 20_100));
    x.expect(ack().ack(4097).win(0));
    x.app_reads_all();
    x.expect_delivered(&stream(0, 4096));
    x.pass(ms(500));
    x.inject(piece(4096, 5000));
    x.expect_delivered(&stream(4096, 904));
}

fn fin_before_a_gap(x: &mut Exchange<'_>) {
    x.handshake();
    x.inject(piece(0, 100));
    x.inject(fin().seq(201));
    x.expect_events(&[]);
    x.inject(piece(100, 200));
    x.expect_delivered(&stream(0, 200));
    x.expect_events(&[Event::PeerFinished]);
    x.expect_among(ms(500), ack().ack(202));
    x.ignore_sent();

    x.turn_to(Talk::new(x.family, 40_001));
    x.handshake();
    x.inject(piece(0, 100));
    x.inject(piece(50, 100).with(FIN));
    x.expect_delivered(&stream(0, 100));
    x.expect_events(&[Event::PeerFinished]);
    x.expect_among(ms(500), ack().ack(102));
}

fn fin_over_the_edge(x: &mut Exchange<'_>) {
    x.handshake();
    x.app_takes(0);
    x.inject(piece(0, 1400));
    x.inject(piece(1400, 2800));
    x.inject(piece(2800, 5000).with(FIN));
    x.pass(ms(500));
    x.app_reads_all();
    x.expect_delivered(&stream(0, 4096));
    x.expect_events(&[]);
    x.inject(piece(2800, 5000).with(FIN));
    x.expect_delivered(&stream(4096, 904));
    x.expect_events(&[Event::PeerFinished]);
}

fn data_after_fin(x: &mut Exchange<'_>) {
    x.handshake();
    x.inject(piece(0, 100).with(FIN));
    x.expect_events(&[Event::PeerFinished]);
    x.inject(seg(ACK | PSH).seq(102).payload(b"after"));
    x.inject(seg(ACK | PSH).seq(101).payload(b"upon"));
    x.inject(seg(ACK | PSH | FIN).seq(102).payload(b"twice"));
    x.pass(secs(1));
    x.expect_delivered(&stream(0, 100));
    x.expect_events(&[]);
}

/// The largest buffer of the configuration is 65,535 B.
fn past_the_largest_buffer(x: &mut Exchange<'_>) {
    x.inject(syn().mss(1400).scale(7));
    let answer = x.expect(syn_ack().ack(1));
    let edge = u32::from(answer.window);
    // The first segment after the SYN crosses the edge; the next lies beyond.
    x.app_takes(0);
    x.inject(piece(edge - 100, edge + 900));
    x.inject(piece(edge, edge + 1000));
    x.inject(piece(edge + 5000, edge + 6000));
    let mut at = 0;
    while at < edge - 100 {
        let end = (at + 1400).min(edge - 100);
        x.inject(piece(at, end));
        at = end;
    }
    x.pass(secs(1));
    x.app_reads_all();
    let delivered = x.delivered();
    let length = u32::try_from(delivered.len()).unwrap();
    x.require(
        (edge - 100..=edge + 1000).contains(&length) && delivered == stream(0, length),
        format!("the stream up to the window's edge; {length} bytes"),
    );
    x.inject(piece(edge - 100, edge + 900));
    let rest = x.delivered();
    x.require(
        rest == stream(length, edge + 900 - length),
        "the rest when sent again",
    );
}

fn our_window_closed(x: &mut Exchange<'_>) {
    x.handshake();
    x.app_takes(0);
    for from in [0, 1024, 2048, 3072] {
        x.inject(piece(from, from + 1024));
    }
    x.pass(ms(500));
    x.ignore_sent();
    for _ in 0..20 {
        x.inject(piece(4096, 4097));
        x.expect(ack().ack(4097).win(0));
        x.silence_for(secs(1));
    }
    x.app_reads_all();
    x.expect_delivered(&stream(0, 4096));
    let update = x.expect_within(ms(500), ack().ack(4097));
    x.require(update.window > 0, "an open window");
    x.inject(piece(4096, 5000));
    x.expect_delivered(&stream(4096, 904));
}

/// RFC 7323 2.4: with a scale, an edge may seem to move left by less than a unit.
fn edge_moves_right(x: &mut Exchange<'_>) {
    let answer = x.handshake_with(syn().mss(1400).scale(7));
    x.app_takes(0);
    let mut random = Random::new(29);
    let below = |random: &mut Random, bound: u32| {
        let bound = usize::try_from(bound).unwrap();
        u32::try_from(random.below(bound)).unwrap()
    };
    let slack = (1u32 << x.talk.scale) - 1;
    let (mut edge, mut at, mut taken) = (1 + u32::from(answer.window), 0, 0);
    for _ in 0..200 {
        if random.below(3) > 0 {
            let room = (edge - 1).saturating_sub(at).min(1400);
            if room > 0 {
                let length = 1 + below(&mut random, room);
                x.inject(piece(at, at + length));
                at += length;
            }
        } else if at > taken {
            let length = 1 + below(&mut random, at - taken);
            x.app_reads(usize::try_from(length).unwrap());
            taken += length;
        }
        x.pass(ms(u64::from(below(&mut random, 300))));
        for answer in x.segments() {
            let right = x.right_edge(&answer);
            x.require(
                right + slack >= edge,
                format!("an edge of {edge} or more; {right}"),
            );
            edge = edge.max(right);
        }
    }
    x.app_reads_all();
    x.expect_delivered(&stream(0, at));
}

fn silly_window(x: &mut Exchange<'_>) {
    x.handshake();
    x.app_takes(0);
    let mut at = 0;
    while at < 8192 {
        let end = (at + 1400).min(8192);
        x.inject(piece(at, end));
        at = end;
    }
    x.pass(ms(500));
    let last = x.segments().pop();
    x.require(last.is_some_and(|last| last.window == 0), "a closed window");
    let least = u32::from(x.usual_mss()).min(4096);
    for _ in 0..5 {
        x.app_reads(10);
        x.pass(secs(1));
        x.inject(piece(8192, 8193));
        for answer in x.segments() {
            let window = x.window_of(&answer);
            let fine = window == 0 || window >= least;
            x.require(fine, format!("a window of 0 or at least {least}; {window}"));
        }
    }
    x.app_reads_all();
    let update = x.expect_within(secs(1), seg(ACK));
    let window = x.window_of(&update);
    x.require(window >= least, format!("the open window; {window}"));
}

fn wrap(x: &mut Exchange<'_>) {
    x.turn_to(Talk::new(x.family, 40_000).isn(0xffff_ff00));
    x.handshake();
    for from in (0..20_000).step_by(1000) {
        x.inject(piece(from, from + 1000));
    }
    x.expect_delivered(&stream(0, 20_000));
    x.expect_among(ms(500), ack().ack(20_001));
}

fn old_ack(x: &mut Exchange<'_>) {
    x.handshake();
    x.app_sends(&stream(0, 1000));
    x.expect(seg(ACK).seq(1).len(1000));
    x.inject(ack().ack(1001));
    x.inject(piece(0, 100).ack(1));
    x.expect_delivered(&stream(0, 100));
    x.expect_within(ms(500), ack().seq(1001).ack(101));
}

fn urgent(x: &mut Exchange<'_>) {
    x.handshake();
    x.inject(piece(0, 100).urgent(50));
    x.inject(piece(100, 200).urgent(100));
    x.inject(piece(200, 300).urgent(0xffff));
    x.inject(piece(300, 400));
    x.expect_delivered(&stream(0, 400));
    x.expect_events(&[]);
}

/// What is done to a packet whose transport begins at this byte.
type Breakage = fn(Vec<u8>, usize) -> Vec<u8>;

fn broken_headers(x: &mut Exchange<'_>) {
    let transport = x.family.ip_header();
    let breakages: [Breakage; 4] = [
        |mut packet, at| {
            packet[at + 16] ^= 0x55;
            packet
        },
        |packet, at| with_offset(packet, at, 0),
        |packet, at| with_offset(packet, at, 4),
        |packet, at| with_offset(packet, at, 15),
    ];
    for broken in breakages {
        let first = x.packet(syn().seq(0).mss(1400));
        x.inject(broken(first, transport));
        x.silence();
        x.expect_no_flow();
    }
    x.handshake();
    for broken in breakages {
        let segment = x.packet(data(b"hello").seq(1));
        x.inject(broken(segment, transport));
        x.silence_for(secs(1));
        x.expect_delivered(b"");
    }
    x.inject(data(b"hello").seq(1));
    x.expect_delivered(b"hello");
}

/// Another data offset, all checksums right.
fn with_offset(mut packet: Vec<u8>, transport: usize, offset: u8) -> Vec<u8> {
    packet[transport + 12] = offset << 4;
    craft::seal(packet)
}

fn many_holes(x: &mut Exchange<'_>) {
    x.handshake();
    for hole in 1..=64 {
        x.inject(piece(hole * 20, hole * 20 + 10));
        x.expect(ack().seq(1).ack(1));
    }
    x.expect_delivered(b"");
    // However much of it was kept, the stream comes through when sent again.
    x.inject(piece(0, 1300));
    x.expect_delivered(&stream(0, 1300));
}
