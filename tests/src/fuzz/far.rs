//! A hostile peer's own books: what it sent, what it may be told, and what it heard.

use crate::craft::{Family, Peer, Segment};
use crate::wire::{self, ACK, FIN, RST, SYN};

/// The least segment size that the engine believes (RFC 9293 3.7.1 leaves it open).
const LEAST_MSS: u16 = 48;
/// The largest window scale (RFC 7323 2.3).
const LARGEST_SCALE: u8 = 14;

/// A TCP option.
#[derive(Clone, Debug)]
pub(super) enum Said {
    Mss(u16),
    Scale(u8),
    SackPermitted,
    Timestamps(u32, u32),
    Sack(Vec<(u32, u32)>),
    Raw([u8; 2]),
}

/// One peer.
#[derive(Clone, Debug)]
pub(super) struct Far {
    /// Its ports, the next sequence number, and the end of what it heard last.
    pub(super) peer: Peer,
    /// The sequence numbers of its SYNs, as far as the flows know them.
    pub(super) syns: Vec<u32>,
    /// And of those since.
    pub(super) new_syns: Vec<u32>,
    /// Those of its FINs.
    pub(super) fins: Vec<u32>,
    /// And of its resets.
    pub(super) resets: Vec<u32>,
    /// The end of what it heard, and what it acknowledged of that.
    pub(super) highest: u32,
    pub(super) una: u32,
    /// Whether timestamps were agreed, and the one heard last.
    pub(super) stamped: bool,
    pub(super) echo: u32,
    /// The initial sequence numbers of the engine that it heard since the flow began.
    pub(super) iss: Vec<u32>,
    /// The largest that its SYNs said.
    mss: u16,
    scale: u8,
    syn_window: u32,
    /// What its segments acknowledged, with the right edge of their windows. One
    /// that acknowledges what was not sent is not to be believed.
    offers: Vec<(u32, u32)>,
    /// The right edge that the engine may believe, from `iss` on.
    reach: u32,
}

impl Far {
    pub(super) fn new(family: Family, port: u16, next: u32) -> Self {
        let mut peer = Peer::new(family).from_port(port);
        peer.next = next;
        Self {
            mss: match family {
                Family::V4 => 536,
                Family::V6 => 1220,
            },
            peer,
            syns: Vec::new(),
            new_syns: Vec::new(),
            fins: Vec::new(),
            resets: Vec::new(),
            highest: 0,
            una: 0,
            stamped: false,
            echo: 0,
            iss: Vec::new(),
            scale: 0,
            syn_window: 0,
            offers: Vec::new(),
            reach: 0,
        }
    }

    /// Bytes heard and not acknowledged, unless the numbers are of two flows.
    pub(super) fn flight(&self) -> u32 {
        let flight = self.highest.wrapping_sub(self.una);
        if flight < 1 << 25 { flight } else { 0 }
    }

    /// The options of a segment that keeps the rules.
    pub(super) fn usual(&self, stamp: u32) -> Vec<Said> {
        let timestamps = Said::Timestamps(stamp, self.echo);
        self.stamped.then_some(timestamps).into_iter().collect()
    }

    /// A segment, and a note of it.
    pub(super) fn segment(
        &mut self,
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        length: u32,
        said: &[Said],
    ) -> Segment {
        let has = |flag| flags & flag != 0;
        let end = seq.wrapping_add(length).wrapping_add(u32::from(has(SYN)));
        if has(SYN) {
            self.new_syns.push(seq);
            self.syn_window = self.syn_window.max(window.into());
        }
        if has(FIN) {
            self.fins.push(end);
        }
        if has(RST) {
            self.resets.push(seq);
        }
        if seq == self.peer.next && !has(RST) {
            self.peer.next = end.wrapping_add(u32::from(has(FIN)));
        }
        for option in said.iter().filter(|_| has(SYN)) {
            match option {
                Said::Mss(mss) => self.mss = self.mss.max(*mss),
                Said::Scale(shift) => self.scale = self.scale.max(*shift).min(LARGEST_SCALE),
                Said::Raw([2 | 3, _]) => (self.mss, self.scale) = (u16::MAX, LARGEST_SCALE),
                _ => {}
            }
        }
        if has(ACK) {
            self.offers.push((ack, window.into()));
            let forward = ack.wrapping_sub(self.una);
            if forward <= self.flight() {
                self.una = ack;
            }
        }
        let segment = self
            .peer
            .segment(flags)
            .seq(seq)
            .acking(ack)
            .window(window)
            .payload(&stream(seq, length, flags));
        said.iter().fold(segment, add)
    }

    /// Takes note of a segment of the engine. `clear`: it is of the flow that lives.
    pub(super) fn hear(&mut self, segment: &wire::Tcp, clear: bool) -> Result<(), String> {
        self.peer.expected = segment.end();
        if let Some((value, _)) = segment.timestamps {
            self.echo = value;
        }
        if segment.has(SYN) {
            self.stamped = segment.timestamps.is_some();
            (self.highest, self.una) = (segment.end(), segment.seq);
            if !self.iss.contains(&segment.seq) {
                self.iss.push(segment.seq);
                self.reach = 1 + self.syn_window;
            }
        }
        let length = segment.payload.len();
        let mss = usize::from(self.mss.max(LEAST_MSS));
        if length > mss {
            return Err(format!("{segment} to a peer that takes {mss} bytes"));
        }
        // Which of two openings the numbers are of cannot be told.
        if let [iss] = self.iss[..]
            && clear
        {
            self.believe(iss);
            let reach = segment.end().wrapping_sub(iss);
            // A probe of the window, and FIN (RFC 9293 3.8.6.1).
            if segment.end() != segment.seq && !segment.has(SYN) && reach > self.reach + 2 {
                let most = self.reach;
                return Err(format!("{segment} ends at {reach}, the window at {most}"));
            }
        }
        let forward = segment.end().wrapping_sub(self.highest);
        if forward < 1 << 31 {
            self.highest = segment.end();
        }
        Ok(())
    }

    /// Of the windows offered, those that go with what was sent.
    fn believe(&mut self, iss: u32) {
        let sent = self.highest.wrapping_sub(iss);
        let (scale, reach) = (self.scale, &mut self.reach);
        self.offers.retain(|(ack, window)| {
            let acked = ack.wrapping_sub(iss);
            if acked <= sent {
                *reach = (*reach).max(acked.saturating_add(window << scale));
            }
            acked > sent
        });
    }
}

fn add(segment: Segment, said: &Said) -> Segment {
    match said {
        Said::Mss(mss) => segment.mss(*mss),
        Said::Scale(shift) => segment.scale(*shift),
        Said::SackPermitted => segment.sack_permitted(),
        Said::Timestamps(value, echo) => segment.timestamps(*value, *echo),
        Said::Sack(blocks) => segment.sack(blocks),
        Said::Raw(bytes) => segment.option(bytes),
    }
}

/// What every peer sends from sequence number `seq` on.
pub(super) fn stream(seq: u32, length: u32, flags: u8) -> Vec<u8> {
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
