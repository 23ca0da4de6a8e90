//! What a second reader of the RFCs, or an attacker, would try on one connection.

use std::time::Duration;

use l3l4_engine::{CloseReason, Event, Timer};
use l3l4_tests::craft::{Family, Peer};
use l3l4_tests::scene::{config, on_both, on_both_families};
use l3l4_tests::wire::{ACK, RST};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// RFC 9293 3.8.4 and RFC 5382 REQ-5: an idle connection whose peer shows that it
/// lives is in use.
#[test]
fn the_keep_alives_of_the_peer_keep_the_flow() {
    let mut config = config();
    config.tcp_idle_timeout = seconds(60);
    on_both_families(config, |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        for _ in 0..5 {
            scene.wait(seconds(40));
            scene.rx(peer.segment(ACK).seq(peer.next.wrapping_sub(1)));
            assert_eq!(scene.tcp().ack, peer.next);
        }
        scene.expect_events(flow, &[]);
        // Somebody who does not know the connection does not.
        scene.wait(seconds(40));
        let stranger = peer.ack().seq(peer.next.wrapping_sub(1));
        scene.rx(stranger.acking(peer.expected.wrapping_add(1 << 20)));
        scene.wait(seconds(21));
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::Idle));
    });
}

/// RFC 9293 3.10.5: the FIN is not out yet, so this is still CLOSE-WAIT.
#[test]
fn an_abort_resets_a_peer_that_waits_for_queued_data() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.rx(peer.fin().window(0));
        scene.expect_events(flow, &[Event::PeerFinished]);
        scene.tx(flow, b"never sent").unwrap();
        scene.finish(flow).unwrap();
        scene.segments();
        scene.abort(flow).unwrap();
        assert!(scene.tcp().has(RST));
        scene.expect_closed(flow, CloseReason::Aborted);
    });
}

/// Karn's algorithm (RFC 6298 3).
#[test]
fn a_syn_ack_sent_twice_is_not_timed() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let syn = peer.syn().mss(1400);
        scene.rx(syn.clone());
        let (flow, _) = scene.announced();
        peer.hear(&scene.tcp());
        scene.wait(Duration::from_millis(900));
        scene.rx(syn);
        scene.tcp();
        scene.wait(Duration::from_millis(20));
        scene.rx(peer.ack());
        scene.expect_events(flow, &[Event::Established]);
        assert_eq!(scene.info(flow).unwrap().round_trip_time, None);
    });
}

/// RFC 5681 3.1: after a lost SYN-ACK the initial window is one segment.
#[test]
fn the_initial_window_after_a_lost_syn_ack_is_one_segment() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1000));
        let (flow, _) = scene.announced();
        peer.hear(&scene.tcp());
        scene.wait(Duration::from_millis(1100));
        scene.tcp();
        scene.rx(peer.ack());
        scene.expect_events(flow, &[Event::Established]);
        scene.tx(flow, &[7; 10_000]).unwrap();
        assert_eq!(scene.tcp().payload.len(), 1000);
        scene.silence();
    });
}

/// What was acknowledged is not lost because the host is slow.
#[test]
fn fin_wait_2_does_not_end_before_the_host_has_all() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.finish(flow).unwrap();
        peer.hear(&scene.tcp());
        scene.host().appetite.insert(flow, 0);
        scene.rx(peer.data(b"acknowledged"));
        scene.wait(seconds(90));
        scene.expect_events(flow, &[]);
        scene.host().appetite.remove(&flow);
        scene.resume(flow).unwrap();
        assert_eq!(scene.stream(flow), b"acknowledged");
        scene.wait(seconds(61));
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::FinWait));
    });
}

/// RFC 5961 7: a half-open connection is no mirror.
#[test]
fn a_half_open_flow_answers_nonsense_seldom() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400));
        let (flow, _) = scene.announced();
        peer.hear(&scene.tcp());
        let wrong_ack = peer.ack().acking(peer.expected.wrapping_add(1));
        let wrong_seq = peer.ack().seq(peer.next.wrapping_add(1 << 20));
        for _ in 0..500 {
            scene.rx(wrong_ack.clone());
            scene.rx(wrong_seq.clone());
        }
        let answers = scene.segments().len();
        assert!((1..=2).contains(&answers), "{answers} answers at once");
        scene.rx(peer.ack());
        scene.expect_events(flow, &[Event::Established]);
    });
}

/// `Writable` is for a host that may still write.
#[test]
fn no_room_is_announced_after_a_finish_in_the_handshake() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400));
        let (flow, _) = scene.announced();
        peer.hear(&scene.tcp());
        assert_eq!(scene.tx(flow, b"too early"), Ok(0));
        scene.finish(flow).unwrap();
        scene.rx(peer.ack());
        scene.expect_events(flow, &[Event::Established]);
    });
}

/// A peer that invents duplicates makes no sum overflow.
#[test]
fn a_hundred_thousand_duplicates_in_a_recovery() {
    let mut config = config();
    config.mtu = 65_535;
    on_both(config, |scene| {
        let mut peer = Peer::new(Family::V4);
        scene.rx(peer.syn().mss(65_475));
        let (flow, _) = scene.announced();
        peer.hear(&scene.tcp());
        scene.rx(peer.ack());
        scene.tx(flow, &[1; 60_000]).unwrap();
        scene.tx(flow, &[2; 4000]).unwrap();
        let batch: Vec<Vec<u8>> = (0..1000).map(|_| peer.ack().into()).collect();
        for _ in 0..100 {
            scene.rx_batch(&batch);
        }
        assert!(scene.info(flow).unwrap().retransmits >= 1);
        assert!(scene.segments().len() < 100);
    });
}

/// RFC 5681 4.2: what the device has merged is no measure of the peer's segments.
#[test]
fn every_second_full_segment_is_acknowledged_after_a_large_one() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.rx(peer.data(&[0; 30_000]));
        for _ in 0..30 {
            scene.rx(peer.data(&[1; 1400]));
        }
        scene.wait(seconds(1));
        scene.segments();
        for _ in 0..6 {
            scene.rx(peer.data(&[2; 1460]));
        }
        assert!(scene.segments().len() >= 3);
        assert_eq!(scene.stream(flow).len(), 30_000 + 30 * 1400 + 6 * 1460);
    });
}

/// The last blocks are for data to send, and who was refused hears when one is free,
/// though the pool is still fuller than for anything else.
#[test]
fn a_sender_without_memory_hears_of_the_first_free_block() {
    let mut config = config();
    config.memory_limit = 1 << 20;
    on_both(config, |scene| {
        let mut flows = Vec::new();
        for port in 0..110 {
            let mut peer = Peer::new(Family::V4).from_port(20_000 + port);
            let flow = scene.connect(&mut peer);
            scene.host().appetite.insert(flow, 0);
            flows.push((flow, peer));
        }
        for (_, peer) in &mut flows {
            scene.rx(peer.data(b"?"));
        }
        scene.wait(seconds(1));
        scene.segments();
        let mut senders = flows.iter();
        let refused = senders
            .by_ref()
            .find(|(flow, _)| scene.tx(*flow, b"!") == Ok(0))
            .expect("the pool is full")
            .0;
        scene.expect_events(refused, &[]);
        let (_, peer) = &flows[0];
        scene.rx(peer.ack().acking(peer.expected.wrapping_add(1)));
        scene.expect_events(refused, &[Event::Writable]);
        assert_eq!(scene.tx(refused, b"!"), Ok(1));
    });
}

/// A byte at the far edge of the window takes the blocks of all that is missing before
/// it, and its sender may wait: the others still get theirs.
#[test]
fn bytes_ahead_of_gaps_leave_room_for_what_comes_in_order() {
    let mut config = config();
    config.memory_limit = 4 << 20;
    on_both(config, |scene| {
        for port in 0..100 {
            let mut peer = Peer::new(Family::V4).from_port(20_000 + port);
            scene.connect(&mut peer);
            scene.rx(peer.ack().seq(peer.next.wrapping_add(60_000)).payload(b"!"));
            scene.segments();
        }
        let mut good = Peer::new(Family::V4);
        let flow = scene.connect(&mut good);
        scene.host().appetite.insert(flow, 0);
        for _ in 0..40 {
            scene.rx(good.data(&[1; 1000]));
        }
        assert_eq!(scene.info(flow).unwrap().receive_queue, 40_000);
    });
}
