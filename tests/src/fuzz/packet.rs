//! One packet, whatever it is, into an engine that knows flows in several states.

use std::time::Duration;

use l3l4_engine::{Config, FlowOptions, IcmpEchoPolicy, Protocol, Verdict};

use crate::craft::{FAMILIES, Peer, fragments, seal, udp};
use crate::dut::Native;
use crate::scene::{Scene, config, told};
use crate::wire::{Body, Seen};

/// Feeds the packet as it is, then with its checksums made right, so that what lies
/// behind them is reached, then that in pieces, last one first.
pub(super) fn run(data: &[u8]) {
    let config = Config {
        // The packet's own bytes are all of use.
        icmp_echo: match data.len() % 3 {
            0 => IcmpEchoPolicy::Answer,
            1 => IcmpEchoPolicy::Deliver,
            _ => IcmpEchoPolicy::Drop,
        },
        max_flows: 16,
        tcp_receive_buffer: 4096,
        tcp_send_buffer: 4096,
        ..config()
    };
    let native = Native::new(config).expect("in bounds");
    told(Box::new(native), |scene| {
        scene.host().silent = !super::conversation::is_traced();
        let baseline = scene.counters().memory_bytes;
        populate(scene);
        let sealed = seal_any(data);
        for packets in [vec![data.to_vec()], vec![sealed.clone()], pieces(&sealed)] {
            scene.sent_packets();
            scene.rx_batch(&packets);
            let sent = scene.sent_packets();
            // The fragments of a large echo are one reply.
            let is_begun = |it: &&Seen| !matches!(&it.body, Body::Fragment(it) if it.offset > 0);
            let replies = sent.iter().filter(is_begun).count();
            // Data that a hostile ACK releases from a full window may go with it.
            assert!(replies <= 2, "{replies} replies to one packet: {data:02x?}");
            scene.wait(Duration::from_secs(2));
        }
        scene.wait(Duration::from_secs(30_000));
        let counters = scene.counters();
        assert_eq!((counters.flows, counters.time_wait), (0, 0), "flows remain");
        let (memory, most) = (counters.memory_bytes, baseline + baseline / 100);
        assert!(memory <= most, "{memory} bytes of memory remain");
    });
}

/// Flows in the states that a packet from outside can meet, from the addresses and
/// ports that `craft` uses by default.
fn populate(scene: &mut Scene) {
    for family in FAMILIES {
        scene.sent_packets();
        let established = scene.connect(&mut Peer::new(family));
        let _ = scene.tx(established, b"outstanding");
        scene.sent_packets();
        let half_closed = scene.connect(&mut Peer::new(family).from_port(40_001));
        let _ = scene.finish(half_closed);
        scene.sent_packets();
        scene.rx(Peer::new(family).from_port(40_002).syn().mss(1400));
        scene.verdict_on_new(Verdict::Wait);
        scene.rx(Peer::new(family).from_port(40_003).syn().mss(1400));
        scene.verdict_on_new(Verdict::Accept(FlowOptions::default()));
        scene.rx(udp(family.peer(5000), family.local(53), b"query"));
        let opened = l3l4_engine::FiveTuple {
            protocol: Protocol::Tcp,
            local: family.local(40_004),
            peer: family.peer(80),
        };
        let _ = scene.open(&opened, FlowOptions::default());
        scene.host().announced.clear();
    }
    scene.events();
}

/// The packet in two or more fragments, if it is long enough.
fn pieces(packet: &[u8]) -> Vec<Vec<u8>> {
    let header = match packet.first().map(|first| first >> 4) {
        Some(4) => 20,
        Some(6) => 40,
        Some(_) | None => return Vec::new(),
    };
    let Some(payload @ 9..=60_000) = packet.len().checked_sub(header) else {
        return Vec::new();
    };
    let size = (payload / 3).next_multiple_of(8).max(8);
    let mut pieces = fragments(packet, 1, size);
    pieces.reverse();
    pieces
}

/// `seal` takes packets of version 4 and 6 only.
fn seal_any(data: &[u8]) -> Vec<u8> {
    match data.first().map(|first| first >> 4) {
        Some(4 | 6) => seal(data.to_vec()),
        Some(_) | None => data.to_vec(),
    }
}
