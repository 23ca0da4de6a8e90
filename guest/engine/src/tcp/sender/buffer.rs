//! The send buffer: bytes that the host gave and the peer has not acknowledged, sent or
//! not. Positions count from `snd_una`.

use crate::checksum::Sum;
use crate::tcp::chain::Chain;
use crate::tcp::pool::{BLOCK, Index, Pool, Purpose, WIDE, WIDE_BLOCKS};

/// The least data of a segment that has a wide block to itself: no more than a block of
/// it stays empty.
const LEAST_LAID: usize = WIDE - BLOCK;

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

/// What was taken, in blocks of the pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendBuffer {
    chain: Chain,
    /// Bytes taken and not acknowledged.
    queued: u32,
}

impl SendBuffer {
    pub(super) const EMPTY: Self = Self {
        chain: Chain::EMPTY,
        queued: 0,
    };

    pub(super) fn queued(&self) -> u32 {
        self.queued
    }

    /// Takes bytes from the front of `data` until `limit` are queued, as many as find
    /// memory. They are to be stored before this call of the engine ends.
    pub(super) fn take<'a>(&mut self, pool: &Pool, data: &'a [u8], limit: u32) -> Fresh<'a> {
        let room = limit.saturating_sub(self.queued) as usize;
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

    /// Whether a byte more finds memory.
    pub(super) fn has_block(&self, pool: &Pool) -> bool {
        let purpose = match self.chain.is_empty() {
            true => Purpose::SendFirst,
            false => Purpose::SendMore,
        };
        self.chain.reach() > self.queued as usize || pool.has_block(purpose)
    }

    /// Stores what was taken and has not been sent. Of the bytes queued so many were
    /// `sent`; what will go in full segments of `mss` that are large is laid.
    pub(super) fn store(&mut self, pool: &mut Pool, mut fresh: Fresh<'_>, sent: usize, mss: usize) {
        if mss >= LEAST_LAID {
            self.lay_segments(pool, &mut fresh, sent, mss);
        }
        if fresh.len() > 0 {
            let stored = self.stored(&fresh);
            self.write(pool, stored, fresh.0);
        }
    }

    fn lay_segments(&mut self, pool: &mut Pool, fresh: &mut Fresh<'_>, sent: usize, mss: usize) {
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

    /// Bytes that are not `fresh`.
    fn stored(&self, fresh: &Fresh<'_>) -> usize {
        (self.queued as usize).saturating_sub(fresh.len())
    }

    /// The block that holds just the data of a large segment, and the data's sum. What of
    /// it is fresh is stored on the way.
    pub(super) fn laid(
        &mut self,
        pool: &mut Pool,
        at: usize,
        length: usize,
        fresh: &mut Fresh<'_>,
    ) -> Option<(Index, Sum)> {
        if length < LEAST_LAID {
            return None;
        }
        if at + length > self.stored(fresh) && !self.lay(pool, at, length, fresh) {
            return None;
        }
        self.chain.laid(pool, at, length)
    }

    /// Copies the bytes from a position on, and returns their sum. What of them is fresh
    /// is stored on the way.
    pub(super) fn fill(
        &mut self,
        pool: &mut Pool,
        at: usize,
        fresh: &mut Fresh<'_>,
        out: &mut [u8],
    ) -> Sum {
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

    /// The peer has the first `length` bytes.
    pub(super) fn acked(&mut self, pool: &mut Pool, length: u32) {
        self.queued -= length;
        if self.queued == 0 {
            self.chain.clear(pool);
        } else {
            self.chain.consume(pool, length as usize);
        }
    }

    /// Gives all memory back.
    pub(super) fn clear(&mut self, pool: &mut Pool) {
        self.chain.clear(pool);
        self.queued = 0;
    }
}
