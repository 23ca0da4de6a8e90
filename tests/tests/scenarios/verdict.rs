//! The host decides before the handshake, and may take its time.

use std::time::Duration;

use l3l4_engine::{
    CloseReason, DropReason, Event, FlowError, FlowId, FlowOptions, FlowState, Refusal, Timer,
    Verdict,
};
use l3l4_tests::craft::{Family, Peer, udp};
use l3l4_tests::scene::{Scene, config, on_both_families};
use l3l4_tests::wire::{ACK, RST, SYN};

const ACCEPT: Verdict = Verdict::Accept(FlowOptions {
    nagle: false,
    keep_alive: None,
    idle_timeout: None,
    user_timeout: None,
});

#[test]
fn a_waiting_flow_is_silent_and_a_repeated_syn_costs_nothing() {
    on_both_families(config(), |scene, family| {
        let (mut peer, flow) = waiting(scene, family);
        assert_eq!(scene.info(flow).unwrap().state, FlowState::Waiting);
        let before = scene.counters();
        assert_eq!((before.flows, before.half_open), (1, 1));
        assert!(before.memory_bytes <= 4096, "{} bytes", before.memory_bytes);

        peer.next -= 1;
        for _ in 0..10 {
            scene.wait(Duration::from_secs(1));
            scene.rx(peer.clone().syn().mss(1400));
        }
        scene.nobody_announced();
        scene.silence();
        let after = scene.counters();
        assert_eq!(after.repeated_syns, 10);
        assert_eq!(after.dropped(DropReason::Undecided), 10);
        assert_eq!((after.flows, after.memory_bytes), (1, before.memory_bytes));
    });
}

#[test]
fn an_accepted_flow_is_answered_at_once_with_what_its_syn_offered() {
    on_both_families(config(), |scene, family| {
        let (mut peer, flow) = waiting(scene, family);
        scene.wait(Duration::from_secs(5));
        scene.verdict(flow, ACCEPT).unwrap();
        let syn_ack = scene.tcp();
        assert_eq!((syn_ack.flags, syn_ack.ack), (SYN | ACK, peer.next));
        peer.hear(&syn_ack);
        scene.rx(peer.data(b"hello"));
        scene.expect_events(flow, &[Event::Established]);
        assert_eq!(scene.stream(flow), b"hello");

        scene.tx(flow, &[1; 3000]).unwrap();
        let segments = scene.segments();
        assert!(
            segments.iter().all(|segment| segment.payload.len() <= 1200),
            "the MSS of the SYN"
        );
        assert_eq!(scene.verdict(flow, ACCEPT), Err(FlowError::AlreadyDecided));
    });
}

#[test]
fn wait_again_changes_nothing() {
    on_both_families(config(), |scene, family| {
        let (_, flow) = waiting(scene, family);
        scene.verdict(flow, Verdict::Wait).unwrap();
        scene.silence();
        scene.expect_events(flow, &[]);
        assert_eq!(scene.info(flow).unwrap().state, FlowState::Waiting);
    });
}

#[test]
fn calls_other_than_the_verdict_and_abort_are_refused_while_it_waits() {
    on_both_families(config(), |scene, family| {
        let (_, flow) = waiting(scene, family);
        assert_eq!(scene.tx(flow, b"data"), Err(FlowError::Undecided));
        assert_eq!(scene.finish(flow), Err(FlowError::Undecided));
        let bad = FlowOptions {
            keep_alive: Some(Duration::from_millis(999)),
            ..FlowOptions::default()
        };
        assert_eq!(
            scene.verdict(flow, Verdict::Accept(bad)),
            Err(FlowError::BadOption)
        );
        assert_eq!(scene.info(flow).unwrap().state, FlowState::Waiting);
    });
}

#[test]
fn a_late_refusal_is_answered_and_ends_the_flow() {
    on_both_families(config(), |scene, family| {
        let (peer, flow) = waiting(scene, family);
        scene
            .verdict(flow, Verdict::Refuse(Refusal::Reset))
            .unwrap();
        let reset = scene.tcp();
        assert_eq!(
            (reset.flags, reset.seq, reset.ack),
            (RST | ACK, 0, peer.next)
        );
        scene.expect_closed(flow, CloseReason::Aborted);
    });
}

#[test]
fn a_late_refusal_by_icmp_quotes_the_syn() {
    on_both_families(config(), |scene, family| {
        let (peer, flow) = waiting(scene, family);
        scene
            .verdict(flow, Verdict::Refuse(Refusal::HostUnreachable))
            .unwrap();
        let message = scene.packet().icmp();
        let (header, code) = if family == Family::V4 {
            (20, (3, 1))
        } else {
            (40, (1, 3))
        };
        assert_eq!((message.kind, message.code), code);
        assert!(
            message.payload.len() >= header + 8,
            "{} bytes quoted",
            message.payload.len()
        );
        let quoted = &message.payload[header..];
        assert_eq!(quoted[..2], peer.peer.port().to_be_bytes());
        assert_eq!(quoted[2..4], peer.local.port().to_be_bytes());
        assert_eq!(quoted[4..8], peer.next.wrapping_sub(1).to_be_bytes());
        scene.expect_closed(flow, CloseReason::Aborted);
    });
}

#[test]
fn a_late_drop_and_an_abort_are_silent_and_end_the_flow() {
    on_both_families(config(), |scene, family| {
        for late_drop in [true, false] {
            let (_, flow) = waiting(scene, family);
            if late_drop {
                scene.verdict(flow, Verdict::Drop).unwrap();
            } else {
                scene.abort(flow).unwrap();
            }
            scene.silence();
            scene.expect_closed(flow, CloseReason::Aborted);
        }
    });
}

#[test]
fn a_peer_that_resets_while_we_wait_is_reported() {
    on_both_families(config(), |scene, family| {
        let (peer, flow) = waiting(scene, family);
        scene.rx(peer.rst().seq(peer.next.wrapping_add(77)));
        scene.expect_events(flow, &[]);
        scene.rx(peer.rst());
        scene.expect_closed(flow, CloseReason::ResetByPeer);
        scene.silence();
        assert_eq!(scene.verdict(flow, ACCEPT), Err(FlowError::UnknownFlow));
    });
}

#[test]
fn a_peer_that_gives_up_while_we_wait_is_reported_75_s_after_its_last_syn() {
    on_both_families(config(), |scene, family| {
        let (mut peer, flow) = waiting(scene, family);
        scene.wait(Duration::from_secs(60));
        peer.next -= 1;
        scene.rx(peer.syn().mss(1200));
        scene.wait(Duration::from_millis(74_900));
        scene.expect_events(flow, &[]);
        scene.wait(Duration::from_millis(200));
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::Verdict));
        scene.silence();
    });
}

#[test]
fn datagrams_before_the_verdict_are_dropped_and_counted() {
    on_both_families(config(), |scene, family| {
        scene.verdict_on_new(Verdict::Wait);
        let query = || udp(family.peer(5000), family.local(53), b"query");
        scene.rx(query());
        let (flow, _) = scene.announced();
        let memory = scene.counters().memory_bytes;
        for _ in 0..5 {
            scene.rx(query());
        }
        scene.nobody_announced();
        let counters = scene.counters();
        assert!(counters.dropped(DropReason::Undecided) >= 5);
        assert_eq!(counters.memory_bytes, memory);
        assert!(scene.datagrams(flow).is_empty());

        scene.verdict(flow, ACCEPT).unwrap();
        scene.rx(query());
        assert_eq!(
            scene.datagrams(flow).last().map(Vec::as_slice),
            Some(b"query".as_slice())
        );
        assert_eq!(scene.info(flow).unwrap().state, FlowState::Datagram);
    });
}

#[test]
fn an_accepted_datagram_flow_can_be_refused_when_its_way_on_was() {
    on_both_families(config(), |scene, family| {
        scene.rx(udp(family.peer(5000), family.local(53), b"query"));
        let (flow, _) = scene.announced();
        assert_eq!(scene.datagrams(flow), [b"query"]);
        let refuse = Verdict::Refuse(Refusal::HostUnreachable);
        scene.verdict(flow, refuse).unwrap();
        let message = scene.packet().icmp();
        let (header, code) = match family {
            Family::V4 => (20, (3, 1)),
            Family::V6 => (40, (1, 3)),
        };
        assert_eq!((message.kind, message.code), code);
        let quoted = &message.payload[header..];
        assert_eq!(quoted[..2], 5000u16.to_be_bytes());
        assert_eq!(quoted[2..4], 53u16.to_be_bytes());
        scene.expect_closed(flow, CloseReason::Aborted);
    });
}

#[test]
fn an_accepted_datagram_flow_can_be_given_other_options() {
    on_both_families(config(), |scene, family| {
        scene.rx(udp(family.peer(5000), family.local(53), b"query"));
        let (flow, _) = scene.announced();
        scene.datagrams(flow);
        let accept = |seconds| {
            Verdict::Accept(FlowOptions {
                idle_timeout: Some(Duration::from_secs(seconds)),
                ..FlowOptions::default()
            })
        };
        scene.verdict(flow, accept(5)).unwrap();
        assert_eq!(
            scene.verdict(flow, accept(1_000_000)),
            Err(FlowError::BadOption)
        );
        scene.silence();
        scene.wait(Duration::from_secs(4));
        scene.expect_events(flow, &[]);
        scene.wait(Duration::from_secs(1));
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::Idle));
    });
}

#[test]
fn a_waiting_datagram_flow_times_out_after_the_last_datagram() {
    on_both_families(config(), |scene, family| {
        scene.verdict_on_new(Verdict::Wait);
        scene.rx(udp(family.peer(5000), family.local(53), b"query"));
        let (flow, _) = scene.announced();
        scene.wait(Duration::from_millis(75_100));
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::Verdict));
    });
}

#[test]
fn an_option_out_of_bounds_in_the_verdict_on_the_spot_does_not_harm() {
    on_both_families(config(), |scene, family| {
        scene.verdict_on_new(Verdict::Accept(FlowOptions {
            idle_timeout: Some(Duration::from_millis(1)),
            ..FlowOptions::default()
        }));
        scene.rx(Peer::new(family).syn().mss(1400));
        scene.wait(Duration::from_secs(1));
    });
}

/// A peer whose SYN (MSS 1200) was announced and waits.
fn waiting(scene: &mut Scene, family: Family) -> (Peer, FlowId) {
    scene.verdict_on_new(Verdict::Wait);
    let mut peer = Peer::new(family);
    scene.rx(peer.syn().mss(1200));
    let (flow, tuple) = scene.announced();
    assert_eq!(tuple, peer.tuple());
    scene.silence();
    (peer, flow)
}
