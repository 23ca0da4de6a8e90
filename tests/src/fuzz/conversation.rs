//! Conversations between the engine and peers that keep the rules only as far as
//! it suits them: a valid handshake, then whatever the input says, from both sides
//! and from the device, with the clock moving in between.
//!
//! All that any peer sends is consistent: the byte at one sequence number is always
//! the same, so that whatever the engine delivers can be checked.

use std::collections::BTreeMap;
use std::time::Duration;

use l3l4_engine::{Config, Event, FiveTuple, FlowId, FlowOptions, Protocol, Refusal, Verdict};

use super::choices::Choices;
use crate::craft::{FAMILIES, Family, Peer, Segment, unreachable};
use crate::scene::{Scene, config};
use crate::wire::{self, ACK, Body, FIN, RST, SYN};

/// Peers of one story, on ports of their own.
const PEERS: u16 = 3;

/// Longer than every time limit of the configuration, one after the other.
const LONG_ENOUGH: Duration = Duration::from_secs(3 * 7440);

/// One input, decoded as it is told.
#[derive(Clone, Copy, Debug)]
pub struct Story<'a> {
    data: &'a [u8],
}

/// Whether scenes keep their traces: `L3L4_TRACE=1`, to look at one finding.
#[must_use]
pub fn is_traced() -> bool {
    std::env::var_os("L3L4_TRACE").is_some()
}

impl<'a> Story<'a> {
    /// The story that these bytes tell.
    #[must_use]
    pub fn new(data: &'a [u8]) -> Self {
        Self { data }
    }

    /// The configuration that it begins with: buffers of all sizes, few flows.
    #[must_use]
    pub fn config(&self) -> Config {
        configuration(&mut Choices::new(self.data))
    }

    /// Tells it, and then ends every flow: what was delivered was sent, what was
    /// acknowledged is delivered or kept, and nothing remains.
    pub fn tell(&self, scene: &mut Scene) {
        let mut choices = Choices::new(self.data);
        // What follows is decided by the bytes behind those of the configuration.
        configuration(&mut choices);
        let family = choices.one_of(&FAMILIES);
        let mut tale = Tale::new(scene, family, &mut choices);
        tale.greet();
        while !tale.choices.is_over() {
            tale.step();
            tale.check();
        }
        tale.end();
    }
}

fn configuration(choices: &mut Choices<'_>) -> Config {
    Config {
        tcp_receive_buffer: choices.one_of(&[65_535, 4096, 2048, 16_384, 65_000]),
        tcp_send_buffer: choices.one_of(&[65_535, 4096, 1 << 20, 2048]),
        mtu: choices.one_of(&[1500, 1280, 65_535, 9000]),
        max_flows: choices.one_of(&[64, 2, 8]),
        max_half_open: choices.one_of(&[64, 1, 2]),
        memory_limit: choices.one_of(&[256 << 20, 1 << 20, 2 << 20]),
        max_stray_replies: choices.one_of(&[1000, 0, 1]),
        ..config()
    }
}

/// A story as it goes on.
struct Tale<'s, 'c, 'd> {
    scene: &'s mut Scene,
    choices: &'c mut Choices<'d>,
    family: Family,
    peers: Vec<Peer>,
    /// The sequence number of the last SYN that was sent, by whichever peer.
    last_syn: u32,
    /// The device had kept packets before this step.
    kept: bool,
    /// Bytes of memory before the first flow.
    baseline: u64,
    flows: BTreeMap<FlowId, Flow>,
}

/// What is known of a flow.
#[derive(Clone, Debug)]
struct Flow {
    tuple: FiveTuple,
    /// When it began the device had kept packets, perhaps of an earlier flow between
    /// the same ends: its acknowledgements cannot be told from those.
    unclear: bool,
    /// The initial sequence numbers of the peer that what the engine did agrees
    /// with: a hostile peer sends more than one SYN.
    irs: Vec<u32>,
    delivered: u32,
}

impl<'s, 'c, 'd> Tale<'s, 'c, 'd> {
    fn new(scene: &'s mut Scene, family: Family, choices: &'c mut Choices<'d>) -> Self {
        let peers = (0..PEERS).map(|index| {
            let mut peer = Peer::new(family).from_port(40_000 + index);
            peer.next = choices.one_of(&[1000, 0xffff_ff00, 0x7fff_fff0]);
            peer
        });
        let peers = peers.collect();
        let baseline = scene.counters().memory_bytes;
        Self {
            scene,
            choices,
            family,
            peers,
            last_syn: 0,
            kept: false,
            baseline,
            flows: BTreeMap::new(),
        }
    }

    /// Most stories begin with a connection.
    fn greet(&mut self) {
        if self.choices.one_in(8) {
            return;
        }
        let options = self.choices.byte();
        self.last_syn = self.peers[0].next;
        let syn = self.peers[0].syn().mss(1400);
        let syn = if options & 1 == 0 {
            syn
        } else {
            syn.scale(options >> 4)
        };
        let syn = if options & 2 == 0 {
            syn
        } else {
            syn.sack_permitted()
        };
        self.scene.rx(syn);
        self.check();
        self.scene.rx(self.peers[0].ack());
        self.check();
    }

    /// One thing happens.
    fn step(&mut self) {
        match self.choices.below(16) {
            0..=5 => self.segment(),
            6 => self.batch(),
            7 => self.hostile_packet(),
            8 | 9 => self.time_passes(),
            10 | 11 => self.application(),
            12 => self.device(),
            13 => self.appetite(),
            14 => self.open(),
            _ => self.policy(),
        }
    }

    fn segment(&mut self) {
        let segment = self.any_segment(true);
        self.scene.rx(segment);
    }

    /// Several segments at once. No SYN among them, so that it stays clear which
    /// connection an acknowledgement is about.
    fn batch(&mut self) {
        let count = 2 + self.choices.below(6);
        let batch: Vec<Vec<u8>> = (0..count).map(|_| self.any_segment(false).into()).collect();
        self.scene.rx_batch(&batch);
    }

    /// A segment of one of the peers: mostly in order, or near it, or anywhere.
    fn any_segment(&mut self, may_be_syn: bool) -> Segment {
        let index = usize::try_from(self.choices.below(u32::from(PEERS))).expect("an index");
        let flags = match self.choices.below(8) {
            0..=3 => ACK,
            4 => ACK | FIN,
            5 => RST,
            6 if may_be_syn => SYN,
            _ => self.choices.byte(),
        };
        let flags = if may_be_syn { flags } else { flags & !SYN };
        let near = self.near();
        let ack_near = self.near();
        let length = self.choices.one_of(&[0, 1, 10, 536, 1400, 4000, 60_000]);
        let window = self.choices.one_of(&[64_000, 0, 1, 100, 2000, 65_535]);
        let options = self.choices.below(6);
        let shift = self.choices.byte();

        let peer = &mut self.peers[index];
        let seq = peer.next.wrapping_add(near);
        if flags & SYN != 0 {
            self.last_syn = seq;
            let flows = self.flows.values_mut();
            flows
                .filter(|flow| flow.tuple.peer == peer.peer)
                .for_each(|flow| flow.irs.push(seq));
        }
        let payload = stream(seq, length, flags);
        let segment = peer
            .segment(flags)
            .seq(seq)
            .acking(peer.expected.wrapping_add(ack_near))
            .window(window)
            .payload(&payload);
        if near == 0 && flags & RST == 0 {
            let syn_fin = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            peer.next = peer.next.wrapping_add(length).wrapping_add(syn_fin);
        }
        match options {
            1 => segment.mss(u16::from(shift) * 8),
            2 => segment.mss(1400).scale(shift % 20).sack_permitted(),
            3 => segment.option(&sack(peer.expected, u32::from(shift))),
            4 => segment.option(&[8, 10, 0, 0, 0, shift, 0, 0, 0, 1]),
            5 => segment.option(&[shift, shift >> 3]),
            _ => segment,
        }
    }

    /// A distance from where things should be: mostly none.
    fn near(&mut self) -> u32 {
        match self.choices.below(8) {
            0..=3 => 0,
            4 => self.choices.below(3000),
            5 => 0u32.wrapping_sub(self.choices.below(3000)),
            6 => self
                .choices
                .one_of(&[1 << 31, (1 << 31) - 1, 65_535, 65_536, 1 << 30]),
            _ => self.choices.word(),
        }
    }

    /// What is no segment of a conversation.
    fn hostile_packet(&mut self) {
        let (from, to) = (self.family.peer(0).ip(), self.family.local(0).ip());
        let packet = match self.choices.below(3) {
            0 => self.choices.bytes(200).to_vec(),
            1 => {
                let mut packet: Vec<u8> = self.any_segment(true).into();
                let length = u32::try_from(packet.len()).expect("a packet");
                let at = usize::try_from(self.choices.below(length)).expect("an index");
                match self.choices.below(2) {
                    0 => packet.truncate(at),
                    _ => packet[at] ^= self.choices.byte(),
                }
                packet
            }
            _ => {
                let code = self.choices.below(16).to_le_bytes()[0];
                let quoted: Vec<u8> = {
                    let segment = self.any_segment(true);
                    let back = self.peers[0].clone();
                    segment.from(back.local).to(back.peer).into()
                };
                unreachable(from, to, code, &quoted)
            }
        };
        self.scene.rx(packet);
    }

    fn time_passes(&mut self) {
        let time = self.choices.one_of(&[
            Duration::from_millis(1),
            Duration::from_millis(200),
            Duration::from_secs(1),
            Duration::from_secs(4),
            Duration::from_secs(60),
            Duration::from_secs(130),
            Duration::from_secs(7500),
        ]);
        match self.choices.below(8) {
            0 => self.scene.skip(time),
            _ => self.scene.wait(time),
        }
    }

    /// The application does something to one of the flows that live.
    fn application(&mut self) {
        let flows = self.scene.flows();
        if flows.is_empty() {
            return;
        }
        let flow = self.choices.one_of(&flows);
        let length = self.choices.one_of(&[1, 0, 100, 3000, 20_000, 100_000]);
        // An error is an answer too: the contract's rules are the scene's to check.
        let _ = match self.choices.below(8) {
            0..=3 => self.scene.tx(flow, &vec![7; length]).map(drop),
            4 => self.scene.finish(flow),
            5 => self.scene.resume(flow),
            6 if self.choices.one_in(4) => self.scene.abort(flow),
            6 => self.scene.info(flow).map(drop),
            _ => {
                let verdict = self.verdict();
                self.scene.verdict(flow, verdict)
            }
        };
    }

    fn verdict(&mut self) -> Verdict {
        match self.choices.below(8) {
            0 => Verdict::Refuse(Refusal::Reset),
            1 => Verdict::Refuse(Refusal::HostUnreachable),
            2 => Verdict::Drop,
            3 => Verdict::Wait,
            4 => Verdict::Accept(FlowOptions {
                nagle: true,
                keep_alive: Some(Duration::from_secs(5)),
                idle_timeout: Some(Duration::from_secs(600)),
                user_timeout: Some(Duration::from_secs(300)),
            }),
            _ => Verdict::Accept(FlowOptions::default()),
        }
    }

    fn policy(&mut self) {
        let verdict = self.verdict();
        self.scene.verdict_on_new(verdict);
    }

    fn device(&mut self) {
        let host = self.scene.host();
        match self.choices.below(4) {
            0 => (host.device_room, host.device_gulp) = (None, None),
            1 => host.device_room = Some(0),
            2 => host.device_room = Some(3),
            _ => host.device_gulp = Some(1),
        }
        if host.packets_kept() {
            self.scene.poll();
        }
    }

    fn appetite(&mut self) {
        let most = self.choices.one_of(&[None, Some(0), Some(1), Some(1000)]);
        for flow in self.scene.flows() {
            match most {
                None => drop(self.scene.host().appetite.remove(&flow)),
                Some(most) => drop(self.scene.host().appetite.insert(flow, most)),
            }
        }
    }

    fn open(&mut self) {
        let index = usize::try_from(self.choices.below(u32::from(PEERS))).expect("an index");
        let tuple = self.peers[index].tuple();
        if let Ok(flow) = self.scene.open(&tuple, FlowOptions::default()) {
            self.learn(flow, tuple, Vec::new());
        }
    }

    /// A flow comes to be. One that had the same tuple has ended.
    fn learn(&mut self, id: FlowId, tuple: FiveTuple, irs: Vec<u32>) {
        self.flows.retain(|_, flow| flow.tuple != tuple);
        let flow = Flow {
            tuple,
            unclear: self.kept,
            irs,
            delivered: 0,
        };
        self.flows.insert(id, flow);
    }

    /// What the engine said and delivered, against what it was told.
    fn check(&mut self) {
        for id in self.flows.keys().copied().collect::<Vec<_>>() {
            self.check_delivered(id);
        }
        let announced: Vec<_> = self.scene.host().announced.drain(..).collect();
        for (id, tuple) in announced {
            self.learn(id, tuple, vec![self.last_syn]);
            self.check_delivered(id);
        }
        for packet in self.scene.sent_packets() {
            if let Body::Tcp(segment) = packet.body
                && !segment.has(RST)
            {
                self.hear(&segment);
            }
        }
        for (id, event) in self.scene.events() {
            if let Event::Closed(_) = event {
                self.flows.remove(&id);
            }
        }
        self.kept = self.scene.host().packets_kept();
    }

    /// The bytes are those of the peer's stream.
    fn check_delivered(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        if flow.tuple.protocol != Protocol::Tcp {
            return;
        }
        let data = self.scene.stream(id);
        let length = u32::try_from(data.len()).expect("less than 4 GiB");
        let delivered = flow.delivered;
        flow.irs.retain(|irs| {
            let first = irs.wrapping_add(1).wrapping_add(delivered);
            (0..length)
                .zip(&data)
                .all(|(index, byte)| *byte == byte_at(first.wrapping_add(index)))
        });
        assert!(
            length == 0 || !flow.irs.is_empty(),
            "{length} bytes of {id:?} after {delivered} are not what the peer sent (I1)\n{}",
            self.scene.host().trace.tail(100)
        );
        flow.delivered += length;
    }

    /// The peer takes note of a segment; what it acknowledges is delivered or kept.
    fn hear(&mut self, segment: &wire::Tcp) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.peer == segment.to) {
            peer.expected = segment.end();
        }
        let ends = (segment.from, segment.to);
        let flow = self.flows.iter_mut().find(|(_, flow)| {
            flow.tuple.protocol == Protocol::Tcp && (flow.tuple.local, flow.tuple.peer) == ends
        });
        let Some((&id, flow)) = flow else { return };
        // Of a flow that has ended meanwhile nothing is known any more.
        let Some(kept) = self.scene.receive_queue(id) else {
            return;
        };
        if flow.unclear || !segment.has(ACK) {
            return;
        }
        // FIN takes one number of its own.
        let safe = flow.delivered + kept + 1;
        flow.irs
            .retain(|irs| segment.ack.wrapping_sub(*irs).wrapping_sub(1) <= safe);
        assert!(
            !flow.irs.is_empty(),
            "{id:?}: {segment} acknowledges more than the {safe} that are safe (I3)\n{}",
            self.scene.host().trace.tail(100)
        );
    }

    /// All faults end, nobody says anything more: every flow ends, and nothing is
    /// left of it.
    fn end(&mut self) {
        let host = self.scene.host();
        (host.device_room, host.device_gulp) = (None, None);
        host.appetite.clear();
        self.scene.poll();
        for flow in self.scene.flows() {
            let _ = self.scene.resume(flow);
            self.check();
        }
        self.scene.wait(LONG_ENOUGH);
        self.check();
        let counters = self.scene.counters();
        assert_eq!(
            (counters.flows, counters.half_open, counters.time_wait),
            (0, 0, 0),
            "flows remain (I4)\n{}",
            self.scene.host().trace.tail(100)
        );
        let (memory, most) = (counters.memory_bytes, self.baseline + self.baseline / 100);
        assert!(memory <= most, "{memory} bytes of memory remain (I7)");
    }
}

/// What every peer sends from sequence number `seq` on.
fn stream(seq: u32, length: u32, flags: u8) -> Vec<u8> {
    let first = seq.wrapping_add(u32::from(flags & SYN != 0));
    (0..length)
        .map(|index| byte_at(first.wrapping_add(index)))
        .collect()
}

/// The byte at one sequence number: neighbours differ, and so do the same places of
/// different kilobytes.
fn byte_at(seq: u32) -> u8 {
    let [low, middle, high, _] = seq.to_le_bytes();
    low.wrapping_mul(31) ^ middle.wrapping_mul(17) ^ high
}

/// An option with two blocks at a distance.
fn sack(at: u32, distance: u32) -> Vec<u8> {
    let mut option = vec![5, 18];
    for block in [
        (distance, distance + 100),
        (distance * 7, distance * 7 + 1000),
    ] {
        option.extend(at.wrapping_add(block.0).to_be_bytes());
        option.extend(at.wrapping_add(block.1).to_be_bytes());
    }
    option
}
