//! One contestant under one load: its flows, their peers, and rounds of packets.

use std::time::{Duration, Instant as Stopwatch};

use l3l4_host::DataBatch;
use l3l4_tests::craft::{Family, Peer, udp};
use l3l4_tests::wire;

use super::machine::{Machine, Packets};
use super::{Direction, Load, Transport};

const FAMILY: Family = Family::V4;
/// Peers offer windows up to 8 MiB (RFC 7323 2.2).
const PEER_SCALE: u8 = 7;
const CALLS_ARE_APART: u64 = 1000;
/// Longer than ACKs are delayed (RFC 9293 3.8.6.3), so that no round pays for the
/// one before; and where we send, shorter than windows of an idle sender last
/// (RFC 5681 4.1).
const AFTER_RECEIVING: u64 = 500_000_000;
const AFTER_SENDING: u64 = 20_000_000;
/// Rounds for a receive window to follow what the application takes.
const WINDOW_WARM_UPS: usize = 10;
/// Batches for a congestion window and a send buffer to grow.
const WARM_UPS: usize = 100;

pub(crate) struct Case {
    machine: Box<dyn Machine>,
    load: Load,
    /// Packets that a flow sends at once.
    most_sent: usize,
    /// Packets of the last round's batches.
    at_once: usize,
    talks: Vec<Talk>,
    turn: usize,
    now: u64,
    /// Data of one batch.
    data: Vec<u8>,
}

/// A flow and its peer.
struct Talk {
    flow: u64,
    kind: Kind,
}

enum Kind {
    Datagrams(Vec<u8>),
    Connection {
        peer: Peer,
        /// The shift of the engine's windows.
        scale: u8,
    },
}

/// Data for one flow or for many, given at once, then the ACKs.
struct Sending {
    flows: Vec<(u64, usize)>,
    acks: Option<Packets>,
}

impl Case {
    pub(crate) fn new(machine: Box<dyn Machine>, load: Load) -> Self {
        let most = load.batches().iter().max().map_or(1, |most| *most);
        let mut case = Self {
            machine,
            load,
            most_sent: 1,
            at_once: 1,
            talks: Vec::new(),
            turn: 0,
            now: 1,
            data: vec![0x5a; most * load.payload()],
        };
        for i in 0..load.flows {
            case.open(1024 + i);
        }
        case.warm_up();
        case
    }

    fn open(&mut self, port: u16) {
        let kind = match self.load.transport {
            Transport::Udp => {
                let data = &self.data[..self.load.payload()];
                let packet = udp(FAMILY.peer(port), FAMILY.local(53), data);
                self.receive_one(packet.clone());
                Kind::Datagrams(packet)
            }
            Transport::Tcp => {
                let mut peer = Peer::new(FAMILY).from_port(port);
                peer.window = u16::MAX;
                let mss = u16::try_from(self.load.payload()).unwrap();
                let syn = peer.syn().mss(mss).scale(PEER_SCALE).sack_permitted();
                self.receive_one(syn.into());
                let syn_ack = wire::read(&self.machine.record().last).unwrap().tcp();
                peer.hear(&syn_ack);
                self.receive_one(peer.ack().into());
                let scale = syn_ack.window_scale.unwrap_or(0);
                Kind::Connection { peer, scale }
            }
        };
        let flow = self.machine.record().flow;
        self.talks.push(Talk { flow, kind });
    }

    fn receive_one(&mut self, packet: Vec<u8>) {
        self.now += CALLS_ARE_APART;
        let packets = self.machine.pack(&[packet]);
        self.machine.receive(self.now, &packets);
    }

    /// Every flow's memory is touched once; windows grow until a batch goes at once.
    fn warm_up(&mut self) {
        match (self.load.transport, self.load.direction) {
            (Transport::Udp, Direction::Out) => {}
            (Transport::Tcp, Direction::Out) => {
                for i in 0..self.talks.len() {
                    self.open_congestion_window(i);
                }
            }
            (_, Direction::In) => {
                for _ in 0..self.talks.len() {
                    let packet = self.next_packet();
                    self.receive_one(packet);
                }
                self.pause();
                if self.talks.len() == 1 {
                    let most = self.data.len() / self.load.payload();
                    for _ in 0..WINDOW_WARM_UPS {
                        self.round(most);
                    }
                }
            }
        }
    }

    /// Sends batches until one goes at once, or the windows and the send buffer do
    /// not grow any more.
    fn open_congestion_window(&mut self, i: usize) {
        let flow = self.talks[i].flow;
        let payload = self.load.payload();
        let wanted = match self.talks.len() {
            1 => self.data.len() / payload,
            _ => 1,
        };
        let data = self.data[..wanted * payload].to_vec();
        let mut at_once = 0;
        for _ in 0..WARM_UPS {
            let mut taken = 0;
            let mut sent = self.emitted(|machine, now| taken = machine.send(now, flow, &data));
            at_once = taken.min(sent) / payload;
            let mut outstanding = taken;
            while outstanding > 0 {
                assert!(sent > 0, "{}: {outstanding} bytes are not sent", self.load);
                outstanding -= sent;
                sent = self.acknowledge(i, sent);
            }
            if at_once == wanted {
                break;
            }
        }
        assert!(at_once > 0, "{}: no packet goes at once", self.load);
        self.most_sent = at_once;
    }

    /// The peer acknowledges so many bytes. Returns how many follow.
    fn acknowledge(&mut self, i: usize, bytes: usize) -> usize {
        let Kind::Connection { peer, .. } = &mut self.talks[i].kind else {
            panic!("a connection");
        };
        peer.expected = peer.expected.wrapping_add(u32::try_from(bytes).unwrap());
        let ack = self.machine.pack(&[peer.ack().into()]);
        self.emitted(|machine, now| machine.receive(now, &ack))
    }

    /// Bytes of data in the packets that a call sends.
    fn emitted(&mut self, call: impl FnOnce(&mut dyn Machine, u64)) -> usize {
        self.now += CALLS_ARE_APART;
        let record = self.machine.record();
        let (packets, bytes) = (record.packets, record.packet_bytes);
        call(&mut *self.machine, self.now);
        let record = self.machine.record();
        record.packet_bytes - bytes - 40 * (record.packets - packets)
    }

    /// The nanoseconds that one packet takes in a round of them.
    pub(crate) fn round(&mut self, batch: usize) -> f64 {
        let time = match self.load.direction {
            Direction::In => self.receive(batch),
            Direction::Out => self.send(batch),
        };
        self.pause();
        time.as_secs_f64() * 1e9 / self.load.packets_a_round(batch) as f64
    }

    /// What is left of timers runs outside of the measurement.
    fn pause(&mut self) {
        self.now += match self.load.direction {
            Direction::In => AFTER_RECEIVING,
            Direction::Out => AFTER_SENDING,
        };
        self.machine.poll(self.now);
    }

    /// Packets of the last round's batches.
    pub(crate) fn at_once(&self) -> usize {
        self.at_once
    }

    fn receive(&mut self, batch: usize) -> Duration {
        let packets = self.load.packets_a_round(batch);
        let batch = batch.min(self.most_in_window());
        self.at_once = batch;
        let packed: Vec<Packets> = (0..packets)
            .step_by(batch)
            .map(|first| {
                let batch = batch.min(packets - first);
                let batch: Vec<Vec<u8>> = (0..batch).map(|_| self.next_packet()).collect();
                self.machine.pack(&batch)
            })
            .collect();
        let before = self.machine.record().bytes;
        let start = Stopwatch::now();
        for batch in &packed {
            self.now += CALLS_ARE_APART;
            self.machine.receive(self.now, batch);
        }
        let time = start.elapsed();
        let delivered = self.machine.record().bytes - before;
        assert_eq!(delivered, packets * self.load.payload(), "{}", self.load);
        time
    }

    /// A peer sends no more at once than the window that it was offered last.
    fn most_in_window(&mut self) -> usize {
        let [
            Talk {
                kind: Kind::Connection { scale, .. },
                ..
            },
        ] = self.talks[..]
        else {
            return usize::MAX;
        };
        let last = wire::read(&self.machine.record().last).unwrap().tcp();
        let window = usize::from(last.window) << scale;
        (window / self.load.payload()).max(1)
    }

    fn next_packet(&mut self) -> Vec<u8> {
        let i = self.next_turn();
        let data = &self.data[..self.load.payload()];
        match &mut self.talks[i].kind {
            Kind::Datagrams(packet) => packet.clone(),
            Kind::Connection { peer, .. } => peer.data(data).into(),
        }
    }

    /// 7919 is prime: every flow has its turn, far from the one before.
    fn next_turn(&mut self) -> usize {
        self.turn = (self.turn + 7919) % self.talks.len();
        self.turn
    }

    fn send(&mut self, batch: usize) -> Duration {
        let packets = self.load.packets_a_round(batch);
        let batch = match self.talks.len() {
            1 => batch.min(self.most_sent),
            _ => batch,
        };
        self.at_once = batch;
        let sendings: Vec<Sending> = (0..packets)
            .step_by(batch)
            .map(|first| self.sending(batch.min(packets - first)))
            .collect();
        let before = self.machine.record().packets;
        let start = Stopwatch::now();
        for Sending { flows, acks } in &sendings {
            self.now += CALLS_ARE_APART;
            if flows.len() > 1 && self.load.payload() <= DataBatch::SHORT_BYTES {
                self.machine.send_all(self.now, flows, &self.data);
            } else {
                for (flow, length) in flows {
                    let taken = self.machine.send(self.now, *flow, &self.data[..*length]);
                    assert_eq!(taken, *length);
                }
            }
            if let Some(acks) = acks {
                self.machine.receive(self.now, acks);
            }
        }
        let time = start.elapsed();
        let sent = self.machine.record().packets - before;
        assert_eq!(sent, packets, "{}", self.load);
        time
    }

    fn sending(&mut self, batch: usize) -> Sending {
        let payload = self.load.payload();
        if self.talks.len() == 1 {
            let acks = self.acks(0, batch);
            let flows = vec![(self.talks[0].flow, batch * payload)];
            return Sending {
                flows,
                acks: self.packed(&acks),
            };
        }
        let (mut flows, mut acks) = (Vec::new(), Vec::new());
        for _ in 0..batch {
            let i = self.next_turn();
            flows.push((self.talks[i].flow, payload));
            acks.extend(self.acks(i, 1));
        }
        Sending {
            flows,
            acks: self.packed(&acks),
        }
    }

    /// What a peer says to so many segments: an ACK for two, and for the last.
    fn acks(&mut self, i: usize, segments: usize) -> Vec<Vec<u8>> {
        let payload = u32::try_from(self.load.payload()).unwrap();
        let Kind::Connection { peer, .. } = &mut self.talks[i].kind else {
            return Vec::new();
        };
        let mut acks = Vec::new();
        for segment in 1..=segments {
            peer.expected = peer.expected.wrapping_add(payload);
            if segment % 2 == 0 || segment == segments {
                acks.push(peer.ack().into());
            }
        }
        acks
    }

    fn packed(&self, packets: &[Vec<u8>]) -> Option<Packets> {
        (!packets.is_empty()).then(|| self.machine.pack(packets))
    }
}
