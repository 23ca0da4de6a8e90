//! Ids, initial sequence numbers, the clock, and sameness.

use std::collections::BTreeSet;
use std::time::Duration;

use l3l4_engine::{Config, Event, FlowError, FlowId, FlowOptions, Verdict};
use l3l4_tests::app::App;
use l3l4_tests::component::Component;
use l3l4_tests::craft::{FAMILIES, Peer, udp};
use l3l4_tests::dut::Native;
use l3l4_tests::random::Random;
use l3l4_tests::scene::{Scene, config, on_both, on_both_families, told};
use l3l4_tests::world::World;

#[test]
fn the_id_of_a_flow_that_ended_is_unknown_and_never_another_flow() {
    on_both_families(config(), |scene, family| {
        let mut old = BTreeSet::new();
        for _ in 0..50 {
            let flow = scene.connect(&mut Peer::new(family));
            scene.abort(flow).unwrap();
            scene.sent_packets();
            scene.events();
            assert!(old.insert(flow), "{flow:?} again");
        }
        let living = scene.connect(&mut Peer::new(family));
        assert!(!old.contains(&living));
        let accept = Verdict::Accept(FlowOptions::default());
        for stale in
            old.into_iter()
                .chain([FlowId(0), FlowId(u64::MAX), FlowId(living.0 ^ 1 << 63)])
        {
            if stale == living {
                continue;
            }
            let unknown = FlowError::UnknownFlow;
            assert_eq!(scene.tx(stale, b"x"), Err(unknown));
            assert_eq!(scene.tx_from(stale, family.local(1), b"x"), Err(unknown));
            assert_eq!(scene.verdict(stale, accept), Err(unknown));
            assert_eq!(scene.resume(stale), Err(unknown));
            assert_eq!(scene.finish(stale), Err(unknown));
            assert_eq!(scene.abort(stale), Err(unknown));
            assert_eq!(scene.info(stale).err(), Some(unknown));
        }
        scene.expect_events(living, &[]);
        scene.silence();
        assert_eq!(scene.flows(), [living]);
    });
}

/// RFC 6528 3: ISN = M + F, where M ticks every 4 microseconds: the numbers of a new
/// connection lie above those of the one before it, also when that left no trace.
#[test]
fn initial_sequence_numbers_of_one_tuple_go_up_with_the_clock() {
    on_both_families(config(), |scene, family| {
        let mut last = None;
        for i in 0..100 {
            let mut peer = Peer::new(family);
            peer.next = 1000 * i;
            scene.rx(peer.syn());
            let (flow, _) = scene.announced();
            let isn = scene.tcp().seq;
            if let Some(last) = last {
                assert_eq!(isn.wrapping_sub(last), 10_000 / 4, "10 ms later");
            }
            last = Some(isn);
            scene.abort(flow).unwrap();
            scene.sent_packets();
            scene.events();
            scene.wait(Duration::from_millis(10));
        }
    });
}

/// RFC 6528 3: F depends on the whole tuple, and a peer that knows the numbers of its
/// own connections cannot tell those of another.
#[test]
fn initial_sequence_numbers_of_different_tuples_have_nothing_in_common() {
    on_both_families(config(), |scene, family| {
        let mut isns = Vec::new();
        for i in 0..200u16 {
            let mut peer = Peer::new(family);
            match i % 2 {
                0 => peer.peer.set_port(1000 + i),
                _ => peer.local.set_port(1000 + i),
            }
            scene.rx(peer.syn());
            scene.announced();
            isns.push(scene.tcp().seq);
        }
        let steps: BTreeSet<_> = isns
            .windows(2)
            .map(|pair| pair[1].wrapping_sub(pair[0]))
            .collect();
        assert_eq!(steps.len(), 199, "no step twice");
        let high: BTreeSet<_> = isns.iter().map(|isn| isn >> 29).collect();
        assert_eq!(high.len(), 8, "all over the numbers");
    });
}

#[test]
fn the_seed_decides_sequence_numbers_and_ids() {
    let first_of = |seed: u8| {
        let mut scene = Scene::new(Box::new(Native::new(Config::new([seed; 32])).unwrap()));
        scene.rx(Peer::new(FAMILIES[0]).syn());
        let (flow, _) = scene.announced();
        (flow, scene.tcp().seq)
    };
    let firsts: Vec<_> = (0..20).map(first_of).collect();
    assert_eq!(
        firsts
            .iter()
            .map(|(_, isn)| isn)
            .collect::<BTreeSet<_>>()
            .len(),
        20
    );
    assert_eq!(
        firsts
            .iter()
            .map(|(flow, _)| flow)
            .collect::<BTreeSet<_>>()
            .len(),
        20
    );
    assert_eq!(first_of(3), firsts[3], "the same seed, the same numbers");
}

#[test]
fn the_same_calls_give_the_same_trace() {
    let story = |scene: &mut Scene| {
        let mut world = World::new(scene, App::Echo { room: 5000 });
        let data = Random::new(9).bytes(100_000);
        let mut sent = 0;
        let socket = world.client.connect(FAMILIES[1].local(7));
        world.run_until(Duration::from_secs(60), |world| {
            sent += world.client.send(socket, &data[sent..]);
            world.client.receive(socket);
            sent == data.len()
        });
        world.run_for(Duration::from_secs(10));
    };
    let native = || told(Box::new(Native::new(config()).unwrap()), story);
    let component = || told(Box::new(Component::new(&config())), story);
    let first = native();
    assert!(first.lines().len() > 300, "{} lines", first.lines().len());
    for other in [native(), component(), component()] {
        assert_eq!(first.difference(&other), None);
    }
}

#[test]
fn time_that_runs_back_is_raised_and_counted() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.tx(flow, b"data").unwrap();
        scene.tcp();
        scene.wait(Duration::from_millis(200));
        scene.poll();
        assert_eq!(scene.counters().time_went_back, 0);

        let late = scene.now;
        scene.now.0 -= 900_000_000;
        for _ in 0..5 {
            scene.poll();
            scene.now.0 += 1000;
        }
        scene.rx(peer.data(b"from the past"));
        assert_eq!(scene.stream(flow), b"from the past");
        assert_eq!(scene.counters().time_went_back, 6);
        assert!(scene.deadline.is_some_and(|deadline| deadline > late));
        scene.now = late;
        scene.wait(Duration::from_secs(2));
        assert!(
            scene
                .segments()
                .iter()
                .any(|segment| segment.payload == b"data"),
            "sent again"
        );
    });
}

#[test]
fn the_end_of_the_clock_is_no_trap() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.now.0 = u64::MAX - 1;
        scene.poll();
        scene.rx(udp(family.peer(1), family.local(1), b"x"));
        scene.events();
        let _ = flow;
    });
}

#[test]
fn flows_are_listed_in_the_order_of_their_slots() {
    on_both(config(), |scene| {
        let mut flows: Vec<_> = (0..5)
            .map(|i| scene.connect(&mut Peer::new(FAMILIES[0]).from_port(2000 + i)))
            .collect();
        scene.abort(flows.remove(1)).unwrap();
        let slot = |flow: &FlowId| flow.0 & 0xffff_ffff;
        let listed = scene.flows();
        assert!(listed.is_sorted_by_key(slot), "{listed:?}");
        flows.sort_by_key(slot);
        assert_eq!(listed, flows);
        scene.events();
    });
}

#[test]
fn a_batch_is_its_packets_one_by_one() {
    let packets = |family| {
        let mut peer = Peer::new(family);
        let mut all: Vec<Vec<u8>> = vec![peer.syn().mss(1400).into()];
        all.push(udp(family.peer(9), family.local(9), b"datagram"));
        all.extend((0..10).map(|i| peer.clone().from_port(3000 + i).syn().into()));
        all
    };
    for family in FAMILIES {
        let run = |batch: bool| {
            let mut scene = Scene::new(Box::new(Native::new(config()).unwrap()));
            if batch {
                scene.rx_batch(&packets(family));
            } else {
                packets(family)
                    .into_iter()
                    .for_each(|packet| scene.rx(packet));
            }
            let events: Vec<(FlowId, Event)> = scene.events();
            (scene.sent_packets(), events, scene.flows())
        };
        assert_eq!(run(true), run(false));
    }
}
