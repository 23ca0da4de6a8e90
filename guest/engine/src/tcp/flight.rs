//! What is in flight: which bytes were sent when, what the peer has of them, and
//! what must be taken for lost (RACK, RFC 8985; RFC 6675's scoreboard).

use super::ranges::Ranges;
use super::seq::Seq;
use crate::types::Instant;

/// Ranges kept at most. A peer that acknowledges every second byte makes no more
/// of them; beyond, its SACK blocks are not recorded, which costs it speed only.
const MOST_RANGES: usize = 1024;
/// Ranges that sending makes at most, so that SACK blocks find room beside them: a
/// host that sends byte by byte to a peer that acknowledges nothing makes no more.
const MOST_SENT: usize = MOST_RANGES / 2;

/// Bytes that were last sent at one instant. Neighbours of the same instant are
/// one range: a burst of segments is one, however many they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    start: Seq,
    end: Seq,
    sent: Instant,
    state: State,
    /// Sent more than once.
    again: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Flying,
    /// The peer has it (RFC 2018).
    Sacked,
    /// Taken for lost, and not sent again yet.
    Lost,
}

/// All ranges from `snd_una` to `snd_nxt`, in order and without a gap.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    ranges: Ranges,
    sacked: u32,
    lost: u32,
    rack: Rack,
}

/// RFC 8985 5.2: the last sent of the segments that the peer has.
#[derive(Clone, Copy, Debug, Default)]
struct Rack {
    sent: Instant,
    end: Seq,
    /// How long that one was under way, in nanoseconds.
    rtt: u64,
    /// The highest number that the peer has.
    highest: Seq,
    is_set: bool,
    /// A segment came late that was sent once (RFC 8985 6.2 step 3).
    reordering: bool,
}

/// What one acknowledgement brought.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Delivered {
    /// Bytes that the peer was not known to have.
    pub(crate) bytes: u32,
    /// Bytes that are new in its SACK blocks.
    pub(crate) sacked: u32,
    /// How long the last sent of those sent once was under way (RFC 6298 3).
    pub(crate) rtt: Option<u64>,
}

impl Delivered {
    fn sample(&mut self, rtt: u64) {
        self.rtt = Some(self.rtt.map_or(rtt, |least| least.min(rtt)));
    }
}

/// What a timestamp echo says of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    /// There is none.
    Unknown,
    /// It answers something sent before the segment.
    Older,
    /// It answers the segment, or something sent after it.
    NotOlder,
}

impl Flight {
    pub(crate) fn new() -> Self {
        Self {
            ranges: Ranges::default(),
            sacked: 0,
            lost: 0,
            rack: Rack::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Bytes that the peer has out of order.
    pub(crate) fn sacked(&self) -> u32 {
        self.sacked
    }

    /// Bytes to be sent again.
    pub(crate) fn lost(&self) -> u32 {
        self.lost
    }

    /// RFC 6675 2, pipe: what is thought to be in the network.
    pub(crate) fn pipe(&self) -> u32 {
        match (self.ranges.first(), self.ranges.last()) {
            (Some(first), Some(last)) => last.end.since(first.start) - self.sacked - self.lost,
            _ => 0,
        }
    }

    pub(crate) fn has_reordering(&self) -> bool {
        self.rack.reordering
    }

    /// New bytes were sent, next to the last.
    pub(crate) fn sent(&mut self, start: Seq, end: Seq, now: Instant) {
        let range = Range {
            start,
            end,
            sent: now,
            state: State::Flying,
            again: false,
        };
        let is_full = self.ranges.len() >= MOST_SENT;
        match self.ranges.last_mut() {
            Some(last) if last.joins(&range) => last.end = end,
            Some(last) if is_full && last.state == State::Flying => last.absorb(end, now),
            _ => self.ranges.push(range),
        }
    }

    /// The first bytes to be sent again, if any.
    pub(crate) fn first_lost(&self) -> Option<(Seq, Seq)> {
        if self.lost == 0 {
            return None;
        }
        let range = self
            .ranges
            .iter()
            .find(|range| range.state == State::Lost)?;
        Some((range.start, range.end))
    }

    /// Bytes from `start` on were sent again.
    pub(crate) fn sent_again(&mut self, start: Seq, end: Seq, now: Instant) {
        let first = self.split(start);
        let after = self.split(end);
        let mut lost = 0;
        for range in self.ranges.iter_mut().take(after).skip(first) {
            if range.state == State::Sacked {
                continue;
            }
            if range.state == State::Lost {
                lost += range.len();
            }
            (range.sent, range.state, range.again) = (now, State::Flying, true);
        }
        self.lost -= lost;
        if self.ranges.len() > MOST_SENT
            && let Some(before) = first.checked_sub(1)
            && let Some(range) = self.ranges.get_mut(before)
            && range.state == State::Flying
        {
            // Alike from here, so that the two are joined.
            range.absorb(range.end, now);
        }
        self.join_around(first, after);
    }

    /// All before `ack` has arrived. `echo` tells what the peer's timestamp echo says
    /// of something that was sent at an instant.
    pub(crate) fn acked(
        &mut self,
        ack: Seq,
        now: Instant,
        echo: impl Fn(Instant) -> Echo,
        least_rtt: u64,
        delivered: &mut Delivered,
    ) {
        let mut known = true;
        while let Some(range) = self.ranges.first_mut()
            && range.start < ack
        {
            let part = Range {
                end: range.end.min(ack),
                ..*range
            };
            if part.end == range.end {
                self.ranges.pop();
            } else {
                range.start = part.end;
            }
            match part.state {
                State::Sacked => self.sacked -= part.len(),
                State::Lost => self.lost -= part.len(),
                State::Flying => {}
            }
            if part.state != State::Sacked {
                known &= !part.again || echo(part.sent) == Echo::NotOlder;
                self.arrived(&part, now, &echo, least_rtt, delivered);
            }
        }
        if !known {
            // Karn's algorithm: what was sent once may have waited for the rest.
            delivered.rtt = None;
        }
    }

    /// The peer has these bytes out of order. The caller has checked that they
    /// lie in the flight.
    pub(crate) fn sack(
        &mut self,
        (start, end): (Seq, Seq),
        now: Instant,
        echo: impl Fn(Instant) -> Echo,
        least_rtt: u64,
        delivered: &mut Delivered,
    ) {
        if self.ranges.len() >= MOST_RANGES {
            return;
        }
        let first = self.split(start);
        let after = self.split(end);
        for at in first..after {
            let Some(range) = self.ranges.get_mut(at) else {
                break;
            };
            if range.state == State::Sacked {
                continue;
            }
            if range.state == State::Lost {
                self.lost -= range.len();
            }
            range.state = State::Sacked;
            let range = *range;
            self.sacked += range.len();
            delivered.sacked += range.len();
            self.arrived(&range, now, &echo, least_rtt, delivered);
        }
        self.join_around(first, after);
    }

    /// RFC 8985 6.2 steps 1 to 3, for bytes that the peer was not known to have.
    fn arrived(
        &mut self,
        range: &Range,
        now: Instant,
        echo: &impl Fn(Instant) -> Echo,
        least_rtt: u64,
        delivered: &mut Delivered,
    ) {
        delivered.bytes += range.len();
        let rtt = now.0.saturating_sub(range.sent.0);
        if range.again {
            // It may be the first one that arrived.
            let echo = echo(range.sent);
            if rtt < least_rtt || echo == Echo::Older {
                return;
            }
            // Karn's algorithm, but for the timestamp that knows (RFC 7323 4.1).
            if echo == Echo::NotOlder {
                delivered.sample(rtt);
            }
        } else {
            delivered.sample(rtt);
            if self.rack.is_set && range.end < self.rack.highest {
                self.rack.reordering = true;
            }
        }
        if !self.rack.is_set || range.end > self.rack.highest {
            self.rack.highest = range.end;
        }
        if !self.rack.is_set || self.rack.is_before(range) {
            self.rack.is_set = true;
            (self.rack.sent, self.rack.end, self.rack.rtt) = (range.sent, range.end, rtt);
        }
    }

    /// RFC 8985 6.2 step 5: takes for lost what was sent before something that
    /// arrived, and long enough ago. What comes `reorder_window` nanoseconds later
    /// than its followers is in time. Returns when more will have to be.
    pub(crate) fn find_losses(&mut self, now: Instant, reorder_window: u64) -> Option<Instant> {
        if !self.rack.is_set {
            return None;
        }
        let patience = self.rack.rtt.saturating_add(reorder_window);
        let mut soonest: Option<Instant> = None;
        for range in self.ranges.iter_mut() {
            if range.state != State::Flying || !self.rack.is_after(range) {
                continue;
            }
            let at = Instant(range.sent.0.saturating_add(patience));
            if at <= now {
                range.state = State::Lost;
                self.lost += range.len();
            } else {
                soonest = Some(soonest.map_or(at, |soonest| soonest.min(at)));
            }
        }
        soonest
    }

    /// Takes the first `length` bytes for lost, unless they were (RFC 6582: what a
    /// third duplicate or partial acknowledgement says).
    pub(crate) fn lose_first(&mut self, length: u32) {
        let Some(first) = self.ranges.first() else {
            return;
        };
        if first.state != State::Flying {
            return;
        }
        let end = first.end.min(first.start + length);
        self.split(end);
        if let Some(first) = self.ranges.first_mut() {
            first.state = State::Lost;
            self.lost += first.len();
        }
    }

    /// Takes for lost all that the peer does not have (RFC 6298 5.4, RFC 8985 6.3).
    pub(crate) fn lose_all(&mut self) {
        for range in self.ranges.iter_mut() {
            if range.state == State::Flying {
                range.state = State::Lost;
                self.lost += range.len();
            }
        }
    }

    /// Forgets what the peer said to have out of order: it may have dropped it
    /// (RFC 2018 8).
    pub(crate) fn forget_sacks(&mut self) {
        for range in self.ranges.iter_mut() {
            if range.state == State::Sacked {
                range.state = State::Lost;
                self.lost += range.len();
            }
        }
        self.sacked = 0;
    }

    /// The number of the range that begins at `seq`, which becomes the border of
    /// two if it was none.
    fn split(&mut self, seq: Seq) -> usize {
        let at = self.ranges.partition_point(|range| range.end <= seq);
        let Some(range) = self.ranges.get_mut(at) else {
            return at;
        };
        if range.start >= seq {
            return at;
        }
        let after = Range {
            start: seq,
            ..*range
        };
        range.end = seq;
        self.ranges.insert_behind(at, after);
        at + 1
    }

    /// Joins neighbours that have become alike, among `first..after` and next to
    /// them.
    fn join_around(&mut self, first: usize, after: usize) {
        let mut at = after.min(self.ranges.len().saturating_sub(1));
        while at > 0 && at + 1 > first {
            let next = self.ranges.get(at).copied();
            if let (Some(next), Some(range)) = (next, self.ranges.get_mut(at - 1))
                && range.joins(&next)
            {
                range.end = next.end;
                self.ranges.remove_behind(at - 1);
            }
            at -= 1;
        }
    }
}

impl Range {
    fn len(&self) -> u32 {
        self.end.since(self.start)
    }

    /// Takes in what was sent later, up to `end`, without a range of its own. Of the
    /// instants the later one is kept, which takes nothing for lost too soon; as
    /// something sent twice it is not timed.
    fn absorb(&mut self, end: Seq, now: Instant) {
        (self.end, self.sent, self.again) = (end, now, true);
    }

    /// Whether `next` can be told together with this one. When it was sent does
    /// not matter any more once the peer has it.
    fn joins(&self, next: &Self) -> bool {
        let alike =
            self.state == State::Sacked || self.sent == next.sent && self.again == next.again;
        self.state == next.state && alike
    }
}

impl Rack {
    /// RFC 8985 6.2, `RACK_sent_after(range, rack)`.
    fn is_before(&self, range: &Range) -> bool {
        range.sent > self.sent || range.sent == self.sent && range.end > self.end
    }

    /// Whether the last that arrived was sent after this one.
    fn is_after(&self, range: &Range) -> bool {
        range.sent < self.sent || range.sent == self.sent && range.end < self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;
    const NO_ECHO: fn(Instant) -> Echo = |_| Echo::Unknown;

    fn seq(segments: u32) -> Seq {
        Seq(u32::MAX - 2500) + segments * MSS
    }

    fn burst(segments: u32) -> Flight {
        let mut flight = Flight::new();
        for i in 0..segments {
            flight.sent(seq(i), seq(i + 1), Instant(0));
        }
        flight
    }

    fn sack(flight: &mut Flight, from: u32, to: u32, now: u64) -> Delivered {
        let mut delivered = Delivered::default();
        let block = (seq(from), seq(to));
        flight.sack(block, Instant(now), NO_ECHO, 1, &mut delivered);
        delivered
    }

    fn ack(flight: &mut Flight, to: u32, now: u64) -> Delivered {
        let mut delivered = Delivered::default();
        flight.acked(seq(to), Instant(now), NO_ECHO, 1, &mut delivered);
        delivered
    }

    const AT_ONCE: u64 = 0;

    #[test]
    fn a_burst_is_one_range() {
        let flight = burst(10);
        assert_eq!(flight.ranges.len(), 1);
        assert_eq!(flight.pipe(), 10 * MSS);
    }

    #[test]
    fn two_holes_are_found_in_one_go() {
        let mut flight = burst(10);
        assert_eq!(sack(&mut flight, 1, 3, 100).sacked, 2 * MSS);
        assert_eq!(sack(&mut flight, 4, 6, 100).bytes, 2 * MSS);
        assert_eq!(flight.find_losses(Instant(100), AT_ONCE), None);
        assert_eq!(flight.lost(), 2 * MSS);
        assert_eq!(flight.first_lost(), Some((seq(0), seq(1))));
        flight.sent_again(seq(0), seq(1), Instant(100));
        assert_eq!(flight.first_lost(), Some((seq(3), seq(4))));
        flight.sent_again(seq(3), seq(4), Instant(100));
        assert_eq!(flight.pipe(), 6 * MSS);
        assert_eq!(ack(&mut flight, 10, 200).bytes, 6 * MSS);
        assert!(flight.is_empty());
        assert_eq!((flight.pipe(), flight.sacked(), flight.lost()), (0, 0, 0));
    }

    #[test]
    fn a_lost_retransmission_is_found_by_what_was_sent_after_it() {
        let mut flight = burst(4);
        sack(&mut flight, 1, 4, 100);
        flight.find_losses(Instant(100), AT_ONCE);
        flight.sent_again(seq(0), seq(1), Instant(100));
        flight.sent(seq(4), seq(5), Instant(110));
        sack(&mut flight, 4, 5, 210);
        assert_eq!(flight.find_losses(Instant(210), AT_ONCE), None);
        assert_eq!(flight.first_lost(), Some((seq(0), seq(1))));
    }

    #[test]
    fn the_reorder_window_is_waited_for() {
        let mut flight = burst(3);
        sack(&mut flight, 1, 2, 100);
        assert_eq!(flight.find_losses(Instant(100), 25), Some(Instant(125)));
        assert_eq!(flight.lost(), 0);
        flight.find_losses(Instant(125), 25);
        assert_eq!(flight.lost(), MSS);
        assert!(!flight.has_reordering());
    }

    #[test]
    fn a_late_segment_is_noticed() {
        let mut flight = burst(3);
        sack(&mut flight, 1, 2, 100);
        ack(&mut flight, 2, 101);
        assert!(flight.has_reordering());
    }

    #[test]
    fn partial_acknowledgements_lose_the_next_hole() {
        let mut flight = burst(5);
        flight.lose_first(MSS);
        flight.lose_first(MSS);
        assert_eq!(flight.first_lost(), Some((seq(0), seq(1))));
        flight.sent_again(seq(0), seq(1), Instant(7));
        assert_eq!(ack(&mut flight, 2, 9).rtt, None);
        flight.lose_first(MSS);
        assert_eq!(flight.first_lost(), Some((seq(2), seq(3))));
    }

    #[test]
    fn sending_byte_by_byte_is_bounded() {
        let mut flight = Flight::new();
        let mut now = 0..;
        let mut next = || Instant(now.next().unwrap());
        for i in 0..10_000 {
            flight.sent(seq(0) + i, seq(0) + i + 1, next());
        }
        assert!(flight.ranges.len() <= MOST_SENT);
        let mut delivered = Delivered::default();
        let block = (seq(1) + 10, seq(1) + 20);
        flight.sack(block, next(), NO_ECHO, 1, &mut delivered);
        assert_eq!((delivered.sacked, flight.pipe()), (10, 10_000 - 10));
        flight.lose_all();
        for i in 0..1000 {
            flight.sent_again(seq(0) + i, seq(0) + i + 1, next());
        }
        assert!(
            flight.ranges.len() <= MOST_SENT + 2,
            "{}",
            flight.ranges.len()
        );
        assert_eq!(flight.lost(), 9000 - 10);
        while let Some((start, end)) = flight.first_lost() {
            flight.sent_again(start, end.min(start + 7), next());
            assert!(flight.ranges.len() <= MOST_SENT + 4);
        }
        assert_eq!(ack(&mut flight, 10, 1 << 40).bytes, 10_000 - 10);
        assert!(flight.is_empty());
        assert_eq!((flight.pipe(), flight.sacked(), flight.lost()), (0, 0, 0));
    }

    #[test]
    fn every_second_byte_is_bounded() {
        let mut flight = burst(10);
        for i in 0..5000 {
            let start = seq(0) + 2 * i + 1;
            let mut delivered = Delivered::default();
            flight.sack((start, start + 1), Instant(1), NO_ECHO, 1, &mut delivered);
            assert!(flight.ranges.len() <= MOST_RANGES + 2);
        }
        flight.forget_sacks();
        assert_eq!(flight.lost() + flight.pipe(), 10 * MSS);
        assert_eq!(ack(&mut flight, 10, 5).bytes, 10 * MSS);
    }
}
