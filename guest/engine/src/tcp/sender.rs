//! The sending side of a connection: what waits to be sent or acknowledged, what
//! may go next, and what an acknowledgement means (RFC 9293 3.8, RFC 5681, RFC
//! 6675, RFC 6937, RFC 8985).

use core::time::Duration;

use super::chain::Chain;
use super::congestion::Congestion;
use super::flight::{Delivered, Echo, Flight};
use super::options::MOST_BLOCKS;
use super::pool::{BLOCK, Index, Pool, Purpose, WIDE, WIDE_BLOCKS};
use super::rtt::Rtt;
use super::seq::Seq;
use crate::checksum::Sum;
use crate::types::{Instant, Span, sooner};

/// What a flow may hold unacknowledged at first; it grows with the congestion
/// window.
const INITIAL_LIMIT: u32 = 65_535;
/// The least data of a segment that has a wide block to itself: no more than a block of
/// it stays empty.
const LEAST_LAID: usize = WIDE - BLOCK;
/// RFC 5681 3.2.
const DUPLICATE_THRESHOLD: u8 = 3;
/// RFC 9293 3.8.6.2.1: how long a sender waits for a window worth filling.
const OVERRIDE: (Span, Span) = (Span::milliseconds(100), Span::milliseconds(1000));
/// RFC 8985 7.2: what a peer may take to acknowledge a single segment.
const DELAYED_ACK: u64 = 200_000_000;
/// RFC 8985 7.2: no probe sooner than the clocks of the two ends tick.
const LEAST_PROBE: u64 = 2_000_000;

#[derive(Clone, Debug)]
pub(crate) struct Sender {
    pub(crate) snd_una: Seq,
    pub(crate) snd_nxt: Seq,
    pub(crate) window: Window,
    /// The largest payload of a segment, its options counted off.
    pub(crate) mss: u32,
    chain: Chain,
    /// Bytes from `snd_una` on, sent or not.
    queued: u32,
    most: u32,
    fin: Fin,
    flight: Flight,
    pub(crate) rtt: Rtt,
    pub(crate) congestion: Congestion,
    phase: Phase,
    /// `snd_nxt` when the recovery began.
    recover: Seq,
    reduction: Reduction,
    duplicates: u8,
    /// Sent whatever the windows say.
    forced: Option<Forced>,
    probe: Option<Probe>,
    /// The peer has sent SACK blocks.
    sack_seen: bool,
    /// When the retransmission timer was started.
    base: Instant,
    /// When something new was sent last.
    last_sent: Instant,
    reorder_at: Option<Instant>,
    persist_at: Option<Instant>,
    /// Segments with data sent more than once.
    pub(crate) retransmits: u64,
}

/// The peer's window (RFC 9293 3.3.1).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Window {
    pub(crate) snd_wnd: u32,
    pub(crate) snd_wl1: Seq,
    pub(crate) snd_wl2: Seq,
    /// The largest it ever was (RFC 9293 3.8.6.2.1, RFC 5961 5.2).
    pub(crate) most: u32,
    /// The peer's scale (RFC 7323 2.2).
    pub(crate) shift: u8,
}

impl Window {
    pub(crate) fn set(&mut self, field: u16, shift: u8, seq: Seq, ack: Seq) {
        self.snd_wnd = u32::from(field) << shift;
        (self.snd_wl1, self.snd_wl2) = (seq, ack);
        self.most = self.most.max(self.snd_wnd);
    }
}

/// How far our end of data got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    No,
    /// It follows the data.
    Queued,
    Acked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// A loss was found without the timer (RFC 6675 5).
    Recovery,
    /// The timer ran out (RFC 5681 3.1).
    Loss,
}

/// Proportional rate reduction (RFC 6937), in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Reduction {
    delivered: u32,
    out: u32,
    flight: u32,
}

/// A probe of the end of the flight (RFC 8985 7.3), until that is acknowledged.
#[derive(Clone, Copy, Debug)]
struct Probe {
    end: Seq,
    at: Instant,
    /// It was no new data.
    again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forced {
    /// One byte, or the FIN, into a window that is shut (RFC 9293 3.8.6.1).
    WindowProbe,
    /// As much as a small window takes (RFC 9293 3.8.6.2.1).
    Override,
    /// New data, or the last segment again (RFC 8985 7.3).
    TailProbe,
    /// The first hole, at the beginning of a recovery (RFC 5681 3.2).
    Retransmit,
}

/// A segment to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) seq: Seq,
    /// Bytes of data.
    pub(crate) length: u32,
    pub(crate) fin: bool,
    /// Nothing more waits behind it.
    pub(crate) push: bool,
    again: bool,
}

impl Piece {
    fn end(&self) -> Seq {
        self.seq + self.length + u32::from(self.fin)
    }
}

/// The end of what was taken: bytes that still lie where the host has them, and for
/// which there is memory.
#[derive(Debug, Default)]
pub(crate) struct Fresh<'a>(&'a [u8]);

impl<'a> Fresh<'a> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes bytes off the front.
    fn split(&mut self, length: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        front
    }
}

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
    /// After the handshake: `snd_una` is the first byte of data.
    pub(crate) fn new(
        snd_una: Seq,
        window: Window,
        mss: u32,
        most: u32,
        congestion: Congestion,
        now: Instant,
    ) -> Self {
        Self {
            snd_una,
            snd_nxt: snd_una,
            window,
            mss,
            chain: Chain::EMPTY,
            queued: 0,
            most,
            fin: Fin::No,
            flight: Flight::new(),
            rtt: Rtt::default(),
            congestion,
            phase: Phase::Open,
            recover: snd_una,
            reduction: Reduction::default(),
            duplicates: 0,
            forced: None,
            probe: None,
            sack_seen: false,
            base: now,
            last_sent: now,
            reorder_at: None,
            persist_at: None,
            retransmits: 0,
        }
    }

    /// A field of each line of the cache.
    pub(crate) fn fetch(&self) -> impl Copy {
        let first = (
            self.congestion.cwnd,
            self.persist_at.is_some(),
            self.flight.sacked(),
        );
        (first, self.rtt.least(), self.snd_una, self.phase)
    }

    /// Bytes taken and not acknowledged.
    pub(crate) fn queued(&self) -> u32 {
        self.queued
    }

    /// Bytes of data and FIN that the peer has not acknowledged, sent or not.
    pub(crate) fn is_outstanding(&self) -> bool {
        self.queued > 0 || self.fin == Fin::Queued
    }

    /// Whether only a FIN that was sent is unacknowledged, or nothing.
    pub(crate) fn has_said_all(&self) -> bool {
        self.queued == 0 && self.snd_nxt == self.end()
    }

    pub(crate) fn is_fin_acked(&self) -> bool {
        self.fin == Fin::Acked
    }

    /// FIN follows the data taken so far.
    pub(crate) fn finish(&mut self) {
        if self.fin == Fin::No {
            self.fin = Fin::Queued;
        }
    }

    /// The most that may be held: twice what can be in flight, so that the next
    /// flight is there when this one is acknowledged.
    fn limit(&self) -> u32 {
        let flight = self
            .congestion
            .cwnd
            .min(self.window.most.max(INITIAL_LIMIT));
        let wanted = flight.saturating_mul(2).max(2 * self.mss);
        self.most.min(wanted.max(INITIAL_LIMIT))
    }

    /// Takes bytes from the front of `data`, as many as there is room for. They are to be
    /// stored before this call of the engine ends.
    pub(crate) fn take<'a>(&mut self, pool: &Pool, data: &'a [u8]) -> Fresh<'a> {
        let room = self.limit().saturating_sub(self.queued) as usize;
        let data = &data[..data.len().min(room)];
        let data = &data[..data.len().min(self.memory(pool))];
        self.queued += u32::try_from(data.len()).unwrap_or(u32::MAX);
        Fresh(data)
    }

    /// Bytes that find memory beside what is stored.
    fn memory(&self, pool: &Pool) -> usize {
        let reached = self.chain.reach().saturating_sub(self.queued as usize);
        let more = pool.blocks_left(Purpose::SendMore);
        let blocks = match self.chain.is_empty() {
            true => more.max(pool.has_block(Purpose::SendFirst).into()),
            false => more,
        };
        reached.saturating_add(blocks.saturating_mul(BLOCK))
    }

    /// Stores what was taken and has not been sent.
    pub(crate) fn store(&mut self, pool: &mut Pool, mut fresh: Fresh<'_>) {
        if self.mss as usize >= LEAST_LAID {
            self.lay_segments(pool, &mut fresh);
        }
        if fresh.len() > 0 {
            let stored = self.stored(&fresh);
            self.write(pool, stored, fresh.0);
        }
    }

    /// Lays what will go in full segments that are large.
    fn lay_segments(&mut self, pool: &mut Pool, fresh: &mut Fresh<'_>) {
        let mss = self.mss as usize;
        let sent = self.snd_nxt.since(self.snd_una) as usize;
        loop {
            let stored = self.stored(fresh);
            let begun = stored.saturating_sub(sent) % mss;
            let laid = begun + fresh.len() >= mss && self.lay(pool, stored - begun, mss, fresh);
            if !laid {
                return;
            }
        }
    }

    /// Lays a segment, the end of which is fresh. Says whether there is memory for it, and
    /// for the rest as well.
    fn lay(&mut self, pool: &mut Pool, at: usize, length: usize, fresh: &mut Fresh<'_>) -> bool {
        let stored = self.stored(fresh);
        let new = at + length - stored;
        let rest = (fresh.len() - new).div_ceil(BLOCK);
        if pool.blocks_left(Purpose::SendMore) < WIDE_BLOCKS + rest {
            return false;
        }
        let data = &fresh.0[..new];
        let laid = self.chain.lay(pool, at, stored, data, Purpose::SendMore);
        if laid {
            fresh.split(new);
        }
        laid
    }

    /// Stores bytes that follow what is stored.
    fn write(&mut self, pool: &mut Pool, at: usize, data: &[u8]) {
        self.reserve(pool, at + data.len());
        self.chain.write(pool, at, data);
    }

    /// There are blocks for what was taken.
    fn reserve(&mut self, pool: &mut Pool, length: usize) {
        let (first, more) = (Purpose::SendFirst, Purpose::SendMore);
        let reach = self.chain.extend(pool, length, first, more);
        debug_assert_eq!(reach, length, "no more was taken than finds memory");
    }

    /// Bytes from `snd_una` on that are not `fresh`.
    fn stored(&self, fresh: &Fresh<'_>) -> usize {
        (self.queued as usize).saturating_sub(fresh.len())
    }

    /// Whether a flow that was refused should hear that there is room: enough for
    /// the host to bother.
    pub(crate) fn has_room(&self, pool: &Pool) -> bool {
        let limit = self.limit();
        limit.saturating_sub(self.queued) >= limit / 4 && self.has_block(pool)
    }

    /// Whether a byte more finds memory.
    pub(crate) fn has_block(&self, pool: &Pool) -> bool {
        let purpose = match self.chain.is_empty() {
            true => Purpose::SendFirst,
            false => Purpose::SendMore,
        };
        self.chain.reach() > self.queued as usize || pool.has_block(purpose)
    }

    /// The block that holds just the data of a large piece, and the data's sum. What of
    /// it is fresh is stored on the way.
    pub(crate) fn laid(
        &mut self,
        pool: &mut Pool,
        piece: &Piece,
        fresh: &mut Fresh<'_>,
    ) -> Option<(Index, Sum)> {
        let length = piece.length as usize;
        if length < LEAST_LAID {
            return None;
        }
        let at = piece.seq.since(self.snd_una) as usize;
        if at + length > self.stored(fresh) && !self.lay(pool, at, length, fresh) {
            return None;
        }
        self.chain.laid(pool, at, length)
    }

    /// Copies the data of a piece, and returns its sum. What of it is fresh is stored on
    /// the way.
    pub(crate) fn fill(
        &mut self,
        pool: &mut Pool,
        piece: &Piece,
        fresh: &mut Fresh<'_>,
        out: &mut [u8],
    ) -> Sum {
        let at = piece.seq.since(self.snd_una) as usize;
        let stored = self.stored(fresh);
        let new = fresh.split((at + out.len()).saturating_sub(stored));
        if at == stored && new.len() == out.len() {
            self.reserve(pool, at + new.len());
            return self.chain.write_and_read(pool, at, new, out);
        }
        if !new.is_empty() {
            self.write(pool, stored, new);
        }
        self.chain.read(pool, at, out)
    }

    /// Where the data ends, and the FIN's number if there is one.
    fn data_end(&self) -> Seq {
        self.snd_una + self.queued
    }

    /// The number after all that is to be sent.
    fn end(&self) -> Seq {
        self.data_end() + u32::from(self.fin == Fin::Queued)
    }

    /// The right edge of the peer's window.
    fn edge(&self) -> Seq {
        self.snd_una + self.window.snd_wnd
    }

    /// Bytes in flight that nothing is known of.
    fn pipe(&self) -> u32 {
        // RFC 5681 3.2: a duplicate says that a segment has left the network.
        let left = match self.flight.sacked() {
            0 => u32::from(self.duplicates) * self.mss,
            _ => 0,
        };
        self.flight.pipe().saturating_sub(left)
    }

    /// The number of an ACK without data: one that the peer accepts also when what
    /// was sent went beyond its window (RFC 9293 3.10.7.4).
    pub(crate) fn ack_seq(&self) -> Seq {
        self.snd_nxt.min(self.edge()).max(self.snd_una)
    }

    // What may go next.

    /// The next segment, if one may go.
    pub(crate) fn next(&self, nagle: bool) -> Option<Piece> {
        let forced = self.forced.and_then(|forced| self.forced(forced));
        forced.or_else(|| match self.flight.first_lost() {
            Some((start, end)) => self.next_lost(start, end),
            None => self.next_new(nagle),
        })
    }

    /// RFC 5681 4.1: a flow that has not sent for longer than the timeout begins
    /// again with the initial window.
    pub(crate) fn wake(&mut self, now: Instant, min_rto: Duration) {
        let rests = self.flight.is_empty() && self.snd_nxt < self.end();
        if rests && now.since(self.last_sent) > self.rtt.timeout(min_rto) {
            self.congestion.idle(self.mss);
        }
    }

    fn may_send_new(&self) -> bool {
        self.snd_nxt < self.end() && self.snd_nxt < self.edge()
    }

    fn forced(&self, forced: Forced) -> Option<Piece> {
        match forced {
            Forced::WindowProbe => Some(self.piece(self.snd_una, 1)),
            Forced::Override | Forced::TailProbe if self.may_send_new() => {
                let window = self.edge().since(self.snd_nxt);
                let length = self.end().since(self.snd_nxt).min(window).min(self.mss);
                Some(self.piece(self.snd_nxt, length))
            }
            Forced::Override => None,
            Forced::TailProbe => {
                let last = self.snd_nxt - self.snd_nxt.since(self.snd_una).min(self.mss);
                Some(self.piece(last, self.snd_nxt.since(last)))
            }
            Forced::Retransmit => {
                let (start, end) = self.flight.first_lost()?;
                self.within_window(start, end)
            }
        }
        .filter(|piece| piece.seq < piece.end())
    }

    fn next_lost(&self, start: Seq, end: Seq) -> Option<Piece> {
        let piece = self.within_window(start, end)?;
        let fits = self.pipe() + piece.length <= self.congestion.cwnd;
        (fits || self.pipe() == 0).then_some(piece)
    }

    /// RFC 9293 SHLD-16: what was sent before the window shrank is sent again only
    /// as far as it reaches.
    fn within_window(&self, start: Seq, end: Seq) -> Option<Piece> {
        let edge = self.edge();
        if start >= edge {
            return None;
        }
        let piece = self.piece(start, end.since(start).min(self.mss + 1));
        let inside = edge.since(start).min(self.mss + u32::from(piece.fin));
        Some(match piece.end() <= edge && piece.length <= self.mss {
            true => piece,
            false => self.piece(start, inside.min(piece.length.min(self.mss))),
        })
    }

    fn next_new(&self, nagle: bool) -> Option<Piece> {
        if !self.may_send_new() {
            return None;
        }
        let window = self.edge().since(self.snd_nxt);
        let unsent = self.data_end().since(self.snd_nxt);
        if unsent == 0 {
            return Some(self.piece(self.snd_nxt, 1));
        }
        let length = unsent.min(self.mss).min(window);
        let pipe = self.pipe();
        if pipe > 0 && pipe + length > self.congestion.cwnd {
            return None;
        }
        // RFC 9293 3.8.6.2.1, with Nagle's algorithm (3.7.4) in the last.
        let is_full = length == self.mss;
        let is_half = length >= self.window.most / 2;
        let is_last =
            length == unsent && (!nagle || self.flight.is_empty() || self.fin == Fin::Queued);
        if !(is_full || is_half || is_last) {
            return None;
        }
        let fin = self.fin == Fin::Queued && length == unsent && window > length;
        Some(self.piece(self.snd_nxt, length + u32::from(fin)))
    }

    /// A segment of so many sequence numbers, of which the last may be the FIN's.
    fn piece(&self, seq: Seq, numbers: u32) -> Piece {
        let length = numbers.min(self.data_end().since(seq));
        Piece {
            seq,
            length,
            fin: numbers > length && self.fin == Fin::Queued,
            push: seq + length == self.data_end(),
            again: seq < self.snd_nxt,
        }
    }

    /// A piece has become a packet.
    pub(crate) fn sent(&mut self, piece: &Piece, now: Instant) {
        let end = piece.end();
        self.forced = None;
        if self.flight.is_empty() {
            self.base = now;
        }
        if self.phase == Phase::Recovery {
            self.reduction.out += piece.length;
        }
        let old = end.min(self.snd_nxt);
        if piece.again {
            self.flight.sent_again(piece.seq, old, now);
            self.retransmits += u64::from(piece.length > 0);
        }
        if end > self.snd_nxt {
            self.flight.sent(self.snd_nxt, end, now);
            self.snd_nxt = end;
            self.last_sent = now;
        }
    }

    // What an acknowledgement means.

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
        let data = advance.min(self.queued);
        if advance > data && self.fin == Fin::Queued {
            self.fin = Fin::Acked;
        }
        self.snd_una += advance;
        self.queued -= data;
        if self.queued == 0 {
            self.chain.clear(pool);
        } else {
            self.chain.consume(pool, data as usize);
        }
    }

    /// Looks for losses. Says whether one was found.
    fn find_losses(&mut self, now: Instant, sack: bool, advanced: bool) -> bool {
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

    fn enter_recovery(&mut self, flight: u32) {
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

    /// The peer's window was told anew.
    pub(crate) fn window_was(&mut self, before: u32, now: Instant) {
        if before == 0 && self.window.snd_wnd > 0 {
            // What was lost in front of the shut window is sent again at once, and
            // timed from here.
            self.base = now;
            self.rtt.forget_backoff();
        }
    }

    // Time.

    /// When something happens unless the peer is heard.
    pub(crate) fn deadline(&self, min_rto: Duration, sack: bool) -> Option<Instant> {
        if self.flight.is_empty() {
            return self.persist_at;
        }
        let timeout = self.base + self.rtt.timeout(min_rto);
        sooner(
            sooner(self.reorder_at, self.tail_probe_at(sack)),
            Some(timeout),
        )
    }

    /// RFC 8985 7.2: when the end of the flight is probed.
    fn tail_probe_at(&self, sack: bool) -> Option<Instant> {
        let may = sack
            && self.phase == Phase::Open
            && self.probe.is_none()
            && self.flight.sacked() == 0
            && self.flight.lost() == 0
            && self.window.snd_wnd > 0
            && !self.rtt.is_backed_off();
        let srtt = self.rtt.smoothed().filter(|_| may)?;
        let single = self.snd_nxt.since(self.snd_una) <= self.mss;
        let patience = if single { DELAYED_ACK } else { LEAST_PROBE };
        let wait = srtt.saturating_mul(2).saturating_add(patience);
        // Later than the timeout it is none: the timeout does the same and more.
        Some(self.last_sent.max(self.base) + Span(wait))
    }

    /// Does what is due.
    pub(crate) fn poll(&mut self, now: Instant, min_rto: Duration, sack: bool) {
        if self.flight.is_empty() {
            if self.persist_at.is_some_and(|at| at <= now) {
                self.persist();
            }
            return;
        }
        if self.reorder_at.is_some_and(|at| at <= now) {
            let flight = self.snd_nxt.since(self.snd_una);
            if self.find_losses(now, sack, false) && self.phase == Phase::Open {
                self.enter_recovery(flight);
            }
        }
        if self.base + self.rtt.timeout(min_rto) <= now {
            self.time_out(now);
        } else if self.tail_probe_at(sack).is_some_and(|at| at <= now) {
            self.forced = Some(Forced::TailProbe);
            self.probe = Some(Probe {
                end: self.snd_nxt,
                at: now,
                again: !self.may_send_new(),
            });
            self.base = now;
        }
    }

    fn persist(&mut self) {
        self.persist_at = None;
        self.forced = Some(match self.window.snd_wnd {
            0 => Forced::WindowProbe,
            _ => Forced::Override,
        });
        if self.window.snd_wnd == 0 {
            self.rtt.back_off();
        }
    }

    /// RFC 6298 5.4 to 5.6.
    fn time_out(&mut self, now: Instant) {
        let flight = self.snd_nxt.since(self.snd_una);
        let again = self.phase == Phase::Loss && self.rtt.is_backed_off();
        self.rtt.back_off();
        self.base = now;
        (self.duplicates, self.probe, self.reorder_at) = (0, None, None);
        if again {
            self.flight.forget_sacks();
        }
        self.flight.lose_all();
        if self.window.snd_wnd == 0 {
            // Not a loss but a window that closed on what was in flight (RFC 9293
            // MUST-34).
            self.forced = Some(Forced::WindowProbe);
            return;
        }
        self.congestion.timed_out(flight, self.mss, again);
        self.phase = Phase::Loss;
        self.recover = self.snd_nxt;
    }

    /// After all that may go went: what waits for a window sets the timer.
    pub(crate) fn arm(&mut self, now: Instant, min_rto: Duration) {
        self.forced = None;
        let waits = self.flight.is_empty() && self.snd_nxt < self.end();
        if !waits {
            self.persist_at = None;
        } else if self.persist_at.is_none() {
            let timeout = self.rtt.timeout(min_rto);
            let wait = match self.window.snd_wnd {
                0 => timeout,
                _ => timeout.clamp(OVERRIDE.0, OVERRIDE.1),
            };
            self.persist_at = Some(now + wait);
        }
    }

    /// The largest segment has become smaller: what is in flight did not fit (RFC
    /// 1191 6.4). No loss, so the congestion window stays.
    pub(crate) fn resegment(&mut self, mss: u32, now: Instant) {
        self.mss = mss;
        self.flight.lose_all();
        self.rtt.forget_backoff();
        self.base = now;
        self.probe = None;
        self.reorder_at = None;
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

    /// Gives all memory back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.chain.clear(pool);
        self.flight = Flight::new();
        self.queued = 0;
        self.forced = None;
        self.persist_at = None;
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

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::config::CongestionControl;

    const MSS: u32 = 1000;
    const FIRST: Seq = Seq(u32::MAX - 3500);
    const MOST: u32 = 1 << 20;

    /// A sender with ten segments in flight.
    fn sender() -> (Pool, Sender) {
        let mut window = Window::default();
        window.set(60_000, 0, Seq(0), FIRST);
        let congestion = Congestion::new(CongestionControl::Reno, MSS);
        let mut sender = Sender::new(FIRST, window, MSS, MOST, congestion, Instant(0));
        let mut pool = Pool::new(1 << 20);
        let fresh = sender.take(&pool, &[7; 30_000]);
        assert_eq!(fresh.len(), 30_000);
        sender.store(&mut pool, fresh);
        send_all(&mut sender, 0);
        assert_eq!(sender.snd_nxt.since(FIRST), 10 * MSS);
        (pool, sender)
    }

    fn send_all(sender: &mut Sender, now: u64) {
        while let Some(piece) = sender.next(false) {
            sender.sent(&piece, Instant(now));
        }
    }

    fn acked(sender: &mut Sender, pool: &mut Pool, now: u64, to: u32, blocks: &[(u32, u32)]) {
        let blocks = blocks
            .iter()
            .map(|(start, end)| (FIRST + start * MSS, FIRST + end * MSS));
        sender.acked(pool, Instant(now), told(FIRST + to * MSS, blocks));
    }

    /// A bare acknowledgement with these SACK blocks.
    fn told<I>(ack: Seq, blocks: I) -> Ack<I, impl Fn(Instant) -> Echo>
    where
        I: ExactSizeIterator<Item = (Seq, Seq)>,
    {
        Ack {
            ack,
            is_bare: true,
            sack: blocks.len() > 0,
            blocks,
            echo: |_| Echo::Unknown,
        }
    }

    #[test]
    fn the_newest_block_first_is_no_reordering() {
        let (mut pool, mut sender) = sender();
        acked(
            &mut sender,
            &mut pool,
            100,
            0,
            &[(8, 9), (3, 4), (5, 6), (1, 2)],
        );
        assert_eq!(sender.flight.sacked(), 4 * MSS);
        assert!(!sender.flight.has_reordering());
    }

    #[test]
    fn duplicates_do_not_outlive_a_recovery() {
        let (mut pool, mut sender) = sender();
        for now in 100..115 {
            acked(&mut sender, &mut pool, now, 0, &[]);
            send_all(&mut sender, now);
        }
        assert_eq!(sender.phase, Phase::Recovery);
        let recover = sender.recover.since(FIRST) / MSS;
        acked(&mut sender, &mut pool, 200, recover, &[]);
        assert_eq!((sender.phase, sender.duplicates), (Phase::Open, 0));
    }

    /// Bytes that come in pieces of any length go in large segments each from a block of
    /// its own, also when they had to wait, and again from there.
    #[test]
    fn large_segments_lie_alone_whenever_they_go() {
        const LARGE: usize = 60_000;
        let data: Vec<u8> = (0..260_000u32)
            .map(|i| (i % 251).to_le_bytes()[0])
            .collect();
        let mut window = Window::default();
        window.set(65_535, 1, Seq(0), FIRST);
        let congestion = Congestion::new(CongestionControl::None, MSS);
        let mss = u32::try_from(LARGE).unwrap();
        let mut sender = Sender::new(FIRST, window, mss, MOST, congestion, Instant(0));
        let mut pool = Pool::new(4 << 20);
        let mut blocks = Vec::new();
        let mut send = |sender: &mut Sender, pool: &mut Pool, fresh: &mut Fresh<'_>, now| {
            while let Some(piece) = sender.next(true) {
                let (block, sum) = sender.laid(pool, &piece, fresh).unwrap();
                let at = piece.seq.since(FIRST) as usize;
                let expected = &data[at..at + LARGE];
                assert_eq!(pool.bytes(block), expected);
                assert_eq!(sum.finish(), Sum::default().add(expected).finish());
                sender.sent(&piece, Instant(now));
                blocks.push((at / LARGE, block));
            }
        };
        for bytes in data.chunks(65_000) {
            let mut fresh = sender.take(&pool, bytes);
            assert_eq!(fresh.len(), bytes.len());
            send(&mut sender, &mut pool, &mut fresh, 0);
            sender.store(&mut pool, fresh);
        }
        assert_eq!(sender.snd_nxt.since(FIRST) as usize, 2 * LARGE);
        for acked in 1..=3 {
            let blocks = core::iter::empty();
            sender.acked(&mut pool, Instant(1), told(FIRST + acked * mss, blocks));
            send(&mut sender, &mut pool, &mut Fresh::default(), 1);
        }
        // The timer runs out: the one in flight goes once more.
        sender.poll(Instant(1 << 40), Duration::from_millis(200), false);
        send(&mut sender, &mut pool, &mut Fresh::default(), 1 << 40);
        assert_eq!(blocks.len(), 5);
        assert_eq!(blocks[4], blocks[3]);
        sender.clear(&mut pool);
        assert_eq!(pool.memory(), 0);
    }

    /// A window of one byte, one byte acknowledged and one byte written, again and again:
    /// what is queued stays as it is, and so does the memory that it takes.
    #[test]
    fn a_peer_that_takes_a_byte_at_a_time_pins_no_more_than_is_queued() {
        let mss = 60_000;
        let mut window = Window::default();
        window.set(1, 0, Seq(0), FIRST);
        let congestion = Congestion::new(CongestionControl::Cubic, mss);
        let mut sender = Sender::new(FIRST, window, mss, MOST, congestion, Instant(0));
        let mut pool = Pool::new(64 << 20);
        let fresh = sender.take(&pool, &[7; 120_000]);
        assert_eq!(fresh.len(), 120_000);
        sender.store(&mut pool, fresh);
        for _ in 0..1000 {
            let piece = sender.next(false).unwrap();
            assert_eq!(piece.length, 1);
            assert!(
                sender
                    .laid(&mut pool, &piece, &mut Fresh::default())
                    .is_none()
            );
            sender.sent(&piece, Instant(1));
            let blocks = core::iter::empty();
            sender.acked(&mut pool, Instant(1), told(sender.snd_nxt, blocks));
            let fresh = sender.take(&pool, &[8]);
            sender.store(&mut pool, fresh);
            let memory = pool.memory();
            assert!(memory <= 3 * WIDE as u64, "{memory} bytes");
        }
        assert_eq!(sender.queued(), 120_000);
    }
}
