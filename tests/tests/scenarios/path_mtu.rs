//! What routers tell of the path (RFC 1191, RFC 8201). Floors, and who is believed,
//! stand in the conformance table.

use l3l4_engine::FlowId;
use l3l4_tests::craft::{Family, Peer, icmp};
use l3l4_tests::scene::{Scene, config, on_both, on_both_families};
use l3l4_tests::wire::Tcp;

const LENGTH: usize = 6000;

/// RFC 1191 6.4: what did not fit is sent again at once, in smaller segments; and that
/// is no sign of congestion.
#[test]
fn what_was_too_big_is_sent_again_in_smaller_segments_at_once() {
    on_both_families(config(), |scene, family| {
        let (flow, mut peer, flight) = in_flight(scene, family);
        let before = scene.info(flow).unwrap();
        let mtu = 1400;
        scene.rx(too_big(&peer, flight[0].seq, mtu, 1500));
        let again = scene.segments();
        let most = usize::from(mtu) - family.ip_header() - 20;
        let mut next = flight[0].seq;
        for segment in &again {
            assert_eq!(segment.seq, next, "{segment}");
            assert!(segment.payload.len() <= most, "{segment}");
            next = segment.end();
        }
        let sent: usize = again.iter().map(|segment| segment.payload.len()).sum();
        assert_eq!(sent, LENGTH);
        let after = scene.info(flow).unwrap();
        assert_eq!(after.max_segment_size as usize, most);
        assert_eq!(after.congestion_window, before.congestion_window);

        peer.hear(again.last().expect("segments"));
        scene.rx(peer.ack());
        scene.tx(flow, &[7; LENGTH]).unwrap();
        assert_eq!(scene.segments()[0].payload.len(), most, "from here on");
    });
}

#[test]
fn an_mtu_that_is_not_smaller_changes_nothing() {
    on_both_families(config(), |scene, family| {
        let (flow, peer, flight) = in_flight(scene, family);
        for mtu in [1500, 9000] {
            scene.rx(too_big(&peer, flight[0].seq, mtu, 1500));
        }
        scene.silence();
        let most = 1500 - family.ip_header() - 20;
        assert_eq!(scene.info(flow).unwrap().max_segment_size as usize, most);
    });
}

/// RFC 1191 5 and 7.1: a router from before tells none; the next plateau is tried.
#[test]
fn a_router_that_tells_no_mtu_brings_the_next_plateau() {
    on_both(config(), |scene| {
        let (flow, peer, flight) = in_flight(scene, Family::V4);
        for (length, plateau) in [(1500, 1492), (1492, 1006), (1006, 576)] {
            scene.rx(too_big(&peer, flight[0].seq, 0, length));
            scene.sent_packets();
            assert_eq!(scene.info(flow).unwrap().max_segment_size, plateau - 40);
        }
    });
}

/// A flow to a peer with the largest segments, and what it has in flight.
fn in_flight(scene: &mut Scene, family: Family) -> (FlowId, Peer, Vec<Tcp>) {
    let mut peer = Peer::new(family);
    let flow = scene.connect(&mut peer);
    scene.tx(flow, &[7; LENGTH]).unwrap();
    let flight = scene.segments();
    (flow, peer, flight)
}

/// A router's word about a packet of the engine with this number and length.
fn too_big(peer: &Peer, seq: u32, mtu: u16, length: u16) -> Vec<u8> {
    let segment = peer.ack().from(peer.local).to(peer.peer).seq(seq);
    let mut quoted = Vec::from(segment);
    let (router, local) = (peer.peer.ip(), peer.local.ip());
    let [high, low] = mtu.to_be_bytes();
    let rest = [0, 0, high, low];
    match local.is_ipv4() {
        true => {
            quoted[2..4].copy_from_slice(&length.to_be_bytes());
            icmp(router, local, 3, 4, rest, &quoted)
        }
        false => icmp(router, local, 2, 0, rest, &quoted),
    }
}
