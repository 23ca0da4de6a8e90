//! A peer that makes every segment by hand. It keeps to TCP so far that the flow
//! lives and its bytes can be checked, and sends what it likes beside: segments of
//! the past and the future, resets that miss, windows that close, broken packets.
//! When the faults end it behaves, resets, or falls silent, by the plan.
//!
//! Nothing that it sends ends the flow of an engine that keeps to RFC 9293 and 5961.
//! It plays only with an engine that is past the handshake, whose state nonsense may
//! end. It never acknowledges what it has not got and the engine may have sent, which
//! the engine would have to believe: an acknowledgement too far is of more than there
//! is. (Of bytes that are queued and unsent: conformance case 48.)

use std::sync::Arc;
use std::time::Duration;

use l3l4_engine::Instant;

use super::datagrams::Correspondent;
use super::end::{CLIENT_PORT, End, Place, SERVER_PORT, Status};
use super::invariants::{Findings, Rule};
use super::plan::{After, Plan};
use crate::craft::{self, Peer, Segment};
use crate::random::Random;
use crate::wire::{self, ACK, Body, FIN, PSH, RST, SYN, Tcp, URG};

/// Most bytes of one segment: what the smallest MTU of a run carries.
const MOST: usize = 500;

/// The scripted peer.
#[derive(Debug)]
pub struct ScriptEnd {
    place: Place,
    /// `next` is the next byte never sent, `expected` the next one wanted.
    peer: Peer,
    first: u32,
    random: Random,
    outgoing: Arc<Vec<u8>>,
    incoming: Arc<Vec<u8>>,
    /// The first byte that the engine has not acknowledged.
    acked: usize,
    /// The same with FIN.
    furthest: u32,
    delivered: usize,
    engine_first: Option<u32>,
    /// The engine speaks of a later flow of the same tuple.
    succeeded: bool,
    /// The engine knows where our sequence begins: nothing misleads it any more.
    established: bool,
    finished: bool,
    heard_fin: bool,
    reset: bool,
    scale: bool,
    misses_closely: bool,
    calm: Instant,
    after: After,
    next_at: Instant,
    correspondent: Correspondent,
    findings: Findings,
    outbox: Vec<Vec<u8>>,
}

impl ScriptEnd {
    /// A peer that connects, or waits for it.
    #[must_use]
    pub fn new(
        place: Place,
        streams: [Arc<Vec<u8>>; 2],
        correspondent: Correspondent,
        plan: &Plan,
    ) -> Self {
        let mut random = Random::new(plan.seed);
        let [outgoing, incoming] = streams;
        let first = random.word().to_le_bytes();
        let first = u32::from_le_bytes([first[0], first[1], first[2], first[3]]);
        let mut peer = Peer::new(place.family);
        peer.peer = place.own(SERVER_PORT, CLIENT_PORT);
        peer.local = place.other(SERVER_PORT, CLIENT_PORT);
        peer.next = first;
        Self {
            place,
            peer,
            first: first.wrapping_add(1),
            scale: random.below(2) == 0,
            misses_closely: random.below(4) == 0,
            random,
            outgoing,
            incoming,
            acked: 0,
            furthest: first.wrapping_add(1),
            delivered: 0,
            engine_first: None,
            succeeded: false,
            established: false,
            finished: false,
            heard_fin: false,
            reset: false,
            calm: plan.calm,
            after: plan.after,
            next_at: Instant(0),
            correspondent,
            findings: Findings::default(),
            outbox: Vec::new(),
        }
    }

    fn send(&mut self, segment: Segment) {
        self.outbox.push(segment.into());
    }

    fn open(&self, segment: Segment) -> Segment {
        let segment = segment.mss(1000);
        if self.scale {
            segment.scale(2)
        } else {
            segment
        }
    }

    fn hear(&mut self, segment: &Tcp) {
        if (segment.from, segment.to) != (self.peer.local, self.peer.peer) {
            return;
        }
        if segment.has(RST) {
            self.reset |= self.engine_first.is_some();
            return;
        }
        if segment.has(SYN) {
            return self.hear_syn(segment);
        }
        let Some(first) = self.engine_first.filter(|_| !self.succeeded) else {
            return;
        };
        // Its ACK may come before its SYN-ACK.
        let place = usize::try_from(segment.seq.wrapping_sub(first)).expect("32 bits");
        if segment.payload.is_empty() && place > self.incoming.len() + 1 {
            return;
        }
        self.established = true;
        if segment.has(ACK) {
            let acked = segment.ack.wrapping_sub(self.first);
            let acked = usize::try_from(acked).expect("32 bits");
            let sent = self.offset(self.peer.next) + 1;
            self.findings.rule(Rule::I3, acked <= sent, || {
                format!("acknowledges {acked} bytes of {sent}: {segment}")
            });
            if acked >= self.acked {
                self.furthest = segment.ack;
            }
            self.acked = self.acked.max(acked.min(self.outgoing.len()));
        }
        let start = usize::try_from(segment.seq.wrapping_sub(first)).expect("32 bits");
        let right = self.incoming.get(start..start + segment.payload.len());
        let right = segment.payload.is_empty() || right == Some(&segment.payload[..]);
        self.findings.rule(Rule::I1, right, || {
            format!("bytes at {start} that nobody sent: {segment}")
        });
        if segment.seq == self.peer.expected && segment.end() != segment.seq {
            self.peer.expected = segment.end();
            self.delivered += segment.payload.len();
            self.heard_fin |= segment.has(FIN);
            if self.random.below(2) == 0 {
                self.send(self.peer.ack());
            }
        }
    }

    fn hear_syn(&mut self, segment: &Tcp) {
        let first = segment.seq.wrapping_add(1);
        if self.engine_first.is_some() && self.engine_first != Some(first) {
            // After the end, its nonsense has begun another flow.
            self.succeeded = true;
            return;
        }
        self.engine_first = Some(first);
        if self.delivered == 0 {
            self.peer.expected = first;
        }
        let answer = match segment.has(ACK) {
            true => self.peer.ack(),
            false => {
                let answer = self.peer.segment(SYN | ACK).seq(self.first.wrapping_sub(1));
                self.peer.next = self.peer.next.max(self.first);
                if self.offset(self.peer.next) > self.outgoing.len() {
                    self.peer.next = self.first;
                }
                self.open(answer)
            }
        };
        self.send(answer);
    }

    fn offset(&self, seq: u32) -> usize {
        usize::try_from(seq.wrapping_sub(self.first)).expect("32 bits")
    }

    /// A piece of its stream, wherever it begins.
    fn piece(&self, from: usize, length: usize) -> Segment {
        let from = from.min(self.outgoing.len());
        let to = (from + length.min(MOST)).min(self.outgoing.len());
        let offset = u32::try_from(from).expect("32 bits");
        self.peer
            .segment(ACK | PSH)
            .seq(self.first.wrapping_add(offset))
            .payload(&self.outgoing[from..to])
    }

    /// The next bytes, or the end of them.
    fn proceed(&mut self) {
        let from = self.offset(self.peer.next).min(self.outgoing.len());
        let length = 1 + self.random.below(MOST);
        if from < self.outgoing.len() {
            let length = length.min(self.outgoing.len() - from);
            self.send(self.piece(from, length));
            let length = u32::try_from(length).expect("32 bits");
            self.peer.next = self.peer.next.wrapping_add(length);
        } else if !self.finished {
            self.finished = true;
            let fin = self.peer.fin();
            self.send(fin);
        }
    }

    /// Again what the engine has not acknowledged.
    fn repeat(&mut self) {
        if self.acked < self.outgoing.len() {
            let sent = self.offset(self.peer.next).min(self.outgoing.len());
            let length = MOST.min(sent.saturating_sub(self.acked));
            if length > 0 {
                self.send(self.piece(self.acked, length));
            }
        } else if self.finished {
            let fin = self.peer.next.wrapping_sub(1);
            self.send(self.peer.segment(FIN | ACK).seq(fin));
        }
    }

    /// One segment at random: good ones twice as often as the others together.
    fn play(&mut self) {
        let far = self.random.word().to_le_bytes();
        let far = u32::from_le_bytes([far[0], far[1], far[2], far[3]]);
        let sent = self.offset(self.peer.next).min(self.outgoing.len());
        let from = self.random.below(sent + 1);
        match self.random.below(36) {
            0..10 => self.proceed(),
            10..16 => self.send(self.peer.ack()),
            16..22 => self.repeat(),
            22 => self.send(self.piece(from, sent - from)),
            23 => {
                let from = sent + self.random.below(3000);
                self.send_ahead(from);
            }
            24 => {
                let windows = [0, 1, 100, 2000, 64_000];
                self.peer.window = windows[self.random.below(windows.len())];
                self.send(self.peer.ack());
            }
            25 => self.send(self.peer.ack().acking(far)),
            26 => {
                let old = self.peer.expected.wrapping_sub(far % 5000);
                self.send(self.peer.ack().acking(old));
            }
            27 => {
                let all = u32::try_from(self.incoming.len()).expect("32 bits") + 1;
                let first = self.engine_first.unwrap_or(self.peer.expected);
                let ahead = first.wrapping_add(all + 1 + far % 100_000);
                self.send(self.peer.ack().acking(ahead));
            }
            28 => self.send(self.peer.rst().seq(self.miss(far))),
            29 => self.send(self.peer.segment(SYN).seq(self.miss(far))),
            30 => self.send(self.peer.segment(SYN | ACK).seq(self.miss(far))),
            31 => self.send(self.peer.segment(FIN | ACK).seq(self.far_away(far))),
            32 => {
                let data = self.random.bytes(100);
                self.send(self.piece(0, 0).seq(self.far_away(far)).payload(&data));
            }
            33 => self.send(self.piece(from, 20.min(sent - from)).with(URG)),
            34 => {
                let mut broken: Vec<u8> = self.piece(from, 100.min(sent - from)).into();
                let at = self.random.below(broken.len());
                // The byte of the hop limit of IPv6 is under no checksum.
                broken[if at == 7 { 8 } else { at }] ^= self.random.byte().max(1);
                self.outbox.push(broken);
            }
            _ => {
                let length = 1 + self.random.below(80);
                let noise = self.random.bytes(length);
                let (from, to) = (self.peer.peer.ip(), self.peer.local.ip());
                self.outbox
                    .push(craft::seal(craft::ip(from, to, wire::TCP, &noise)));
            }
        }
    }

    /// Data of its stream that leaves a gap.
    fn send_ahead(&mut self, from: usize) {
        if from < self.outgoing.len() {
            let piece = self.piece(from, MOST);
            // A peer may acknowledge what came out of order later: it counts as sent.
            let end = (from + MOST).min(self.outgoing.len());
            let end = self
                .first
                .wrapping_add(u32::try_from(end).expect("32 bits"));
            if self.offset(end) > self.offset(self.peer.next) {
                self.peer.next = end;
            }
            self.send(piece);
        }
    }

    /// A sequence number in the window that is not the next one, in a quarter of the
    /// runs: an engine that takes a reset there (RFC 5961 3.2 forbids it) would see
    /// little else. Elsewhere it is far away.
    fn miss(&self, far: u32) -> u32 {
        match self.misses_closely {
            true => self.peer.next.wrapping_add(2 + far % 10_000),
            false => self.far_away(far),
        }
    }

    /// A sequence number outside of every window.
    fn far_away(&self, far: u32) -> u32 {
        self.peer.next.wrapping_add(0x2000_0000 + far % 0x4000_0000)
    }

    fn handshake(&mut self) {
        if !self.place.opens {
            return;
        }
        if self.engine_first.is_some() {
            // The ACK of the SYN-ACK may have been lost.
            self.send(self.peer.ack());
        } else {
            let syn = self.peer.segment(SYN).seq(self.first.wrapping_sub(1));
            self.peer.next = self.first;
            self.send(self.open(syn));
        }
    }
}

impl End for ScriptEnd {
    fn receive(&mut self, now: Instant, mut packets: Vec<Vec<u8>>) {
        self.findings.now = now;
        let answers = self.correspondent.receive(&mut packets, &mut self.findings);
        self.outbox.extend(answers);
        let silent = self.after == After::FallsSilent && now >= self.calm;
        for packet in packets {
            match wire::read(&packet).map(|seen| seen.body) {
                Ok(Body::Tcp(segment)) if !silent => self.hear(&segment),
                Ok(Body::Tcp(_) | Body::Udp(_) | Body::Icmp(_) | Body::Fragment(_)) | Err(_) => {}
            }
        }
    }

    fn act(&mut self, now: Instant) {
        self.findings.now = now;
        self.outbox.extend(self.correspondent.act(now));
        if now < self.next_at || self.reset {
            return;
        }
        let pause = 1 + self.random.below(29) as u64;
        self.next_at = now + Duration::from_millis(pause);
        if !self.established {
            self.next_at = now + Duration::from_millis(500);
            self.handshake();
        } else if now < self.calm {
            self.play();
        } else {
            match self.after {
                After::FallsSilent => {}
                After::Resets => {
                    // A segment of the past is answered with where the engine is.
                    self.send(self.peer.ack().seq(self.first.wrapping_sub(1)));
                    self.send(self.peer.rst().seq(self.furthest));
                }
                After::Behaves => {
                    self.peer.window = 64_000;
                    self.send(self.peer.ack());
                    self.repeat();
                    self.proceed();
                }
            }
        }
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.outbox)
    }

    fn next(&mut self, now: Instant) -> Option<Instant> {
        let silent = self.after == After::FallsSilent && now >= self.calm;
        let play = (!silent && !self.reset).then_some(self.next_at);
        play.into_iter().chain(self.correspondent.next()).min()
    }

    fn status(&self) -> Status {
        match self.engine_first {
            Some(_) => Status::Ended {
                whole: self.heard_fin,
            },
            None => Status::Idle,
        }
    }

    fn delivered(&self) -> usize {
        self.delivered
    }

    fn retire(&mut self, _now: Instant) {
        self.correspondent.stop();
        self.reset = true;
    }

    fn findings(&mut self) -> &mut Findings {
        &mut self.findings
    }
}
