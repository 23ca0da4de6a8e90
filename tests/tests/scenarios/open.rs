//! Flows that the host opens.

use std::time::Duration;

use l3l4_engine::{
    CloseReason, Event, FiveTuple, FlowId, FlowOptions, FlowState, OpenError, Protocol, Timer,
    Unreachable,
};
use l3l4_tests::app::App;
use l3l4_tests::craft::{Family, Peer, unreachable};
use l3l4_tests::random::Random;
use l3l4_tests::scene::{Scene, config, on_both, on_both_families};
use l3l4_tests::wire::{self, ACK, RST, SYN};
use l3l4_tests::world::World;

#[test]
fn an_opened_flow_reaches_a_listener_and_sends() {
    on_both_families(config(), |scene, family| {
        let data = Random::new(5).bytes(200_000);
        let mut world = World::new(scene, App::Source(data.clone()));
        let socket = world.client.listen(80);
        let tuple = FiveTuple {
            protocol: Protocol::Tcp,
            local: family.local(5555),
            peer: family.peer(80),
        };
        let flow = world.scene.open(&tuple, FlowOptions::default()).unwrap();
        world.app.join(flow);
        let mut received = Vec::new();
        world.run_until(Duration::from_secs(60), |world| {
            received.extend(world.client.receive(socket));
            if !world.client.socket(socket).may_recv() && received.len() == data.len() {
                world.client.socket(socket).close();
            }
            world.scene.host().living.is_empty()
        });
        assert!(received == data, "the bytes sent");
        let events: Vec<_> = world.app.events.iter().map(|(_, event)| *event).collect();
        assert_eq!(events[0], Event::Established);
        assert_eq!(events.last(), Some(&Event::Closed(CloseReason::Finished)));
    });
}

#[test]
fn the_handshake_is_a_syn_and_an_ack() {
    on_both_families(config(), |scene, family| {
        let (mut peer, flow, syn) = opening(scene, family);
        assert_eq!(syn.flags, SYN);
        let most = 1500 - family.ip_header() - 20;
        assert_eq!(syn.mss.map(usize::from), Some(most));
        assert_eq!(scene.info(flow).unwrap().state, FlowState::SynSent);

        scene.rx(peer.syn_ack().mss(1400));
        scene.expect_events(flow, &[Event::Established]);
        let ack = scene.tcp();
        assert_eq!(
            (ack.flags & !wire::PSH, ack.seq, ack.ack),
            (ACK, syn.end(), peer.next)
        );
        scene.rx(peer.data(b"welcome"));
        assert_eq!(scene.stream(flow), b"welcome");
    });
}

/// RFC 9293 3.5, figure 8.
#[test]
fn both_open_at_once() {
    for answers_with_syn_ack in [true, false] {
        on_both_families(config(), |scene, family| {
            let (mut peer, flow, syn) = opening(scene, family);
            scene.rx(peer.syn().mss(1400));
            assert_eq!(scene.info(flow).unwrap().state, FlowState::SynReceived);
            scene.expect_events(flow, &[]);
            let syn_ack = scene.tcp();
            assert_eq!(syn_ack.flags, SYN | ACK);
            assert_eq!((syn_ack.seq, syn_ack.ack), (syn.seq, peer.next));

            let start = peer.next.wrapping_sub(1);
            scene.rx(match answers_with_syn_ack {
                true => peer.segment(SYN | ACK).seq(start),
                false => peer.ack(),
            });
            scene.expect_events(flow, &[Event::Established]);
            scene.nobody_announced();
            scene.sent_packets();
            scene.rx(peer.data(b"hello"));
            assert_eq!(scene.stream(flow), b"hello");
            assert_eq!(scene.tx(flow, b"welcome"), Ok(7));
            let data = scene.segments().pop().expect("data");
            assert_eq!((data.seq, data.ack), (syn.end(), peer.next));
            assert_eq!(data.payload, b"welcome");
        });
    }
}

#[test]
fn a_reset_that_acknowledges_the_syn_is_a_refusal() {
    on_both_families(config(), |scene, family| {
        let (peer, flow, syn) = opening(scene, family);
        scene.rx(peer
            .segment(RST | ACK)
            .seq(0)
            .acking(syn.seq.wrapping_add(50)));
        scene.rx(peer.segment(RST).seq(0));
        scene.expect_events(flow, &[]);
        scene.silence();
        scene.rx(peer.segment(RST | ACK).seq(0));
        scene.expect_closed(flow, CloseReason::Refused);
        scene.silence();
    });
}

#[test]
fn an_icmp_unreachable_that_quotes_the_syn_ends_the_opening() {
    let codes_v4 = [
        (0, Unreachable::Network),
        (1, Unreachable::Host),
        (2, Unreachable::Protocol),
        (3, Unreachable::Port),
        (13, Unreachable::Prohibited),
    ];
    let codes_v6 = [
        (0, Unreachable::Network),
        (1, Unreachable::Prohibited),
        (3, Unreachable::Host),
        (4, Unreachable::Port),
    ];
    for at in 0..codes_v4.len() {
        on_both_families(config(), |scene, family| {
            let (code, reason) = match family {
                Family::V4 => codes_v4[at],
                Family::V6 => codes_v6[at % codes_v6.len()],
            };
            let tuple = Peer::new(family).tuple();
            let flow = scene.open(&tuple, FlowOptions::default()).unwrap();
            let syn = scene.host().sent.pop_front().expect("the SYN");
            let mut other = syn.clone();
            other[family.ip_header() + 4] ^= 0x55; // another sequence number
            let router = family.peer(0).ip();
            scene.rx(unreachable(router, family.local(0).ip(), code, &other));
            scene.expect_events(flow, &[]);
            scene.rx(unreachable(router, family.local(0).ip(), code, &syn));
            scene.expect_closed(flow, CloseReason::Unreachable(reason));
            scene.silence();
        });
    }
}

#[test]
fn silence_is_tried_again_with_growing_pauses_and_times_out() {
    on_both_families(config(), |scene, family| {
        let (_, flow, first) = opening(scene, family);
        let again = scene.watch(Duration::from_millis(62_900));
        let seconds: Vec<_> = again
            .iter()
            .map(|(at, _)| (at.as_millis() + 500) / 1000)
            .collect();
        assert_eq!(seconds, [1, 3, 7, 15, 31], "{again:?}");
        assert!(
            again
                .into_iter()
                .all(|(_, packet)| packet.tcp().seq == first.seq)
        );
        scene.expect_events(flow, &[]);
        scene.wait(Duration::from_millis(200));
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::Handshake));
    });
}

#[test]
fn data_not_taken_while_opening_is_asked_for_after_the_handshake() {
    on_both_families(config(), |scene, family| {
        let (mut peer, flow, _) = opening(scene, family);
        assert_eq!(scene.tx(flow, b"GET /"), Ok(0));
        scene.silence();
        scene.rx(peer.syn_ack().mss(1400));
        scene.expect_events(flow, &[Event::Established, Event::Writable]);
        assert_eq!(scene.tx(flow, b"GET /"), Ok(5));
        let sent: Vec<_> = scene
            .segments()
            .into_iter()
            .flat_map(|segment| segment.payload)
            .collect();
        assert_eq!(sent, b"GET /");
    });
}

#[test]
fn an_abort_while_opening_ends_the_flow() {
    on_both_families(config(), |scene, family| {
        let (_, flow, _) = opening(scene, family);
        scene.abort(flow).unwrap();
        scene.expect_closed(flow, CloseReason::Aborted);
        scene.sent_packets();
    });
}

#[test]
fn a_tuple_in_use_is_refused() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        scene.connect(&mut peer);
        let options = FlowOptions::default();
        assert_eq!(scene.open(&peer.tuple(), options), Err(OpenError::InUse));
        let udp = FiveTuple {
            protocol: Protocol::Udp,
            ..peer.tuple()
        };
        scene.open(&udp, options).unwrap();
        assert_eq!(scene.open(&udp, options), Err(OpenError::InUse));
        scene.silence();
    });
}

#[test]
fn addresses_that_no_flow_can_have_are_refused() {
    on_both(config(), |scene| {
        let pairs = [
            ("0.0.0.0:1", "192.0.2.1:1"),
            ("192.0.2.1:1", "0.0.0.0:1"),
            ("192.0.2.1:1", "255.255.255.255:1"),
            ("192.0.2.1:1", "224.0.0.1:1"),
            ("239.1.1.1:1", "192.0.2.1:1"),
            ("192.0.2.1:0", "192.0.2.2:1"),
            ("192.0.2.1:1", "192.0.2.2:0"),
            ("192.0.2.1:1", "192.0.2.1:1"),
            ("192.0.2.1:1", "[2001:db8::1]:1"),
            ("[2001:db8::1]:1", "192.0.2.1:1"),
            ("[::]:1", "[2001:db8::1]:1"),
            ("[2001:db8::1]:1", "[ff02::1]:1"),
            ("[2001:db8::1]:1", "[2001:db8::1]:1"),
        ];
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for (local, peer) in pairs {
                let tuple = FiveTuple {
                    protocol,
                    local: local.parse().unwrap(),
                    peer: peer.parse().unwrap(),
                };
                let result = scene.open(&tuple, FlowOptions::default());
                assert_eq!(result, Err(OpenError::BadAddress), "{tuple:?}");
            }
        }
        let echo = FiveTuple {
            protocol: Protocol::IcmpEcho,
            local: "192.0.2.1:0".parse().unwrap(),
            peer: "192.0.2.2:5".parse().unwrap(),
        };
        assert_eq!(
            scene.open(&echo, FlowOptions::default()),
            Err(OpenError::BadAddress)
        );
        scene.silence();
        assert_eq!(scene.counters().flows_opened, 0);
    });
}

#[test]
fn options_out_of_bounds_are_refused() {
    on_both_families(config(), |scene, family| {
        let tuple = Peer::new(family).tuple();
        let keep_alive = |time| FlowOptions {
            keep_alive: Some(time),
            ..FlowOptions::default()
        };
        let idle = |time| FlowOptions {
            idle_timeout: Some(time),
            ..FlowOptions::default()
        };
        let user = |time| FlowOptions {
            user_timeout: Some(time),
            ..FlowOptions::default()
        };
        let day = Duration::from_secs(24 * 3600);
        for options in [
            keep_alive(Duration::from_millis(999)),
            idle(Duration::from_millis(99)),
            idle(8 * day),
            user(Duration::from_millis(99)),
            user(8 * day),
        ] {
            assert_eq!(
                scene.open(&tuple, options),
                Err(OpenError::BadOption),
                "{options:?}"
            );
        }
        scene.silence();
        for options in [keep_alive(Duration::from_secs(1)), idle(7 * day)] {
            let flow = scene.open(&tuple, options).unwrap();
            scene.abort(flow).unwrap();
        }
    });
}

/// A flow to the usual peer, and its SYN, which the peer has heard.
fn opening(scene: &mut Scene, family: Family) -> (Peer, FlowId, wire::Tcp) {
    let mut peer = Peer::new(family);
    let flow = scene.open(&peer.tuple(), FlowOptions::default()).unwrap();
    let syn = scene.tcp();
    peer.hear(&syn);
    (peer, flow, syn)
}
