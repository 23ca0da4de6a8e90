//! SYN cookies: what a good peer gets beyond `max_half_open` (RFC 4987 3.6), and what
//! a forger does not.

use std::time::Duration;

use l3l4_engine::{CloseReason, Config, Event, FlowId, FlowOptions, Refusal, Verdict};
use l3l4_tests::craft::{Family, Peer, Segment};
use l3l4_tests::scene::{Scene, config, on_both_families};
use l3l4_tests::wire::{ACK, RST, SYN, Tcp};

use crate::spoofed::{Spoofed, flood};

fn one_half_open() -> Config {
    Config {
        max_half_open: 1,
        ..config()
    }
}

/// A peer that never goes on takes the only place.
fn take_the_place(scene: &mut Scene, family: Family) {
    scene.rx(Peer::new(family).from_port(1).syn().mss(1460));
    scene.announced();
    assert!(scene.tcp().has(SYN | ACK));
    assert_eq!(scene.counters().half_open, 1);
}

/// The answer to a SYN that is not announced.
fn cookie(scene: &mut Scene, peer: &mut Peer, syn: Segment) -> Tcp {
    let before = scene.counters();
    let syn = Vec::from(syn);
    let length = syn.len();
    scene.rx(syn);
    scene.nobody_announced();
    let answer = scene.packet();
    assert!(answer.length <= length, "no use for reflection");
    let answer = answer.tcp();
    assert!(answer.has(SYN | ACK), "a cookie, not {answer}");
    let after = scene.counters();
    assert_eq!(after.syn_cookies_sent, before.syn_cookies_sent + 1);
    assert_eq!(after.memory_bytes, before.memory_bytes, "no state");
    peer.hear(&answer);
    answer
}

fn established(scene: &mut Scene) -> FlowId {
    let (flow, _) = scene.announced();
    scene.expect_events(flow, &[Event::Established]);
    assert_eq!(scene.counters().syn_cookies_accepted, 1);
    flow
}

#[test]
fn a_cookie_keeps_the_segment_size() {
    on_both_families(one_half_open(), |scene, family| {
        take_the_place(scene, family);
        let mut peer = Peer::new(family);
        let syn = peer.syn().mss(1000).scale(7).sack_permitted();
        let answer = cookie(scene, &mut peer, syn);
        assert_eq!(answer.window_scale, None, "nothing would remember it");
        assert!(!answer.sack_permitted, "nothing would remember it");
        scene.rx(peer.ack());
        let flow = established(scene);

        let info = scene.info(flow).unwrap();
        assert_eq!(info.send_window, u32::from(peer.window), "unscaled");
        scene.tx(flow, &[7; 5000]).unwrap();
        let longest = scene.segments().iter().map(|it| it.payload.len()).max();
        let longest = longest.expect("data");
        assert!(
            (500..=1000).contains(&longest),
            "{longest} of an MSS of 1000"
        );
    });
}

#[test]
fn a_cookie_keeps_scale_and_selective_acknowledgement_with_timestamps() {
    on_both_families(one_half_open(), |scene, family| {
        take_the_place(scene, family);
        let mut peer = Peer::new(family);
        let syn = peer.syn().mss(1000).scale(7).sack_permitted();
        let answer = cookie(scene, &mut peer, syn.timestamps(100, 0));
        assert!(answer.window_scale.is_some(), "{answer}");
        assert!(answer.sack_permitted, "{answer}");
        let (stamp, echo) = answer.timestamps.expect("timestamps");
        assert_eq!(echo, 100);
        scene.rx(peer.ack().timestamps(101, stamp));
        let flow = established(scene);

        let info = scene.info(flow).unwrap();
        assert_eq!(info.send_window, u32::from(peer.window) << 7, "scaled");
        scene.tx(flow, &[7; 5000]).unwrap();
        let segments = scene.segments();
        let longest = segments.iter().map(|it| it.payload.len()).max();
        let longest = longest.expect("data");
        // RFC 6691: options take from what the MSS allows.
        assert!(
            (488..=988).contains(&longest),
            "{longest} of an MSS of 1000"
        );

        let (value, _) = segments[0].timestamps.expect("on every segment");
        let start = peer.next.wrapping_add(100);
        let late = peer.segment(ACK).seq(start).payload(b"second");
        scene.rx(late.timestamps(102, value));
        let answer = scene.segments().pop().expect("a duplicate ACK");
        assert_eq!(answer.sack, [(start, start.wrapping_add(6))]);
    });
}

#[test]
fn the_first_data_proves_a_cookie_as_well() {
    on_both_families(one_half_open(), |scene, family| {
        take_the_place(scene, family);
        let mut peer = Peer::new(family);
        let syn = peer.syn().mss(1400);
        cookie(scene, &mut peer, syn);
        let data = peer.data(b"the bare ACK was lost");
        scene.rx(data.clone());
        let (flow, _) = scene.announced();
        scene.rx(data);
        assert_eq!(scene.stream(flow), b"the bare ACK was lost");
    });
}

#[test]
fn a_flow_of_a_cookie_can_wait_for_its_verdict() {
    on_both_families(one_half_open(), |scene, family| {
        take_the_place(scene, family);
        let mut peer = Peer::new(family);
        let syn = peer.syn().mss(1400);
        cookie(scene, &mut peer, syn);
        scene.verdict_on_new(Verdict::Wait);
        scene.rx(peer.ack());
        let (flow, tuple) = scene.announced();
        assert_eq!(tuple, peer.tuple());
        scene.expect_events(flow, &[]);
        scene.silence();
        let data = peer.data(b"hello");
        scene.rx(data.clone());
        assert_eq!(scene.stream(flow), b"");
        scene.wait(Duration::from_secs(1));

        let accept = Verdict::Accept(FlowOptions::default());
        scene.verdict(flow, accept).unwrap();
        scene.expect_events(flow, &[Event::Established]);
        scene.sent_packets();
        scene.rx(data);
        assert_eq!(scene.stream(flow), b"hello");
        scene.tx(flow, b"welcome").unwrap();
        let answer = scene.segments().pop().expect("an answer");
        assert_eq!(answer.payload, b"welcome");
        assert_eq!(answer.ack, peer.next, "all of it is acknowledged");
    });
}

#[test]
fn a_flow_of_a_cookie_can_be_refused() {
    for late in [false, true] {
        on_both_families(one_half_open(), |scene, family| {
            take_the_place(scene, family);
            let mut peer = Peer::new(family);
            let syn = peer.syn().mss(1400);
            cookie(scene, &mut peer, syn);
            let refuse = Verdict::Refuse(Refusal::Reset);
            scene.verdict_on_new(if late { Verdict::Wait } else { refuse });
            scene.rx(peer.ack());
            let (flow, _) = scene.announced();
            if late {
                scene.silence();
                scene.verdict(flow, refuse).unwrap();
                scene.expect_closed(flow, CloseReason::Aborted);
            }
            let reset = scene.tcp();
            assert!(reset.has(RST), "{reset}");
            assert_eq!(reset.seq, peer.expected, "which the peer believes");
        });
    }
}

#[test]
fn no_guess_is_taken_for_a_cookie() {
    on_both_families(one_half_open(), |scene, family| {
        take_the_place(scene, family);
        let mut peer = Peer::new(family);
        let syn = peer.syn().mss(1400);
        cookie(scene, &mut peer, syn);
        let before = scene.counters();
        let mut spoofed = Spoofed::new(62);
        for _ in 0..1000 {
            let guesses: Vec<_> = (0..100)
                .map(|_| peer.ack().acking(spoofed.number()).into())
                .collect();
            flood(scene, &guesses);
            scene.wait(Duration::from_millis(1));
            scene.host().sent.clear();
        }
        scene.nobody_announced();
        let after = scene.counters();
        assert_eq!(after.syn_cookies_accepted, 0);
        let answers = after.l3_tx_packets - before.l3_tx_packets;
        assert!(answers <= 1060, "{answers} answers to strays in a second");

        scene.rx(peer.ack());
        established(scene);
    });
}

#[test]
fn a_cookie_serves_its_own_tuple_and_not_for_ever() {
    on_both_families(one_half_open(), |scene, family| {
        take_the_place(scene, family);
        let mut peer = Peer::new(family);
        let syn = peer.syn().mss(1400);
        cookie(scene, &mut peer, syn);
        let other = peer.clone().from_port(40_001);
        scene.rx(other.ack());
        scene.nobody_announced();
        scene.rx(peer.ack().seq(peer.next.wrapping_add(1)));
        scene.nobody_announced();

        // Two maximum segment lifetimes and more (RFC 9293 3.4.2).
        scene.wait(Duration::from_secs(300));
        scene.events();
        scene.rx(peer.ack());
        scene.nobody_announced();
        assert_eq!(scene.counters().syn_cookies_accepted, 0);
    });
}

/// Nobody knows whom it was sent to.
#[test]
fn a_cookie_is_sent_once_for_a_syn() {
    on_both_families(one_half_open(), |scene, family| {
        take_the_place(scene, family);
        let mut peer = Peer::new(family);
        let syn = peer.syn().mss(1400);
        cookie(scene, &mut peer, syn.clone());
        let again = scene.watch(Duration::from_secs(40));
        let heard = again.into_iter().map(|(_, packet)| packet.tcp());
        assert_eq!(heard.filter(|it| it.to == peer.peer).count(), 0);
        cookie(scene, &mut peer, syn);
        scene.rx(peer.ack());
        established(scene);
    });
}

#[test]
fn without_cookies_the_oldest_half_open_flow_is_evicted() {
    let config = Config {
        syn_cookies: false,
        ..one_half_open()
    };
    on_both_families(config, |scene, family| {
        let mut first = Peer::new(family);
        scene.rx(first.syn().mss(1400));
        let (flow, _) = scene.announced();
        scene.wait(Duration::from_millis(1));
        scene.rx(Peer::new(family).from_port(2).syn().mss(1400));
        scene.announced();
        scene.expect_closed(flow, CloseReason::Evicted);
        assert_eq!(scene.counters().syn_cookies_sent, 0);
    });
}
