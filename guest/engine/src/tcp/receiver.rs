//! The receiving side of a connection: what came in order and waits for the
//! application, what came ahead of a gap, and the window offered (RFC 9293 3.8.6).

use alloc::vec::Vec;

use super::chain::Chain;
use super::options::{MOST_BLOCKS, MOST_SHIFT};
use super::pool::{Pool, Purpose};
use super::seq::Seq;
use crate::types::Instant;

/// The window that a flow starts with, and what it may grow to at once for a peer
/// with segments of 64 KiB, so that four of them are under way.
const INITIAL_LIMIT: u32 = 65_535;
const INITIAL_SEGMENTS: u32 = 4;
/// Stretches ahead of a gap that are kept; what would make one more is dropped, and
/// acknowledged as every segment out of order.
const MOST_AHEAD: usize = 128;
/// Room for stretches that a flow without a gap keeps.
const KEPT_AHEAD: usize = 4;

/// Bytes that came ahead of a gap.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    start: Seq,
    end: Seq,
    /// The higher, the later a segment of it came.
    stamp: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    pub(crate) rcv_nxt: Seq,
    /// The right edge of the window offered. It never moves back (RFC 9293
    /// SHLD-14).
    rcv_adv: Seq,
    /// Our window scale (RFC 7323 2.2).
    shift: u8,
    chain: Chain,
    /// Bytes in order that the application has not taken.
    queued: u32,
    ahead: Vec<Ahead>,
    stamp: u32,
    /// The sequence number of the peer's FIN, once it came.
    fin: Option<Seq>,
    finished: bool,
    /// The largest payload of a segment that we asked for.
    mss: u32,
    /// The most that may wait for the application; it grows up to `most`.
    limit: u32,
    most: u32,
    /// Since when `taken` counts what the application took.
    period: Instant,
    taken: u32,
    /// What was received twice (RFC 2883), until told.
    repeated: Option<(Seq, Seq)>,
}

/// What a segment's text did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// `rcv_nxt` moved.
    pub(crate) in_order: bool,
    /// A gap is, or was, before it: RFC 5681 4.2 wants an ACK at once.
    pub(crate) at_gap: bool,
    /// Some of it found no memory.
    pub(crate) refused: bool,
}

impl Receiver {
    /// After the peer's SYN, and a window of `initial_window` in ours.
    pub(crate) fn new(rcv_nxt: Seq, shift: u8, mss: u32, most: u32, now: Instant) -> Self {
        let limit = most.min(INITIAL_LIMIT.max(INITIAL_SEGMENTS * mss));
        Self {
            rcv_nxt,
            rcv_adv: rcv_nxt + initial_window(most),
            shift,
            chain: Chain::EMPTY,
            queued: 0,
            ahead: Vec::new(),
            stamp: 0,
            fin: None,
            finished: false,
            mss,
            limit,
            most,
            period: now,
            taken: 0,
            repeated: None,
        }
    }

    /// Bytes that the application has not taken.
    pub(crate) fn queued(&self) -> u32 {
        self.queued
    }

    /// The largest payload of a segment that we asked for.
    pub(crate) fn mss(&self) -> u32 {
        self.mss
    }

    /// Whether the peer's FIN was received, and all before it.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// The window that the peer was offered, as it stands.
    pub(crate) fn window(&self) -> u32 {
        match self.rcv_adv > self.rcv_nxt {
            true => self.rcv_adv.since(self.rcv_nxt),
            false => 0,
        }
    }

    /// RFC 9293 3.10.7.4, first: whether a segment may be processed. One without
    /// data may stand on the right edge: so does each ACK of a peer whose data
    /// fills the window.
    pub(crate) fn accepts(&self, seq: Seq, end: Seq) -> bool {
        let edge = self.rcv_nxt.max(self.rcv_adv);
        if seq == end {
            return seq >= self.rcv_nxt && seq <= edge;
        }
        seq <= edge && end > self.rcv_nxt && (seq < edge || seq == self.rcv_nxt)
    }

    /// Whether a segment that is not acceptable repeats what was received lately: as
    /// far back as the largest window reaches.
    pub(crate) fn has_had(&self, seq: Seq, end: Seq) -> bool {
        end <= self.rcv_nxt && self.rcv_nxt.since(seq) <= self.limit
    }

    /// Whether something is missing before what was received.
    pub(crate) fn has_gap(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Takes the text and FIN of an acceptable segment (RFC 9293 3.10.7.4, seventh
    /// and eighth).
    pub(crate) fn receive(&mut self, pool: &mut Pool, seq: Seq, data: &[u8], fin: bool) -> Taken {
        let had_gap = self.has_gap();
        let before = self.rcv_nxt;
        let (start, data) = self.trim(seq, data, fin);
        let mut refused = false;
        if !data.is_empty() {
            let at = self.queued + start.since(self.rcv_nxt);
            // A byte far ahead takes all blocks up to it, for as long as the peer
            // leaves the gap: not from those kept for what comes in order.
            let is_denied = start > self.rcv_nxt && !pool.has_room_ahead();
            let most = if is_denied {
                self.chain.reach()
            } else {
                usize::MAX
            };
            let reach = self.chain.extend(
                pool,
                most.min(at as usize + data.len()),
                Purpose::ReceiveFirst,
                Purpose::ReceiveMore,
            );
            let fits = &data[..data.len().min(reach.saturating_sub(at as usize))];
            refused = fits.len() < data.len();
            if !fits.is_empty() {
                refused |= !self.store(pool, start, at, fits);
            }
        }
        if !self.finished && self.fin == Some(self.rcv_nxt) {
            self.rcv_nxt += 1;
            self.finished = true;
        }
        Taken {
            in_order: self.rcv_nxt != before,
            at_gap: had_gap || self.has_gap(),
            refused,
        }
    }

    /// Cuts off what is old and what lies beyond the window or the FIN, and
    /// remembers a FIN that may be believed.
    fn trim<'a>(&mut self, seq: Seq, data: &'a [u8], fin: bool) -> (Seq, &'a [u8]) {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let end = seq + length;
        let edge = self.rcv_nxt.max(self.rcv_adv);
        // Never the end of data with bytes missing that were cut off.
        if fin && self.fin.is_none() && end >= self.rcv_nxt && end <= edge {
            let beyond = self.ahead.iter().any(|ahead| ahead.end > end);
            self.fin = (!beyond).then_some(end);
        }
        if seq < self.rcv_nxt && length > 0 {
            self.repeated = Some((seq, end.min(self.rcv_nxt)));
        }
        let edge = self.fin.map_or(edge, |fin| fin.min(edge));
        let start = seq.max(self.rcv_nxt);
        if start >= end || start >= edge {
            return (start, &[]);
        }
        let from = start.since(seq) as usize;
        let to = end.min(edge).since(seq) as usize;
        (start, &data[from..to])
    }

    /// A segment came that was received before (RFC 2883 4).
    pub(crate) fn note_repeated(&mut self, seq: Seq, length: usize) {
        let end = seq + u32::try_from(length).unwrap_or(u32::MAX);
        if seq < end && end <= self.rcv_nxt {
            self.repeated = Some((seq, end));
        }
    }

    /// Whether something received twice is to be told.
    pub(crate) fn has_repeated(&self) -> bool {
        self.repeated.is_some()
    }

    /// Stores data at its place; the blocks reach beyond it. Says whether it was
    /// kept.
    fn store(&mut self, pool: &mut Pool, start: Seq, at: u32, data: &[u8]) -> bool {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let end = start + length;
        if start > self.rcv_nxt && !self.insert_ahead(start, end) {
            return false;
        }
        self.chain.write(pool, at as usize, data);
        if start == self.rcv_nxt {
            self.advance(end);
        }
        true
    }

    /// All before `end` is there, and what lies next to it.
    fn advance(&mut self, mut end: Seq) {
        let mut met = 0;
        for ahead in &self.ahead {
            if ahead.start > end {
                break;
            }
            end = end.max(ahead.end);
            met += 1;
        }
        self.ahead.drain(..met);
        if self.ahead.is_empty() && self.ahead.capacity() > KEPT_AHEAD {
            self.ahead = Vec::new();
        }
        self.queued += end.since(self.rcv_nxt);
        self.rcv_nxt = end;
    }

    /// Notes a stretch ahead of a gap, joined with those that it touches.
    fn insert_ahead(&mut self, start: Seq, end: Seq) -> bool {
        self.stamp = self.stamp.wrapping_add(1);
        let from = self.ahead.partition_point(|ahead| ahead.end < start);
        let to = self.ahead.partition_point(|ahead| ahead.start <= end);
        let mut joined = Ahead {
            start,
            end,
            stamp: self.stamp,
        };
        if from == to && self.ahead.len() >= MOST_AHEAD {
            return false;
        }
        for ahead in self.ahead.drain(from..to) {
            if ahead.start <= start && end <= ahead.end {
                self.repeated = Some((start, end));
            }
            joined.start = joined.start.min(ahead.start);
            joined.end = joined.end.max(ahead.end);
        }
        self.ahead.insert(from, joined);
        true
    }

    /// The SACK blocks to send, the one that changed last first (RFC 2018 4). What
    /// was received twice stands before them, once (RFC 2883).
    pub(crate) fn blocks(&mut self, out: &mut [(Seq, Seq); MOST_BLOCKS]) -> usize {
        let mut filled = 0;
        if let Some(repeated) = self.repeated.take() {
            out[0] = repeated;
            filled = 1;
        }
        let mut before = None;
        while filled < MOST_BLOCKS {
            let is_older = |ahead: &&Ahead| before.is_none_or(|before| ahead.stamp < before);
            let newest = self.ahead.iter().filter(is_older);
            let Some(ahead) = newest.max_by_key(|ahead| ahead.stamp) else {
                break;
            };
            before = Some(ahead.stamp);
            out[filled] = (ahead.start, ahead.end);
            filled += 1;
        }
        filled
    }

    /// The bytes that the application gets next, as far as they lie together.
    pub(crate) fn front<'a>(&self, pool: &'a Pool) -> &'a [u8] {
        self.chain.front(pool, self.queued as usize)
    }

    /// The application took bytes from the front. `rtt` is the round trip in
    /// nanoseconds, if it is known.
    pub(crate) fn took(&mut self, pool: &mut Pool, length: u32, now: Instant, rtt: Option<u64>) {
        self.queued -= length;
        if self.queued == 0 && self.ahead.is_empty() {
            self.chain.clear(pool);
        } else {
            self.chain.consume(pool, length as usize);
        }
        self.grow(length, now, rtt);
    }

    /// What of an acceptable segment's data the application gets next, and may be
    /// lent before it is stored.
    pub(crate) fn lendable<'a>(&self, seq: Seq, data: &'a [u8]) -> &'a [u8] {
        let is_next = seq == self.rcv_nxt && self.queued == 0;
        if !is_next || self.has_gap() || self.fin.is_some() {
            return &[];
        }
        &data[..data.len().min(self.window() as usize)]
    }

    /// The application took bytes that were not stored.
    pub(crate) fn lent(&mut self, length: u32, now: Instant, rtt: Option<u64>) {
        self.rcv_nxt += length;
        self.grow(length, now, rtt);
    }

    /// Lets the window hold twice what the application takes in a round trip, so
    /// that it does not limit a peer whose window doubles in each (dynamic right
    /// sizing, as in Linux' `tcp_rcv_space_adjust`).
    fn grow(&mut self, length: u32, now: Instant, rtt: Option<u64>) {
        self.taken = self.taken.saturating_add(length);
        let Some(rtt) = rtt else { return };
        if now.0.saturating_sub(self.period.0) < rtt {
            return;
        }
        let wanted = self.taken.saturating_mul(2);
        self.limit = self.limit.max(wanted.min(self.most));
        (self.period, self.taken) = (now, 0);
    }

    /// Where the right edge could be, and how far it has to move to be worth it
    /// (RFC 9293 3.8.6.2.2).
    fn edge(&self, pool: &Pool) -> (Seq, u32) {
        let cap = self.limit.min(pool.allowance());
        let free = cap.saturating_sub(self.queued) >> self.shift << self.shift;
        (self.rcv_nxt + free, (cap / 2).min(self.mss).max(1))
    }

    /// The window field of the segment being made; the edge moves with it.
    pub(crate) fn offer(&mut self, pool: &Pool) -> u16 {
        let (edge, step) = self.edge(pool);
        if edge > self.rcv_adv && edge.since(self.rcv_adv) >= step {
            self.rcv_adv = edge;
        }
        // An edge that is no whole unit away is told up to a unit short (RFC 7323
        // 2.4), never beyond.
        let field = u16::try_from(self.window() >> self.shift).unwrap_or(u16::MAX);
        let told = self.rcv_nxt + (u32::from(field) << self.shift);
        self.rcv_adv = self.rcv_adv.max(told);
        field
    }

    /// Whether the peer should hear of a wider window: it may be waiting for it.
    pub(crate) fn has_news(&self, pool: &Pool) -> bool {
        if self.finished {
            return false;
        }
        let (edge, step) = self.edge(pool);
        let window = self.window();
        edge > self.rcv_adv
            && edge.since(self.rcv_adv) >= step
            && edge.since(self.rcv_nxt) >= window.saturating_mul(2)
    }

    /// Whether the pool, not the application, keeps the window nearly shut.
    pub(crate) fn is_starved(&self, pool: &Pool) -> bool {
        !self.finished && self.window() < self.mss && pool.allowance() < self.limit
    }

    /// Gives all memory back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        self.chain.clear(pool);
        self.ahead = Vec::new();
        self.queued = 0;
    }
}

/// The window of a SYN or SYN-ACK, which is never scaled (RFC 7323 2.2).
pub(crate) fn initial_window(most: u32) -> u32 {
    most.min(u32::from(u16::MAX))
}

/// The scale that windows of `most` bytes need (RFC 7323 2.3).
pub(crate) fn shift_for(most: u32) -> u8 {
    let mut shift = 0;
    while shift < MOST_SHIFT && most >> shift > u32::from(u16::MAX) {
        shift += 1;
    }
    shift
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Seq = Seq(u32::MAX - 5);

    fn receiver(most: u32) -> (Pool, Receiver) {
        let receiver = Receiver::new(FIRST, shift_for(most), 1000, most, Instant(0));
        (Pool::new(1 << 20), receiver)
    }

    #[test]
    fn pieces_come_together() {
        let (mut pool, mut receiver) = receiver(65_535);
        let data = b"abcdefghij";
        for (from, to) in [(7, 10), (3, 5), (4, 8)] {
            let taken = receiver.receive(&mut pool, FIRST + from, &data[from as usize..to], false);
            assert!(!taken.in_order && taken.at_gap);
        }
        assert!(
            receiver
                .receive(&mut pool, FIRST, &data[..4], true)
                .in_order
        );
        assert_eq!(receiver.front(&pool), data);
        // The FIN at 4 contradicts what came beyond it.
        assert!(!receiver.is_finished());
        assert!(
            receiver
                .receive(&mut pool, FIRST + 8, &data[8..], true)
                .in_order
        );
        assert!(receiver.is_finished());
        receiver.took(&mut pool, 10, Instant(0), None);
        assert_eq!(pool.memory(), 0);
    }

    #[test]
    fn a_fin_waits_for_the_gap_before_it() {
        let (mut pool, mut receiver) = receiver(65_535);
        receiver.receive(&mut pool, FIRST + 3, b"def", true);
        receiver.receive(&mut pool, FIRST + 3, b"defghi", false);
        assert!(!receiver.is_finished());
        receiver.receive(&mut pool, FIRST, b"abc", false);
        assert!(receiver.is_finished());
        assert_eq!(receiver.front(&pool), b"abcdef");
    }

    #[test]
    fn the_newest_block_stands_first() {
        let (mut pool, mut receiver) = receiver(65_535);
        for at in [10, 30, 20, 30] {
            receiver.receive(&mut pool, FIRST + at, b"x", false);
        }
        let mut blocks = [(Seq(0), Seq(0)); MOST_BLOCKS];
        let block = |at: u32| (FIRST + at, FIRST + at + 1);
        assert_eq!(receiver.blocks(&mut blocks), 4);
        assert_eq!(blocks, [block(30), block(30), block(20), block(10)]);
        assert_eq!(receiver.blocks(&mut blocks), 3);
        assert_eq!(blocks[..3], [block(30), block(20), block(10)]);
    }

    #[test]
    fn the_window_closes_and_opens_by_steps_worth_it() {
        let (mut pool, mut receiver) = receiver(4096);
        receiver.receive(&mut pool, FIRST, &[7; 5000], false);
        assert_eq!(receiver.queued(), 4096);
        assert_eq!(receiver.offer(&pool), 0);
        assert!(receiver.accepts(receiver.rcv_nxt, receiver.rcv_nxt + 1));
        receiver.took(&mut pool, 999, Instant(0), None);
        assert!(!receiver.has_news(&pool));
        assert_eq!(receiver.offer(&pool), 0);
        receiver.took(&mut pool, 1, Instant(0), None);
        assert!(receiver.has_news(&pool));
        assert_eq!(receiver.offer(&pool), 1000);
    }

    #[test]
    fn the_window_grows_with_what_is_taken() {
        let (mut pool, mut receiver) = receiver(4 << 20);
        assert_eq!(receiver.shift, 7);
        let (mut now, rtt) = (0, 1000);
        for _ in 0..20 {
            now += rtt;
            let window = u32::from(receiver.offer(&pool)) << receiver.shift;
            let mut rest = window;
            while rest > 0 {
                let length = rest.min(8000);
                let at = receiver.rcv_nxt;
                receiver.receive(&mut pool, at, &[1; 8000][..length as usize], false);
                while receiver.queued() > 0 {
                    let length = u32::try_from(receiver.front(&pool).len()).unwrap();
                    receiver.took(&mut pool, length, Instant(now), Some(rtt));
                }
                rest -= length;
            }
        }
        assert!(receiver.window() == 0 && receiver.limit > 200_000);
        // No more than a quarter of the small pool.
        assert!(receiver.offer(&pool) as u32 * 128 <= pool.allowance());
    }
}
