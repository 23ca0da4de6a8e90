//! A stretch of a byte stream in blocks of the pool: written anywhere ahead, taken
//! from the front. An empty one holds no block.

use super::pool::{BLOCK, Index, NONE, Pool, Purpose};
use crate::checksum::Sum;

/// Bytes copied at once. Longer copies are left to `rep movsb` by glibc, also for the
/// component, which is slow where source and destination lie badly to each other (the
/// packet bench's row `tcp 65535 out 1` takes a third longer with 8 KiB at once).
const COPIED: usize = 2048;

/// Positions count bytes from the front of the stretch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chain {
    head: Index,
    tail: Index,
    /// Where the front lies in the first block.
    start: u32,
    blocks: u32,
    /// A block that was used lately, and how many blocks lie before it.
    near: Index,
    near_at: u32,
}

impl Chain {
    pub(crate) const EMPTY: Self = Self {
        head: NONE,
        tail: NONE,
        start: 0,
        blocks: 0,
        near: NONE,
        near_at: 0,
    };

    /// How far the blocks reach from the front.
    pub(crate) fn reach(&self) -> usize {
        self.blocks as usize * BLOCK - self.start as usize
    }

    /// Whether it holds no block.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks == 0
    }

    /// Makes the blocks reach `length` bytes from the front, or as far as the pool
    /// has blocks for. Returns how far that is.
    pub(crate) fn extend(
        &mut self,
        pool: &mut Pool,
        length: usize,
        first: Purpose,
        more: Purpose,
    ) -> usize {
        while self.reach() < length {
            let purpose = if self.is_empty() { first } else { more };
            let Some(block) = pool.take(purpose) else {
                break;
            };
            if self.is_empty() {
                self.head = block;
                (self.near, self.near_at) = (block, 0);
            } else {
                pool.link(self.tail, block);
            }
            self.tail = block;
            self.blocks += 1;
        }
        self.reach().min(length)
    }

    /// Writes bytes at a position; the blocks reach beyond them.
    pub(crate) fn write(&mut self, pool: &mut Pool, at: usize, mut data: &[u8]) {
        let (mut block, mut offset) = self.seek(pool, at);
        while !data.is_empty() && block != NONE {
            let space = &mut pool.bytes_mut(block)[offset..];
            let (now, later) = data.split_at(data.len().min(space.len()));
            for (to, from) in space.chunks_mut(COPIED).zip(now.chunks(COPIED)) {
                to[..from.len()].copy_from_slice(from);
            }
            data = later;
            if !data.is_empty() {
                (block, offset) = (pool.next(block), 0);
            }
        }
        debug_assert!(data.is_empty(), "the chain was extended before");
    }

    /// Reads bytes from a position, and sums them up on the way; the blocks reach
    /// beyond them.
    pub(crate) fn read(&mut self, pool: &Pool, at: usize, mut out: &mut [u8]) -> Sum {
        let mut sum = Sum::default();
        let (mut block, mut offset) = self.seek(pool, at);
        while !out.is_empty() && block != NONE {
            let bytes = &pool.bytes(block)[offset..];
            let (now, later) = out.split_at_mut(out.len().min(bytes.len()));
            sum = sum.copy(now, &bytes[..now.len()]);
            out = later;
            if !out.is_empty() {
                (block, offset) = (pool.next(block), 0);
            }
        }
        debug_assert!(out.is_empty(), "only what was written is read");
        sum
    }

    /// Writes bytes at a position, and to `out`, which is as long; sums them up on the
    /// way. The blocks reach beyond them.
    pub(crate) fn write_and_read(
        &mut self,
        pool: &mut Pool,
        at: usize,
        mut data: &[u8],
        mut out: &mut [u8],
    ) -> Sum {
        let mut sum = Sum::default();
        let (mut block, mut offset) = self.seek(pool, at);
        while !data.is_empty() && block != NONE {
            let space = &mut pool.bytes_mut(block)[offset..];
            let (now, later) = data.split_at(data.len().min(space.len()));
            let (out_now, out_later) = out.split_at_mut(now.len());
            sum = sum.copy_twice(&mut space[..now.len()], out_now, now);
            (data, out) = (later, out_later);
            if !data.is_empty() {
                (block, offset) = (pool.next(block), 0);
            }
        }
        debug_assert!(data.is_empty(), "the chain was extended before");
        sum
    }

    /// The first bytes, as many of `length` as lie in one block.
    pub(crate) fn front<'a>(&self, pool: &'a Pool, length: usize) -> &'a [u8] {
        let bytes = pool.bytes(self.head);
        let start = (self.start as usize).min(bytes.len());
        let end = (start + length).min(bytes.len());
        &bytes[start..end]
    }

    /// Takes bytes off the front.
    pub(crate) fn consume(&mut self, pool: &mut Pool, length: usize) {
        let mut start = self.start as usize + length;
        while start >= BLOCK && !self.is_empty() {
            if self.near == self.head {
                (self.near, self.near_at) = (pool.next(self.head), 1);
            }
            self.head = pool.give(self.head);
            self.blocks -= 1;
            self.near_at -= 1;
            start -= BLOCK;
        }
        if self.is_empty() {
            *self = Self::EMPTY;
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "less than a block")]
            let start = start as u32;
            self.start = start;
        }
    }

    /// Gives all blocks back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        let mut block = self.head;
        while block != NONE {
            block = pool.give(block);
        }
        *self = Self::EMPTY;
    }

    /// The block that a position lies in, and where.
    fn seek(&mut self, pool: &Pool, at: usize) -> (Index, usize) {
        let at = self.start as usize + at;
        let (number, offset) = (at / BLOCK, at % BLOCK);
        let (mut block, mut passed) = match self.near_at as usize <= number {
            true => (self.near, self.near_at as usize),
            false => (self.head, 0),
        };
        while passed < number && block != NONE {
            block = pool.next(block);
            passed += 1;
        }
        if block != NONE {
            self.near = block;
            #[expect(clippy::cast_possible_truncation, reason = "less than `blocks`")]
            let passed = passed as u32;
            self.near_at = passed;
        }
        (block, offset)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn a_stream_goes_through_in_odd_pieces() {
        let mut pool = Pool::new(1 << 20);
        let mut chain = Chain::EMPTY;
        let data: Vec<u8> = (0..40_000u32).map(|i| (i % 251).to_le_bytes()[0]).collect();
        let (mut written, mut taken, mut at) = (0, 0, 0usize);
        let mut out = Vec::new();
        while out.len() < data.len() {
            at = (at * 31 + 977) % 5000;
            let length = at.min(data.len() - written);
            let reach = chain.extend(
                &mut pool,
                written - taken + length,
                Purpose::SendFirst,
                Purpose::SendMore,
            );
            assert_eq!(reach, written - taken + length);
            let (now, at_front) = (&data[written..written + length], written - taken);
            if length % 2 == 0 {
                chain.write(&mut pool, at_front, now);
            } else {
                let mut copy = vec![0; length];
                let sum = chain.write_and_read(&mut pool, at_front, now, &mut copy);
                assert_eq!(copy, now);
                assert_eq!(sum.finish(), Sum::default().add(now).finish());
            }
            written += length;
            let mut copy = vec![0; written - taken];
            let sum = chain.read(&pool, 0, &mut copy);
            assert_eq!(copy, data[taken..written]);
            assert_eq!(sum.finish(), Sum::default().add(&copy).finish());
            let front = chain.front(&pool, (written - taken).min(3000)).to_vec();
            chain.consume(&mut pool, front.len());
            taken += front.len();
            out.extend(front);
            if taken == written {
                chain.clear(&mut pool);
                assert_eq!(pool.memory(), 0);
            }
        }
        assert_eq!(out, data);
    }

    #[test]
    fn what_comes_ahead_stays_where_it_belongs() {
        let mut pool = Pool::new(1 << 20);
        let mut chain = Chain::EMPTY;
        chain.extend(
            &mut pool,
            30_000,
            Purpose::ReceiveFirst,
            Purpose::ReceiveMore,
        );
        chain.write(&mut pool, 20_000, &[2; 10_000]);
        chain.write(&mut pool, 0, &[1; 20_000]);
        chain.consume(&mut pool, 19_999);
        let mut out = [0; 3];
        chain.read(&pool, 0, &mut out);
        assert_eq!(out, [1, 2, 2]);
        chain.consume(&mut pool, 10_001);
        assert_eq!(chain.reach(), 4 * BLOCK - 30_000);
        chain.clear(&mut pool);
        assert_eq!(pool.memory(), 0);
    }
}
