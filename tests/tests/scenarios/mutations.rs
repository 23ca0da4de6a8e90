//! Valid packets, mutated at random: no panic, no trap, no rule broken.

use std::time::Duration;

use l3l4_engine::{Config, Event, FlowOptions, IcmpEchoPolicy, Refusal, Verdict};
use l3l4_tests::craft::{FAMILIES, Family, Peer, ping, seal, udp, unreachable};
use l3l4_tests::random::Random;
use l3l4_tests::scene::{Scene, config, on_both};

const MUTATIONS: usize = 20_000;

#[test]
fn twenty_thousand_mutations_break_nothing() {
    let config = Config {
        max_flows: 64,
        max_half_open: 16,
        tcp_receive_buffer: 4096,
        tcp_send_buffer: 4096,
        icmp_echo: IcmpEchoPolicy::Deliver,
        ..config()
    };
    on_both(config, |scene| {
        let mut random = Random::new(20_000);
        let mut verdicts = Random::new(1);
        scene.host().policy = Box::new(move |_| match verdicts.below(8) {
            0 => Verdict::Refuse(Refusal::Reset),
            1 => Verdict::Refuse(Refusal::HostUnreachable),
            2 => Verdict::Drop,
            3 => Verdict::Wait,
            _ => Verdict::Accept(FlowOptions::default()),
        });
        for _ in 0..MUTATIONS {
            let mut packet = valid(scene, &mut random);
            for _ in 0..=random.below(3) {
                packet = mutated(packet, &mut random);
            }
            scene.rx(packet);
            react(scene, &mut random);
        }
    });
}

/// A packet that fits the state of some conversation, or nearly so.
fn valid(scene: &mut Scene, random: &mut Random) -> Vec<u8> {
    let family = FAMILIES[random.below(2)];
    let mut peer = Peer::new(family).from_port(2000 + u16::try_from(random.below(24)).unwrap());
    // What the engine last said to this peer is what it answers to.
    let heard = scene.host().sent.iter().rev().find_map(|packet| {
        let seen = l3l4_tests::wire::read(packet).expect("checked");
        (seen.to == peer.peer.ip()).then_some(seen)
    });
    if let Some(l3l4_tests::wire::Body::Tcp(segment)) = heard.map(|seen| seen.body) {
        peer.peer = segment.to;
        peer.local = segment.from;
        peer.next = segment.ack;
        peer.expected = segment.end();
    }
    let length = [0, 1, 10, 100, 1000][random.below(5)];
    let data = random.bytes(length);
    let (from, to) = (family.peer(0).ip(), family.local(0).ip());
    match random.below(12) {
        0..3 => Peer::new(family)
            .from_port(2000 + u16::try_from(random.below(24)).unwrap())
            .syn()
            .mss(1460)
            .sack_permitted()
            .scale(7)
            .into(),
        3 | 4 => peer.ack().into(),
        5 | 6 => peer.data(&data).into(),
        7 => peer.fin().into(),
        8 => peer.segment(random.byte()).payload(&data).into(),
        9 => query(family, &data),
        10 => ping(from, to, 1, 1, &data),
        _ => match scene.host().sent.back().cloned() {
            Some(quoted) if quoted[0] >> 4 == if family == Family::V4 { 4 } else { 6 } => {
                unreachable(from, to, random.byte() % 16, &quoted)
            }
            Some(_) | None => unreachable(from, to, 3, &query(family, b"x")),
        },
    }
}

fn query(family: Family, data: &[u8]) -> Vec<u8> {
    udp(family.peer(5000), family.local(53), data)
}

/// One small change; three in four get their checksums right again, so that it
/// passes the first door.
fn mutated(mut packet: Vec<u8>, random: &mut Random) -> Vec<u8> {
    match random.below(8) {
        0 if !packet.is_empty() => packet.truncate(random.below(packet.len())),
        1 => packet.extend(random.bytes(8)),
        2 => {} // as it is
        _ if !packet.is_empty() => {
            let in_headers = random.below(4) > 0;
            let at = random.below(if in_headers {
                packet.len().min(64)
            } else {
                packet.len()
            });
            packet[at] = match random.below(4) {
                0 => 0,
                1 => 0xff,
                2 => packet[at] ^ 1 << random.below(8),
                _ => random.byte(),
            };
        }
        _ => {}
    }
    if random.below(4) > 0 {
        seal(packet)
    } else {
        packet
    }
}

/// What a host may do at any time.
fn react(scene: &mut Scene, random: &mut Random) {
    scene.host().announced.clear();
    scene.host().received.clear();
    let _: Vec<(_, Event)> = scene.events();
    while scene.host().sent.len() > 32 {
        scene.host().sent.pop_front();
    }
    let living: Vec<_> = scene.host().living.keys().copied().collect();
    if !living.is_empty() {
        let flow = living[random.below(living.len())];
        // Refusals are part of the trace.
        let _ = match random.below(40) {
            0 => scene.abort(flow),
            1 => scene.finish(flow),
            2 => scene.resume(flow),
            3 => scene.verdict(flow, Verdict::Accept(FlowOptions::default())),
            4..8 => {
                let data = random.bytes(500);
                scene.tx(flow, &data).map(|_| ())
            }
            8 => {
                scene.host().appetite.insert(flow, random.below(2000));
                Ok(())
            }
            9 => {
                scene.host().appetite.remove(&flow);
                Ok(())
            }
            _ => Ok(()),
        };
    }
    scene.host().device_room = (random.below(20) == 0).then(|| random.below(2));
    if random.below(4) == 0 {
        scene.wait(Duration::from_millis(
            u64::try_from(random.below(2000)).unwrap(),
        ));
    }
}
