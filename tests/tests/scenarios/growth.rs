//! Windows and buffers that grow with what they are used for, and not beyond the
//! configuration.

use std::time::Duration;

use l3l4_engine::{Config, FlowId};
use l3l4_tests::craft::{Family, Peer, Segment};
use l3l4_tests::scene::{Scene, config, on_both_families};
use l3l4_tests::wire::{SYN, Tcp};

const MOST: u32 = 1 << 20;
/// The window that needs no scale, which every flow begins with.
const FIRST: u32 = 65_535;
const ROUND_TRIP: Duration = Duration::from_millis(20);
const MSS: u16 = 8000;

fn growing() -> Config {
    Config {
        mtu: 9000,
        tcp_receive_buffer: MOST,
        tcp_send_buffer: MOST,
        ..config()
    }
}

#[test]
fn the_receive_window_grows_to_the_buffer_for_an_application_that_takes_all() {
    on_both_families(growing(), |scene, family| {
        let (flow, mut peer) = far_away(scene, family, 64_000);
        let mut windows = Vec::new();
        for _ in 0..16 {
            fill_the_window(scene, flow, &mut peer);
            scene.skip(ROUND_TRIP);
            windows.push(scene.info(flow).unwrap().receive_window);
        }
        let most = windows.iter().max();
        assert_eq!(most, Some(&MOST), "after each round trip: {windows:?}");
    });
}

#[test]
fn the_receive_window_does_not_grow_for_an_application_that_takes_little() {
    on_both_families(growing(), |scene, family| {
        let (flow, mut peer) = far_away(scene, family, 64_000);
        for _ in 0..40 {
            scene.host().appetite.insert(flow, 1000);
            if scene.host().held.contains(&flow) {
                scene.resume(flow).unwrap();
            }
            fill_the_window(scene, flow, &mut peer);
            scene.skip(ROUND_TRIP);
            let info = scene.info(flow).unwrap();
            let promised = info.receive_queue + info.receive_window;
            assert!(promised <= FIRST, "{promised} bytes");
        }
    });
}

#[test]
fn the_send_buffer_grows_with_what_the_path_carries() {
    on_both_families(growing(), |scene, family| {
        let (flow, mut peer) = far_away(scene, family, 64_000);
        let queues = send_all(scene, flow, &mut peer, 12);
        assert!(queues[0] <= FIRST, "at first: {queues:?}");
        assert_eq!(queues.iter().max(), Some(&MOST), "{queues:?}");
    });
}

/// Twice the peer's window is what can be of use.
#[test]
fn the_send_buffer_does_not_grow_for_a_peer_that_takes_little() {
    on_both_families(growing(), |scene, family| {
        let (flow, mut peer) = far_away(scene, family, 100);
        let queues = send_all(scene, flow, &mut peer, 40);
        let most = queues.iter().max();
        assert!(most <= Some(&(2 * FIRST)), "{queues:?}");
    });
}

/// A flow of a peer a round trip away, with this window in units of 128 bytes.
fn far_away(scene: &mut Scene, family: Family, window: u16) -> (FlowId, Peer) {
    let mut peer = Peer::new(family);
    peer.window = window;
    let syn = peer.syn().mss(MSS).scale(7);
    scene.rx(syn);
    let (flow, _) = scene.announced();
    let answer = scene.tcp();
    assert!(answer.has(SYN), "{answer}");
    peer.hear(&answer);
    scene.skip(ROUND_TRIP);
    scene.rx(peer.ack());
    scene.events();
    (flow, peer)
}

/// The peer sends all that it may.
fn fill_the_window(scene: &mut Scene, flow: FlowId, peer: &mut Peer) {
    let window = scene.info(flow).unwrap().receive_window as usize;
    let data = vec![7; usize::from(MSS)];
    let mut batch = Vec::new();
    let mut rest = window;
    while rest > 0 {
        let length = rest.min(data.len());
        batch.push(Vec::from(peer.data(&data[..length])));
        rest -= length;
    }
    for batch in batch.chunks(32) {
        scene.rx_batch(batch);
    }
    scene.host().received.clear();
    scene.sent_packets();
}

/// The application gives all that is taken, and the peer acknowledges each second
/// segment; the send queue in each of so many round trips.
fn send_all(scene: &mut Scene, flow: FlowId, peer: &mut Peer, rounds: usize) -> Vec<u32> {
    let data = vec![7; 2 * MOST as usize];
    let mut queues = Vec::new();
    for _ in 0..rounds {
        scene.tx(flow, &data).unwrap();
        queues.push(scene.info(flow).unwrap().send_queue);
        let flight = scene.segments();
        assert!(!flight.is_empty(), "a flight: {queues:?}");
        scene.skip(ROUND_TRIP);
        let acks: Vec<_> = flight.chunks(2).map(|pair| acked(peer, pair)).collect();
        let acks: Vec<_> = acks.into_iter().map(Vec::from).collect();
        for batch in acks.chunks(32) {
            scene.rx_batch(batch);
        }
        scene.events();
    }
    queues
}

fn acked(peer: &mut Peer, segments: &[Tcp]) -> Segment {
    let last = segments.last().expect("one or two");
    peer.hear(last);
    peer.ack()
}
