//! When each flow next wants attention, soonest first.

use alloc::collections::BTreeSet;

use crate::types::Instant;

/// What a flow wants attention for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// The connection has something to send: an ACK, a retransmission, a probe.
    Transmit,
    /// A limit of the configuration may have run out.
    Limit,
}

/// A deadline of each kind for a flow at most, ordered; a change costs O(log n).
///
/// Deadlines mostly move later: each segment pushes the retransmission and the
/// idle limit away. Those moves are not made: the flow is looked at when the old
/// deadline comes, and armed anew. So a busy flow's limits stay where they are,
/// and what moves is the soonest end of the tree.
#[derive(Debug, Default)]
pub(crate) struct Deadlines(BTreeSet<(Instant, u32, Due)>);

/// The deadlines that a flow has in the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Armed {
    transmit: Instant,
    limit: Instant,
}

/// Stands for no deadline.
const NEVER: Instant = Instant(u64::MAX);

impl Armed {
    pub(crate) const NONE: Self = Self {
        transmit: NEVER,
        limit: NEVER,
    };

    fn at(&mut self, due: Due) -> &mut Instant {
        match due {
            Due::Transmit => &mut self.transmit,
            Due::Limit => &mut self.limit,
        }
    }
}

impl Deadlines {
    /// Makes sure that the flow in `slot` is looked at by `at`.
    pub(crate) fn arm(&mut self, slot: u32, armed: &mut Armed, due: Due, at: Instant) {
        let armed = armed.at(due);
        if *armed <= at {
            return;
        }
        if *armed != NEVER {
            self.0.remove(&(*armed, slot, due));
        }
        self.0.insert((at, slot, due));
        *armed = at;
    }

    /// Forgets the deadlines of the flow in `slot`.
    pub(crate) fn disarm(&mut self, slot: u32, armed: Armed) {
        self.0.remove(&(armed.transmit, slot, Due::Transmit));
        self.0.remove(&(armed.limit, slot, Due::Limit));
    }

    /// The soonest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _, _)| *at)
    }

    /// Takes out one deadline that has come.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<(u32, Due)> {
        let (at, slot, due) = *self.0.first()?;
        if at > now {
            return None;
        }
        self.0.pop_first();
        Some((slot, due))
    }
}

impl Armed {
    /// A deadline of this kind was taken out.
    pub(crate) fn take(&mut self, due: Due) {
        *self.at(due) = NEVER;
    }
}
