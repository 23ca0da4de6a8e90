//! What an acknowledgement means: what was delivered, what is lost, and what that does to
//! the congestion window (RFC 9293 3.10.7.4, RFC 5681, RFC 6582, RFC 6937, RFC 8985).

use super::{Fin, Forced, Phase, Reduction, Sender};
use crate::tcp::flight::{Delivered, Echo};
use crate::tcp::options::MOST_BLOCKS;
use crate::tcp::pool::Pool;
use crate::tcp::seq::Seq;
use crate::types::{Instant, Span};

/// RFC 5681 3.2.
const DUPLICATE_THRESHOLD: u8 = 3;

/// An acceptable acknowledgement, as the sender needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack<I, F> {
    pub(crate) ack: Seq,
    /// A segment that brings nothing but the acknowledgement, and a window that
    /// was known: RFC 5681 2 calls it a duplicate if nothing is new.
    pub(crate) is_bare: bool,
    /// Its SACK blocks, empty when SACK was not agreed on.
    pub(crate) blocks: I,
    /// SACK was agreed on.
    pub(crate) sack: bool,
    /// What its timestamp echo says of something that was sent at an instant.
    pub(crate) echo: F,
}

impl Sender {
    /// RFC 9293 3.10.7.4, fifth, for `snd_una <= ack <= snd_nxt`.
    pub(crate) fn acked<I, F>(&mut self, pool: &mut Pool, now: Instant, ack: Ack<I, F>)
    where
        I: Iterator<Item = (Seq, Seq)>,
        F: Fn(Instant) -> Echo,
    {
        if self.flight.is_empty() {
            return;
        }
        let flight_before = self.snd_nxt.since(self.snd_una);
        let advance = ack.ack.since(self.snd_una);
        let least_rtt = self.rtt.least();
        let mut delivered = Delivered::default();
        if advance > 0 {
            self.flight
                .acked(ack.ack, now, &ack.echo, least_rtt, &mut delivered);
            self.advance(pool, advance);
            self.rtt.forget_backoff();
            self.base = now;
        }
        let mut repeated = false;
        // From the lowest, so that none of them looks late beside the others (RFC
        // 8985 6.2 step 3): the peer names the newest first.
        for (start, end) in ascending(ack.blocks) {
            repeated |= start < ack.ack;
            let inside = start >= self.snd_una && start < end && end <= self.snd_nxt;
            if inside {
                self.flight
                    .sack((start, end), now, &ack.echo, least_rtt, &mut delivered);
            }
        }
        self.sack_seen |= delivered.sacked > 0;
        if let Some(rtt) = delivered.rtt {
            // RFC 6298 5.7: a new sample also ends the backing off.
            self.rtt.sample(rtt);
            self.rtt.forget_backoff();
        }
        if advance > 0 {
            self.forget_duplicates(advance);
        } else if delivered.sacked > 0 || ack.is_bare {
            self.count_duplicate();
        }
        if self.flight.is_empty() {
            self.reorder_at = None;
        }
        self.end_probe(ack.ack, repeated, now);
        let found = self.find_losses(now, ack.sack, advance > 0);
        self.react(now, found, delivered, flight_before, ack.sack);
    }

    /// RFC 5681 3.2: each duplicate stands for one of the segments that were in flight
    /// when the loss was found, so that made up ones let out no more than those.
    fn count_duplicate(&mut self) {
        let counts = match self.phase {
            Phase::Open => true,
            Phase::Recovery => u32::from(self.duplicates) < self.reduction.flight / self.mss,
            Phase::Loss => false,
        };
        self.duplicates = self.duplicates.saturating_add(u8::from(counts));
    }

    /// Each duplicate stood for a segment beyond the hole; in a recovery without
    /// SACK those that were not acknowledged now are still there, until it ends.
    fn forget_duplicates(&mut self, advance: u32) {
        let filled = (advance / self.mss).saturating_sub(1);
        let remain = u32::from(self.duplicates).saturating_sub(filled);
        self.duplicates = match self.phase {
            Phase::Recovery if !self.sack_seen && self.snd_una < self.recover => {
                u8::try_from(remain).unwrap_or(u8::MAX)
            }
            Phase::Recovery | Phase::Open | Phase::Loss => 0,
        };
    }

    fn advance(&mut self, pool: &mut Pool, advance: u32) {
        let data = advance.min(self.queued());
        if advance > data && self.fin == Fin::Queued {
            self.fin = Fin::Acked;
        }
        self.snd_una += advance;
        self.buffer.acked(pool, data);
    }

    /// Looks for losses. Says whether one was found.
    pub(super) fn find_losses(&mut self, now: Instant, sack: bool, advanced: bool) -> bool {
        let before = self.flight.lost();
        self.reorder_at = self.flight.find_losses(now, self.reorder_window());
        let enough = self.duplicates == DUPLICATE_THRESHOLD;
        // Without SACK, and for peers that agreed on it and do not use it.
        let blind = !sack || !self.sack_seen;
        let partial = advanced && self.phase == Phase::Recovery && self.snd_una < self.recover;
        if blind && (enough && self.phase == Phase::Open || partial) {
            self.flight.lose_first(self.mss);
            // RFC 6582 3.2 step 3: whatever the window says.
            self.forced = Some(Forced::Retransmit);
        }
        self.flight.lost() > before
    }

    /// RFC 8985 6.2 step 4.
    fn reorder_window(&self) -> u64 {
        let enough = self.duplicates >= DUPLICATE_THRESHOLD
            || self.flight.sacked() >= u32::from(DUPLICATE_THRESHOLD) * self.mss;
        let at_once = !self.flight.has_reordering() && (self.phase != Phase::Open || enough);
        match at_once {
            true => 0,
            false => (self.rtt.least() / 4).min(self.rtt.smoothed().unwrap_or(0)),
        }
    }

    /// What a found loss, or its absence, does to the congestion window.
    fn react(
        &mut self,
        now: Instant,
        found: bool,
        delivered: Delivered,
        flight_before: u32,
        sack: bool,
    ) {
        let done = self.snd_una >= self.recover;
        match self.phase {
            Phase::Open if found => {
                self.enter_recovery(flight_before);
                return;
            }
            Phase::Recovery if done && !found => {
                self.phase = Phase::Open;
                self.congestion.set(self.congestion.ssthresh);
                return;
            }
            Phase::Recovery if done => {
                self.enter_recovery(flight_before);
                return;
            }
            Phase::Recovery => {
                let blind = !sack && delivered.bytes == 0;
                let bytes = if blind { self.mss } else { delivered.bytes };
                self.reduce(bytes);
                return;
            }
            Phase::Loss if done => self.phase = Phase::Open,
            Phase::Loss | Phase::Open => {}
        }
        // RFC 9438 4.2 and RFC 7661: what is not used does not grow.
        let is_limited = match self.congestion.in_slow_start() {
            true => flight_before.saturating_mul(2) >= self.congestion.cwnd,
            false => flight_before + self.mss > self.congestion.cwnd,
        };
        if delivered.bytes > 0 && is_limited {
            let rtt = self.rtt.smoothed().unwrap_or(0);
            self.congestion.acked(now, delivered.bytes, self.mss, rtt);
        }
    }

    pub(super) fn enter_recovery(&mut self, flight: u32) {
        self.phase = Phase::Recovery;
        self.recover = self.snd_nxt;
        self.congestion.lost(flight, self.mss);
        self.reduction = Reduction {
            delivered: 0,
            out: 0,
            flight: flight.max(1),
        };
        self.forced = Some(Forced::Retransmit);
        self.reduce(0);
    }

    /// RFC 6937 3: the window for what may be sent after `delivered` more arrived.
    fn reduce(&mut self, delivered: u32) {
        let pipe = self.pipe();
        let ssthresh = self.congestion.ssthresh;
        let reduction = &mut self.reduction;
        reduction.delivered = reduction.delivered.saturating_add(delivered);
        let may = if pipe > ssthresh {
            let share = u64::from(reduction.delivered) * u64::from(ssthresh);
            let due = share.div_ceil(u64::from(reduction.flight));
            u32::try_from(due)
                .unwrap_or(u32::MAX)
                .saturating_sub(reduction.out)
        } else {
            let behind = reduction.delivered.saturating_sub(reduction.out);
            (ssthresh - pipe).min(behind.max(delivered).saturating_add(self.mss))
        };
        self.congestion.set(pipe.saturating_add(may));
    }

    /// RFC 8985 7.4: the peer has the end of the flight. If it did not get it
    /// twice, the probe made good for a loss that nothing else showed.
    fn end_probe(&mut self, ack: Seq, repeated: bool, now: Instant) {
        let Some(probe) = self.probe.filter(|probe| ack >= probe.end) else {
            return;
        };
        self.probe = None;
        let answers_it = now.since(probe.at) >= Span(self.rtt.least());
        if probe.again && answers_it && !repeated && self.phase == Phase::Open {
            self.congestion.lost(self.congestion.cwnd, self.mss);
            self.congestion.set(self.congestion.ssthresh);
        }
    }
}

/// The SACK blocks of one segment, lowest first.
fn ascending(blocks: impl Iterator<Item = (Seq, Seq)>) -> impl Iterator<Item = (Seq, Seq)> {
    let mut sorted = [(Seq(0), Seq(0)); MOST_BLOCKS];
    let mut filled = 0;
    for block in blocks.take(MOST_BLOCKS) {
        let later = |other: &(Seq, Seq)| block.0 < other.0;
        let place = sorted[..filled].iter().position(later).unwrap_or(filled);
        sorted[place..=filled].rotate_right(1);
        sorted[place] = block;
        filled += 1;
    }
    sorted.into_iter().take(filled)
}
