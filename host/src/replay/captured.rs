//! What the local side of a captured connection sent, put in order, so that the
//! application can send it again at the captured times.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::packet::{FIN, SYN, Segment, distance};
use crate::types::Instant;

/// Most bytes that wait behind a gap.
const MOST_WAITING: usize = 1 << 20;

/// Most bytes that wait for the peer's window. When there are more, the rest of the
/// stream is given up: one with a hole would be another stream.
const MOST_OUTGOING: usize = 16 << 20;

/// Most bytes of a flow's gaps that are made up: an acknowledgement of more is not
/// believed.
const MOST_FILLED: u64 = 16 << 20;

/// Most bytes that are made up for all flows: three small packets of each are
/// enough to ask for them.
const MOST_FILLED_IN_ALL: u64 = 256 << 20;

/// How long after its acknowledgement captured data may still turn up: a capture
/// of two interfaces is not in exact order.
const PATIENCE: Duration = Duration::from_millis(200);

/// What of the captured application's data could not be sent as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Bytes that the peer acknowledged and that are not in the capture, or were
    /// cut off: zeros were sent in their place.
    pub zeros: u64,
    /// Bytes that were given up, for they waited behind a gap, or for the peer's
    /// window, with too many others.
    pub lost: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Captured {
    /// Bytes passed on so far.
    next: u64,
    waiting: BTreeMap<u64, Vec<u8>>,
    bytes_waiting: usize,
    /// Where the FIN is.
    end: Option<u64>,
    /// How far the peer has acknowledged, and since when it is further than `next`.
    acked: u64,
    missing_since: Option<Instant>,
    filled: u64,
    given_up: bool,
    /// A segment of this side is in the capture.
    pub(crate) seen: bool,
}

impl Captured {
    /// A segment of the local side, whose initial sequence number is `isn`; the
    /// data at hand may be cut.
    pub(crate) fn segment(
        &mut self,
        isn: u32,
        segment: &Segment,
        data: &[u8],
        outgoing: &mut VecDeque<u8>,
        gaps: &mut Gaps,
    ) {
        self.seen = true;
        let seq = segment.seq.wrapping_add(u32::from(segment.has(SYN)));
        let Some(start) = self.offset(isn, seq) else {
            return;
        };
        if segment.has(FIN) {
            self.end.get_or_insert(start + segment.length as u64);
        }
        if start + segment.length as u64 > self.next {
            let mut data = data.to_vec();
            gaps.zeros += (segment.length - data.len()) as u64;
            data.resize(segment.length, 0);
            self.keep(start, data, gaps);
        }
        self.pass_on(outgoing, gaps);
    }

    /// The peer acknowledged all before `ack`.
    pub(crate) fn acknowledged(&mut self, now: Instant, isn: u32, ack: u32) {
        if let Some(offset) = self.offset(isn, ack) {
            self.acked = self.acked.max(offset);
        }
        if self.acked <= self.next {
            self.missing_since = None;
        } else {
            self.missing_since.get_or_insert(now);
        }
    }

    /// Sends zeros for what was acknowledged and did not turn up for a while, or
    /// at the end of the capture (no `now`). `in_all` counts them for all flows.
    pub(crate) fn fill(
        &mut self,
        now: Option<Instant>,
        outgoing: &mut VecDeque<u8>,
        gaps: &mut Gaps,
        in_all: &mut u64,
    ) {
        let Some(since) = self.missing_since else {
            return;
        };
        if !self.seen || self.given_up || now.is_some_and(|now| now - since < PATIENCE) {
            return;
        }
        self.missing_since = None;
        while self.acked > self.next && !self.is_finished() {
            let until = self.waiting.keys().next().copied();
            let gap = until.unwrap_or(self.acked).min(self.acked) - self.next;
            if gap == 1 && until.is_none() && self.end.is_none() {
                // An acknowledgement of one more than there is: the FIN.
                self.end = Some(self.next);
                return;
            }
            if self.filled + gap > MOST_FILLED || *in_all + gap > MOST_FILLED_IN_ALL {
                return;
            }
            self.filled += gap;
            *in_all += gap;
            gaps.zeros += gap;
            self.next += gap;
            outgoing.extend((0..gap).map(|_| 0));
            self.pass_on(outgoing, gaps);
        }
    }

    /// Whether all up to the FIN was passed on.
    pub(crate) fn is_finished(&self) -> bool {
        !self.given_up && self.end.is_some_and(|end| end <= self.next)
    }

    /// Where a sequence number is in the stream; none before its start.
    fn offset(&self, isn: u32, seq: u32) -> Option<u64> {
        // The low 32 bits are what a sequence number can tell.
        #[expect(clippy::cast_possible_truncation)]
        let next = isn.wrapping_add(1).wrapping_add(self.next as u32);
        self.next.checked_add_signed(distance(seq, next))
    }

    fn keep(&mut self, start: u64, data: Vec<u8>, gaps: &mut Gaps) {
        let longer = self
            .waiting
            .get(&start)
            .is_none_or(|old| old.len() < data.len());
        if !longer {
            return;
        }
        if start > self.next && self.bytes_waiting + data.len() > MOST_WAITING {
            gaps.lost += data.len() as u64;
            return;
        }
        self.bytes_waiting += data.len();
        if let Some(old) = self.waiting.insert(start, data) {
            self.bytes_waiting -= old.len();
        }
    }

    fn pass_on(&mut self, outgoing: &mut VecDeque<u8>, gaps: &mut Gaps) {
        while let Some(first) = self.waiting.first_entry() {
            if *first.key() > self.next {
                break;
            }
            let (start, data) = first.remove_entry();
            self.bytes_waiting -= data.len();
            // Most of it may be known already.
            let known = usize::try_from(self.next - start).unwrap_or(usize::MAX);
            let fresh = data.get(known..).unwrap_or_default();
            self.next += fresh.len() as u64;
            self.given_up |= outgoing.len() + fresh.len() > MOST_OUTGOING;
            match self.given_up {
                true => gaps.lost += fresh.len() as u64,
                false => outgoing.extend(fresh),
            }
        }
        if self.acked <= self.next {
            self.missing_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::{Captured, Gaps, MOST_FILLED, MOST_FILLED_IN_ALL};
    use crate::replay::packet::{ACK, Segment};
    use crate::types::Instant;

    /// A byte of the server, and an acknowledgement of the most that is believed.
    fn with_gap() -> Captured {
        let mut captured = Captured::default();
        let segment = Segment {
            header: 0..20,
            seq: 1,
            ack: 1,
            flags: ACK,
            window: 0,
            length: 1,
        };
        let (mut outgoing, mut gaps) = (VecDeque::new(), Gaps::default());
        captured.segment(0, &segment, b"a", &mut outgoing, &mut gaps);
        assert_eq!(outgoing, b"a");
        let most = u32::try_from(MOST_FILLED).expect("a sequence number");
        captured.acknowledged(Instant(0), 0, 2 + most);
        captured
    }

    #[test]
    fn what_is_made_up_has_a_bound_for_all_flows() {
        let (mut in_all, mut gaps) = (0, Gaps::default());
        let most_flows = MOST_FILLED_IN_ALL / MOST_FILLED;
        for _ in 0..most_flows + 2 {
            let mut outgoing = VecDeque::new();
            with_gap().fill(None, &mut outgoing, &mut gaps, &mut in_all);
        }
        assert_eq!(
            (gaps.zeros, in_all),
            (MOST_FILLED_IN_ALL, MOST_FILLED_IN_ALL)
        );
    }
}
