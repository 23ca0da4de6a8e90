//! TIME-WAIT (RFC 9293 3.6.1): a small record a connection, not a flow.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use smoltcp::wire::TcpSeqNumber;

use super::segment::{self, Segment};
use crate::siphash::Key;
use crate::tuple::Tuple;
use crate::turn::Turn;
use crate::types::Instant;

/// What is left of a connection that we closed first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeWait {
    pub(crate) snd_nxt: TcpSeqNumber,
    pub(crate) rcv_nxt: TcpSeqNumber,
    /// The window field last sent.
    pub(crate) window: u16,
}

/// What a record counts against `memory_limit`: a round number above what it
/// takes in the map and the queue, the same for every width of pointer.
const RECORD: u64 = 128;
const _: () = assert!((size_of::<(u64, Tuple, TimeWait, Instant)>() + 16) as u64 <= RECORD);

/// What a segment met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// No record of its tuple.
    Nothing,
    /// A record, which dealt with it.
    Record,
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
        // RFC 1122 4.2.2.13: a SYN beyond all that was received opens anew.
        if segment.is_open() && segment.seq > record.rcv_nxt {
            self.remove(hash);
            return Met::Nothing;
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
            segment::send_ack(turn, &segment.tuple, record);
        }
        Met::Record
    }
}
