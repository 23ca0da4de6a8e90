//! Conversations between the engine and peers that keep the rules only as far as
//! it suits them: a valid handshake, then whatever the input says, from both sides
//! and from the device, with the clock moving in between.
//!
//! All that any peer sends is consistent: the byte at one sequence number is always
//! the same, so that whatever the engine delivers can be checked.

use std::collections::BTreeMap;
use std::time::Duration;

use l3l4_engine::{
    Config, CongestionControl, Event, FiveTuple, FlowId, FlowOptions, Protocol, Refusal, Verdict,
};

use super::choices::Choices;
use super::far::{Far, Said, stream};
use crate::craft::{FAMILIES, Family, Peer, Segment, fragments, icmp, udp, unreachable};
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
        let config = configuration(&mut choices);
        let family = choices.one_of(&FAMILIES);
        let mut tale = Tale::new(scene, &config, family, &mut choices);
        tale.greet();
        while !tale.choices.is_over() {
            tale.step();
            tale.check();
        }
        tale.end();
    }
}

fn configuration(choices: &mut Choices<'_>) -> Config {
    let sizes = [65_535, 4096, 2048, 16_384, 1 << 20, 4 << 20];
    Config {
        tcp_receive_buffer: choices.one_of(&sizes),
        tcp_send_buffer: choices.one_of(&sizes),
        mtu: choices.one_of(&[1500, 1280, 65_535, 9000]),
        max_flows: choices.one_of(&[64, 2, 8]),
        max_half_open: choices.one_of(&[64, 1, 2]),
        memory_limit: choices.one_of(&[256 << 20, 1 << 20, 2 << 20]),
        max_stray_replies: choices.one_of(&[1000, 0, 1]),
        syn_cookies: choices.below(2) == 0,
        congestion_control: choices.one_of(&[
            CongestionControl::Cubic,
            CongestionControl::Reno,
            CongestionControl::None,
        ]),
        min_rto: Duration::from_millis(choices.one_of(&[200, 10, 1000])),
        reassembly_memory: choices.one_of(&[4 << 20, 128 << 10]),
        ..config()
    }
}

/// A story as it goes on.
struct Tale<'s, 'c, 'd> {
    scene: &'s mut Scene,
    choices: &'c mut Choices<'d>,
    family: Family,
    fars: Vec<Far>,
    /// The device had kept packets before this step.
    kept: bool,
    /// Bytes of memory before the first flow.
    baseline: u64,
    /// The most that there may be.
    most_memory: u64,
    /// What names the next datagram that is sent in fragments.
    identification: u32,
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
    fn new(
        scene: &'s mut Scene,
        config: &Config,
        family: Family,
        choices: &'c mut Choices<'d>,
    ) -> Self {
        let fars = (0..PEERS).map(|index| {
            let next = choices.one_of(&[1000, 0xffff_ff00, 0x7fff_fff0]);
            Far::new(family, 40_000 + index, next)
        });
        let fars = fars.collect();
        let baseline = scene.memory();
        // A record that takes the place of another comes before that goes, and
        // TIME-WAIT is for ends that left: at most 1 KiB a flow.
        let most_memory = config.memory_limit
            + u64::from(config.reassembly_memory)
            + (u64::from(config.max_flows) << 10);
        Self {
            scene,
            choices,
            family,
            fars,
            kept: false,
            baseline,
            most_memory,
            identification: 0,
            flows: BTreeMap::new(),
        }
    }

    /// Most stories begin with a connection.
    fn greet(&mut self) {
        if self.choices.one_in(8) {
            return;
        }
        let options = self.choices.byte();
        let mut said = vec![Said::Mss(
            self.choices.one_of(&[1400, 88, 536, 9000, 65_475]),
        )];
        if options & 1 != 0 {
            said.push(Said::Scale(options >> 4));
        }
        if options & 2 != 0 {
            said.push(Said::SackPermitted);
        }
        if options & 4 != 0 {
            said.push(Said::Timestamps(self.stamp(), 0));
        }
        let next = self.fars[0].peer.next;
        let syn = self.fars[0].segment(SYN, next, 0, 64_000, 0, &said);
        self.scene.rx(syn);
        self.check();
        self.agree(0);
        self.check();
    }

    /// One thing happens.
    fn step(&mut self) {
        match self.choices.below(26) {
            0..=4 => self.segment(),
            5 => self.batch(),
            6 => self.hostile_packet(),
            7..=9 => self.time_passes(),
            10..=12 => self.application(),
            13 => self.device(),
            14 => self.appetite(),
            15 => self.open(),
            16 => self.policy(),
            17 => self.burst(),
            18 => self.loss(),
            19..=21 => {
                let index = self.any_far();
                self.agree(index);
            }
            22 => self.too_big(),
            23 => self.pieces(),
            24 => self.answer_open(),
            _ => self.flood(),
        }
    }

    fn any_far(&mut self) -> usize {
        usize::try_from(self.choices.below(u32::from(PEERS))).expect("an index")
    }

    /// The clock of the peers' timestamps.
    fn stamp(&self) -> u32 {
        let milliseconds = self.scene.now.0 / 1_000_000 % (1 << 32);
        u32::try_from(milliseconds).expect("32 bits")
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
        let index = self.any_far();
        let flags = match self.choices.below(8) {
            0..=3 => ACK,
            4 => ACK | FIN,
            5 => RST,
            6 if may_be_syn => SYN,
            _ => self.choices.byte(),
        };
        let flags = if may_be_syn { flags } else { flags & !SYN };
        let near = self.near();
        let seq = self.fars[index].peer.next.wrapping_add(near);
        let ack = self.any_ack(index);
        let length = self.choices.one_of(&[0, 1, 10, 536, 1400, 4000, 60_000]);
        let window = self.any_window();
        let said = self.any_options(index);
        self.fars[index].segment(flags, seq, ack, window, length, &said)
    }

    /// Of all that was heard, of some of it, or of what was never sent.
    fn any_ack(&mut self, index: usize) -> u32 {
        let choice = self.choices.below(8);
        let near = match choice {
            6 | 7 => self.near(),
            _ => 0,
        };
        let far = &self.fars[index];
        let flight = far.flight();
        match choice {
            0..=2 => far.highest,
            3 => far.peer.expected,
            4 => far.una.wrapping_add(flight / 3),
            5 => far.una.wrapping_sub(1),
            _ => far.peer.expected.wrapping_add(near),
        }
    }

    fn any_window(&mut self) -> u16 {
        self.choices
            .one_of(&[64_000, 0, 1, 100, 2000, 65_535, 7, 30_000])
    }

    fn any_options(&mut self, index: usize) -> Vec<Said> {
        let stamp = self.stamp();
        let kind = self.choices.below(12);
        let shift = self.choices.byte();
        let distance = u32::from(shift);
        let far = &self.fars[index];
        let right = far.stamped.then_some(Said::Timestamps(stamp, far.echo));
        let (una, highest, flight) = (far.una, far.highest, far.flight());
        let sack = |blocks: &[(u32, u32)]| Said::Sack(blocks.to_vec());
        let more = match kind {
            // The usual, and what is missing.
            1 => return Vec::new(),
            2 => Said::Mss(u16::from(shift) * 8),
            3 => Said::Scale(shift % 20),
            4 => {
                return vec![Said::Timestamps(
                    stamp.wrapping_sub(distance << 20),
                    far.echo,
                )];
            }
            5 => return vec![Said::Timestamps(stamp, far.echo.wrapping_add(distance))],
            6 => {
                let hole = flight / 255 * distance;
                sack(&[(una.wrapping_add(hole), highest)])
            }
            // Twice (RFC 2883), and what lies inside of each other.
            7 => sack(&[
                (una.wrapping_sub(distance), una),
                (una.wrapping_add(1), highest),
            ]),
            8 => sack(&[
                (una.wrapping_add(distance), highest),
                (una.wrapping_add(flight / 2), highest),
                (una.wrapping_add(1), una.wrapping_add(flight / 2)),
            ]),
            9 => sack(&[(highest, una), (una, una)]),
            10 => sack(&[
                (
                    far.peer.expected.wrapping_add(distance),
                    far.peer.expected.wrapping_add(distance + 100),
                ),
                (
                    highest.wrapping_add(distance * 7),
                    highest.wrapping_add(distance * 7 + 1000),
                ),
            ]),
            11 => Said::Raw([shift, shift >> 3]),
            _ => return right.into_iter().collect(),
        };
        [right, Some(more)].into_iter().flatten().collect()
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

    /// A peer acknowledges what it heard, or a part of it.
    fn agree(&mut self, index: usize) {
        let window = self.any_window();
        let part = self.choices.one_of(&[8, 1, 4, 7]);
        let stamp = self.stamp();
        let far = &mut self.fars[index];
        let ack = far.una.wrapping_add(far.flight() / 8 * part);
        let ack = if part == 8 { far.highest } else { ack };
        let said = far.usual(stamp);
        let next = far.peer.next;
        let segment = far.segment(ACK, next, ack, window, 0, &said);
        self.scene.rx(segment);
    }

    /// Many segments of one peer in one call: in order, the other way round, or with
    /// holes, each answered or not.
    fn burst(&mut self) {
        let index = self.any_far();
        let count = self.choices.one_of(&[3, 10, 50, 200]);
        let length = self.choices.one_of(&[1400, 1, 100, 8000]);
        // More bytes than the smaller windows and pools hold are of no use.
        let count = count.min(250_000 / length);
        let order = self.choices.below(4);
        let stamp = self.stamp();
        let far = &mut self.fars[index];
        let (said, ack) = (far.usual(stamp), far.highest);
        let mut batch: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                let next = far.peer.next;
                far.segment(ACK, next, ack, 64_000, length, &said).into()
            })
            .collect();
        match order {
            1 => batch.reverse(),
            2 => {
                let mut at = 0;
                batch.retain(|_| {
                    at += 1;
                    at % 3 != 1
                });
            }
            3 => batch.extend(batch.clone()),
            _ => {}
        }
        self.scene.rx_batch(&batch);
    }

    /// A peer tells, once or more often, that the beginning of what it should have
    /// got is missing.
    fn loss(&mut self) {
        let index = self.any_far();
        let count = 1 + self.choices.below(6);
        let hole = self.choices.one_of(&[1, 100, 1400, 14_000]);
        let at_once = self.choices.below(2) == 0;
        let with_sack = self.choices.below(3) != 0;
        let stamp = self.stamp();
        let far = &mut self.fars[index];
        let beyond = far.flight().saturating_sub(hole);
        let mut batch: Vec<Vec<u8>> = Vec::new();
        for number in 1..=count {
            let mut said = far.usual(stamp);
            let from = far.una.wrapping_add(hole);
            if with_sack && beyond > 0 {
                let to = from.wrapping_add(beyond / count * number);
                said.push(Said::Sack(vec![(from, to)]));
            }
            let (next, una) = (far.peer.next, far.una);
            batch.push(far.segment(ACK, next, una, 64_000, 0, &said).into());
        }
        if at_once {
            self.scene.rx_batch(&batch);
        } else {
            batch.into_iter().for_each(|packet| self.scene.rx(packet));
        }
    }

    /// A router on the way to a peer, or somebody who says so, cannot pass on a
    /// packet.
    fn too_big(&mut self) {
        let index = self.any_far();
        let mtu = self
            .choices
            .one_of(&[1300u16, 68, 576, 1280, 0, 65_535, 1499, 296]);
        let near = self.near();
        let last = self.choices.below(2) == 0;
        let peer = &self.fars[index].peer;
        let (from, to) = (peer.peer.ip(), peer.local.ip());
        let seq = match last {
            true => self.fars[index].highest.wrapping_sub(1),
            false => self.fars[index].una,
        };
        let quoted: Vec<u8> = peer
            .segment(ACK)
            .from(peer.local)
            .to(peer.peer)
            .seq(seq.wrapping_add(near))
            .payload(&[7; 100])
            .into();
        let (kind, code) = match self.family {
            Family::V4 => (3, 4),
            Family::V6 => (2, 0),
        };
        let [high, low] = mtu.to_be_bytes();
        self.scene
            .rx(icmp(from, to, kind, code, [0, 0, high, low], &quoted));
    }

    /// A segment or a datagram comes in fragments, perhaps not all, or more than all.
    fn pieces(&mut self) {
        let packet: Vec<u8> = match self.choices.below(3) {
            0 => udp(self.family.peer(5000), self.family.local(53), &[7; 3000]),
            _ => self.any_segment(true).into(),
        };
        let size = self.choices.one_of(&[1400, 8, 64, 1 << 15]);
        // A datagram in more pieces than are of interest.
        let size = size.max(packet.len() / 200).next_multiple_of(8);
        self.identification += self.choices.below(2);
        let mut batch = fragments(&packet, self.identification, size);
        match self.choices.below(6) {
            1 => batch.reverse(),
            2 => drop(batch.remove(0)),
            3 => drop(batch.pop()),
            4 => batch.extend(batch.clone()),
            5 => batch.extend(fragments(&packet, self.identification, size + 8)),
            _ => {}
        }
        self.scene.rx_batch(&batch);
    }

    /// A peer answers our SYN: with its own, or with SYN-ACK.
    fn answer_open(&mut self) {
        let index = self.any_far();
        let kind = self.choices.below(4);
        let bits = self.choices.byte();
        let window = self.any_window();
        let stamp = self.stamp();
        let far = &mut self.fars[index];
        let mut said = vec![Said::Mss(1400)];
        if bits & 1 != 0 {
            said.push(Said::Scale(bits >> 4));
        }
        if bits & 2 != 0 {
            said.push(Said::SackPermitted);
        }
        if bits & 4 != 0 {
            said.push(Said::Timestamps(stamp, far.echo));
        }
        let (next, ack) = (far.peer.next, far.highest);
        let length = u32::from(bits >> 3 & 1) * 100;
        let flags = match kind {
            0 => SYN,
            1 => SYN | ACK,
            2 => SYN | ACK | FIN,
            _ => RST | ACK,
        };
        let segment = far.segment(flags, next, ack, window, length, &said);
        self.scene.rx(segment);
    }

    /// SYNs of strangers who say nothing more.
    fn flood(&mut self) {
        let first = 50_000 + u16::from(self.choices.byte());
        let batch: Vec<Vec<u8>> = (0..8)
            .map(|index| {
                let stranger = Peer::new(self.family).from_port(first + index);
                stranger.segment(SYN).mss(1400).into()
            })
            .collect();
        self.scene.rx_batch(&batch);
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
                    let back = self.fars[0].peer.clone();
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
            Duration::from_millis(10),
            Duration::from_millis(40),
            Duration::from_millis(200),
            Duration::from_secs(1),
            Duration::from_secs(4),
            Duration::from_secs(60),
            Duration::from_secs(130),
            Duration::from_secs(7500),
        ]);
        match self.choices.below(8) {
            0 => self.scene.skip(time),
            // The embedder's clock goes back.
            1 => self.scene.now.0 = self.scene.now.0.saturating_sub(1_000_000_000),
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
        let length = self
            .choices
            .one_of(&[1, 0, 100, 3000, 20_000, 100_000, 1 << 20]);
        // An error is an answer too: the contract's rules are the scene's to check.
        let _ = match self.choices.below(8) {
            0..=2 => self.scene.tx(flow, &vec![7; length]).map(drop),
            3 => {
                let other = self.choices.one_of(&flows);
                // Within the bounds of one call's batch.
                let data = vec![7; length.min(1 << 18)];
                let (first, second) = data.split_at(data.len() / 3);
                let _ = self
                    .scene
                    .tx_batch(&[(flow, first), (other, &data), (flow, second)]);
                Ok(())
            }
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
            4 => Verdict::Accept(self.options()),
            _ => Verdict::Accept(FlowOptions::default()),
        }
    }

    fn options(&mut self) -> FlowOptions {
        let bits = self.choices.byte();
        let seconds =
            |bit: u8, seconds: u64| (bits >> bit & 1 != 0).then_some(Duration::from_secs(seconds));
        FlowOptions {
            nagle: bits & 1 != 0,
            keep_alive: seconds(1, 5).or(seconds(2, 1000)),
            idle_timeout: seconds(3, 600).or(seconds(4, 1)),
            user_timeout: seconds(5, 300).or(seconds(6, 1)),
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
        let index = self.any_far();
        let tuple = self.fars[index].peer.tuple();
        let options = self.options();
        if let Ok(flow) = self.scene.open(&tuple, options) {
            // Of the SYNs before this nothing is remembered.
            self.fars[index].syns.clear();
            self.learn(flow, tuple);
        }
    }

    /// A flow comes to be. One that had the same tuple has ended.
    fn learn(&mut self, id: FlowId, tuple: FiveTuple) {
        self.flows.retain(|_, flow| flow.tuple != tuple);
        let mut irs = Vec::new();
        if let Some(far) = self.fars.iter_mut().find(|far| far.peer.tuple() == tuple) {
            // A cookie may remember any of them.
            irs.extend_from_slice(&far.syns);
            far.iss.clear();
        } else {
            irs.push(Peer::new(self.family).next);
        }
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
        for far in &mut self.fars {
            let syns = std::mem::take(&mut far.new_syns);
            for flow in self.flows.values_mut() {
                if flow.tuple.peer == far.peer.peer {
                    flow.irs.extend_from_slice(&syns);
                }
            }
            far.syns.extend(syns);
        }
        for id in self.flows.keys().copied().collect::<Vec<_>>() {
            self.check_delivered(id);
        }
        let announced: Vec<_> = self.scene.host().announced.drain(..).collect();
        for (id, tuple) in announced {
            self.learn(id, tuple);
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
            match event {
                Event::PeerFinished => self.check_finished(id),
                Event::PeerReset => self.check_reset(id),
                Event::Closed(_) => drop(self.flows.remove(&id)),
                Event::Established | Event::Writable => {}
            }
        }
        self.kept = self.scene.host().packets_kept();
        let (memory, most) = (self.scene.memory(), self.most_memory);
        assert!(memory <= most, "{memory} bytes of memory, over {most} (I7)");
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
            stream(first, length, 0) == data
        });
        assert!(
            length == 0 || !flow.irs.is_empty(),
            "{length} bytes of {id:?} after {delivered} are not what the peer sent (I1)\n{}",
            self.scene.host().trace.tail(100)
        );
        flow.delivered += length;
    }

    /// The end of the data is where the peer said.
    fn check_finished(&mut self, id: FlowId) {
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        let delivered = flow.delivered;
        let far = self
            .fars
            .iter()
            .find(|far| far.peer.tuple() == flow.tuple)
            .expect("strangers never finish");
        flow.irs.retain(|irs| {
            far.fins
                .contains(&irs.wrapping_add(1).wrapping_add(delivered))
        });
        assert!(
            !flow.irs.is_empty(),
            "{id:?} ends after {delivered} bytes, where the peer sent no FIN (I2)\n{}",
            self.scene.host().trace.tail(100)
        );
    }

    /// The peer sent a reset where all that it had sent in order ends (RFC 5961 3.2),
    /// and some of that was kept back.
    fn check_reset(&mut self, id: FlowId) {
        // Of a flow that has ended meanwhile nothing is known any more.
        let Some(kept) = self.scene.receive_queue(id) else {
            return;
        };
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        let end = flow.delivered + kept + 1;
        let far = self
            .fars
            .iter()
            .find(|far| far.peer.tuple() == flow.tuple)
            .expect("strangers never reset");
        // A FIN takes one number of its own.
        flow.irs.retain(|irs| {
            let next = irs.wrapping_add(end);
            far.resets.contains(&next) || far.resets.contains(&next.wrapping_add(1))
        });
        assert!(
            !flow.irs.is_empty(),
            "{id:?} is said to be reset after {end} numbers, where the peer sent no RST (I2)\n{}",
            self.scene.host().trace.tail(100)
        );
    }

    /// The peer takes note of a segment; what it acknowledges is delivered or kept.
    fn hear(&mut self, segment: &wire::Tcp) {
        let ends = (segment.from, segment.to);
        let flow = self.flows.iter_mut().find(|(_, flow)| {
            flow.tuple.protocol == Protocol::Tcp && (flow.tuple.local, flow.tuple.peer) == ends
        });
        let clear = flow.as_ref().is_some_and(|(_, flow)| !flow.unclear);
        if let Some(far) = self.fars.iter_mut().find(|far| far.peer.peer == segment.to)
            && let Err(broken) = far.hear(segment, clear)
        {
            panic!("{broken} (I5)\n{}", self.scene.host().trace.tail(100));
        }
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
