//! Data that no two places of a transfer share, made and checked in blocks.

use sha2::{Digest, Sha256};

use crate::cli::units;

/// A multiple of 8, and larger than what most calls move.
pub(super) const BLOCK: usize = 64 * 1024;

/// The bytes of one transfer, block by block: pseudo-random, with the seed and
/// the block's number in front, so that data of another flow or another place is
/// noticed.
pub(super) struct Pattern {
    block: Vec<u8>,
    number: u64,
}

impl Pattern {
    pub(super) fn new(seed: u64) -> Self {
        let mut block = noise(BLOCK, seed);
        block[..8].copy_from_slice(&seed.to_le_bytes());
        Self { block, number: 0 }
    }

    /// The next block.
    pub(super) fn next_block(&mut self) -> &[u8] {
        self.block[8..16].copy_from_slice(&self.number.to_le_bytes());
        self.number += 1;
        &self.block
    }
}

/// `size` bytes that differ from one seed to the next (xorshift64*, Vigna 2016).
pub(super) fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 8);
    // The state must not be zero.
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while bytes.len() < size {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// Compares received data with the pattern that was sent, and hashes it.
pub(super) struct Checker {
    pattern: Pattern,
    /// What is left of the current block, as an offset.
    at: usize,
    received: u64,
    hash: Sha256,
}

impl Checker {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            pattern: Pattern::new(seed),
            at: BLOCK,
            received: 0,
            hash: Sha256::new(),
        }
    }

    /// `Err` names the first byte that is wrong.
    pub(super) fn check(&mut self, mut data: &[u8]) -> Result<(), String> {
        self.hash.update(data);
        while !data.is_empty() {
            if self.at == BLOCK {
                self.pattern.next_block();
                self.at = 0;
            }
            let expected = &self.pattern.block[self.at..];
            let length = expected.len().min(data.len());
            let (now, later) = data.split_at(length);
            if now != &expected[..length] {
                let same = now.iter().zip(expected).take_while(|(a, b)| a == b).count();
                return Err(format!("byte {} is wrong", self.received + same as u64));
            }
            self.at += length;
            self.received += length as u64;
            data = later;
        }
        Ok(())
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The hash of all that was received.
    pub(super) fn hash(self) -> String {
        hex(self.hash)
    }
}

pub(super) fn hex(hash: Sha256) -> String {
    units::hex(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Checker, Pattern};

    #[test]
    fn the_first_wrong_byte_is_named_and_a_block_out_of_place_is_noticed() {
        let mut pattern = Pattern::new(7);
        let first = pattern.next_block().to_vec();
        let second = pattern.next_block().to_vec();
        let mut checker = Checker::new(7);
        checker.check(&first[..10]).unwrap();
        checker.check(&first[10..]).unwrap();
        let mut wrong = second.clone();
        wrong[20] ^= 1;
        assert_eq!(
            checker.check(&wrong).unwrap_err(),
            format!("byte {} is wrong", BLOCK + 20)
        );
        assert!(Checker::new(7).check(&second).is_err());
        assert!(Checker::new(8).check(&first).is_err());
    }
}
