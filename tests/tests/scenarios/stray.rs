//! Segments of no flow: the RST of RFC 9293 3.10.7.1, and no state.

use std::time::Duration;

use l3l4_engine::DropReason;
use l3l4_tests::craft::{FAMILIES, Peer};
use l3l4_tests::scene::{config, on_both, on_both_families};
use l3l4_tests::wire::{ACK, FIN, PSH, RST, SYN, URG};

#[test]
fn a_stray_segment_with_ack_is_answered_from_its_ack() {
    on_both_families(config(), |scene, family| {
        let memory = scene.counters().memory_bytes;
        let mut peer = Peer::new(family);
        peer.expected = 777_000;
        let strays = [
            peer.ack(),
            peer.ack().payload(b"data"),
            peer.segment(FIN | ACK),
            peer.segment(SYN | ACK),
            peer.segment(PSH | ACK | URG),
        ];
        for stray in strays {
            scene.rx(stray);
            let reset = scene.tcp();
            assert_eq!((reset.flags, reset.seq), (RST, 777_000));
            assert_eq!((reset.from, reset.to), (peer.local, peer.peer));
            assert!(reset.payload.is_empty());
        }
        scene.nobody_announced();
        let counters = scene.counters();
        assert_eq!(counters.dropped(DropReason::StraySegment), 5);
        assert_eq!((counters.flows, counters.memory_bytes), (0, memory));
    });
}

#[test]
fn a_stray_segment_without_ack_is_acknowledged_by_the_reset() {
    on_both_families(config(), |scene, family| {
        let peer = Peer::new(family);
        let strays = [
            (peer.segment(FIN).payload(b"ab"), 3),
            (peer.segment(FIN), 1),
            (peer.segment(PSH).payload(b"data"), 4),
            (peer.segment(0), 0),
            (peer.segment(0).seq(u32::MAX).payload(b"xy"), 2),
        ];
        for (stray, length) in strays {
            let end = stray.seq.wrapping_add(length);
            scene.rx(stray);
            let reset = scene.tcp();
            assert_eq!((reset.flags, reset.seq, reset.ack), (RST | ACK, 0, end));
        }
        scene.nobody_announced();
    });
}

#[test]
fn a_reset_is_never_answered() {
    on_both_families(config(), |scene, family| {
        let peer = Peer::new(family);
        for flags in [RST, RST | ACK, RST | SYN, RST | FIN | ACK, 0xff] {
            scene.rx(peer.segment(flags));
            scene.silence();
        }
        scene.nobody_announced();
        assert!(scene.flows().is_empty());
    });
}

#[test]
fn only_a_plain_syn_makes_a_flow() {
    on_both_families(config(), |scene, family| {
        let peer = Peer::new(family);
        for flags in 0..=255u8 {
            if flags & (SYN | ACK | RST | FIN) != SYN {
                scene.rx(peer.segment(flags));
            }
        }
        scene.nobody_announced();
        assert!(scene.flows().is_empty());
        scene.sent_packets();

        scene.connect(&mut Peer::new(family));
    });
}

#[test]
fn answers_to_strays_are_limited_in_rate_and_burst() {
    on_both(config(), |scene| {
        let peer = Peer::new(FAMILIES[0]);
        let strays: Vec<Vec<u8>> = (0..1000u16)
            .map(|i| peer.clone().from_port(1024 + i).ack().into())
            .collect();
        scene.rx_batch(&strays);
        assert_eq!(scene.sent_packets().len(), 50, "a burst");
        assert_eq!(scene.counters().replies_limited, 950);

        // 1,000 a second: one more every millisecond.
        for i in 0..100 {
            scene.wait(Duration::from_millis(1));
            scene.rx_batch(&strays[i * 10..i * 10 + 10]);
        }
        let answers = scene.sent_packets().len();
        assert!((99..=101).contains(&answers), "{answers} answers in 100 ms");
    });
}

#[test]
fn no_stray_is_answered_when_the_limit_is_0() {
    let mut config = config();
    config.max_stray_replies = 0;
    on_both_families(config, |scene, family| {
        scene.rx(Peer::new(family).ack());
        scene.silence();
        assert_eq!(scene.counters().replies_limited, 1);
    });
}
