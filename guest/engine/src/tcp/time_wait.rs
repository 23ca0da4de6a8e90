//! TIME-WAIT (RFC 9293 3.6.1): a small record a connection, not a flow.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use super::segment::{Header, Segment, send_bare};
use super::seq::Seq;
use super::timestamps::Clock;
use crate::siphash::Key;
use crate::tuple::Tuple;
use crate::turn::Turn;
use crate::types::Instant;

/// What is left of a connection that we closed first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeWait {
    pub(crate) snd_nxt: Seq,
    pub(crate) rcv_nxt: Seq,
    /// The window field last sent.
    pub(crate) window: u16,
    pub(crate) clock: Option<Clock>,
}

/// What a record counts against `memory_limit`: a round number above what it
/// takes in the map and the queue, the same for every width of pointer.
const RECORD: u64 = 160;
const _: () = assert!((size_of::<(u64, Tuple, TimeWait, Instant)>() + 16) as u64 <= RECORD);

/// What a segment met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// No record of its tuple.
    Nothing,
    /// A record, which dealt with it.
    Record,
    /// A record that gave way: the segment is a SYN that opens anew, and is to be
    /// answered with a number above this one.
    Reopened(Seq),
}

/// The records, oldest forgotten first.
#[derive(Debug)]
pub(crate) struct TimeWaits {
    /// Keyed by the keyed hash of the tuple; the tuple itself decides.
    records: BTreeMap<u64, (Tuple, TimeWait, Instant)>,
    /// The same records, soonest to go first.
    queue: BTreeSet<(Instant, u64)>,
    key: Key,
    lifetime: Duration,
    most: usize,
}

impl TimeWaits {
    pub(crate) fn new(key: Key, lifetime: Duration, most: usize) -> Self {
        Self {
            records: BTreeMap::new(),
            queue: BTreeSet::new(),
            key,
            lifetime,
            most,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is a record of this tuple that lives at `now`.
    pub(crate) fn holds(&self, now: Instant, tuple: &Tuple) -> bool {
        let record = self.records.get(&tuple.hash(&self.key, 0));
        record.is_some_and(|(held, _, expiry)| held == tuple && *expiry > now)
    }

    /// Bytes that the records take.
    pub(crate) fn memory(&self) -> u64 {
        self.records.len() as u64 * RECORD
    }

    /// When the oldest record may go.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }

    pub(crate) fn insert(&mut self, now: Instant, tuple: Tuple, record: TimeWait) {
        let hash = tuple.hash(&self.key, 0);
        self.remove(hash);
        while self.records.len() >= self.most {
            let Some((_, oldest)) = self.queue.pop_first() else {
                break;
            };
            self.records.remove(&oldest);
        }
        let expiry = now + self.lifetime;
        self.records.insert(hash, (tuple, record, expiry));
        self.queue.insert((expiry, hash));
    }

    fn remove(&mut self, hash: u64) {
        if let Some((_, _, expiry)) = self.records.remove(&hash) {
            self.queue.remove(&(expiry, hash));
        }
    }

    /// Forgets the records whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((at, hash)) = self.queue.first().copied()
            && at <= now
        {
            self.remove(hash);
        }
    }

    /// A segment of no flow: RFC 9293 3.10.7.4 for TIME-WAIT.
    pub(crate) fn l3_rx(&mut self, turn: &mut Turn<'_>, segment: &Segment<'_>) -> Met {
        let hash = segment.tuple.hash(&self.key, 0);
        let Some((tuple, record, expiry)) = self.records.get_mut(&hash) else {
            return Met::Nothing;
        };
        if *tuple != segment.tuple {
            return Met::Nothing;
        }
        let clock = record.clock;
        let value = segment.options.timestamps.map(|times| times.value);
        // RFC 6191 2: a SYN beyond all that was received (RFC 1122 4.2.2.13), or
        // with a later timestamp, opens anew.
        let is_newer = match (clock, value) {
            (Some(clock), Some(value)) => clock.is_newer(value),
            _ => false,
        };
        if segment.is_open() && (segment.seq > record.rcv_nxt || is_newer) {
            let snd_nxt = record.snd_nxt;
            self.remove(hash);
            return Met::Reopened(snd_nxt);
        }
        // RFC 1337: no RST ends TIME-WAIT.
        if segment.rst {
            return Met::Record;
        }
        let nothing_new = segment.ack.is_some()
            && segment.end() == record.rcv_nxt
            && segment.seq == record.rcv_nxt;
        if nothing_new {
            return Met::Record;
        }
        if segment.fin {
            self.queue.remove(&(*expiry, hash));
            *expiry = turn.now + self.lifetime;
            self.queue.insert((*expiry, hash));
        }
        let record = *record;
        if turn.make_room_for_reply() {
            let mut header = Header::new(record.snd_nxt, Some(record.rcv_nxt));
            header.window = record.window;
            if let Some(clock) = record.clock {
                header.options.timestamps(clock.stamp(turn.now));
            }
            send_bare(turn, &segment.tuple, &header);
        }
        Met::Record
    }
}
