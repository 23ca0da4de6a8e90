//! Back-pressure in all three places, and no lost wake-up.

use std::time::Duration;

use l3l4_engine::{Config, Event};
use l3l4_tests::craft::{FAMILIES, Peer, udp};
use l3l4_tests::scene::{config, on_both, on_both_families};
use l3l4_tests::wire::{ACK, SYN};

fn small() -> Config {
    let mut config = config();
    config.tcp_receive_buffer = 2048;
    config.tcp_send_buffer = 2048;
    config
}

#[test]
fn what_the_host_does_not_take_closes_the_window_and_resume_opens_it() {
    on_both_families(small(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.host().appetite.insert(flow, 0);

        scene.rx(peer.data(&[1; 1024]));
        scene.rx(peer.data(&[2; 1024]));
        scene.wait(Duration::from_millis(500));
        let last = scene.segments().pop().expect("an ACK");
        assert_eq!((last.ack, last.window), (peer.next, 0));
        assert_eq!(scene.info(flow).unwrap().receive_queue, 2048);
        assert!(scene.stream(flow).is_empty());

        // A probe of one byte is not taken, and is answered.
        scene.rx(peer.segment(ACK).payload(b"?"));
        scene.wait(Duration::from_millis(500));
        let answer = scene.segments().pop().expect("an ACK");
        assert_eq!((answer.ack, answer.window), (peer.next, 0));

        scene.host().appetite.remove(&flow);
        scene.resume(flow).unwrap();
        assert_eq!(scene.stream(flow), [[1; 1024], [2; 1024]].concat());
        scene.wait(Duration::from_millis(500));
        let update = scene.segments().pop().expect("a window update");
        assert_eq!(update.ack, peer.next);
        assert!(update.window >= 1024, "{update}");
        scene.rx(peer.data(b"on we go"));
        assert_eq!(scene.stream(flow), b"on we go");
    });
}

#[test]
fn a_host_that_takes_a_part_gets_the_rest_in_order_and_nothing_in_between() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        let data: Vec<u8> = (0..3000u32).map(|i| i.to_le_bytes()[0]).collect();

        scene.host().appetite.insert(flow, 100);
        let mut taken = Vec::new();
        for piece in data.chunks(1000) {
            scene.rx(peer.data(piece));
            taken.extend(scene.stream(flow));
            assert_eq!(taken.len(), 100, "held back until resumed");
        }
        for appetite in [0, 50, 1, 1849] {
            scene.host().appetite.insert(flow, appetite);
            scene.resume(flow).unwrap();
            taken.extend(scene.stream(flow));
        }
        assert_eq!(taken.len(), 2000);
        scene.host().appetite.remove(&flow);
        scene.resume(flow).unwrap();
        taken.extend(scene.stream(flow));
        assert_eq!(taken, data);
        assert_eq!(scene.info(flow).unwrap().bytes_received, 3000);
    });
}

#[test]
fn resume_is_harmless_when_nothing_was_held_back() {
    on_both_families(config(), |scene, family| {
        let flow = scene.connect(&mut Peer::new(family));
        scene.resume(flow).unwrap();
        scene.silence();
        scene.expect_events(flow, &[]);
    });
}

#[test]
fn data_beyond_the_window_is_not_lost_without_word() {
    on_both_families(small(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.host().appetite.insert(flow, 0);
        // 3,000 bytes into 2,048 of room: what is acknowledged is what is kept.
        let first = peer.next;
        let data: Vec<u8> = (0..3000u32).map(|i| i.to_le_bytes()[0]).collect();
        for piece in data.chunks(1000) {
            scene.rx(peer.data(piece));
        }
        scene.wait(Duration::from_millis(500));
        let acked = scene
            .segments()
            .iter()
            .map(|ack| ack.ack.wrapping_sub(first))
            .max();
        let acked = usize::try_from(acked.expect("an ACK")).unwrap();
        assert!(acked <= 2048, "{acked} bytes acknowledged");
        scene.host().appetite.remove(&flow);
        scene.resume(flow).unwrap();
        let taken = scene.stream(flow);
        assert!(taken.len() >= acked, "every acknowledged byte is delivered");
        assert_eq!(taken, data[..taken.len()]);
    });
}

#[test]
fn a_full_send_buffer_takes_a_part_and_says_when_there_is_room() {
    on_both_families(small(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        let data: Vec<u8> = (0..10_000u32).map(|i| i.to_le_bytes()[0]).collect();
        let (mut given, mut received) = (0, Vec::new());
        let mut waits = 0;
        while received.len() < data.len() {
            if !scene.host().full.contains(&flow) && given < data.len() {
                given += scene.tx(flow, &data[given..]).unwrap();
                assert!(scene.info(flow).unwrap().send_queue <= 2048);
                waits += usize::from(given < data.len());
            }
            let segments = scene.segments();
            assert!(!segments.is_empty(), "stalled at {}", received.len());
            for segment in segments {
                peer.hear(&segment);
                received.extend(segment.payload);
            }
            scene.rx(peer.ack());
        }
        assert_eq!(received, data);
        assert!(waits >= 3, "{waits} times full");
        let events = scene.events();
        assert_eq!(events.len(), waits);
        assert!(events.iter().all(|event| *event == (flow, Event::Writable)));
    });
}

#[test]
fn a_full_send_buffer_takes_nothing() {
    on_both_families(small(), |scene, family| {
        let flow = scene.connect(&mut Peer::new(family));
        assert_eq!(scene.tx(flow, &[0; 5000]), Ok(2048));
        assert_eq!(scene.tx(flow, b"more"), Ok(0));
    });
}

#[test]
fn what_the_device_refused_is_kept_and_goes_out_once_it_has_room() {
    on_both_families(config(), |scene, family| {
        scene.host().device_room = Some(0);
        let mut peer = Peer::new(family);
        scene.rx(peer.syn().mss(1400));
        scene.silence();
        assert!(scene.host().packets_kept());
        scene.host().device_room = None;
        scene.poll();
        let syn_ack = scene.tcp();
        assert_eq!((syn_ack.flags, syn_ack.ack), (SYN | ACK, peer.next));
        scene.poll();
        scene.silence();
    });
}

#[test]
fn data_waits_in_its_flow_while_the_device_refuses() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        scene.host().device_room = Some(0);
        let data: Vec<u8> = (0..20_000u32).map(|i| i.to_le_bytes()[0]).collect();
        assert_eq!(scene.tx(flow, &data), Ok(20_000));
        scene.wait(Duration::from_millis(900));
        scene.silence();

        // Room for one packet at a time.
        let mut received = Vec::new();
        for _ in 0..1000 {
            scene.host().device_room = Some(1);
            scene.poll();
            for segment in scene.segments() {
                if segment.seq == peer.expected {
                    peer.hear(&segment);
                    received.extend(segment.payload);
                }
            }
            scene.host().device_room = Some(1);
            scene.rx(peer.ack());
            for segment in scene.segments() {
                if segment.seq == peer.expected {
                    peer.hear(&segment);
                    received.extend(segment.payload);
                }
            }
            if received.len() == data.len() {
                break;
            }
        }
        assert_eq!(received, data);
    });
}

#[test]
fn replies_that_the_device_has_no_room_for_are_counted() {
    on_both_families(config(), |scene, family| {
        scene.host().device_room = Some(0);
        for port in 0..5 {
            scene.rx(Peer::new(family).from_port(2000 + port).ack());
        }
        let lost = scene.counters().replies_lost;
        scene.host().device_room = None;
        scene.poll();
        let sent = u64::try_from(scene.sent_packets().len()).unwrap();
        assert!(lost >= 1, "some were given up");
        assert_eq!(sent + lost, 5, "kept or counted");
    });
}

#[test]
fn a_datagram_is_taken_whole_or_not_at_all_while_the_device_refuses() {
    on_both_families(config(), |scene, family| {
        scene.rx(udp(family.peer(5000), family.local(53), b"query"));
        let (flow, _) = scene.announced();
        scene.host().device_room = Some(0);
        let mut taken = Vec::new();
        for i in 0..20u8 {
            let datagram = [i; 100];
            if scene.host().full.contains(&flow) {
                break;
            }
            match scene.tx(flow, &datagram).unwrap() {
                100 => taken.push(datagram.to_vec()),
                0 => {}
                other => panic!("took {other} of 100"),
            }
        }
        assert!(
            scene.host().full.contains(&flow),
            "the device is full for ever"
        );
        scene.silence();

        scene.host().device_room = None;
        scene.poll();
        let sent: Vec<_> = scene
            .sent_packets()
            .into_iter()
            .map(|seen| seen.udp().payload)
            .collect();
        assert_eq!(sent, taken);
        scene.expect_events(flow, &[Event::Writable]);
    });
}

#[test]
fn an_empty_datagram_that_the_device_refuses_is_counted() {
    on_both_families(config(), |scene, family| {
        scene.rx(udp(family.peer(5000), family.local(53), b"query"));
        let (flow, _) = scene.announced();
        scene.host().device_room = Some(0);
        for _ in 0..5 {
            assert_eq!(scene.tx(flow, b""), Ok(0));
        }
        let lost = scene.counters().replies_lost;
        scene.host().device_room = None;
        scene.poll();
        let sent = u64::try_from(scene.sent_packets().len()).unwrap();
        assert!(lost >= 1, "some were given up");
        assert_eq!(sent + lost, 5, "kept or counted");
    });
}

#[test]
fn a_number_above_all_counts_as_all() {
    on_both(config(), |scene| {
        scene.host().overclaims = true;
        let mut peer = Peer::new(FAMILIES[0]);
        let flow = scene.connect(&mut peer);
        scene.rx(peer.data(b"all"));
        scene.rx(peer.data(b" of it"));
        assert_eq!(scene.stream(flow), b"all of it");
        // The SYN-ACK, and what acknowledges.
        let sent = 1 + scene.sent_packets().len() as u64;
        let counters = scene.counters();
        assert_eq!((counters.l4_rx_bytes, counters.l3_tx_packets), (9, sent));
    });
}
