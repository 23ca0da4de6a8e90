//! The operations, each a story between an engine and its peer. A rehearsal with
//! the native engine finds what the peer says; the calls, written down, are then
//! the same for whoever is measured, and the answers too.

use l3l4_engine::{
    Callbacks, Config, Engine, Event, FiveTuple, FlowId, FlowOptions, Instant, Packet, Verdict,
};
use l3l4_tests::craft::{Family, Peer, udp};
use l3l4_tests::scene::{described, portion};
use l3l4_tests::wire;

use super::REPETITIONS;

pub(crate) const SEED: [u8; 32] = [1; 32];
const FAMILY: Family = Family::V4;
const SEGMENT: usize = 1400;
const BATCH: usize = 32;
/// The first window of RFC 6928, doubled until it holds a batch, and some to spare.
const SLOW_STARTS: usize = 8;

/// One line of the table.
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    rehearse: fn(&mut Rehearsal),
}

pub(crate) const OPERATIONS: &[Operation] = &[
    Operation {
        name: "TCP in, 1,400 B, its ACK when due",
        rehearse: tcp_in,
    },
    Operation {
        name: "TCP out, 1,400 B, the peer's ACK",
        rehearse: tcp_out,
    },
    Operation {
        name: "TCP in, a batch of 32 x 1,400 B, the ACKs",
        rehearse: tcp_in_batch,
    },
    Operation {
        name: "TCP out, 32 x 1,400 B, a batch of 16 ACKs",
        rehearse: tcp_out_batch,
    },
    Operation {
        name: "TCP out, 1,400 B to each of 32 flows, their ACKs",
        rehearse: tcp_out_to_many,
    },
    Operation {
        name: "TCP in, 2 x 1,400 B in the wrong order, the ACKs",
        rehearse: out_of_order,
    },
    Operation {
        name: "TCP connection: handshake, FIN, FIN",
        rehearse: connection,
    },
    Operation {
        name: "UDP in, 1,400 B",
        rehearse: udp_in,
    },
    Operation {
        name: "UDP out, 1,400 B",
        rehearse: udp_out,
    },
];

/// A call of the contract.
#[derive(Debug)]
pub(crate) enum Call {
    L3Rx(Vec<u8>, Vec<Packet>),
    L4Tx(u64, usize),
    /// As many bytes for each flow.
    L4TxBatch(Vec<u64>, usize),
    FlowFinish(u64),
    L4Poll,
}

/// Calls with their instants: once, and then repetition by repetition.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) setup: Vec<(u64, Call)>,
    pub(crate) repetitions: Vec<Vec<(u64, Call)>>,
    /// Packets that the engine sends in all of them.
    pub(crate) packets: usize,
}

impl Operation {
    /// Twice the repetitions of the shorter run.
    pub(crate) fn script(&self) -> Script {
        let mut rehearsal = Rehearsal::new();
        (self.rehearse)(&mut rehearsal);
        let mut script = rehearsal.script;
        assert_eq!(script.repetitions.len(), 2 * REPETITIONS, "{}", self.name);
        script.packets = rehearsal.host.sent;
        script
    }
}

/// Data that sends are cut from.
pub(crate) fn data() -> Vec<u8> {
    vec![0x5a; BATCH * SEGMENT]
}

struct Rehearsal {
    engine: Engine,
    host: Host,
    now: u64,
    deadline: Option<Instant>,
    data: Vec<u8>,
    script: Script,
}

/// Takes all and remembers what was said since it was last asked.
#[derive(Default)]
struct Host {
    flow: u64,
    packets: Vec<Vec<u8>>,
    sent: usize,
    closed: usize,
}

impl Rehearsal {
    fn new() -> Self {
        Self {
            engine: Engine::new(Config::new(SEED)).unwrap(),
            host: Host::default(),
            now: 0,
            deadline: None,
            data: data(),
            script: Script::default(),
        }
    }

    /// The story from here on is told as often as is counted.
    fn repeat(&mut self, mut story: impl FnMut(&mut Self)) {
        for _ in 0..2 * REPETITIONS {
            self.script.repetitions.push(Vec::new());
            story(self);
            self.now += 1_000_000;
        }
    }

    /// Makes a call and returns the segments that the engine sent.
    fn call(&mut self, call: Call) -> Vec<wire::Tcp> {
        self.now += 1000;
        let call_at = (self.now, &call);
        self.deadline = make(&mut self.engine, &mut self.host, &self.data, call_at);
        let Script {
            setup, repetitions, ..
        } = &mut self.script;
        repetitions
            .last_mut()
            .unwrap_or(setup)
            .push((self.now, call));
        let packets = std::mem::take(&mut self.host.packets);
        let read = packets.iter().map(|packet| wire::read(packet).unwrap());
        read.filter_map(|packet| match packet.body {
            wire::Body::Tcp(segment) => Some(segment),
            _ => None,
        })
        .collect()
    }

    fn l3_rx(&mut self, packets: Vec<Vec<u8>>) -> Vec<wire::Tcp> {
        let described = packets.iter().map(|packet| described(packet)).collect();
        self.call(Call::L3Rx(packets.concat(), described))
    }

    /// A new connection from this port.
    fn connect(&mut self, port: u16) -> (Peer, u64) {
        let mut peer = Peer::new(FAMILY).from_port(port);
        let syn = peer.syn().mss(1400).scale(7).sack_permitted();
        let [syn_ack] = &self.l3_rx(vec![syn.into()])[..] else {
            panic!("a SYN-ACK");
        };
        peer.hear(syn_ack);
        self.l3_rx(vec![peer.ack().into()]);
        (peer, self.host.flow)
    }

    /// Polls when the engine asks for it until it has sent.
    fn wait_for_packet(&mut self) {
        for _ in 0..10 {
            self.now = self.deadline.expect("an ACK is due").0;
            if !self.call(Call::L4Poll).is_empty() {
                return;
            }
        }
        panic!("no ACK came");
    }

    /// So many segments go out, as fast as the engine sends; the peer acknowledges
    /// every second one and the last, a batch of ACKs at a time.
    fn send(&mut self, peer: &mut Peer, flow: u64, segments: usize) {
        let mut sent = self.call(Call::L4Tx(flow, segments * SEGMENT));
        while !sent.is_empty() {
            let mut acks = Vec::new();
            for (i, segment) in sent.iter().enumerate() {
                peer.hear(segment);
                if i % 2 == 1 || i + 1 == sent.len() {
                    acks.push(peer.ack().into());
                }
            }
            sent = self.l3_rx(acks);
        }
    }
}

fn tcp_in(rehearsal: &mut Rehearsal) {
    let (mut peer, _) = rehearsal.connect(40_000);
    rehearsal.repeat(|now| {
        let sent = now.l3_rx(vec![peer.data(&[0x5a; SEGMENT]).into()]);
        if sent.is_empty() {
            now.wait_for_packet();
        }
    });
}

fn tcp_out(rehearsal: &mut Rehearsal) {
    let (mut peer, flow) = rehearsal.connect(40_000);
    rehearsal.repeat(|now| now.send(&mut peer, flow, 1));
}

fn tcp_in_batch(rehearsal: &mut Rehearsal) {
    let (mut peer, _) = rehearsal.connect(40_000);
    rehearsal.repeat(|now| {
        let batch = (0..BATCH).map(|_| peer.data(&[0x5a; SEGMENT]).into());
        let sent = now.l3_rx(batch.collect());
        assert!(!sent.is_empty(), "ACKs, at least for every second segment");
    });
}

fn tcp_out_batch(rehearsal: &mut Rehearsal) {
    let (mut peer, flow) = rehearsal.connect(40_000);
    // Slow start, until a batch goes at once.
    for _ in 0..SLOW_STARTS {
        rehearsal.send(&mut peer, flow, BATCH);
    }
    rehearsal.repeat(|now| now.send(&mut peer, flow, BATCH));
}

fn tcp_out_to_many(rehearsal: &mut Rehearsal) {
    let ports = 40_000..40_000 + u16::try_from(BATCH).unwrap();
    let connected = ports.map(|port| rehearsal.connect(port));
    let (mut peers, flows): (Vec<Peer>, Vec<u64>) = connected.unzip();
    rehearsal.repeat(|now| {
        let sent = now.call(Call::L4TxBatch(flows.clone(), SEGMENT));
        let acks = peers.iter_mut().zip(&sent).map(|(peer, segment)| {
            peer.hear(segment);
            peer.ack().into()
        });
        let acks: Vec<_> = acks.collect();
        assert_eq!(acks.len(), BATCH, "a segment of each");
        now.l3_rx(acks);
    });
}

fn out_of_order(rehearsal: &mut Rehearsal) {
    let (mut peer, _) = rehearsal.connect(40_000);
    rehearsal.repeat(|now| {
        let first = peer.data(&[1; SEGMENT]);
        let second = peer.data(&[2; SEGMENT]);
        let sent = now.l3_rx(vec![second.into()]);
        assert_eq!(sent.len(), 1, "RFC 5681 4.2: an ACK at once");
        let sent = now.l3_rx(vec![first.into()]);
        if sent.is_empty() {
            now.wait_for_packet();
        }
    });
}

fn connection(rehearsal: &mut Rehearsal) {
    let mut port = 40_000;
    rehearsal.repeat(|now| {
        port += 1;
        let (mut peer, flow) = now.connect(port);
        let closed = now.host.closed;
        now.l3_rx(vec![peer.fin().into()]);
        for segment in now.call(Call::FlowFinish(flow)) {
            peer.hear(&segment);
        }
        now.l3_rx(vec![peer.ack().into()]);
        assert_eq!(now.host.closed, closed + 1, "the connection is over");
    });
}

fn udp_in(rehearsal: &mut Rehearsal) {
    let datagram = udp(FAMILY.peer(40_000), FAMILY.local(53), &[0x5a; SEGMENT]);
    rehearsal.repeat(|now| {
        now.l3_rx(vec![datagram.clone()]);
    });
}

fn udp_out(rehearsal: &mut Rehearsal) {
    let datagram = udp(FAMILY.peer(40_000), FAMILY.local(53), &[0x5a; SEGMENT]);
    rehearsal.l3_rx(vec![datagram]);
    let flow = rehearsal.host.flow;
    rehearsal.repeat(|now| {
        now.call(Call::L4Tx(flow, SEGMENT));
    });
}

/// Makes one call of the native engine. Returns its deadline.
pub(crate) fn make(
    engine: &mut Engine,
    callbacks: &mut dyn Callbacks,
    data: &[u8],
    (now, call): (u64, &Call),
) -> Option<Instant> {
    let now = Instant(now);
    match call {
        Call::L3Rx(bytes, packets) => engine.l3_rx(now, bytes, packets, callbacks).unwrap(),
        Call::L4Tx(flow, length) => {
            let data = &data[..*length];
            let sent = engine.l4_tx(now, FlowId(*flow), data, callbacks).unwrap();
            assert_eq!(sent.taken, *length);
            sent.deadline
        }
        Call::L4TxBatch(flows, length) => {
            let portions = flows.iter().map(|flow| portion(FlowId(*flow), *length));
            let portions: Vec<_> = portions.collect();
            let data = &data[..flows.len() * length];
            let sent = engine.l4_tx_batch(now, data, &portions, callbacks).unwrap();
            assert!(sent.taken.iter().all(|taken| *taken == Ok(*length)));
            sent.deadline
        }
        Call::FlowFinish(flow) => engine.flow_finish(now, FlowId(*flow), callbacks).unwrap(),
        Call::L4Poll => engine.l4_poll(now, callbacks),
    }
}

impl Callbacks for Host {
    fn l3_tx(&mut self, mut bytes: &[u8], packets: &[Packet]) -> usize {
        for packet in packets {
            let (packet, rest) = bytes.split_at(packet.length as usize);
            self.packets.push(packet.to_vec());
            bytes = rest;
        }
        self.sent += packets.len();
        packets.len()
    }

    fn l4_rx(&mut self, _flow: FlowId, data: &[u8]) -> usize {
        data.len()
    }

    fn flow_new(&mut self, flow: FlowId, _tuple: &FiveTuple) -> Verdict {
        self.flow = flow.0;
        Verdict::Accept(FlowOptions::default())
    }

    fn flow_event(&mut self, _flow: FlowId, event: Event) {
        self.closed += usize::from(matches!(event, Event::Closed(_)));
    }
}
