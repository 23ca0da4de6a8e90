//! Blind attackers who know the tuple of a connection and not its sequence numbers:
//! 10,000 packets a second for 7 s, at one connection of each family.
//!
//! To hold: the connection lives, no byte of theirs is delivered, and at most two
//! challenge ACKs a second go out (RFC 5961 7), to data and FINs out of the window at
//! most ten answers a second (RFC 9293 3.10.7.4 wants one each).

use std::time::Duration;

use l3l4_engine::FlowId;
use l3l4_tests::craft::{FAMILIES, Peer, Segment};
use l3l4_tests::scene::{Scene, config, on_both};
use l3l4_tests::wire::{ACK, FIN, PSH, RST, SYN};

use crate::spoofed::{Spoofed, flood};

const PACKETS_A_TICK: usize = 10;
const TICKS: usize = 7000;
/// Two a second for 7 s, and those of the second that has begun.
const MOST_CHALLENGES: u64 = 16;
const MOST_ANSWERS: u64 = 80;

#[test]
fn resets_anywhere_end_nothing() {
    survives(|peer, spoofed, _| peer.segment(RST).seq(spoofed.number()));
    survives(|peer, spoofed, _| peer.segment(RST | ACK).seq(spoofed.number()));
}

/// Every window's worth of the sequence space gets one, as an attacker would who
/// counts on RFC 793's rule.
#[test]
fn resets_in_every_window_end_nothing() {
    survives(|peer, _, i| {
        let seq = peer
            .next
            .wrapping_add(1)
            .wrapping_add(i.wrapping_mul(65_000));
        peer.segment(RST).seq(seq)
    });
}

#[test]
fn resets_in_the_window_but_not_at_its_edge_end_nothing() {
    survives(|peer, spoofed, _| {
        let seq = peer.next + 1 + spoofed.number() % 60_000;
        peer.segment(RST).seq(seq)
    });
}

#[test]
fn syns_end_nothing() {
    survives(|peer, spoofed, _| peer.segment(SYN).seq(spoofed.number()));
    survives(|peer, spoofed, _| peer.segment(SYN).seq(peer.next + spoofed.number() % 60_000));
}

#[test]
fn data_is_not_delivered() {
    survives_with(MOST_ANSWERS, |peer, spoofed, _| {
        let evil = peer.segment(ACK | PSH).payload(b"evil");
        evil.seq(spoofed.number()).acking(spoofed.number())
    });
}

/// The right sequence number, and acknowledgements that no window explains (RFC 5961
/// 5.2).
#[test]
fn data_at_the_edge_with_a_wrong_acknowledgement_is_not_delivered() {
    survives(|peer, spoofed, _| {
        let beyond = peer.expected + 1 + spoofed.number() % (1 << 30);
        let evil = peer.segment(ACK | PSH).payload(b"evil");
        evil.acking(beyond)
    });
}

#[test]
fn fins_end_nothing() {
    survives_with(MOST_ANSWERS, |peer, spoofed, _| {
        let fin = peer.segment(FIN | ACK);
        fin.seq(spoofed.number()).acking(spoofed.number())
    });
}

/// Storms connections with 70,000 of these each, which have challenges for answers.
fn survives(evil: impl Fn(&Peer, &mut Spoofed, u32) -> Segment) {
    survives_with(MOST_CHALLENGES, evil);
}

/// The same with so many answers at most.
fn survives_with(most: u64, evil: impl Fn(&Peer, &mut Spoofed, u32) -> Segment) {
    on_both(config(), |scene| {
        let mut spoofed = Spoofed::new(61);
        for family in FAMILIES {
            let mut peer = Peer::new(family);
            let flow = scene.connect(&mut peer);
            converse(scene, flow, &mut peer);
            let before = scene.counters();
            let mut number = 0;
            for _ in 0..TICKS {
                let batch: Vec<_> = (0..PACKETS_A_TICK)
                    .map(|_| {
                        number += 1;
                        evil(&peer, &mut spoofed, number).into()
                    })
                    .collect();
                flood(scene, &batch);
                scene.wait(Duration::from_millis(1));
                scene.host().sent.clear();
            }
            scene.expect_events(flow, &[]);
            assert_eq!(scene.stream(flow), b"", "nothing is delivered");
            let after = scene.counters();
            let answers = after.l3_tx_packets - before.l3_tx_packets;
            let challenges = after.challenge_acks - before.challenge_acks;
            assert!(challenges <= MOST_CHALLENGES, "{challenges} in 7 s");
            assert!(answers <= most, "{answers} answers in 7 s");
            converse(scene, flow, &mut peer);
        }
    });
}

/// Data both ways.
fn converse(scene: &mut Scene, flow: FlowId, peer: &mut Peer) {
    scene.rx(peer.data(b"question"));
    assert_eq!(scene.stream(flow), b"question");
    scene.tx(flow, b"answer").unwrap();
    let answer = scene.segments().pop().expect("an answer");
    assert_eq!(answer.payload, b"answer");
    peer.hear(&answer);
    scene.rx(peer.ack());
    scene.wait(Duration::from_secs(1));
    scene.sent_packets();
}
