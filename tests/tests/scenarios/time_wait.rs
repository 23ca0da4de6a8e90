//! TIME-WAIT: the tuple is remembered, the flow is gone (RFC 9293 3.6.1, RFC 1337).

use std::time::Duration;

use l3l4_engine::{CloseReason, Event};
use l3l4_tests::craft::{FAMILIES, Family, Peer};
use l3l4_tests::scene::{Scene, config, on_both, on_both_families};
use l3l4_tests::wire::{ACK, FIN, RST, SYN, Tcp};

#[test]
fn a_repeated_fin_is_acknowledged_again() {
    on_both_families(config(), |scene, family| {
        let peer = closed_by_us(scene, family, 40_000);
        for _ in 0..3 {
            scene.wait(Duration::from_secs(5));
            scene.rx(peer.segment(FIN | ACK).seq(peer.next.wrapping_sub(1)));
            let ack = scene.tcp();
            assert_eq!(
                (ack.flags, ack.seq, ack.ack),
                (ACK, peer.expected, peer.next)
            );
        }
        scene.nobody_announced();
    });
}

#[test]
fn a_reset_does_not_end_time_wait() {
    on_both_families(config(), |scene, family| {
        let peer = closed_by_us(scene, family, 40_000);
        scene.rx(peer.rst());
        scene.silence();
        assert_eq!(scene.counters().time_wait, 1, "RFC 1337");
        scene.rx(peer.segment(FIN | ACK).seq(peer.next.wrapping_sub(1)));
        assert_eq!(scene.tcp().flags, ACK);
    });
}

#[test]
fn a_new_syn_above_what_was_received_opens_a_new_flow() {
    on_both_families(config(), |scene, family| {
        let old = closed_by_us(scene, family, 40_000);
        let mut peer = Peer::new(family);
        peer.next = old.next.wrapping_add(1000);
        let flow = scene.connect(&mut peer);
        scene.rx(peer.data(b"again"));
        assert_eq!(scene.stream(flow), b"again");
        assert_eq!(scene.counters().time_wait, 0);
    });
}

/// RFC 6191 2: a later timestamp tells a new SYN from an old one, whatever its number;
/// and our numbers go on above the old ones (RFC 1122 4.2.2.13).
#[test]
fn a_syn_with_a_later_timestamp_opens_a_new_flow() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400).timestamps(5000, 0));
        let (flow, _) = scene.announced();
        let syn_ack = scene.tcp();
        let echo = |segment: &Tcp| segment.timestamps.expect("timestamps").0;
        peer.hear(&syn_ack);
        scene.rx(peer.ack().timestamps(5000, echo(&syn_ack)));
        scene.finish(flow).unwrap();
        let fin = scene.tcp();
        peer.hear(&fin);
        scene.rx(peer.fin().timestamps(5010, echo(&fin)));
        scene.sent_packets();
        scene.events();
        assert_eq!(scene.counters().time_wait, 1);

        let below = peer.next.wrapping_sub(500);
        for stale in [4000, 5010] {
            let syn = peer.segment(SYN).seq(below).mss(1400);
            scene.rx(syn.timestamps(stale, 0));
            scene.nobody_announced();
            let answer = scene.tcp();
            assert_eq!((answer.flags, answer.ack), (ACK, peer.next));
        }
        let syn = peer.segment(SYN).seq(below).mss(1400);
        scene.rx(syn.timestamps(5011, 0));
        scene.announced();
        let again = scene.tcp();
        assert_eq!(again.flags, SYN | ACK);
        assert_eq!(again.ack, below.wrapping_add(1));
        let above = again.seq.wrapping_sub(peer.expected);
        assert!(
            above < 1 << 31,
            "{} is not above {}",
            again.seq,
            peer.expected
        );
        assert_eq!(scene.counters().time_wait, 0);
    });
}

#[test]
fn an_old_syn_opens_nothing() {
    on_both_families(config(), |scene, family| {
        let old = closed_by_us(scene, family, 40_000);
        scene.rx(old.segment(SYN).seq(old.next.wrapping_sub(500)));
        scene.nobody_announced();
        let answers = scene.segments();
        assert!(
            answers
                .iter()
                .all(|answer| !answer.has(SYN) && !answer.has(RST)),
            "{answers:?}"
        );
        assert_eq!(scene.counters().time_wait, 1);
    });
}

#[test]
fn it_ends_after_60_s() {
    on_both_families(config(), |scene, family| {
        let memory = scene.counters().memory_bytes;
        let peer = closed_by_us(scene, family, 40_000);
        scene.wait(Duration::from_millis(59_900));
        assert_eq!(scene.counters().time_wait, 1);
        scene.wait(Duration::from_millis(200));
        let counters = scene.counters();
        assert_eq!((counters.time_wait, counters.memory_bytes), (0, memory));
        scene.rx(peer.segment(FIN | ACK).seq(peer.next.wrapping_sub(1)));
        assert_eq!(scene.tcp().flags, RST, "a stray now");
        assert_eq!(scene.deadline, None, "nothing is pending");
    });
}

#[test]
fn at_most_max_flows_are_remembered_and_the_oldest_is_forgotten_first() {
    let mut config = config();
    config.max_flows = 3;
    on_both(config, |scene| {
        let peers: Vec<_> = (0..5)
            .map(|i| {
                scene.wait(Duration::from_millis(10));
                closed_by_us(scene, FAMILIES[0], 2000 + i)
            })
            .collect();
        assert_eq!(scene.counters().time_wait, 3);
        for (i, peer) in peers.iter().enumerate() {
            scene.rx(peer.segment(FIN | ACK).seq(peer.next.wrapping_sub(1)));
            let expected = if i < 2 { RST } else { ACK };
            assert_eq!(scene.tcp().flags, expected, "connection {i}");
        }
    });
}

/// A connection that we closed first: the peer as it stands afterwards.
fn closed_by_us(scene: &mut Scene, family: Family, port: u16) -> Peer {
    let mut peer = Peer::new(family).from_port(port);
    let flow = scene.connect(&mut peer);
    scene.finish(flow).unwrap();
    peer.hear(&scene.tcp());
    scene.rx(peer.fin());
    scene.expect_events(
        flow,
        &[Event::PeerFinished, Event::Closed(CloseReason::Finished)],
    );
    let ack = scene.tcp();
    assert_eq!((ack.flags, ack.ack), (ACK, peer.next));
    peer
}
