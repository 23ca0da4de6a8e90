//! UDP: boundaries, sizes, other sources, ends.

use std::time::Duration;

use l3l4_engine::{
    CloseReason, DropReason, FiveTuple, FlowError, FlowId, FlowOptions, FlowState, Protocol, Timer,
    Unreachable, Verdict,
};
use l3l4_tests::craft::{Family, udp, unreachable};
use l3l4_tests::scene::{Scene, config, on_both_families};
use l3l4_tests::wire::reassemble;

#[test]
fn datagrams_keep_their_boundaries_both_ways() {
    on_both_families(config(), |scene, family| {
        let flow = open(scene, family, b"first");
        assert_eq!(scene.info(flow).unwrap().state, FlowState::Datagram);
        let more: [&[u8]; 4] = [b"", b"a", b"", &[7; 1400]];
        let batch: Vec<_> = more.iter().map(|data| to_us(family, data)).collect();
        scene.rx_batch(&batch);
        let received = scene.datagrams(flow);
        assert_eq!(received[0], b"first");
        assert_eq!(received[1..], more.map(<[u8]>::to_vec));
        scene.nobody_announced();

        for data in more {
            assert_eq!(scene.tx(flow, data), Ok(data.len()));
            let sent = scene.packet().udp();
            assert_eq!(sent.payload, data);
            assert_eq!((sent.from, sent.to), (family.local(53), family.peer(5000)));
        }
    });
}

#[test]
fn a_datagram_that_fills_the_mtu_goes_in_one_packet() {
    for mtu in [1280, 1500, 65_535] {
        let mut config = config();
        config.mtu = mtu;
        on_both_families(config, |scene, family| {
            let flow = open(scene, family, b"query");
            let most = usize::try_from(mtu).unwrap() - family.ip_header() - 8;
            assert_eq!(scene.tx(flow, &vec![1; most]), Ok(most));
            assert_eq!(scene.packet().length, usize::try_from(mtu).unwrap());
        });
    }
}

#[test]
fn what_no_ip_datagram_can_hold_is_too_long() {
    for mtu in [1280, 65_535] {
        let mut config = config();
        config.mtu = mtu;
        on_both_families(config, |scene, family| {
            let flow = open(scene, family, b"query");
            // 65,535 bytes with the header of IPv4, without that of IPv6.
            let most = match family {
                Family::V4 => 65_507,
                Family::V6 => 65_527,
            };
            assert_eq!(scene.tx(flow, &vec![1; most + 1]), Err(FlowError::TooLong));
            scene.silence();
            assert_eq!(scene.tx(flow, &vec![1; most]), Ok(most));
            let pieces = scene.sent_packets();
            let sent = match &pieces[..] {
                [whole] => whole.clone(),
                pieces => reassemble(pieces).unwrap(),
            };
            assert_eq!(sent.udp().payload, vec![1; most]);
        });
    }
}

#[test]
fn a_reply_may_come_from_any_source_address() {
    on_both_families(config(), |scene, family| {
        let flow = open(scene, family, b"query");
        let other = match family {
            Family::V4 => "203.0.113.9:4444".parse().unwrap(),
            Family::V6 => "[2001:db8:9::9]:4444".parse().unwrap(),
        };
        assert_eq!(scene.tx_from(flow, other, b"answer"), Ok(6));
        let sent = scene.packet().udp();
        assert_eq!((sent.from, sent.to), (other, family.peer(5000)));
        assert_eq!(sent.payload, b"answer");
    });
}

#[test]
fn a_source_that_no_packet_can_have_is_refused() {
    on_both_families(config(), |scene, family| {
        let flow = open(scene, family, b"query");
        let bad = match family {
            Family::V4 => [
                "0.0.0.0:5",
                "255.255.255.255:5",
                "224.0.0.1:5",
                "[2001:db8::1]:5",
            ],
            Family::V6 => ["[::]:5", "[ff02::1]:5", "[ff0e::1]:5", "192.0.2.1:5"],
        };
        for source in bad {
            let source = source.parse().unwrap();
            assert_eq!(
                scene.tx_from(flow, source, b"x"),
                Err(FlowError::BadAddress),
                "{source}"
            );
        }
        scene.silence();
    });
}

#[test]
fn tx_from_is_for_udp_only() {
    on_both_families(config(), |scene, family| {
        let mut peer = l3l4_tests::craft::Peer::new(family);
        let flow = scene.connect(&mut peer);
        assert_eq!(
            scene.tx_from(flow, family.local(99), b"x"),
            Err(FlowError::WrongProtocol)
        );
    });
}

#[test]
fn port_unreachable_from_the_peer_ends_the_flow() {
    on_both_families(config(), |scene, family| {
        let flow = open(scene, family, b"query");
        scene.tx(flow, b"answer").unwrap();
        let answer = scene.host().sent.pop_back().expect("the answer");
        let code = if family == Family::V4 { 3 } else { 4 };
        scene.rx(unreachable(
            family.peer(0).ip(),
            family.local(0).ip(),
            code,
            &answer,
        ));
        scene.expect_closed(flow, CloseReason::Unreachable(Unreachable::Port));
        scene.silence();
    });
}

#[test]
fn unreachable_that_quotes_another_flow_is_ignored_and_counted() {
    on_both_families(config(), |scene, family| {
        let flow = open(scene, family, b"query");
        let other = udp(family.local(54), family.peer(5000), b"answer");
        scene.rx(unreachable(
            family.peer(0).ip(),
            family.local(0).ip(),
            3,
            &other,
        ));
        scene.expect_events(flow, &[]);
        assert_eq!(scene.drops(DropReason::IcmpIgnored), 1);
    });
}

#[test]
fn a_datagram_not_taken_in_full_is_dropped_and_counted() {
    on_both_families(config(), |scene, family| {
        let flow = open(scene, family, b"query");
        scene.datagrams(flow);
        scene.host().appetite.insert(flow, 3);
        scene.rx(to_us(family, b"too much"));
        assert_eq!(scene.drops(DropReason::NotTaken), 1);
        scene.host().appetite.remove(&flow);
        scene.rx(to_us(family, b"enough"));
        assert_eq!(scene.datagrams(flow), [b"enough"]);
    });
}

#[test]
fn a_flow_ends_300_s_after_its_last_datagram_either_way() {
    on_both_families(config(), |scene, family| {
        let flow = open(scene, family, b"query");
        scene.wait(Duration::from_secs(200));
        scene.rx(to_us(family, b"again"));
        scene.wait(Duration::from_secs(200));
        scene.tx(flow, b"answer").unwrap();
        scene.wait(Duration::from_millis(299_900));
        scene.expect_events(flow, &[]);
        scene.wait(Duration::from_millis(200));
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::Idle));
    });
}

#[test]
fn a_flow_may_have_an_idle_timeout_of_its_own() {
    on_both_families(config(), |scene, family| {
        scene.verdict_on_new(Verdict::Accept(FlowOptions {
            idle_timeout: Some(Duration::from_secs(2)),
            ..FlowOptions::default()
        }));
        let flow = open(scene, family, b"query");
        scene.wait(Duration::from_millis(1900));
        scene.expect_events(flow, &[]);
        scene.wait(Duration::from_millis(200));
        scene.expect_closed(flow, CloseReason::TimedOut(Timer::Idle));
    });
}

#[test]
fn finish_and_abort_end_a_flow_in_silence() {
    on_both_families(config(), |scene, family| {
        for finish in [true, false] {
            let flow = open(scene, family, b"query");
            if finish {
                scene.finish(flow).unwrap();
            } else {
                scene.abort(flow).unwrap();
            }
            scene.expect_closed(flow, CloseReason::Aborted);
            scene.silence();
        }
    });
}

#[test]
fn every_pair_of_ports_and_addresses_is_a_flow_of_its_own() {
    on_both_families(config(), |scene, family| {
        let flows = [
            udp(family.peer(5000), family.local(53), b"0"),
            udp(family.peer(5001), family.local(53), b"1"),
            udp(family.peer(5000), family.local(54), b"2"),
        ]
        .map(|packet| {
            scene.rx(packet);
            scene.announced().0
        });
        for (i, flow) in flows.into_iter().enumerate() {
            assert_eq!(scene.datagrams(flow), [i.to_string().as_bytes()]);
        }
    });
}

#[test]
fn a_checksum_of_zero_is_none_for_ipv4_and_wrong_for_ipv6() {
    on_both_families(config(), |scene, family| {
        let mut packet = to_us(family, b"query");
        let at = family.ip_header() + 6;
        packet[at..at + 2].fill(0);
        scene.rx(packet);
        match family {
            Family::V4 => drop(scene.announced()),
            Family::V6 => {
                scene.nobody_announced();
                assert_eq!(
                    scene.drops(DropReason::TransportChecksum),
                    1,
                    "RFC 8200 8.1"
                );
            }
        }
    });
}

#[test]
fn the_host_opens_flows_that_are_ready_at_once() {
    on_both_families(config(), |scene, family| {
        let tuple = FiveTuple {
            protocol: Protocol::Udp,
            local: family.local(4000),
            peer: family.peer(53),
        };
        let flow = scene.open(&tuple, FlowOptions::default()).unwrap();
        scene.silence();
        assert_eq!(scene.tx(flow, b"query"), Ok(5));
        assert_eq!(scene.packet().udp().payload, b"query");
        scene.rx(udp(family.peer(53), family.local(4000), b"answer"));
        assert_eq!(scene.datagrams(flow), [b"answer"]);
        scene.nobody_announced();
    });
}

fn to_us(family: Family, data: &[u8]) -> Vec<u8> {
    udp(family.peer(5000), family.local(53), data)
}

fn open(scene: &mut Scene, family: Family, data: &[u8]) -> FlowId {
    scene.rx(to_us(family, data));
    let (flow, tuple) = scene.announced();
    assert_eq!(
        (tuple.local, tuple.peer),
        (family.local(53), family.peer(5000))
    );
    flow
}
