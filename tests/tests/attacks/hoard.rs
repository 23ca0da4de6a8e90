//! Peers that take nothing: 10,000 that complete the handshake, ask, offer no window
//! and fall silent (sockstress), and as many as 100,000 that only stay.
//!
//! To hold: nobody else is harmed, a peer pins at most a block of 8 KiB beyond what the
//! application gave to it (one of 64 KiB where segments are that large), and all of it is free again within 5 minutes; an idle flow
//! costs at most 1 KiB, 100,000 of them fit into 128 MiB, and nothing wakes for them.
//!
//! On the native engine only, for the number of flows.

use std::time::Duration;

use l3l4_engine::{CloseReason, Config, FlowId, Timer};
use l3l4_tests::craft::{FAMILIES, Peer};
use l3l4_tests::dut::Native;
use l3l4_tests::scene::{Scene, config, told};

const HOARDERS: u32 = 10_000;
const GIVEN: usize = 4096;
const MOST_PINNED: u64 = 8192;
const IDLE: u32 = 100_000;

#[test]
fn zero_window_peers_pin_little_and_not_for_long() {
    alone(config(), |scene| {
        let mut good = Peer::new(FAMILIES[0]);
        let flow = scene.connect(&mut good);
        echo(scene, flow, &mut good);
        let before = scene.counters().memory_bytes;
        scene.host().silent = true;
        let mut given = 0;
        for i in 0..HOARDERS {
            given += hoard(scene, i) as u64;
        }
        let pinned = scene.counters().memory_bytes.saturating_sub(before);
        let most = given + u64::from(HOARDERS) * MOST_PINNED;
        assert!(pinned <= most, "{pinned} bytes are pinned, {given} given");
        echo(scene, flow, &mut good);

        for _ in 0..300 {
            scene.wait(Duration::from_secs(1));
            scene.host().sent.clear();
            echo(scene, flow, &mut good);
        }
        assert_eq!(scene.flows(), [flow], "the good one is left");
        let reasons = &scene.host().ended;
        let timed_out = CloseReason::TimedOut(Timer::User);
        assert!(reasons.values().all(|reason| *reason == timed_out));
        let left = scene.counters().memory_bytes.saturating_sub(before);
        assert!(left <= 64 << 10, "{left} bytes stay behind");
    });
}

#[test]
fn idle_flows_cost_little_and_wake_nobody() {
    let config = Config {
        max_flows: IDLE,
        ..config()
    };
    alone(config, |scene| {
        scene.host().silent = true;
        for i in 0..IDLE {
            let mut peer = numbered(i);
            scene.connect(&mut peer);
        }
        let counters = scene.counters();
        assert_eq!(counters.flows, IDLE);
        assert!(
            counters.memory_bytes <= u64::from(IDLE) * 1024,
            "{} bytes a flow",
            counters.memory_bytes / u64::from(IDLE)
        );
        scene.wait(Duration::from_secs(600));
        scene.silence();
        let polls = scene.counters().l4_polls - counters.l4_polls;
        assert!(polls <= 1000, "{polls} polls in 10 minutes");
    });
}

fn alone(config: Config, story: impl Fn(&mut Scene)) {
    told(Box::new(Native::new(config).expect("in bounds")), story);
}

/// Connects, asks, and offers no window from then on; what the application gave.
fn hoard(scene: &mut Scene, number: u32) -> usize {
    let mut peer = numbered(number);
    peer.window = 0;
    let flow = scene.connect(&mut peer);
    scene.rx(peer.data(b"all of it, please"));
    scene.stream(flow);
    let given = scene.tx(flow, &[7; GIVEN]).unwrap();
    scene.host().sent.clear();
    given
}

/// A peer with a tuple of its own.
fn numbered(number: u32) -> Peer {
    let ports = 60_000;
    let port = |number| u16::try_from(number).expect("a port");
    let mut peer = Peer::new(FAMILIES[1]).from_port(port(1 + number % ports));
    peer.local.set_port(port(1000 + number / ports));
    peer
}

/// Data both ways, at once.
fn echo(scene: &mut Scene, flow: FlowId, good: &mut Peer) {
    let data = [9; 1000];
    scene.rx(good.data(&data));
    assert_eq!(scene.stream(flow), data);
    assert_eq!(scene.tx(flow, &data), Ok(data.len()));
    let segments = scene.segments();
    let answer = segments.iter().rfind(|segment| segment.to == good.peer);
    let answer = answer.expect("an answer");
    assert_eq!(answer.payload, data);
    good.hear(answer);
    scene.rx(good.ack());
}
