//! Every timeout of the configuration, and what does not count against it.

use std::time::Duration;

use l3l4_engine::{CloseReason, Config, Event, FlowOptions, Timer, Verdict};
use l3l4_tests::craft::{FAMILIES, Peer};
use l3l4_tests::scene::{config, on_both, on_both_families};
use l3l4_tests::wire::{ACK, FIN, SYN};

const TICK: Duration = Duration::from_millis(100);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_syn_ack_is_repeated_after_1_3_7_15_31_s_and_given_up_at_63_s() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400));
        let (flow, _) = scene.announced();
        let first = scene.tcp();

        let again = scene.watch(seconds(63) - TICK);
        let times: Vec<_> = again
            .iter()
            .map(|(at, _)| (at.as_millis() + 500) / 1000)
            .collect();
        assert_eq!(times, [1, 3, 7, 15, 31], "{again:?}");
        for (_, packet) in again {
            let segment = packet.tcp();
            assert_eq!((segment.flags, segment.seq), (SYN | ACK, first.seq));
        }
        scene.expect_events(flow, &[]);
        scene.wait(2 * TICK);
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::Handshake));
        assert_eq!(scene.counters().half_open, 0);
    });
}

#[test]
fn unanswered_data_is_repeated_with_growing_pauses() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.tx(flow, b"anyone?").unwrap();
        let first = scene.tcp();
        let again = scene.watch(seconds(60));
        let mut pauses: Vec<_> = again.iter().map(|(at, _)| at.as_secs_f64()).collect();
        pauses.insert(0, 0.0);
        let pauses: Vec<_> = pauses.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(pauses.len() >= 4, "{pauses:?}");
        for pair in pauses.windows(2) {
            let growth = pair[1] / pair[0];
            assert!((1.9..=2.1).contains(&growth), "RFC 6298 5.5: {pauses:?}");
        }
        for (_, packet) in again {
            let segment = packet.tcp();
            assert_eq!(
                (segment.seq, segment.payload.as_slice()),
                (first.seq, b"anyone?".as_slice())
            );
        }
        let retransmits = u64::try_from(pauses.len()).unwrap();
        assert_eq!(scene.counters().retransmits, retransmits);
        assert_eq!(scene.info(flow).unwrap().retransmits, retransmits);
    });
}

#[test]
fn a_peer_that_vanishes_with_data_outstanding_is_given_up_at_120_s() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.tx(flow, b"anyone?").unwrap();
        scene.wait(seconds(120) - TICK);
        scene.expect_events(flow, &[]);
        scene.wait(2 * TICK);
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::User));
    });
}

#[test]
fn a_peer_that_vanishes_with_our_fin_outstanding_is_given_up_at_120_s() {
    on_both_families(config(), |scene, family| {
        let flow = scene.connect(&mut Peer::new(family));
        scene.finish(flow).unwrap();
        scene.wait(seconds(120) - TICK);
        scene.expect_events(flow, &[]);
        scene.wait(2 * TICK);
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::User));
    });
}

#[test]
fn a_peer_that_keeps_its_window_shut_and_answers_is_not_given_up() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        peer.window = 0;
        scene.rx(peer.ack());
        scene.tx(flow, b"waiting").unwrap();
        for _ in 0..40 {
            for (_, probe) in scene.watch(seconds(10)) {
                let probe = probe.tcp();
                assert!(probe.payload.len() <= 1, "{probe}");
            }
            scene.rx(peer.ack());
            scene.sent_packets();
        }
        scene.expect_events(flow, &[]);
    });
}

#[test]
fn a_peer_that_does_not_finish_after_us_is_given_up_at_60_s() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.finish(flow).unwrap();
        peer.hear(&scene.tcp());
        scene.rx(peer.ack());
        scene.wait(seconds(50));
        scene.rx(peer.data(b"still here"));
        scene.wait(seconds(60) - TICK);
        scene.expect_events(flow, &[]);
        scene.wait(2 * TICK);
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::FinWait));
    });
}

#[test]
fn a_connection_idle_for_two_hours_lives_and_sends_nothing() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        assert!(scene.watch(seconds(7200)).is_empty());
        scene.expect_events(flow, &[]);
        scene.rx(peer.data(b"back"));
        assert_eq!(scene.stream(flow), b"back");
        scene.wait(seconds(7440) - TICK);
        scene.expect_events(flow, &[]);
        scene.wait(2 * TICK);
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::Idle));
    });
}

#[test]
fn an_idle_timeout_of_the_flow_is_used_in_place_of_the_configurations() {
    on_both_families(config(), |scene, family| {
        scene.verdict_on_new(Verdict::Accept(FlowOptions {
            idle_timeout: Some(seconds(5)),
            ..FlowOptions::default()
        }));
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        for _ in 0..5 {
            scene.wait(seconds(4));
            scene.rx(peer.data(b"."));
        }
        scene.wait(seconds(5) - TICK);
        scene.expect_events(flow, &[]);
        scene.wait(2 * TICK);
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::Idle));
    });
}

#[test]
fn keep_alives_probe_an_idle_peer_and_hold_the_connection() {
    on_both_families(config(), |scene, family| {
        scene.verdict_on_new(Verdict::Accept(FlowOptions {
            keep_alive: Some(seconds(10)),
            ..FlowOptions::default()
        }));
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        let mut probes = 0;
        for _ in 0..100 {
            for (_, probe) in scene.watch(seconds(1)) {
                let probe = probe.tcp();
                assert!(probe.payload.len() <= 1, "{probe}");
                assert_eq!(probe.seq, peer.expected.wrapping_sub(1), "RFC 9293 3.8.4");
                probes += 1;
                scene.rx(peer.ack());
            }
        }
        assert!((8..=11).contains(&probes), "{probes} probes in 100 s");
        scene.expect_events(flow, &[]);
    });
}

#[test]
fn a_peer_that_answers_no_keep_alive_is_given_up() {
    on_both_families(config(), |scene, family| {
        scene.verdict_on_new(Verdict::Accept(FlowOptions {
            keep_alive: Some(seconds(10)),
            user_timeout: Some(seconds(45)),
            ..FlowOptions::default()
        }));
        let peer = &mut Peer::new(family);
        let flow = scene.connect(peer);
        // The first probe goes out after 10 s, and is outstanding from then on.
        let probes = scene.watch(seconds(55) - TICK);
        scene.expect_events(flow, &[]);
        let at: Vec<_> = probes.iter().map(|(at, _)| at.as_secs()).collect();
        assert_eq!(at, [10, 20, 30, 40, 50]);
        for (_, probe) in probes {
            assert_eq!(probe.tcp().seq, peer.expected.wrapping_sub(1));
        }
        scene.wait(2 * TICK);
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::User));
    });
}

#[test]
fn a_user_timeout_of_the_flow_is_used_in_place_of_the_configurations() {
    on_both_families(config(), |scene, family| {
        let other = scene.connect(&mut Peer::new(family).from_port(9));
        scene.tx(other, b"anyone?").unwrap();
        scene.sent_packets();
        scene.verdict_on_new(Verdict::Accept(FlowOptions {
            user_timeout: Some(seconds(5)),
            ..FlowOptions::default()
        }));
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        // Nothing is outstanding yet.
        scene.wait(seconds(20));
        scene.sent_packets();
        scene.tx(flow, b"anyone?").unwrap();
        scene.wait(seconds(4));
        // It is silence that ends a flow, not that the data stays unanswered.
        scene.rx(peer.ack());
        scene.wait(seconds(5) - TICK);
        scene.expect_events(flow, &[]);
        scene.wait(2 * TICK);
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::User));
        assert_eq!(scene.flows(), [other]);
    });
}

#[test]
fn each_timeout_is_taken_from_the_configuration() {
    let short = |change: fn(&mut Config)| {
        let mut config = config();
        change(&mut config);
        config
    };
    let half = Duration::from_millis(500);
    on_both(
        short(|c| c.handshake_timeout = Duration::from_millis(500)),
        |scene| {
            scene.rx(Peer::new(FAMILIES[0]).syn());
            let (flow, _) = scene.announced();
            scene.wait(half + TICK);
            scene.expect_closed(flow, CloseReason::TimedOut(Timer::Handshake));
        },
    );
    on_both(
        short(|c| c.tcp_idle_timeout = Duration::from_millis(500)),
        |scene| {
            let flow = scene.connect(&mut Peer::new(FAMILIES[0]));
            scene.wait(half + TICK);
            scene.expect_closed(flow, CloseReason::TimedOut(Timer::Idle));
        },
    );
    on_both(
        short(|c| c.user_timeout = Duration::from_millis(500)),
        |scene| {
            let flow = scene.connect(&mut Peer::new(FAMILIES[0]));
            scene.tx(flow, b"data").unwrap();
            scene.wait(half + TICK);
            scene.expect_closed(flow, CloseReason::TimedOut(Timer::User));
        },
    );
    on_both(
        short(|c| c.fin_wait_timeout = Duration::from_millis(500)),
        |scene| {
            let mut peer = Peer::new(FAMILIES[0]);
            let flow = scene.connect(&mut peer);
            scene.finish(flow).unwrap();
            peer.hear(&scene.tcp());
            scene.rx(peer.ack());
            scene.wait(half + TICK);
            scene.expect_closed(flow, CloseReason::TimedOut(Timer::FinWait));
        },
    );
}

#[test]
fn a_long_clock_jump_ends_what_is_due_in_one_poll() {
    on_both(config(), |scene| {
        let flows: Vec<_> = (0..20)
            .map(|i| {
                scene.connect(
                    &mut Peer::new(FAMILIES[i % 2]).from_port(2000 + u16::try_from(i).unwrap()),
                )
            })
            .collect();
        scene.skip(seconds(6 * 3600));
        scene.poll();
        let ended = scene.events();
        assert_eq!(ended.len(), flows.len());
        let idle = Event::Closed(CloseReason::TimedOut(Timer::Idle));
        assert!(ended.iter().all(|(_, event)| *event == idle));
        assert_eq!(scene.deadline, None, "nothing is pending");
    });
}

#[test]
fn polling_early_changes_nothing() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.tx(flow, b"data").unwrap();
        let first = scene.tcp();
        for _ in 0..10 {
            scene.skip(Duration::from_millis(10));
            scene.poll();
        }
        scene.silence();
        peer.hear(&first);
        scene.rx(peer.fin());
        scene.expect_events(flow, &[Event::PeerFinished]);
        assert!(
            scene
                .watch(seconds(1))
                .iter()
                .all(|(_, packet)| !packet.clone().tcp().has(FIN))
        );
    });
}
