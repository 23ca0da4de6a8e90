//! Nanoseconds per packet, native and component, receiving and sending, at 1 and
//! 10,000 flows, in batches of 1 and 32: `cargo bench -p l3l4-tests --bench packet`.
//!
//! All cases run in turn, many rounds, and the least time of each counts, so that
//! other work on the machine hits none of them alone. Every packet carries 1,400
//! bytes. TCP includes the ACKs: ours when receiving (every second segment), the
//! peer's when sending. With 10,000 flows each packet goes to another flow, and what
//! the processor's caches do not hold is part of the cost.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench fails by panicking"
)]

use std::time::{Duration, Instant as Stopwatch};

use l3l4_engine as engine;
use l3l4_host as guest;
use l3l4_tests::craft::{Family, Peer, udp};
use l3l4_tests::scene::described;
use l3l4_tests::wire;

const PACKETS: usize = 640;
const ROUNDS: usize = 60;
const PAYLOAD: [u8; 1400] = [0x5a; 1400];
const MANY: u16 = 10_000;

fn main() {
    let mut cases = Vec::new();
    for transport in [Transport::Udp, Transport::Tcp] {
        for flows in [1, MANY] {
            for (direction, batch) in [(Direction::In, 1), (Direction::In, 32), (Direction::Out, 1)]
            {
                let new = |machine| Case::new(machine, transport, direction, flows, batch);
                cases.push((new(native(flows)), new(component(flows))));
            }
        }
    }
    for _ in 0..ROUNDS {
        for (native, component) in &mut cases {
            native.round();
            component.round();
        }
    }
    println!(
        "{:<10} {:<9} {:>6} {:>6} {:>10} {:>13} {:>7} {:>14}",
        "transport",
        "direction",
        "flows",
        "batch",
        "native ns",
        "component ns",
        "ratio",
        "to 1 flow"
    );
    for (at, (native, component)) in cases.iter().enumerate() {
        let one = &cases[at - if native.flows == 1 { 0 } else { 3 }];
        println!(
            "{:<10} {:<9} {:>6} {:>6} {:>10.0} {:>13.0} {:>7.2} {:>6.2}, {:>6.2}",
            format!("{:?}", native.transport),
            format!("{:?}", native.direction),
            native.flows,
            native.batch,
            native.nanoseconds(),
            component.nanoseconds(),
            component.nanoseconds() / native.nanoseconds(),
            native.nanoseconds() / one.0.nanoseconds(),
            component.nanoseconds() / one.1.nanoseconds(),
        );
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Transport {
    Udp,
    Tcp,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Direction {
    In,
    Out,
}

/// An engine of either kind.
trait Machine {
    fn receive(&mut self, now: u64, batch: &[Vec<u8>]);
    fn send(&mut self, now: u64, flow: u64);
    fn poll(&mut self, now: u64);
    fn record(&mut self) -> &mut Record;
}

/// What the callbacks keep, as little as can be.
#[derive(Default)]
struct Record {
    bytes: usize,
    packets: usize,
    flow: u64,
    last: Vec<u8>,
}

impl Record {
    fn keep(&mut self, packets: usize, last: &[u8]) {
        self.packets += packets;
        self.last.clear();
        self.last.extend_from_slice(&last[..last.len().min(60)]);
    }
}

struct Case {
    machine: Box<dyn Machine>,
    transport: Transport,
    direction: Direction,
    flows: u16,
    batch: usize,
    talks: Vec<(u64, Talk)>,
    turn: usize,
    now: u64,
    least: Duration,
}

enum Talk {
    Datagrams(Vec<u8>),
    Connection(Peer),
}

impl Case {
    fn new(
        machine: Box<dyn Machine>,
        transport: Transport,
        direction: Direction,
        flows: u16,
        batch: usize,
    ) -> Self {
        let mut case = Self {
            machine,
            transport,
            direction,
            flows,
            batch,
            talks: Vec::new(),
            turn: 0,
            now: 1,
            least: Duration::MAX,
        };
        for i in 0..flows {
            case.open(1024 + i);
        }
        case
    }

    fn open(&mut self, port: u16) {
        let family = Family::V4;
        let talk = match self.transport {
            Transport::Udp => {
                let packet = udp(family.peer(port), family.local(53), &PAYLOAD);
                self.machine
                    .receive(self.now, std::slice::from_ref(&packet));
                Talk::Datagrams(packet)
            }
            Transport::Tcp => {
                let mut peer = Peer::new(family).from_port(port);
                self.machine
                    .receive(self.now, &[peer.syn().mss(1460).into()]);
                let syn_ack = wire::read(&self.machine.record().last).unwrap().tcp();
                peer.hear(&syn_ack);
                self.machine.receive(self.now, &[peer.ack().into()]);
                Talk::Connection(peer)
            }
        };
        self.talks.push((self.machine.record().flow, talk));
    }

    fn round(&mut self) {
        let time = match self.direction {
            Direction::In => self.receive(),
            Direction::Out => self.send(),
        };
        self.least = self.least.min(time);
        // What is left of timers runs outside of the measurement.
        self.now += 20_000_000;
        self.machine.poll(self.now);
    }

    fn receive(&mut self) -> Duration {
        let batches: Vec<Vec<Vec<u8>>> = (0..PACKETS / self.batch)
            .map(|_| (0..self.batch).map(|_| self.next_packet()).collect())
            .collect();
        let before = self.machine.record().bytes;
        let start = Stopwatch::now();
        for batch in &batches {
            self.now += 1000;
            self.machine.receive(self.now, batch);
        }
        let time = start.elapsed();
        assert_eq!(
            self.machine.record().bytes - before,
            PACKETS * PAYLOAD.len()
        );
        time
    }

    fn next_packet(&mut self) -> Vec<u8> {
        let (_, talk) = self.next_talk();
        match talk {
            Talk::Datagrams(packet) => packet.clone(),
            Talk::Connection(peer) => peer.data(&PAYLOAD).into(),
        }
    }

    /// 7919 is prime: every flow has its turn, far from the one before.
    fn next_talk(&mut self) -> &mut (u64, Talk) {
        self.turn = (self.turn + 7919) % self.talks.len();
        &mut self.talks[self.turn]
    }

    fn send(&mut self) -> Duration {
        let turns: Vec<_> = (0..PACKETS)
            .map(|_| {
                let (flow, talk) = self.next_talk();
                let ack: Option<Vec<u8>> = match talk {
                    Talk::Datagrams(_) => None,
                    Talk::Connection(peer) => {
                        peer.expected = peer.expected.wrapping_add(1400);
                        Some(peer.ack().into())
                    }
                };
                (*flow, ack)
            })
            .collect();
        let before = self.machine.record().packets;
        let start = Stopwatch::now();
        for (flow, ack) in &turns {
            self.now += 1000;
            self.machine.send(self.now, *flow);
            if let Some(ack) = ack {
                self.machine.receive(self.now, std::slice::from_ref(ack));
            }
        }
        let time = start.elapsed();
        assert_eq!(self.machine.record().packets - before, PACKETS);
        time
    }

    fn nanoseconds(&self) -> f64 {
        self.least.as_secs_f64() * 1e9 / PACKETS as f64
    }
}

/// 64 KiB each way for one flow; 4 KiB each for many, so that they fit.
fn buffers(flows: u16) -> u32 {
    if flows == 1 { 65_535 } else { 4096 }
}

struct Native(engine::Engine, Record);

fn native(flows: u16) -> Box<dyn Machine> {
    let mut config = engine::Config::new([1; 32]);
    config.tcp_receive_buffer = buffers(flows);
    config.tcp_send_buffer = buffers(flows);
    Box::new(Native(
        engine::Engine::new(config).unwrap(),
        Record::default(),
    ))
}

impl Machine for Native {
    fn receive(&mut self, now: u64, batch: &[Vec<u8>]) {
        let packets: Vec<_> = batch.iter().map(|packet| described(packet)).collect();
        let now = engine::Instant(now);
        if let [packet] = batch {
            self.0.l3_rx(now, packet, &packets, &mut self.1).unwrap();
        } else {
            self.0
                .l3_rx(now, &batch.concat(), &packets, &mut self.1)
                .unwrap();
        }
    }

    fn send(&mut self, now: u64, flow: u64) {
        let flow = engine::FlowId(flow);
        let sent = self
            .0
            .l4_tx(engine::Instant(now), flow, &PAYLOAD, &mut self.1);
        assert_eq!(sent.unwrap().taken, PAYLOAD.len());
    }

    fn poll(&mut self, now: u64) {
        self.0.l4_poll(engine::Instant(now), &mut self.1);
    }

    fn record(&mut self) -> &mut Record {
        &mut self.1
    }
}

impl engine::Callbacks for Record {
    fn l3_tx(&mut self, bytes: &[u8], packets: &[engine::Packet]) -> usize {
        let length = packets.last().map_or(0, |packet| packet.length as usize);
        self.keep(packets.len(), &bytes[bytes.len() - length..]);
        packets.len()
    }

    fn l4_rx(&mut self, _flow: engine::FlowId, data: &[u8]) -> usize {
        self.bytes += data.len();
        data.len()
    }

    fn flow_new(&mut self, flow: engine::FlowId, _tuple: &engine::FiveTuple) -> engine::Verdict {
        self.flow = flow.0;
        engine::Verdict::Accept(engine::FlowOptions::default())
    }

    fn flow_event(&mut self, _flow: engine::FlowId, _event: engine::Event) {}
}

struct Component(guest::Engine<Record>, guest::Batch);

fn component(flows: u16) -> Box<dyn Machine> {
    let engine = guest::Engine::builder()
        .seed([1; 32])
        .tcp_receive_buffer(buffers(flows))
        .tcp_send_buffer(buffers(flows))
        .build(Record::default());
    Box::new(Component(engine.unwrap(), guest::Batch::new()))
}

impl Machine for Component {
    fn receive(&mut self, now: u64, batch: &[Vec<u8>]) {
        self.1.clear();
        for packet in batch {
            self.1.push(packet);
        }
        self.0.l3_rx(guest::Instant(now), &self.1).unwrap();
    }

    fn send(&mut self, now: u64, flow: u64) {
        let sent = self
            .0
            .l4_tx(guest::Instant(now), guest::FlowId(flow), &PAYLOAD);
        assert_eq!(sent.unwrap().taken, PAYLOAD.len());
    }

    fn poll(&mut self, now: u64) {
        self.0.l4_poll(guest::Instant(now)).unwrap();
    }

    fn record(&mut self) -> &mut Record {
        self.0.callbacks_mut()
    }
}

impl guest::Callbacks for Record {
    fn l3_tx(&mut self, packets: guest::Packets<'_>) -> usize {
        let last = packets.iter().last().map_or(&[][..], |(_, bytes)| bytes);
        self.keep(packets.len(), last);
        packets.len()
    }

    fn l4_rx(&mut self, _flow: guest::FlowId, data: &[u8]) -> usize {
        self.bytes += data.len();
        data.len()
    }

    fn flow_new(&mut self, flow: guest::FlowId, _tuple: &guest::FiveTuple) -> guest::Verdict {
        self.flow = flow.0;
        guest::Verdict::ACCEPT
    }

    fn flow_event(&mut self, _flow: guest::FlowId, _event: guest::Event) {}
}
