//! The three-way handshake and the first data (RFC 9293 3.5, 3.7.1).

use std::time::Duration;

use l3l4_engine::{Event, FlowState};
use l3l4_tests::craft::Peer;
use l3l4_tests::scene::{config, on_both_families};
use l3l4_tests::wire::{ACK, RST, SYN};

const WHILE: Duration = Duration::from_millis(500);

#[test]
fn a_syn_is_announced_and_answered_and_the_ack_establishes() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);

        scene.rx(peer.syn().mss(1400));
        let (flow, tuple) = scene.announced();
        assert_eq!(tuple, peer.tuple());
        let syn_ack = scene.tcp();
        assert_eq!(syn_ack.flags, SYN | ACK);
        assert_eq!(syn_ack.ack, peer.next);
        assert_eq!(scene.info(flow).unwrap().state, FlowState::SynReceived);

        peer.hear(&syn_ack);
        scene.rx(peer.ack());
        scene.expect_events(flow, &[Event::Established]);
        scene.silence();
        assert_eq!(scene.info(flow).unwrap().state, FlowState::Established);
    });
}

#[test]
fn the_mss_offered_is_the_mtu_without_the_headers() {
    for mtu in [1280, 1500, 9000, 65_535] {
        let mut config = config();
        config.mtu = mtu;
        on_both_families(config, |scene, family| {
            scene.rx(Peer::new(family).syn().mss(1460));
            let headers = u32::try_from(family.ip_header() + 20).unwrap();
            let mss = scene.tcp().mss.map(u32::from);
            assert_eq!(mss, Some(mtu - headers));
        });
    }
}

#[test]
fn options_are_answered_only_when_offered() {
    on_both_families(config(), |scene, family| {
        scene.rx(Peer::new(family).syn());
        let plain = scene.tcp();
        assert_eq!(plain.window_scale, None);
        assert!(!plain.sack_permitted);
        assert_eq!(plain.timestamps, None);
    });
}

#[test]
fn data_is_delivered_and_acknowledged_within_500_ms() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);

        scene.rx(peer.data(b"hello"));
        assert_eq!(scene.stream(flow), b"hello");
        scene.wait(WHILE);
        let acks = scene.segments();
        assert_eq!(acks.last().map(|ack| ack.ack), Some(peer.next));
        assert!(acks.iter().all(|ack| ack.payload.is_empty()));
    });
}

#[test]
fn data_to_send_goes_out_and_counts_until_it_is_acknowledged() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);

        assert_eq!(scene.tx(flow, b"welcome"), Ok(7));
        let data = scene.tcp();
        assert_eq!(data.payload, b"welcome");
        assert_eq!(data.seq, peer.expected);
        assert_eq!(data.ack, peer.next);
        assert_eq!(scene.info(flow).unwrap().send_queue, 7);

        peer.hear(&data);
        scene.rx(peer.ack());
        let info = scene.info(flow).unwrap();
        assert_eq!((info.send_queue, info.bytes_sent), (0, 7));
    });
}

/// RFC 6298 2.2 and 2.3: the handshake is the first sample, and each later one counts
/// an eighth.
#[test]
fn the_round_trip_time_is_smoothed_from_the_handshake_on() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400));
        let (flow, _) = scene.announced();
        peer.hear(&scene.tcp());
        scene.skip(Duration::from_millis(30));
        scene.rx(peer.ack());
        let first = Duration::from_millis(30);
        assert_eq!(scene.info(flow).unwrap().round_trip_time, Some(first));

        scene.tx(flow, b"welcome").unwrap();
        peer.hear(&scene.tcp());
        scene.skip(Duration::from_millis(110));
        scene.rx(peer.ack());
        let second = Duration::from_millis((7 * 30 + 110) / 8);
        assert_eq!(scene.info(flow).unwrap().round_trip_time, Some(second));
    });
}

#[test]
fn data_not_taken_before_the_handshake_ends_is_asked_for_after_it() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400));
        let (flow, _) = scene.announced();
        peer.hear(&scene.tcp());

        assert_eq!(scene.tx(flow, b"early"), Ok(0));
        scene.silence();

        scene.rx(peer.ack());
        scene.expect_events(flow, &[Event::Established, Event::Writable]);
        assert_eq!(scene.tx(flow, b"early"), Ok(5));
        assert_eq!(scene.tcp().payload, b"early");
    });
}

#[test]
fn data_with_the_last_ack_of_the_handshake_is_delivered() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400));
        let (flow, _) = scene.announced();
        peer.hear(&scene.tcp());

        scene.rx(peer.data(b"at once"));
        scene.expect_events(flow, &[Event::Established]);
        assert_eq!(scene.stream(flow), b"at once");
    });
}

#[test]
fn a_repeated_syn_in_the_handshake_is_the_same_flow_with_the_same_isn() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let syn = peer.syn().mss(1400);
        scene.rx(syn.clone());
        scene.announced();
        let first = scene.tcp();

        scene.rx(syn);
        scene.wait(Duration::from_millis(1100));
        scene.nobody_announced();
        let again = scene.segments();
        assert!(
            again.iter().any(|segment| segment.flags == SYN | ACK),
            "a SYN-ACK again"
        );
        assert!(again.iter().all(|segment| segment.seq == first.seq));
        assert_eq!(scene.flows().len(), 1);
    });
}

#[test]
fn a_wrong_ack_in_the_handshake_is_reset_and_the_right_one_still_establishes() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400));
        let (flow, _) = scene.announced();
        peer.hear(&scene.tcp());

        let wrong = peer.expected.wrapping_add(12_345);
        scene.rx(peer.ack().acking(wrong));
        let reset = scene.tcp();
        assert_eq!((reset.flags & RST, reset.seq), (RST, wrong));

        scene.rx(peer.ack());
        scene.expect_events(flow, &[Event::Established]);
    });
}

#[test]
fn the_sequence_space_wraps() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        peer.next = 0xffff_fff0;
        let flow = scene.connect(&mut peer);
        let mut sent = Vec::new();
        for piece in 0..20u8 {
            sent.extend([piece; 100]);
            scene.rx(peer.data(&[piece; 100]));
        }
        assert_eq!(scene.stream(flow), sent);
        scene.wait(WHILE);
        assert_eq!(scene.segments().last().map(|ack| ack.ack), Some(peer.next));
    });
}

#[test]
fn segments_stay_below_the_peers_mss_and_window() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        peer.window = 3000;
        scene.rx(peer.syn().mss(512));
        let (flow, _) = scene.announced();
        let isn = scene.tcp();
        peer.hear(&isn);
        scene.rx(peer.ack());

        let data: Vec<u8> = (0..10_000u32).map(|i| i.to_le_bytes()[0]).collect();
        assert_eq!(scene.tx(flow, &data), Ok(10_000));
        let mut received = Vec::new();
        while received.len() < data.len() {
            let segments = scene.segments();
            assert!(!segments.is_empty(), "stalled at {}", received.len());
            for segment in segments {
                assert!(segment.payload.len() <= 512, "{segment}");
                let right = segment.end().wrapping_sub(peer.expected);
                assert!(right <= 3000 || received.is_empty(), "{segment}");
                assert_eq!(
                    segment.seq,
                    isn.seq
                        .wrapping_add(1 + u32::try_from(received.len()).unwrap())
                );
                received.extend(segment.payload);
            }
            peer.expected = isn
                .seq
                .wrapping_add(1 + u32::try_from(received.len()).unwrap());
            scene.rx(peer.ack());
        }
        assert_eq!(received, data);
    });
}
