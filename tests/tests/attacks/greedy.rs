//! Peers that want to be sent to faster than the path can bear (Savage, Cardwell,
//! Wetherall and Anderson 1999).
//!
//! To hold: a byte acknowledged frees a byte and grows the congestion window by as much
//! at most, however many acknowledgements tell it (RFC 5681 3.1); what was not sent
//! cannot be acknowledged (RFC 9293 3.10.7.4); and duplicates let out no more than what
//! was in flight (RFC 5681 3.2).

use std::time::Duration;

use l3l4_engine::{Event, FlowId};
use l3l4_tests::craft::{Family, Peer};
use l3l4_tests::scene::{Scene, config, on_both_families};
use l3l4_tests::wire::{ACK, SYN};

use crate::spoofed::flood;

const SEGMENT: u16 = 1400;
const PACKETS: u32 = 1000;
const BATCH: u32 = 50;

#[test]
fn an_acknowledgement_divided_counts_once() {
    on_both_families(config(), |scene, family| {
        let (flow, peer, flight) = in_flight(scene, family);
        // The first segment, byte by byte.
        let most = u32::from(SEGMENT);
        let sent = storm(scene, flow, most, |i| {
            peer.ack().acking(peer.expected.wrapping_add(i)).into()
        });
        assert!(
            sent <= 4 * usize::from(SEGMENT),
            "{sent} bytes for {most} acknowledged of {flight}"
        );
    });
}

#[test]
fn what_was_not_sent_cannot_be_acknowledged() {
    on_both_families(config(), |scene, family| {
        let (flow, mut peer, flight) = in_flight(scene, family);
        let end = peer.expected.wrapping_add(length(flight));
        let sent = storm(scene, flow, PACKETS, |i| {
            let ahead = i * u32::from(SEGMENT);
            peer.ack().acking(end.wrapping_add(ahead)).into()
        });
        assert_eq!(sent, 0, "bytes for nothing acknowledged");

        peer.expected = end;
        scene.rx(peer.ack());
        assert!(payload(scene) > 0, "the truth lets it go on");
    });
}

#[test]
fn duplicates_let_out_no_more_than_was_in_flight() {
    on_both_families(config(), |scene, family| {
        let (flow, peer, flight) = in_flight(scene, family);
        let sent = storm(scene, flow, PACKETS, |_| peer.ack().into());
        // What is sent again, and as much of what is new.
        assert!(sent <= 2 * flight, "{sent} bytes, {flight} in flight");
    });
}

/// A flow of an application that always has more to send, to a peer with a large
/// window; and the bytes of the first flight.
fn in_flight(scene: &mut Scene, family: Family) -> (FlowId, Peer, usize) {
    let mut peer = Peer::new(family);
    scene.rx(peer.syn().mss(SEGMENT).scale(7));
    let (flow, _) = scene.announced();
    let answer = scene.tcp();
    assert!(answer.has(SYN | ACK), "{answer}");
    peer.hear(&answer);
    // So far away that no timer runs out during a storm.
    scene.wait(Duration::from_millis(50));
    scene.rx(peer.ack());
    scene.events();
    feed(scene, flow);
    let flight = payload(scene);
    assert!(flight >= usize::from(SEGMENT), "{flight} bytes in flight");
    (flow, peer, flight)
}

/// So many packets, 50,000 a second; the bytes that they set free.
fn storm(scene: &mut Scene, flow: FlowId, packets: u32, packet: impl Fn(u32) -> Vec<u8>) -> usize {
    let mut sent = 0;
    for start in (1..=packets).step_by(usize::try_from(BATCH).expect("50")) {
        let batch: Vec<_> = (start..start + BATCH).map(&packet).collect();
        flood(scene, &batch);
        feed(scene, flow);
        sent += payload(scene);
        scene.wait(Duration::from_millis(1));
    }
    let events = scene.events();
    assert!(events.iter().all(|(_, event)| *event == Event::Writable));
    sent
}

/// The application gives all that is taken.
fn feed(scene: &mut Scene, flow: FlowId) {
    let data = [7; 16_384];
    while scene.tx(flow, &data).expect("the flow lives") == data.len() {}
}

fn payload(scene: &mut Scene) -> usize {
    let segments = scene.segments();
    segments.iter().map(|segment| segment.payload.len()).sum()
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a window")
}
