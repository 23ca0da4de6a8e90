//! Tiny segments, and selective acknowledgements that lie.
//!
//! To hold: never more packets out than in, data sent again a few times at most, memory
//! bounded by the window, and the stream exact in the end.

use std::time::Duration;

use l3l4_engine::FlowId;
use l3l4_tests::craft::{FAMILIES, Family, Peer};
use l3l4_tests::random::Random;
use l3l4_tests::scene::{Scene, config, on_both, on_both_families};
use l3l4_tests::wire::{ACK, SYN};

use crate::spoofed::{Spoofed, flood};

const BATCH: usize = 50;
/// What a flow may hold beyond its data: block ends, ranges, and records.
const OVERHEAD: u64 = 128 << 10;
/// How often lies may make it send what it has.
const MOST_REPEATS: u64 = 10;

#[test]
fn a_byte_a_segment_is_delivered_and_acknowledged_sparingly() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        let data = Random::new(1).bytes(50_000);
        let before = scene.counters();
        for piece in data.chunks(BATCH) {
            let batch: Vec<_> = piece
                .iter()
                .map(|byte| peer.data(&[*byte]).into())
                .collect();
            flood(scene, &batch);
            scene.wait(Duration::from_millis(1));
        }
        assert!(scene.stream(flow) == data, "exact");
        let after = scene.counters();
        let answers = after.l3_tx_packets - before.l3_tx_packets;
        let segments = after.l3_rx_packets - before.l3_rx_packets;
        assert!(answers <= segments / 2, "{answers} to {segments}");
        let grown = after.memory_bytes.saturating_sub(before.memory_bytes);
        assert!(grown <= OVERHEAD, "grew by {grown}");
    });
}

/// Every other byte of a window, each in a segment of its own: nothing of it can be
/// delivered, and every one is a range of its own.
#[test]
fn every_other_byte_costs_no_more_than_the_window() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        let data = Random::new(2).bytes(60_000);
        let before = scene.counters();
        let odd: Vec<_> = (1..data.len()).step_by(2).collect();
        for places in odd.chunks(BATCH) {
            let batch: Vec<_> = places.iter().map(|at| byte(&peer, &data, *at)).collect();
            flood(scene, &batch);
            scene.wait(Duration::from_millis(1));
        }
        assert_eq!(scene.stream(flow), b"");
        let after = scene.counters();
        let answers = after.l3_tx_packets - before.l3_tx_packets;
        assert!(answers <= after.l3_rx_packets - before.l3_rx_packets);
        let grown = after.memory_bytes.saturating_sub(before.memory_bytes);
        assert!(grown <= 65_535 + OVERHEAD, "grew by {grown}");

        for piece in data.chunks(1400) {
            scene.rx(peer.data(piece));
        }
        assert!(scene.stream(flow) == data, "exact");
    });
}

/// 50,000 acknowledgements of nothing with blocks anywhere: in the data sent, beyond it,
/// before it, turned around, one byte long. The peer then turns out to have none of
/// what it claimed (RFC 2018 8).
#[test]
fn selective_acknowledgements_that_lie_cause_no_storm_and_lose_nothing() {
    for family in FAMILIES {
        on_both(config(), |scene| lies(scene, family));
    }
}

fn lies(scene: &mut Scene, family: Family) {
    let mut peer = Peer::new(family);
    let flow = connect_with_sack(scene, &mut peer);
    let data = Random::new(3).bytes(100_000);
    let mut left = data.as_slice();
    left = &left[scene.tx(flow, left).unwrap()..];
    let first = peer.expected;
    let mut heard = Heard::new(first, data.len());
    heard.take(scene);
    let before = scene.counters();
    let mut spoofed = Spoofed::new(63);
    for _ in 0..1000 {
        let batch: Vec<_> = (0..BATCH)
            .map(|_| {
                let blocks = [(); 3].map(|()| lie(&mut spoofed, first));
                peer.ack().sack(&blocks).into()
            })
            .collect();
        flood(scene, &batch);
        scene.wait(Duration::from_millis(1));
        heard.take(scene);
    }
    let after = scene.counters();
    let packets = after.l3_tx_packets - before.l3_tx_packets;
    assert!(packets <= after.l3_rx_packets - before.l3_rx_packets);
    let bytes = after.l3_tx_bytes - before.l3_tx_bytes;
    assert!(bytes <= MOST_REPEATS * data.len() as u64, "{bytes} out");
    let grown = after.memory_bytes.saturating_sub(before.memory_bytes);
    assert!(grown <= OVERHEAD, "grew by {grown}");

    // It forgets all that it did not acknowledge.
    let mut heard = Heard::new(first, data.len());
    for _ in 0..1000 {
        scene.wait(Duration::from_millis(100));
        if !left.is_empty() {
            left = &left[scene.tx(flow, left).unwrap()..];
        }
        heard.take(scene);
        let end = heard.end();
        peer.expected = first.wrapping_add(u32::try_from(end).expect("100,000"));
        scene.rx(peer.ack());
        heard.take(scene);
        if heard.end() == data.len() {
            break;
        }
    }
    assert!(heard.bytes() == data, "exact, {} of it", heard.end());
}

/// Three of four blocks lie near what was sent.
fn lie(spoofed: &mut Spoofed, first: u32) -> (u32, u32) {
    let near = |spoofed: &mut Spoofed| first.wrapping_add(spoofed.number() % 70_000);
    match spoofed.random.below(4) {
        0 => (spoofed.number(), spoofed.number()),
        1 => (near(spoofed), near(spoofed)),
        2 => (near(spoofed), first.wrapping_sub(spoofed.number() % 70_000)),
        _ => {
            let at = near(spoofed);
            (at, at.wrapping_add(1))
        }
    }
}

fn connect_with_sack(scene: &mut Scene, peer: &mut Peer) -> FlowId {
    scene.rx(peer.syn().mss(1400).sack_permitted());
    let (flow, _) = scene.announced();
    let answer = scene.tcp();
    assert!(answer.has(SYN | ACK), "{answer}");
    peer.hear(&answer);
    scene.rx(peer.ack());
    scene.events();
    flow
}

fn byte(peer: &Peer, data: &[u8], at: usize) -> Vec<u8> {
    let seq = peer
        .next
        .wrapping_add(u32::try_from(at).expect("below 64 KiB"));
    peer.segment(ACK).seq(seq).payload(&data[at..=at]).into()
}

/// What a receiver has of a stream.
struct Heard {
    first: u32,
    bytes: Vec<Option<u8>>,
}

impl Heard {
    fn new(first: u32, length: usize) -> Self {
        Self {
            first,
            bytes: vec![None; length],
        }
    }

    fn take(&mut self, scene: &mut Scene) {
        for segment in scene.segments() {
            let at = segment.seq.wrapping_sub(self.first);
            let at = usize::try_from(at).expect("32 bits");
            for (i, byte) in segment.payload.iter().enumerate() {
                self.bytes[at + i] = Some(*byte);
            }
        }
    }

    /// Bytes without a gap.
    fn end(&self) -> usize {
        let gap = self.bytes.iter().position(Option::is_none);
        gap.unwrap_or(self.bytes.len())
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes.iter().copied().flatten().collect()
    }
}
