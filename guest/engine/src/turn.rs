//! One call of an export: what every part of the engine works with meanwhile.

use crate::config::Config;
use crate::counters::CounterSnapshot;
use crate::egress::Egress;
use crate::ip::identification::Identifications;
use crate::tcp::pool::Pool;
use crate::tcp::secrets::Secrets;
use crate::types::{Callbacks, Instant};

/// What every part of the engine shares between calls.
#[derive(Debug)]
pub(crate) struct Common {
    /// The latest instant seen.
    pub(crate) now: Instant,
    pub(crate) config: Config,
    pub(crate) egress: Egress,
    pub(crate) pool: Pool,
    pub(crate) secrets: Secrets,
    pub(crate) identifications: Identifications,
    pub(crate) counters: CounterSnapshot,
}

impl Common {
    /// The surroundings of a call that goes on.
    pub(crate) fn turn<'a>(&'a mut self, callbacks: &'a mut dyn Callbacks) -> Turn<'a> {
        Turn {
            now: self.now,
            config: &self.config,
            egress: &mut self.egress,
            pool: &mut self.pool,
            secrets: &self.secrets,
            identifications: &mut self.identifications,
            counters: &mut self.counters,
            callbacks,
        }
    }
}

/// The surroundings of one call.
pub(crate) struct Turn<'a> {
    pub(crate) now: Instant,
    pub(crate) config: &'a Config,
    pub(crate) egress: &'a mut Egress,
    pub(crate) pool: &'a mut Pool,
    pub(crate) secrets: &'a Secrets,
    pub(crate) identifications: &'a mut Identifications,
    pub(crate) counters: &'a mut CounterSnapshot,
    pub(crate) callbacks: &'a mut dyn Callbacks,
}

impl Turn<'_> {
    /// Whether a packet may be begun.
    pub(crate) fn make_room(&mut self) -> bool {
        self.egress.make_room(self.callbacks, self.counters)
    }

    /// Whether a packet may be lent from where it lies.
    pub(crate) fn make_way(&mut self) -> bool {
        self.egress.make_way(self.callbacks, self.counters)
    }

    /// As `make_room`, for a reply that is given up when there is none.
    pub(crate) fn make_room_for_reply(&mut self) -> bool {
        let room = self.make_room();
        if !room {
            self.counters.replies_lost += 1;
        }
        room
    }
}
