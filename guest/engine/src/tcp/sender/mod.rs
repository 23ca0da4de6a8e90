//! The sending side of a connection: its variables (RFC 9293 3.3.1), and what may go
//! next (RFC 9293 3.8.6, RFC 5681, RFC 6675). What waits lies in its [`buffer`];
//! [`acknowledged`] and [`timers`] are what happens to it.

mod acknowledged;
mod buffer;
mod timers;

pub(super) use self::acknowledged::Ack;
pub(super) use self::buffer::Fresh;
use self::buffer::SendBuffer;
use super::congestion::Congestion;
use super::flight::Flight;
use super::pool::{Index, Pool};
use super::rtt::Rtt;
use super::seq::Seq;
use crate::checksum::Sum;
use crate::types::Instant;

/// What a flow may hold unacknowledged at first; it grows with the congestion
/// window.
const INITIAL_LIMIT: u32 = 65_535;

#[derive(Clone, Debug)]
pub(crate) struct Sender {
    pub(crate) snd_una: Seq,
    pub(crate) snd_nxt: Seq,
    pub(crate) window: Window,
    /// The largest payload of a segment, its options counted off.
    pub(crate) mss: u32,
    buffer: SendBuffer,
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
            buffer: SendBuffer::EMPTY,
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
        self.buffer.queued()
    }

    /// Bytes of data and FIN that the peer has not acknowledged, sent or not.
    pub(crate) fn is_outstanding(&self) -> bool {
        self.queued() > 0 || self.fin == Fin::Queued
    }

    /// Whether only a FIN that was sent is unacknowledged, or nothing.
    pub(crate) fn has_said_all(&self) -> bool {
        self.queued() == 0 && self.snd_nxt == self.end()
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
        self.buffer.take(pool, data, self.limit())
    }

    /// Stores what was taken and has not been sent.
    pub(crate) fn store(&mut self, pool: &mut Pool, fresh: Fresh<'_>) {
        let sent = self.snd_nxt.since(self.snd_una) as usize;
        self.buffer.store(pool, fresh, sent, self.mss as usize);
    }

    /// Whether a flow that was refused should hear that there is room: enough for
    /// the host to bother.
    pub(crate) fn has_room(&self, pool: &Pool) -> bool {
        let limit = self.limit();
        limit.saturating_sub(self.queued()) >= limit / 4 && self.has_block(pool)
    }

    /// Whether a byte more finds memory.
    pub(crate) fn has_block(&self, pool: &Pool) -> bool {
        self.buffer.has_block(pool)
    }

    /// The block that holds just the data of a large piece, and the data's sum. What of
    /// it is fresh is stored on the way.
    pub(crate) fn laid(
        &mut self,
        pool: &mut Pool,
        piece: &Piece,
        fresh: &mut Fresh<'_>,
    ) -> Option<(Index, Sum)> {
        let at = piece.seq.since(self.snd_una) as usize;
        self.buffer.laid(pool, at, piece.length as usize, fresh)
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
        self.buffer.fill(pool, at, fresh, out)
    }

    /// Where the data ends, and the FIN's number if there is one.
    fn data_end(&self) -> Seq {
        self.snd_una + self.queued()
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

    /// Gives all memory back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.buffer.clear(pool);
        self.flight = Flight::new();
        self.forced = None;
        self.persist_at = None;
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
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::time::Duration;

    use super::*;
    use crate::config::CongestionControl;
    use crate::tcp::flight::Echo;
    use crate::tcp::pool::WIDE;

    const MSS: u32 = 1000;
    const FIRST: Seq = Seq(u32::MAX - 3500);
    const MOST: u32 = 1 << 20;

    /// A sender to a peer with this window, its field and its scale.
    fn sender_to(window: (u16, u8), mss: u32, congestion: CongestionControl) -> Sender {
        let mut told = Window::default();
        told.set(window.0, window.1, Seq(0), FIRST);
        let congestion = Congestion::new(congestion, mss);
        Sender::new(FIRST, told, mss, MOST, congestion, Instant(0))
    }

    /// A sender with ten segments in flight.
    fn sender() -> (Pool, Sender) {
        let mut sender = sender_to((60_000, 0), MSS, CongestionControl::Reno);
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
        let mss = u32::try_from(LARGE).unwrap();
        let mut sender = sender_to((65_535, 1), mss, CongestionControl::None);
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
        let mut sender = sender_to((1, 0), mss, CongestionControl::Cubic);
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
