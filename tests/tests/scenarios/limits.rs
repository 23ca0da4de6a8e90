//! What happens at each bound of the configuration.

use std::time::Duration;

use l3l4_engine::{
    CloseReason, Config, DropReason, Event, FiveTuple, FlowId, FlowOptions, OpenError, Protocol,
    Verdict,
};
use l3l4_tests::craft::{FAMILIES, Peer, udp};
use l3l4_tests::scene::{Scene, config, on_both};
use l3l4_tests::wire::{RST, SYN};

fn peer(i: usize) -> Peer {
    Peer::new(FAMILIES[i % 2]).from_port(2000 + u16::try_from(i / 2).unwrap())
}

#[test]
fn at_max_flows_a_new_flow_is_dropped_in_silence_and_counted() {
    let config = Config {
        max_flows: 3,
        ..config()
    };
    on_both(config, |scene| {
        let first = scene.connect(&mut peer(0));
        scene.rx(udp(FAMILIES[0].peer(9), FAMILIES[0].local(9), b"x"));
        scene.announced();
        scene.verdict_on_new(Verdict::Wait);
        scene.rx(peer(1).syn());
        scene.announced();

        scene.rx(peer(2).syn());
        scene.rx(udp(FAMILIES[1].peer(9), FAMILIES[1].local(9), b"x"));
        scene.nobody_announced();
        scene.silence();
        assert_eq!(scene.drops(DropReason::FlowLimit), 2);
        let options = FlowOptions::default();
        assert_eq!(
            scene.open(&peer(3).tuple(), options),
            Err(OpenError::FlowLimit)
        );

        scene.abort(first).unwrap();
        scene.sent_packets();
        scene.rx(peer(2).syn());
        scene.announced();
    });
}

#[test]
fn at_max_half_open_a_syn_is_answered_with_a_cookie_and_nothing_is_evicted() {
    let config = Config {
        max_half_open: 2,
        ..config()
    };
    on_both(config, |scene| {
        scene.verdict_on_new(Verdict::Wait);
        scene.rx(peer(0).syn());
        let (waiting, _) = scene.announced();
        scene.verdict_on_new(Verdict::Accept(FlowOptions::default()));
        let mut second = peer(1);
        scene.rx(second.syn());
        let (half_open, _) = scene.announced();
        second.hear(&scene.tcp());

        let mut third = peer(2);
        scene.rx(third.syn());
        scene.nobody_announced();
        third.hear(&scene.tcp());
        let counters = scene.counters();
        assert_eq!((counters.half_open, counters.flows), (2, 2));
        assert_eq!(counters.syn_cookies_sent, 1);

        scene.rx(third.data(b"hello"));
        let (flow, tuple) = scene.announced();
        assert_eq!(tuple, third.tuple());
        scene.expect_events(flow, &[Event::Established]);
        assert_eq!(scene.stream(flow), b"hello");

        scene.rx(second.ack());
        scene.expect_events(half_open, &[Event::Established]);
        let accept = Verdict::Accept(FlowOptions::default());
        scene.verdict(waiting, accept).unwrap();
        let counters = scene.counters();
        assert_eq!((counters.flows_evicted, counters.half_open), (0, 1));
        assert_eq!(counters.syn_cookies_accepted, 1);
    });
}

#[test]
fn at_max_half_open_without_cookies_the_oldest_is_evicted_in_silence_and_reported() {
    let config = Config {
        max_half_open: 2,
        syn_cookies: false,
        ..config()
    };
    on_both(config, |scene| {
        let mut early = peer(100);
        let established = scene.connect(&mut early);
        scene.verdict_on_new(Verdict::Wait);
        scene.rx(peer(0).syn());
        let (oldest, _) = scene.announced();
        scene.wait(Duration::from_millis(1));
        scene.verdict_on_new(Verdict::Accept(FlowOptions::default()));
        scene.rx(peer(1).syn());
        let (older, _) = scene.announced();
        assert!(scene.tcp().has(SYN));

        for evicted in [oldest, older] {
            scene.wait(Duration::from_millis(1));
            let i = if evicted == oldest { 2 } else { 3 };
            scene.rx(peer(i).syn());
            scene.announced();
            scene.expect_closed(evicted, CloseReason::Evicted);
            let answers = scene.segments();
            assert_eq!(answers.len(), 1, "the new SYN-ACK only: {answers:?}");
            assert_eq!(answers[0].to, peer(i).peer);
        }
        let counters = scene.counters();
        assert_eq!((counters.flows_evicted, counters.half_open), (2, 2));
        scene.rx(early.data(b"unharmed"));
        assert_eq!(scene.stream(established), b"unharmed");
    });
}

#[test]
fn a_syn_flood_leaves_established_flows_alone_and_memory_bounded() {
    let config = Config {
        max_half_open: 64,
        max_flows: 256,
        ..config()
    };
    on_both(config, |scene| {
        let mut good = peer(0);
        let flow = scene.connect(&mut good);
        let mut most = 0;
        for i in 1..1000 {
            scene.rx(peer(i).syn());
            if i == 200 {
                most = scene.counters().memory_bytes;
            }
        }
        let counters = scene.counters();
        assert_eq!((counters.half_open, counters.flows), (64, 65));
        assert!(
            counters.memory_bytes <= most + most / 100,
            "{} of {most}",
            counters.memory_bytes
        );
        scene.events();
        scene.host().announced.clear();
        scene.sent_packets();
        scene.rx(good.data(b"unharmed"));
        assert_eq!(scene.stream(flow), b"unharmed");
    });
}

#[test]
fn at_the_memory_limit_new_flows_are_refused_and_old_ones_are_unharmed() {
    let config = Config {
        memory_limit: 1 << 20,
        ..config()
    };
    on_both(config, |scene| {
        // Takes a part of what the records of a TCP flow take.
        datagram(scene, 0);
        scene.announced();
        let (mut flows, mut refused) = (Vec::<(Peer, FlowId)>::new(), Vec::new());
        for i in 0..10_000 {
            let mut peer = peer(i);
            scene.rx(peer.syn().mss(1400));
            let (flow, _) = scene.announced();
            let answers = scene.segments();
            assert!(scene.counters().memory_bytes <= 1 << 20);
            if scene.host().ended.contains_key(&flow) {
                scene.expect_closed(flow, CloseReason::OutOfMemory);
                assert!(
                    answers.iter().all(|answer| answer.has(RST)),
                    "RST or nothing"
                );
                refused.push(flow);
                if refused.len() == 10 {
                    break;
                }
                continue;
            }
            assert!(refused.is_empty(), "no room, then room");
            peer.hear(&answers[0]);
            scene.rx(peer.data(&[7; 500]));
            scene.sent_packets();
            scene.expect_events(flow, &[Event::Established]);
            flows.push((peer, flow));
        }
        assert_eq!(
            refused.len(),
            10,
            "the limit was reached after {} flows",
            flows.len()
        );
        assert!(flows.len() >= 4, "{} flows in 1 MiB", flows.len());
        let tuple = FiveTuple {
            protocol: Protocol::Tcp,
            local: FAMILIES[0].local(1),
            peer: FAMILIES[0].peer(1),
        };
        let opened = scene.open(&tuple, FlowOptions::default());
        assert_eq!(opened, Err(OpenError::OutOfMemory));
        assert!(scene.counters().flows_out_of_memory >= 10);

        // No room for an announcement either: silence, as at `max_flows`.
        let fits = (1..100).take_while(|i| {
            datagram(scene, *i);
            scene.drops(DropReason::FlowLimit) == 0
        });
        assert!((1..=4).contains(&fits.count()));
        scene.host().announced.clear();
        scene.rx(peer(10_001).syn());
        scene.nobody_announced();
        assert_eq!(scene.drops(DropReason::FlowLimit), 2);

        scene.sent_packets();
        for (peer, flow) in &mut flows {
            scene.rx(peer.data(b"unharmed"));
            assert_eq!(
                scene.stream(*flow),
                [[7; 500].as_slice(), b"unharmed"].concat()
            );
            scene.tx(*flow, b"echo").unwrap();
            let echo = scene.segments().pop().expect("an echo");
            assert_eq!(echo.payload, b"echo");
            peer.hear(&echo);
            scene.rx(peer.ack());
        }
        assert!(scene.counters().memory_bytes <= 1 << 20);
    });
}

/// The first datagram of a flow.
fn datagram(scene: &mut Scene, i: u16) {
    scene.rx(udp(FAMILIES[0].peer(100 + i), FAMILIES[0].local(9), b"x"));
}

/// A handshake that was begun can end: its flow counts from the SYN on.
#[test]
fn handshakes_that_end_at_once_stay_within_the_memory_limit() {
    let config = Config {
        memory_limit: 1 << 20,
        ..config()
    };
    on_both(config, |scene| {
        let mut peers = Vec::new();
        for i in 0..2000 {
            let mut peer = peer(i);
            scene.rx(peer.syn().mss(1400));
            let answers = scene.segments();
            if let Some(answer) = answers.iter().find(|answer| answer.has(SYN)) {
                peer.hear(answer);
                peers.push(peer);
            }
        }
        assert!(peers.len() >= 500, "{} handshakes", peers.len());
        for peer in &peers {
            scene.rx(peer.ack());
            assert!(scene.counters().memory_bytes <= 1 << 20);
        }
        let established = scene.events();
        let established = established
            .iter()
            .filter(|(_, event)| *event == Event::Established);
        assert_eq!(established.count(), peers.len());
    });
}

#[test]
fn memory_returns_to_the_baseline_when_the_flows_are_gone() {
    on_both(config(), |scene| {
        cycle(scene, 200);
        let baseline = scene.counters().memory_bytes;
        for _ in 0..3 {
            cycle(scene, 200);
            let memory = scene.counters().memory_bytes;
            assert!(
                memory <= baseline + baseline / 100,
                "{memory} of {baseline}"
            );
        }
        assert_eq!(scene.deadline, None, "nothing is pending");
    });
}

#[test]
fn memory_is_counted_the_same_natively_and_in_the_component() {
    on_both(config(), |scene| {
        let mut peer = peer(0);
        scene.connect(&mut peer);
        scene.rx(udp(FAMILIES[0].peer(9), FAMILIES[0].local(9), b"x"));
        scene.verdict_on_new(Verdict::Wait);
        scene.rx(Peer::new(FAMILIES[1]).syn());
        let memory = scene.counters().memory_bytes;
        scene.host().trace.note(memory);
    });
}

#[test]
fn counters_of_flows_add_up() {
    on_both(config(), |scene| {
        cycle(scene, 10);
        scene.connect(&mut peer(0));
        scene
            .open(&peer(1).tuple(), FlowOptions::default())
            .unwrap();
        let counters = scene.counters();
        assert_eq!(counters.flows_announced, 11);
        assert_eq!(counters.flows_opened, 1);
        assert_eq!(counters.flows_closed, 10);
        assert_eq!(counters.flows, 2);
    });
}

/// So many flows, each with data both ways, all ended at once by abort.
fn cycle(scene: &mut Scene, flows: usize) {
    let flows: Vec<_> = (0..flows)
        .map(|i| {
            let mut peer = peer(i);
            let flow = scene.connect(&mut peer);
            scene.rx(peer.data(&[1; 1000]));
            scene.tx(flow, &[2; 1000]).unwrap();
            scene.sent_packets();
            flow
        })
        .collect();
    for flow in flows {
        scene.abort(flow).unwrap();
    }
    scene.sent_packets();
    scene.events();
    scene.host().received.clear();
}
