//! TIME-WAIT (RFC 9293 3.6.1): a small record a connection, not a flow.

use alloc::collections::{BTreeMap, VecDeque};
use core::time::Duration;

use smoltcp::wire::{TcpControl, TcpSeqNumber};

use super::segment::{self, Bare, Segment};
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
    /// Every record once, by the expiry it had when it was last looked at.
    queue: VecDeque<(Instant, u64)>,
    key: Key,
    lifetime: Duration,
    most: usize,
}

impl TimeWaits {
    pub(crate) fn new(key: Key, lifetime: Duration, most: usize) -> Self {
        Self {
            records: BTreeMap::new(),
            queue: VecDeque::new(),
            key,
            lifetime,
            most,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is a record of this tuple.
    pub(crate) fn holds(&self, tuple: &Tuple) -> bool {
        self.records
            .get(&tuple.hash(&self.key, 0))
            .is_some_and(|(held, _, _)| held == tuple)
    }

    /// Bytes that the records take.
    pub(crate) fn memory(&self) -> u64 {
        self.records.len() as u64 * RECORD
    }

    /// When the oldest record may go.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.queue.front().map(|(at, _)| *at)
    }

    pub(crate) fn insert(&mut self, now: Instant, tuple: Tuple, record: TimeWait) {
        while self.records.len() >= self.most {
            let Some((_, hash)) = self.queue.pop_front() else {
                break;
            };
            self.records.remove(&hash);
        }
        let hash = tuple.hash(&self.key, 0);
        let expiry = now + self.lifetime;
        if self.records.insert(hash, (tuple, record, expiry)).is_none() {
            self.queue.push_back((expiry, hash));
        }
    }

    /// Forgets the records whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((at, hash)) = self.queue.front().copied()
            && at <= now
        {
            self.queue.pop_front();
            match self.records.get(&hash) {
                Some((_, _, expiry)) if *expiry > now => self.queue.push_back((*expiry, hash)),
                Some(_) => drop(self.records.remove(&hash)),
                None => {}
            }
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
        // RFC 1122 4.2.2.13: a SYN beyond all that was received opens anew. The
        // queue's entry finds no record and goes by itself.
        if segment.is_open() && segment.seq > record.rcv_nxt {
            self.records.remove(&hash);
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
            *expiry = turn.now + self.lifetime;
        }
        let answer = Bare {
            control: TcpControl::None,
            seq: record.snd_nxt,
            ack: Some(record.rcv_nxt),
            window: record.window,
        };
        if turn.make_room_for_reply() {
            segment::send(turn, &segment.tuple, answer);
        }
        Met::Record
    }
}
