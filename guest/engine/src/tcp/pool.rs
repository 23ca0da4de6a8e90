//! The one pool that the bytes of all flows live in: blocks of a fixed size, as
//! many as the memory limit allows.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Bytes of a block. A peer that sends one byte and never reads pins one each way;
/// a batch of 32 full segments takes six, each lent to the host with one call.
pub(crate) const BLOCK: usize = 8192;
const BLOCK_BYTES: u64 = BLOCK as u64;

/// Free blocks kept for the next flow rather than given back to the allocator.
const SPARE: usize = 256;

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
    /// None while the allocator has it.
    bytes: Option<Box<[u8; BLOCK]>>,
    next: Index,
}

/// The pool, and the account of all memory that counts against the limit.
#[derive(Debug)]
pub(crate) struct Pool {
    blocks: Vec<Block>,
    /// Free blocks with memory, last freed first: that one is in the cache.
    spare: Vec<Index>,
    /// Free blocks without.
    bare: Vec<Index>,
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

    /// The largest window that one flow should offer, by what is left: a quarter
    /// of it, so that many flows at once do not promise more than there is.
    pub(crate) fn allowance(&self) -> u32 {
        let left = Purpose::ReceiveFirst
            .share(self.limit)
            .saturating_sub(self.memory());
        u32::try_from(left / 4).unwrap_or(u32::MAX)
    }

    /// Takes a block, its bytes as they are.
    pub(crate) fn take(&mut self, purpose: Purpose) -> Option<Index> {
        if !self.has_block(purpose) {
            return None;
        }
        let index = match self.spare.pop().or_else(|| self.bare.pop()) {
            Some(index) => index,
            None => {
                let index = Index::try_from(self.blocks.len()).ok()?;
                self.blocks.push(Block {
                    bytes: None,
                    next: NONE,
                });
                index
            }
        };
        let block = self.blocks.get_mut(index as usize)?;
        block.next = NONE;
        block.bytes.get_or_insert_with(|| Box::new([0; BLOCK]));
        self.used += 1;
        Some(index)
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
        self.used -= 1;
        if self.spare.len() < SPARE {
            self.spare.push(index);
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

    /// Lets `next` follow.
    pub(crate) fn link(&mut self, index: Index, next: Index) {
        if let Some(block) = self.blocks.get_mut(index as usize) {
            block.next = next;
        }
    }

    pub(crate) fn bytes(&self, index: Index) -> &[u8] {
        self.blocks
            .get(index as usize)
            .and_then(|block| block.bytes.as_deref())
            .map_or(&[], |bytes| bytes)
    }

    pub(crate) fn bytes_mut(&mut self, index: Index) -> &mut [u8] {
        self.blocks
            .get_mut(index as usize)
            .and_then(|block| block.bytes.as_deref_mut())
            .map_or(&mut [], |bytes| bytes)
    }
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
