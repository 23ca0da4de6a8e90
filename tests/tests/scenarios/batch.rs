//! Data for many flows in one call: as if each had a call of its own, in order.

use l3l4_engine::{BatchError, Event, FlowError, FlowId, Instant, Portion, Verdict};
use l3l4_tests::craft::{FAMILIES, Family, Peer, udp};
use l3l4_tests::dut::{Dut, Native};
use l3l4_tests::scene::{Scene, config, on_both_families};
use l3l4_tests::wire::Body;

#[test]
fn the_packets_of_all_portions_leave_together_and_in_order() {
    on_both_families(config(), |scene, family| {
        let [(one, first), (other, second)] = connected(scene, family);
        let datagrams = speak(scene, family);
        let callbacks = scene.host().callbacks;
        let data = [
            (first, &[1u8; 3000][..]),
            (datagrams, b""),
            (second, b"two"),
            (datagrams, b"four"),
            (first, b"five"),
        ];
        let whole: Vec<_> = data.iter().map(|(_, data)| Ok(data.len())).collect();
        assert_eq!(scene.tx_batch(&data), whole);
        assert_eq!(scene.host().callbacks - callbacks, 1, "one l3-tx");

        let mss = if family == Family::V4 { 1460 } else { 1440 };
        let sent: Vec<_> = payloads(scene);
        let expected = [
            (one.peer.port(), vec![1; mss]),
            (one.peer.port(), vec![1; mss]),
            (one.peer.port(), vec![1; 3000 - 2 * mss]),
            (5000, vec![]),
            (other.peer.port(), b"two".to_vec()),
            (5000, b"four".to_vec()),
            (one.peer.port(), b"five".to_vec()),
        ];
        assert_eq!(sent, expected);
    });
}

/// The same packets, byte for byte, as from single calls.
#[test]
fn a_batch_is_worth_what_its_portions_are_one_by_one() {
    for family in FAMILIES {
        let [batched, single] = [true, false].map(|batched| {
            let mut scene = Scene::new(Box::new(Native::new(config()).unwrap()));
            let [(_, first), (_, second)] = connected(&mut scene, family);
            let data = [
                (first, &[1u8; 5000][..]),
                (second, b"short"),
                (first, &[2; 20_000]),
                (second, b""),
            ];
            if batched {
                scene.tx_batch(&data);
            } else {
                for (flow, data) in data {
                    scene.tx(flow, data).unwrap();
                }
            }
            std::mem::take(&mut scene.host().sent)
        });
        assert!(batched.len() > 10 && batched == single, "{batched:?}");
    }
}

#[test]
fn who_waits_for_the_device_comes_before_the_batch() {
    on_both_families(config(), |scene, family| {
        let [(_, waits), (_, late)] = connected(scene, family);
        scene.host().device_room = Some(0);
        scene.tx(waits, b"refused").unwrap();
        scene.tx(waits, b"waits").unwrap();
        scene.host().device_room = None;
        scene.tx_batch(&[(late, b"late"), (late, b"later")]);
        let sent: Vec<_> = payloads(scene).into_iter().map(|(_, data)| data).collect();
        assert_eq!(sent.concat(), b"refusedwaitslatelater");
    });
}

#[test]
fn a_portion_that_is_refused_keeps_none_of_the_others() {
    on_both_families(config(), |scene, family| {
        let [(one, sends), (_, finished)] = connected(scene, family);
        scene.finish(finished).unwrap();
        let datagrams = speak(scene, family);
        scene.verdict_on_new(Verdict::Wait);
        scene.rx(Peer::new(family).from_port(4000).syn());
        let (undecided, _) = scene.announced();
        scene.sent_packets();

        let long = vec![0; 65_528];
        let data = [
            (FlowId(u64::MAX), &b"nobody's"[..]),
            (undecided, b"early"),
            (sends, b"one"),
            (finished, b"late"),
            (datagrams, &long),
            (datagrams, b"two"),
        ];
        let expected = [
            Err(FlowError::UnknownFlow),
            Err(FlowError::Undecided),
            Ok(3),
            Err(FlowError::Finished),
            Err(FlowError::TooLong),
            Ok(3),
        ];
        assert_eq!(scene.tx_batch(&data), expected);
        let sent = payloads(scene);
        let expected = [(one.peer.port(), b"one".to_vec()), (5000, b"two".to_vec())];
        assert_eq!(sent, expected);
        assert_eq!(scene.tx_batch(&[]), []);
    });
}

#[test]
fn nothing_follows_what_was_not_taken_whole() {
    let mut config = config();
    config.tcp_send_buffer = 2048;
    on_both_families(config, |scene, family| {
        let [(mut one, full), (_, roomy)] = connected(scene, family);
        let data: Vec<u8> = (0..=255).cycle().take(4000).collect();
        let (first, second) = data.split_at(3000);
        let taken = scene.tx_batch(&[(full, first), (roomy, b"free"), (full, second)]);
        assert_eq!(taken, [Ok(2048), Ok(4), Ok(0)]);

        let mut stream = Vec::new();
        for segment in scene.segments() {
            if segment.to == one.peer {
                stream.extend_from_slice(&segment.payload);
                one.hear(&segment);
            }
        }
        scene.rx(one.ack());
        scene.expect_events(full, &[Event::Writable]);
        let taken = scene.tx_batch(&[(full, &data[2048..3000]), (full, second)]);
        assert_eq!(taken, [Ok(952), Ok(1000)]);
        for segment in scene.segments() {
            stream.extend_from_slice(&segment.payload);
        }
        assert_eq!(stream, data);
    });
}

#[test]
fn datagrams_keep_their_order_when_the_device_is_full() {
    on_both_families(config(), |scene, family| {
        let flow = speak(scene, family);
        scene.host().device_room = Some(3);
        // More than the engine gathers for one `l3-tx`.
        let datagrams: Vec<[u8; 100]> = (0..200).map(|i| [i; 100]).collect();
        let data: Vec<_> = datagrams.iter().map(|data| (flow, &data[..])).collect();
        let taken = scene.tx_batch(&data);
        let count = taken.iter().take_while(|taken| **taken == Ok(100)).count();
        assert!((3..200).contains(&count), "{count}");
        assert!(taken[count..].iter().all(|taken| *taken == Ok(0)));

        scene.host().device_room = None;
        scene.poll();
        scene.expect_events(flow, &[Event::Writable]);
        scene.tx_batch(&data[count..]);
        let sent: Vec<_> = payloads(scene).into_iter().map(|(_, data)| data).collect();
        assert!(sent == datagrams, "{} datagrams", sent.len());
    });
}

#[test]
fn a_flow_that_shakes_hands_takes_nothing_and_says_when_it_does() {
    on_both_families(config(), |scene, family| {
        let [mut one, mut other] = peers(family);
        let sends = scene.connect(&mut one);
        scene.rx(other.syn());
        let (early, _) = scene.announced();
        other.hear(&scene.tcp());
        let taken = scene.tx_batch(&[(early, b"early"), (sends, b"sent"), (early, b"more")]);
        assert_eq!(taken, [Ok(0), Ok(4), Ok(0)]);
        assert_eq!(payloads(scene), [(one.peer.port(), b"sent".to_vec())]);
        scene.rx(other.ack());
        scene.expect_events(early, &[Event::Established, Event::Writable]);
        assert_eq!(scene.tx_batch(&[(early, b"early")]), [Ok(5)]);
    });
}

/// The blocks of all flows together are more than there are.
#[test]
fn what_finds_no_memory_is_taken_when_there_is_some() {
    const EACH: usize = 60_000;
    let mut config = config();
    config.memory_limit = 1 << 20;
    on_both_families(config, |scene, family| {
        let mut peers: Vec<Peer> = (2001..2018)
            .map(|port| Peer::new(family).from_port(port))
            .collect();
        let flows: Vec<_> = peers.iter_mut().map(|peer| scene.connect(peer)).collect();
        let data: Vec<u8> = (0..=255).cycle().take(EACH).collect();
        let mut given = vec![0; flows.len()];
        let mut streams = vec![Vec::new(); flows.len()];
        let mut waited = false;
        while streams.iter().any(|stream| stream.len() < EACH) {
            let full = scene.host().full.clone();
            let ready = (0..flows.len()).filter(|i| !full.contains(&flows[*i]));
            let ready: Vec<usize> = ready.filter(|i| given[*i] < EACH).collect();
            let portions = ready.iter().map(|i| (flows[*i], &data[given[*i]..]));
            let taken = scene.tx_batch(&portions.collect::<Vec<_>>());
            for (i, taken) in ready.into_iter().zip(taken) {
                given[i] += taken.expect("it lives");
                waited |= given[i] < EACH;
            }
            let segments = scene.segments();
            assert!(!segments.is_empty(), "{given:?}, {full:?} wait");
            let mut acks = Vec::new();
            for segment in segments {
                let i = usize::from(segment.to.port() - 2001);
                streams[i].extend_from_slice(&segment.payload);
                peers[i].hear(&segment);
                acks.push(peers[i].ack().into());
            }
            scene.rx_batch(&acks);
        }
        assert!(waited, "memory was enough");
        assert!(streams.iter().all(|stream| *stream == data));
    });
}

/// What the host library never does; `raw.rs` has it of the component.
#[test]
fn lengths_that_do_not_add_up_refuse_the_batch() {
    let mut engine = Native::new(config()).unwrap();
    for lengths in [&[3][..], &[5], &[], &[4, 1], &[u32::MAX, 5]] {
        let flow = FlowId(0);
        let portions = lengths.iter().map(|&length| Portion { flow, length });
        let portions: Vec<_> = portions.collect();
        let refused = engine.l4_tx_batch(Instant(1), b"four", &portions);
        assert_eq!(refused, Err(BatchError::LengthMismatch));
    }
}

fn peers(family: Family) -> [Peer; 2] {
    [2001, 2002].map(|port| {
        let mut peer = Peer::new(family).from_port(port);
        peer.window = u16::MAX;
        peer
    })
}

fn connected(scene: &mut Scene, family: Family) -> [(Peer, FlowId); 2] {
    peers(family).map(|mut peer| {
        let flow = scene.connect(&mut peer);
        (peer, flow)
    })
}

/// A flow of datagrams, from port 5000.
fn speak(scene: &mut Scene, family: Family) -> FlowId {
    scene.rx(udp(family.peer(5000), family.local(53), b"query"));
    let (flow, _) = scene.announced();
    flow
}

/// To which port what was sent.
fn payloads(scene: &mut Scene) -> Vec<(u16, Vec<u8>)> {
    let packets = scene.sent_packets().into_iter();
    let payload = packets.map(|seen| match seen.body {
        Body::Tcp(segment) => (segment.to.port(), segment.payload),
        Body::Udp(datagram) => (datagram.to.port(), datagram.payload),
        other => panic!("{other:?}"),
    });
    payload.collect()
}
