//! The one pool that the bytes of all flows live in: blocks of a fixed size, as
//! many as the memory limit allows.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::checksum::Sum;

/// Bytes of a block. A peer that sends one byte and never reads pins one each way, or a
/// wide one if what it was sent last was large; a batch of 32 full segments takes six,
/// each lent to the host with one call.
pub(crate) const BLOCK: usize = 8192;
const BLOCK_BYTES: u64 = BLOCK as u64;

/// Bytes that a wide block can hold, of the largest packet: it counts as eight blocks.
pub(crate) const WIDE: usize = WIDE_BLOCKS * BLOCK;
pub(crate) const WIDE_BLOCKS: usize = 8;
/// Bytes before what a wide block holds: no headers of a segment take more.
const HEADROOM: usize = 128;
/// What a wide block holds begins with a line of the cache: stores that cross lines
/// take the component a fifth longer (the packet bench's row `tcp 65535 out 1`).
const LINE: usize = 64;

/// Free blocks kept for the next flow rather than given back to the allocator, and
/// the same of wide ones: 2 MiB of each.
const SPARE: usize = 256;
const SPARE_WIDE: usize = SPARE / WIDE_BLOCKS;

/// Names a block of the pool.
pub(crate) type Index = u32;
/// Names none.
pub(crate) const NONE: Index = Index::MAX;

/// What memory is wanted for. The pool keeps a share for each kind, so that one
/// cannot starve the next: new flows leave room for the data of old ones, and what
/// is received leaves when the application has answered it, which takes blocks to
/// send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Received data of a flow that holds some already: up to 12/16 of the limit.
    ReceiveMore,
    /// The record of a new flow: up to 13/16.
    Record,
    /// The first received data of a flow: up to 14/16.
    ReceiveFirst,
    /// Data to send of a flow that holds some already: up to 14/16.
    SendMore,
    /// The first data to send: up to the limit.
    SendFirst,
}

impl Purpose {
    /// What of the limit may be in use afterwards.
    fn share(self, limit: u64) -> u64 {
        let sixteenths = match self {
            Self::ReceiveMore => 12,
            Self::Record => 13,
            Self::ReceiveFirst | Self::SendMore => 14,
            Self::SendFirst => 16,
        };
        limit / 16 * sixteenths
    }
}

#[derive(Debug)]
struct Block {
    /// `BLOCK` of them, or more if it is a wide one; none while the allocator has them.
    bytes: Option<Box<[u8]>>,
    /// Where what it holds lies in them.
    start: u32,
    end: u32,
    /// The sum of what it holds, if it was laid there as one piece.
    sum: Option<Sum>,
    next: Index,
}

impl Block {
    const BARE: Self = Self {
        bytes: None,
        start: 0,
        end: 0,
        sum: None,
        next: NONE,
    };

    fn is_wide(&self) -> bool {
        let bytes = self.bytes.as_ref();
        bytes.is_some_and(|bytes| bytes.len() > BLOCK)
    }
}

/// The pool, and the account of all memory that counts against the limit.
#[derive(Debug)]
pub(crate) struct Pool {
    blocks: Vec<Block>,
    /// Free blocks with memory, last freed first: that one is in the cache.
    spare: Vec<Index>,
    spare_wide: Vec<Index>,
    /// Free blocks without.
    bare: Vec<Index>,
    /// Blocks in use, a wide one counted as so many.
    used: u64,
    /// Bytes of records: flows, TIME-WAIT.
    records: u64,
    limit: u64,
}

impl Pool {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            blocks: Vec::new(),
            spare: Vec::new(),
            spare_wide: Vec::new(),
            bare: Vec::new(),
            used: 0,
            records: 0,
            limit,
        }
    }

    /// Bytes of blocks and records in use.
    pub(crate) fn memory(&self) -> u64 {
        self.used * BLOCK_BYTES + self.records
    }

    /// Whether the records of a new flow, of so many bytes, may be made.
    pub(crate) fn has_room_for_record(&self, bytes: u64) -> bool {
        self.memory() + bytes <= Purpose::Record.share(self.limit)
    }

    /// Counts a record.
    pub(crate) fn charge(&mut self, bytes: u64) {
        self.records += bytes;
    }

    /// A record is gone.
    pub(crate) fn discharge(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.records, "more given back than taken");
        self.records = self.records.saturating_sub(bytes);
    }

    /// Whether there is a block for this.
    pub(crate) fn has_block(&self, purpose: Purpose) -> bool {
        self.memory() + BLOCK_BYTES <= purpose.share(self.limit)
    }

    /// How many blocks there are for this.
    pub(crate) fn blocks_left(&self, purpose: Purpose) -> usize {
        let left = purpose.share(self.limit).saturating_sub(self.memory());
        usize::try_from(left / BLOCK_BYTES).unwrap_or(usize::MAX)
    }

    /// The largest window that one flow should offer, by what is left: a quarter
    /// of it, so that many flows at once do not promise more than there is.
    pub(crate) fn allowance(&self) -> u32 {
        let left = Purpose::ReceiveFirst
            .share(self.limit)
            .saturating_sub(self.memory());
        u32::try_from(left / 4).unwrap_or(u32::MAX)
    }

    /// Takes a block, its bytes as they are: it holds all of them.
    pub(crate) fn take(&mut self, purpose: Purpose) -> Option<Index> {
        if !self.has_block(purpose) {
            return None;
        }
        let spare = self.spare.pop();
        let (index, block) = self.prepare(spare, BLOCK)?;
        (block.start, block.end) = (0, narrow(BLOCK));
        self.used += 1;
        Some(index)
    }

    /// Takes a wide block, which holds `length` bytes, as they are, with room for
    /// headers before them.
    pub(crate) fn take_wide(&mut self, purpose: Purpose, length: usize) -> Option<Index> {
        if self.blocks_left(purpose) < WIDE_BLOCKS || length > WIDE {
            return None;
        }
        let spare = self.spare_wide.pop();
        let (index, block) = self.prepare(spare, HEADROOM + LINE + WIDE)?;
        let to_line = block.bytes.as_ref()?.as_ptr().align_offset(LINE) % LINE;
        block.start = narrow(HEADROOM + to_line);
        block.end = block.start + narrow(length);
        self.used += WIDE_BLOCKS as u64;
        Some(index)
    }

    /// A block with so many bytes that is in no list.
    fn prepare(&mut self, spare: Option<Index>, length: usize) -> Option<(Index, &mut Block)> {
        let index = match spare.or_else(|| self.bare.pop()) {
            Some(index) => index,
            None => {
                let index = Index::try_from(self.blocks.len()).ok()?;
                self.blocks.push(Block::BARE);
                index
            }
        };
        let block = self.blocks.get_mut(index as usize)?;
        let bytes = || vec![0; length].into_boxed_slice();
        block.bytes.get_or_insert_with(bytes);
        (block.sum, block.next) = (None, NONE);
        Some((index, block))
    }

    /// Whether there are blocks for what comes ahead of a gap: half of the limit.
    pub(crate) fn has_room_ahead(&self) -> bool {
        self.memory() <= self.limit / 2
    }

    /// How many blocks there are for the first data to send.
    pub(crate) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.memory()) / BLOCK_BYTES
    }

    /// Gives a block back, and returns the one that followed it.
    pub(crate) fn give(&mut self, index: Index) -> Index {
        let Some(block) = self.blocks.get_mut(index as usize) else {
            return NONE;
        };
        let (blocks, spare, most) = match block.is_wide() {
            true => (WIDE_BLOCKS as u64, &mut self.spare_wide, SPARE_WIDE),
            false => (1, &mut self.spare, SPARE),
        };
        self.used -= blocks;
        if spare.len() < most {
            spare.push(index);
        } else {
            block.bytes = None;
            self.bare.push(index);
        }
        core::mem::replace(&mut block.next, NONE)
    }

    /// The block that follows.
    pub(crate) fn next(&self, index: Index) -> Index {
        self.blocks
            .get(index as usize)
            .map_or(NONE, |block| block.next)
    }

    /// Lets `next` follow, and returns what did.
    pub(crate) fn link(&mut self, index: Index, next: Index) -> Index {
        self.blocks
            .get_mut(index as usize)
            .map_or(NONE, |block| core::mem::replace(&mut block.next, next))
    }

    /// How many bytes a block holds.
    pub(crate) fn length(&self, index: Index) -> usize {
        self.blocks
            .get(index as usize)
            .map_or(0, |block| (block.end - block.start) as usize)
    }

    /// What a block holds.
    pub(crate) fn bytes(&self, index: Index) -> &[u8] {
        self.blocks
            .get(index as usize)
            .and_then(|block| {
                block
                    .bytes
                    .as_ref()?
                    .get(block.start as usize..block.end as usize)
            })
            .unwrap_or(&[])
    }

    pub(crate) fn bytes_mut(&mut self, index: Index) -> &mut [u8] {
        self.packet_mut(index, 0).unwrap_or(&mut [])
    }

    /// What a block holds, and so many bytes before it, if it has them to spare.
    pub(crate) fn packet_mut(&mut self, index: Index, headers: usize) -> Option<&mut [u8]> {
        let block = self.blocks.get_mut(index as usize)?;
        let start = (block.start as usize).checked_sub(headers)?;
        block.bytes.as_mut()?.get_mut(start..block.end as usize)
    }

    /// Lets a block hold only its first `length` bytes.
    pub(crate) fn shorten(&mut self, index: Index, length: usize) {
        if let Some(block) = self.blocks.get_mut(index as usize)
            && length < (block.end - block.start) as usize
        {
            block.end = block.start + narrow(length);
            block.sum = None;
        }
    }

    /// Lets a function write what a block holds beside the other blocks. Its sum
    /// is kept with it.
    pub(crate) fn lay(&mut self, index: Index, write: impl FnOnce(&Self, &mut [u8]) -> Sum) {
        let Some(block) = self.blocks.get_mut(index as usize) else {
            return;
        };
        let (start, end) = (block.start as usize, block.end as usize);
        let mut bytes = block.bytes.take();
        let space = bytes.as_mut().and_then(|bytes| bytes.get_mut(start..end));
        let sum = space.map(|space| write(self, space));
        if let Some(block) = self.blocks.get_mut(index as usize) {
            (block.bytes, block.sum) = (bytes, sum);
        }
    }

    /// Whether it is a wide one.
    pub(crate) fn is_wide(&self, index: Index) -> bool {
        let block = self.blocks.get(index as usize);
        block.is_some_and(Block::is_wide)
    }

    /// The sum of what a block holds, if it was laid there as one piece.
    pub(crate) fn sum(&self, index: Index) -> Option<Sum> {
        self.blocks.get(index as usize)?.sum
    }
}

/// A place in a block, or in a stretch of them: that is as long as a window at most (RFC
/// 7323 2.3).
pub(super) fn narrow(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_end_in_their_order() {
        let mut pool = Pool::new(80 * BLOCK_BYTES);
        let mut take = |purpose| core::iter::from_fn(|| pool.take(purpose)).count();
        assert_eq!(take(Purpose::ReceiveMore), 60);
        assert_eq!(take(Purpose::ReceiveFirst), 10);
        assert_eq!(take(Purpose::SendMore), 0);
        assert_eq!(take(Purpose::SendFirst), 10);
        assert_eq!(pool.memory(), 80 * BLOCK_BYTES);
        assert!(!pool.has_room_for_record(1));
        for index in 0..80 {
            assert_eq!(pool.give(index), NONE);
        }
        assert_eq!(pool.memory(), 0);
    }

    #[test]
    fn new_flows_leave_room_for_data_both_ways() {
        let mut pool = Pool::new(160 * BLOCK_BYTES);
        while pool.has_room_for_record(1024) {
            pool.charge(1024);
        }
        assert!(!pool.has_block(Purpose::ReceiveMore));
        let mut take = |purpose| core::iter::from_fn(|| pool.take(purpose)).count();
        assert_eq!(take(Purpose::ReceiveFirst), 10);
        assert_eq!(take(Purpose::SendFirst), 20);
    }

    #[test]
    fn records_count() {
        let mut pool = Pool::new(8 * BLOCK_BYTES);
        pool.charge(BLOCK_BYTES);
        assert_eq!(
            core::iter::from_fn(|| pool.take(Purpose::SendFirst)).count(),
            7
        );
        assert_eq!(pool.take(Purpose::SendFirst), None);
        pool.discharge(BLOCK_BYTES);
        assert!(pool.take(Purpose::SendFirst).is_some());
    }
}
