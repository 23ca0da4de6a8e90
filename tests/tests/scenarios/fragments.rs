//! Fragments, as users see them: datagrams of any size both ways, within bounds.

use std::time::Duration;

use l3l4_engine::{Config, DropReason, Event, FlowId, IcmpEchoPolicy, Refusal, Verdict};
use l3l4_tests::craft::{self, Family, Peer, fragment, fragments, icmp, ping, udp, with_extension};
use l3l4_tests::scene::{Scene, config, on_both, on_both_families};
use l3l4_tests::wire::{Body, Seen, UDP, reassemble};

#[test]
fn fragments_in_any_order_are_one_datagram_of_its_flow() {
    on_both_families(config(), |scene, family| {
        let flow = open(scene, family);
        let memory = scene.counters().memory_bytes;
        for (id, length) in (1..).zip([1473, 4000, 30_000, 65_000]) {
            let data = bytes(length);
            let mut pieces = fragments(&to_us(family, &data), id, 1448);
            pieces.rotate_left(1);
            let (last, others) = pieces.split_last().unwrap();
            scene.rx_batch(others);
            assert!(scene.counters().memory_bytes > memory);
            assert!(scene.datagrams(flow).is_empty());
            scene.rx(last.clone());
            assert!(scene.datagrams(flow) == [data], "{length} bytes");
            assert_eq!(scene.counters().memory_bytes, memory);
        }
        scene.silence();
        let counters = scene.counters();
        assert_eq!(counters.datagrams_reassembled, 4);
        assert_eq!(counters.dropped(DropReason::Fragment), 0);
    });
}

#[test]
fn a_first_datagram_in_fragments_opens_its_flow() {
    on_both_families(config(), |scene, family| {
        let data = bytes(5000);
        scene.rx_batch(&fragments(&to_us(family, &data), 1, 1232));
        let (flow, tuple) = scene.announced();
        assert_eq!(tuple.peer, family.peer(5000));
        assert!(scene.datagrams(flow) == [data]);
    });
}

#[test]
fn a_refused_datagram_in_fragments_is_quoted_as_one() {
    on_both_families(config(), |scene, family| {
        scene.verdict_on_new(Verdict::Refuse(Refusal::PortUnreachable));
        let whole = to_us(family, &bytes(5000));
        scene.rx_batch(&fragments(&whole, 0, 1232));
        let quote = scene.packet().icmp().payload;
        let header = family.ip_header();
        assert_eq!(quote[header..], whole[header..quote.len()]);
        // But for the time to live of the fragments and "don't fragment".
        assert_eq!(quote[2..4], whole[2..4], "total length or flow label");
        assert_eq!(quote[12..header], whole[12..header], "addresses");
    });
}

#[test]
fn segments_in_fragments_are_read() {
    on_both_families(config(), |scene, family| {
        let mut peer = Peer::new(family);
        let flow = scene.connect(&mut peer);
        let data = bytes(1400);
        let segment = Vec::from(peer.data(&data));
        let mut pieces = fragments(&segment, 1, 400);
        pieces.reverse();
        scene.rx_batch(&pieces);
        assert!(scene.stream(flow) == data);
    });
}

#[test]
fn segments_behind_extension_headers_are_read() {
    on_both(config(), |scene| {
        let family = Family::V6;
        let behind = |segment: craft::Segment| {
            let packet = with_extension(&Vec::from(segment), 60, &[0, 1, 4, 0, 0, 0, 0]);
            with_extension(&packet, 0, &[0, 5, 2, 0, 0, 0, 0])
        };
        let mut peer = Peer::new(family);
        scene.rx(behind(peer.syn().mss(1400)));
        let (flow, _) = scene.announced();
        peer.hear(&scene.tcp());
        scene.rx(behind(peer.ack()));
        scene.expect_events(flow, &[Event::Established]);
        scene.rx(behind(peer.data(b"hello")));
        assert_eq!(scene.stream(flow), b"hello");
        scene.rx(behind(peer.fin()));
        scene.expect_events(flow, &[Event::PeerFinished]);
    });
}

#[test]
fn a_bad_checksum_is_found_in_the_whole() {
    on_both_families(config(), |scene, family| {
        let flow = open(scene, family);
        let mut whole = to_us(family, &bytes(4000));
        *whole.last_mut().unwrap() ^= 1;
        scene.rx_batch(&fragments(&whole, 1, 1448));
        assert!(scene.datagrams(flow).is_empty());
        assert_eq!(scene.drops(DropReason::TransportChecksum), 1);
        assert_eq!(scene.counters().datagrams_reassembled, 1);
    });
}

#[test]
fn large_datagrams_go_out_in_fragments() {
    for mtu in [1280, 1500, 9000] {
        let config = Config { mtu, ..config() };
        on_both_families(config, |scene, family| {
            let flow = open(scene, family);
            let fits = usize::try_from(mtu).unwrap() - family.ip_header() - 8;
            let fragment_header = if family == Family::V4 { 0 } else { 8 };
            let mut ids = Vec::new();
            for length in [fits + 1, 2 * fits, 20_000, 65_000, 65_487] {
                let data = bytes(length);
                assert_eq!(scene.tx(flow, &data), Ok(length));
                let pieces = scene.sent_packets();
                ids.push(id_of(&pieces[0]));
                let piece = (fits + 8 - fragment_header) / 8 * 8;
                assert_eq!(pieces.len(), (length + 8).div_ceil(piece), "{length} B");
                assert!(reassemble(&pieces).unwrap().udp().payload == data);
            }
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), 5, "an identification for each");
        });
    }
}

#[test]
fn nothing_else_is_fragmented_and_may_not_be() {
    on_both_families(config(), |scene, family| {
        let flow = open(scene, family);
        scene.tx(flow, b"answer").unwrap();
        let answer = scene.host().sent.pop_back().unwrap();
        if family == Family::V4 {
            assert_eq!(answer[4..8], [0, 0, 0x40, 0], "RFC 6864 4.1");
        }
        scene.tx(flow, &bytes(3000)).unwrap();
        for piece in std::mem::take(&mut scene.host().sent) {
            if family == Family::V4 {
                assert_eq!(piece[6] & 0x40, 0, "a narrower link may cut again");
            }
        }
    });
}

#[test]
fn a_large_echo_is_answered_in_fragments() {
    on_both_families(config(), |scene, family| {
        let data = bytes(20_000);
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        let request = ping(from, to, 77, 3, &data);
        scene.rx_batch(&fragments(&request, 1, 1448));
        let answer = reassemble(&scene.sent_packets()).unwrap().icmp();
        assert_eq!(answer.rest, [0, 77, 0, 3]);
        assert!(answer.payload == data);
    });
}

#[test]
fn a_large_echo_of_the_host_goes_out_in_fragments() {
    let config = Config {
        icmp_echo: IcmpEchoPolicy::Deliver,
        ..config()
    };
    on_both_families(config, |scene, family| {
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        scene.rx(ping(from, to, 77, 3, b"data"));
        let (flow, _) = scene.announced();
        let reply = [&[0, 3][..], &bytes(5000)].concat();
        assert_eq!(scene.tx(flow, &reply), Ok(5002));
        let answer = reassemble(&scene.sent_packets()).unwrap().icmp();
        assert!(answer.payload == bytes(5000));
    });
}

#[test]
fn a_device_that_refuses_amid_a_datagram_gets_the_rest_later() {
    on_both_families(config(), |scene, family| {
        let flow = open(scene, family);
        let (first, second) = (bytes(65_000), bytes(30_000));
        scene.host().device_room = Some(3);
        assert_eq!(scene.tx(flow, &first), Ok(65_000), "taken whole");
        assert_eq!(scene.tx(flow, &second), Ok(0), "no piece of it begins");
        scene.poll();
        scene.expect_events(flow, &[]);
        let mut pieces = scene.sent_packets();
        assert_eq!(pieces.len(), 3);
        scene.host().device_room = Some(10);
        scene.poll();
        scene.expect_events(flow, &[]);
        scene.host().device_room = None;
        scene.poll();
        scene.expect_events(flow, &[Event::Writable]);
        pieces.extend(scene.sent_packets());
        assert!(reassemble(&pieces).unwrap().udp().payload == first);

        assert_eq!(scene.tx(flow, &second), Ok(30_000));
        let pieces = scene.sent_packets();
        assert!(reassemble(&pieces).unwrap().udp().payload == second);
    });
}

#[test]
fn many_large_datagrams_in_one_call_all_go() {
    on_both_families(config(), |scene, family| {
        let data = bytes(60_000);
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        let requests: Vec<_> = (0..10)
            .flat_map(|i| fragments(&ping(from, to, 77, i, &data), u32::from(i) + 1, 1448))
            .collect();
        scene.rx_batch(&requests);
        let sent = scene.sent_packets();
        let mut ids: Vec<_> = sent.iter().map(id_of).collect();
        ids.dedup();
        assert_eq!(ids.len(), 10, "one datagram after the other");
        for id in ids {
            let pieces: Vec<_> = sent.iter().filter(|it| id_of(it) == id).cloned().collect();
            assert!(reassemble(&pieces).unwrap().icmp().payload == data);
        }
    });
}

#[test]
fn a_good_datagram_survives_a_flood() {
    let config = Config {
        reassembly_memory: 256 << 10,
        ..config()
    };
    on_both_families(config, |scene, family| {
        let flow = open(scene, family);
        let most = scene.counters().memory_bytes + (256 << 10);
        let ends = (family.peer(0).ip(), family.local(0).ip());
        let mut flood = (1000..).map(|id| fragment(ends, UDP, id, 0, true, &[1; 1448]));
        let data = bytes(4000);
        for round in 0..20 {
            let mut batch: Vec<_> = flood.by_ref().take(500).collect();
            for piece in fragments(&to_us(family, &data), round + 1, 1448) {
                batch.extend(flood.by_ref().take(40));
                batch.push(piece);
            }
            scene.rx_batch(&batch);
            assert!(scene.datagrams(flow) == [data.clone()], "round {round}");
            let memory = scene.counters().memory_bytes;
            assert!(memory <= most, "{memory} of {most}");
        }
        let evicted = scene.drops(DropReason::Fragment);
        assert!(evicted > 10_000, "{evicted} evicted");
    });
}

#[test]
fn what_does_not_come_in_time_is_forgotten_and_its_senders_told() {
    let config = Config {
        reassembly_timeout: Duration::from_secs(15),
        ..config()
    };
    on_both_families(config, |scene, family| {
        let memory = scene.counters().memory_bytes;
        let whole = to_us(family, &bytes(4000));
        for id in 0..200 {
            scene.rx(fragments(&whole, id, 1448)[0].clone());
            scene.rx(fragments(&whole, 1000 + id, 1448)[1].clone());
        }
        scene.wait(Duration::from_millis(14_999));
        scene.silence();
        assert!(scene.counters().memory_bytes > memory);
        scene.wait(Duration::from_millis(1));
        let told = scene.sent_packets();
        assert_eq!(told.len(), 50, "the burst of the limit");
        for packet in told {
            let message = packet.icmp();
            let expected = match family {
                Family::V4 => (11, 1),
                Family::V6 => (3, 1),
            };
            assert_eq!((message.kind, message.code), expected);
            let piece = &fragments(&whole, 0, 1448)[0];
            let at = family.ip_header() + if family == Family::V4 { 0 } else { 8 };
            assert_eq!(message.payload[at..], piece[at..message.payload.len()]);
        }
        let counters = scene.counters();
        assert_eq!(counters.memory_bytes, memory);
        assert_eq!(counters.dropped(DropReason::Fragment), 400);
        assert_eq!(counters.replies_limited, 150);
        assert_eq!(scene.deadline, None);
    });
}

#[test]
fn errors_in_fragments_are_not_answered_when_they_are_late() {
    on_both_families(config(), |scene, family| {
        let (from, to) = (family.peer(0).ip(), family.local(0).ip());
        let question = udp(family.local(9), family.peer(9), &bytes(1000));
        let (kind, quoted) = match family {
            Family::V4 => (3, &question[..500]),
            Family::V6 => (1, &question[..]),
        };
        let error = icmp(from, to, kind, 1, [0; 4], quoted);
        scene.rx(fragments(&error, 1, 400)[0].clone());
        scene.wait(Duration::from_secs(70));
        scene.silence();
    });
}

#[test]
fn a_narrow_path_makes_smaller_fragments_for_its_flow_and_a_while() {
    on_both_families(config(), |scene, family| {
        let flow = open(scene, family);
        let data = bytes(1400);
        scene.tx(flow, &data).unwrap();
        let sent = scene.host().sent.pop_back().unwrap();
        let mtu: u16 = match family {
            Family::V4 => 1006,
            Family::V6 => 1280,
        };
        // About a packet that was not ours: nothing.
        let other = udp(family.local(54), family.peer(5000), &data);
        scene.rx(too_big(family, mtu, &other));
        assert_eq!(scene.drops(DropReason::IcmpIgnored), 1);
        scene.tx(flow, &data).unwrap();
        assert_eq!(scene.packet().udp().payload, data);

        scene.rx(too_big(family, mtu, &sent));
        assert_eq!(scene.drops(DropReason::IcmpIgnored), 1);
        let pieces = fragmented(scene, flow, &data, mtu.into());
        // What the fragments meet on their way is believed too, down to the floor.
        let least = match family {
            Family::V4 => 576,
            Family::V6 => 1280,
        };
        scene.rx(too_big(family, 68, &pieces[0]));
        fragmented(scene, flow, &data, least);

        for _ in 0..3 {
            scene.wait(Duration::from_secs(201));
            scene.rx(to_us(family, b"still here"));
        }
        scene.tx(flow, &data).unwrap();
        assert_eq!(scene.packet().udp().payload, data, "after 10 minutes");
    });
}

#[test]
fn a_router_that_tells_no_mtu_makes_it_the_next_plateau() {
    let family = Family::V4;
    on_both(config(), |scene| {
        let flow = open(scene, family);
        let data = bytes(1470);
        scene.tx(flow, &data).unwrap();
        let sent = scene.host().sent.pop_back().unwrap();
        scene.rx(too_big(family, 0, &sent));
        fragmented(scene, flow, &data, 1492);
    });
}

/// Sends a datagram and expects it in fragments of at most `mtu` bytes, as large as
/// can be. The raw fragments.
fn fragmented(scene: &mut Scene, flow: FlowId, data: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    scene.tx(flow, data).unwrap();
    let raw: Vec<_> = scene.host().sent.iter().cloned().collect();
    let pieces = scene.sent_packets();
    assert!(reassemble(&pieces).unwrap().udp().payload == data);
    let longest = pieces.iter().map(|piece| piece.length).max().unwrap();
    assert!((mtu - 7..=mtu).contains(&longest), "{longest} of {mtu}");
    raw
}

/// A router's word about a packet of the engine.
fn too_big(family: Family, mtu: u16, packet: &[u8]) -> Vec<u8> {
    let (router, local) = (family.peer(0).ip(), family.local(0).ip());
    let [high, low] = mtu.to_be_bytes();
    let quoted = &packet[..packet.len().min(500)];
    let (kind, code) = match family {
        Family::V4 => (3, 4),
        Family::V6 => (2, 0),
    };
    icmp(router, local, kind, code, [0, 0, high, low], quoted)
}

fn id_of(piece: &Seen) -> u32 {
    match &piece.body {
        Body::Fragment(fragment) => fragment.id,
        Body::Tcp(_) | Body::Udp(_) | Body::Icmp(_) => panic!("not a fragment: {piece}"),
    }
}

fn bytes(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

fn to_us(family: Family, data: &[u8]) -> Vec<u8> {
    udp(family.peer(5000), family.local(53), data)
}

/// A flow of datagrams.
fn open(scene: &mut Scene, family: Family) -> FlowId {
    scene.rx(to_us(family, b"query"));
    let (flow, _) = scene.announced();
    scene.datagrams(flow);
    flow
}
