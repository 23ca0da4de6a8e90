//! Ends by FIN, in every order (RFC 9293 3.6).

use std::time::Duration;

use l3l4_engine::{CloseReason, Event, FlowError, FlowState};
use l3l4_tests::craft::Peer;
use l3l4_tests::scene::{config, on_both_families};
use l3l4_tests::wire::FIN;

const FINISHED: Event = Event::Closed(CloseReason::Finished);
const WHILE: Duration = Duration::from_millis(500);

#[test]
fn the_peer_finishes_first() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);

        scene.rx(peer.fin());
        scene.expect_events(flow, &[Event::PeerFinished]);
        scene.wait(WHILE);
        assert_eq!(scene.segments().last().map(|ack| ack.ack), Some(peer.next));
        assert_eq!(scene.info(flow).unwrap().state, FlowState::CloseWait);

        scene.finish(flow).unwrap();
        let fin = scene.tcp();
        assert!(fin.has(FIN), "{fin}");
        assert_eq!(scene.info(flow).unwrap().state, FlowState::LastAck);
        peer.hear(&fin);
        scene.rx(peer.ack());
        scene.expect_events(flow, &[FINISHED]);
        scene.silence();
        assert_eq!(scene.counters().time_wait, 0);
    });
}

#[test]
fn the_local_side_finishes_first() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);

        scene.finish(flow).unwrap();
        let fin = scene.tcp();
        assert!(fin.has(FIN), "{fin}");
        assert_eq!(scene.info(flow).unwrap().state, FlowState::FinWait1);
        peer.hear(&fin);
        scene.rx(peer.ack());
        assert_eq!(scene.info(flow).unwrap().state, FlowState::FinWait2);

        scene.rx(peer.fin());
        scene.expect_events(flow, &[Event::PeerFinished, FINISHED]);
        assert_eq!(scene.tcp().ack, peer.next);
        let counters = scene.counters();
        assert_eq!((counters.flows, counters.time_wait), (0, 1));
    });
}

#[test]
fn both_finish_at_once() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);

        scene.finish(flow).unwrap();
        let fin = scene.tcp();
        scene.rx(peer.fin());
        scene.expect_events(flow, &[Event::PeerFinished]);
        assert_eq!(scene.info(flow).unwrap().state, FlowState::Closing);
        scene.wait(Duration::from_millis(100));
        assert_eq!(scene.segments().last().map(|ack| ack.ack), Some(peer.next));

        peer.hear(&fin);
        scene.rx(peer.ack());
        scene.expect_events(flow, &[FINISHED]);
    });
}

#[test]
fn after_the_peers_fin_the_local_side_goes_on_sending() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.rx(peer.data(b"request").with(FIN));
        peer.next += 1;
        assert_eq!(scene.stream(flow), b"request");
        scene.expect_events(flow, &[Event::PeerFinished]);
        scene.wait(WHILE);
        scene.segments();

        for piece in [b"first".as_slice(), b"second"] {
            assert_eq!(scene.tx(flow, piece), Ok(piece.len()));
            let data = scene.tcp();
            assert_eq!(data.payload, piece);
            peer.hear(&data);
            scene.rx(peer.ack());
        }
        scene.finish(flow).unwrap();
        peer.hear(&scene.tcp());
        scene.rx(peer.ack());
        scene.expect_events(flow, &[FINISHED]);
    });
}

#[test]
fn after_our_fin_the_peer_goes_on_sending() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.tx(flow, b"question").unwrap();
        scene.finish(flow).unwrap();
        for segment in scene.segments() {
            peer.hear(&segment);
        }
        assert_eq!(scene.tx(flow, b"more"), Err(FlowError::Finished));
        scene.rx(peer.ack());

        scene.rx(peer.data(b"answer, "));
        scene.rx(peer.data(b"and the rest"));
        assert_eq!(scene.stream(flow), b"answer, and the rest");
        scene.rx(peer.fin());
        scene.wait(WHILE);
        scene.expect_events(flow, &[Event::PeerFinished, FINISHED]);
        assert_eq!(scene.segments().last().map(|ack| ack.ack), Some(peer.next));
    });
}

#[test]
fn fin_follows_the_data_taken_so_far() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        let data = vec![5; 10_000];
        scene.tx(flow, &data).unwrap();
        scene.finish(flow).unwrap();
        let mut received = Vec::new();
        let mut fin = false;
        while !fin {
            let segments = scene.segments();
            assert!(!segments.is_empty(), "stalled at {}", received.len());
            for segment in segments {
                assert!(!fin, "after FIN: {segment}");
                peer.hear(&segment);
                fin = segment.has(FIN);
                received.extend(segment.payload);
            }
            scene.rx(peer.ack());
        }
        assert_eq!(received, data);
        assert_eq!(scene.info(flow).unwrap().state, FlowState::FinWait2);
    });
}

#[test]
fn finishing_before_the_handshake_ends_sends_the_fin_after_it() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400));
        let (flow, _) = scene.announced();
        peer.hear(&scene.tcp());
        scene.finish(flow).unwrap();
        scene.silence();

        scene.rx(peer.ack());
        let segments = scene.segments();
        assert!(
            segments.last().is_some_and(|last| last.has(FIN)),
            "{segments:?}"
        );
    });
}

#[test]
fn the_end_of_data_waits_until_the_host_took_all() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.host().appetite.insert(flow, 3);
        scene.rx(peer.data(b"slowly").with(FIN));
        assert_eq!(scene.stream(flow), b"slo");
        scene.expect_events(flow, &[]);

        scene.host().appetite.remove(&flow);
        scene.resume(flow).unwrap();
        assert_eq!(scene.stream(flow), b"wly");
        scene.expect_events(flow, &[Event::PeerFinished]);
    });
}

#[test]
fn a_closed_flow_keeps_its_data_until_the_host_took_it() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.finish(flow).unwrap();
        peer.hear(&scene.tcp());
        scene.rx(peer.ack());
        scene.host().appetite.insert(flow, 0);
        scene.rx(peer.data(b"last words").with(FIN));

        scene.wait(Duration::from_secs(12));
        scene.expect_events(flow, &[]);
        scene.host().appetite.remove(&flow);
        scene.resume(flow).unwrap();
        assert_eq!(scene.stream(flow), b"last words");
        scene.wait(WHILE);
        scene.expect_events(flow, &[Event::PeerFinished, FINISHED]);
    });
}
